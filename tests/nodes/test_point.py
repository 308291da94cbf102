"""Point records, tombstones and point ids."""

from __future__ import annotations

import struct
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import Corrupt, InvalidRequest
from engine.nodes.entries import Entry, encode_root_entry
from engine.nodes.point import (
    Point,
    Tombstone,
    decode_point,
    decode_tombstone,
    encode_point,
    encode_tombstone,
    is_point_id,
    new_point_id,
)
from tests.nodes.support import strict

ID = "01j6zq3gsk000000000000000a"
OLD = "01j6zq3gsk0000000000000009"
ROOT = Entry(b"", 0o040755, uid=3, root=b"r" * 32)
POINT = Point(
    id=ID, mount="db", mount_id=7, sequence=2, time_ns=-5, root=ROOT, label="fränk",
    logical_bytes=1 << 40, files=9, format=1, predecessor=OLD, lineage="shop",
)  # fmt: skip


def test_the_bytes_are_as_the_format_says() -> None:
    root = encode_root_entry(ROOT)
    assert encode_point(POINT) == (
        b"P\x01" + ID.encode() + b"\x07\0\0\0" + b"\x02\0\0\0\0\0\0\0" + b"\xfb" + b"\xff" * 7
        + b"\0\0\0\0\0\x01\0\0" + b"\x09\0\0\0\0\0\0\0" + b"\x01\0"
        + b"\x02" + b"\x06\0" + b"\x1a" + b"\x04\0" + struct.pack("<H", len(root))
        + b"db" + "fränk".encode() + OLD.encode() + b"shop" + root
    )  # fmt: skip
    assert encode_tombstone(Tombstone(ID, 256)) == b"T\x01" + ID.encode() + b"\0\1" + bytes(6)


def test_ids_sort_by_time() -> None:
    first = new_point_id(0, bytes(10))
    assert first == "0" * 26
    assert new_point_id(((1 << 48) - 1) * 10**6, b"\xff" * 10) == "7" + "z" * 25
    assert (
        new_point_id(1_725_000_000_000_000_000, bytes(9) + b"\x2a") == "01j6h068g0000000000000001a"
    )
    times = [new_point_id(ms * 10**6, b"\xff" * 10) for ms in (1, 2, 31, 32, 10**12, 10**13)]
    assert times == sorted(times)
    assert all(is_point_id(one) for one in times)


@given(st.integers(0, ((1 << 48) - 1) * 10**6), st.binary(min_size=10, max_size=10))
def test_ids_are_a_number_in_base_32(time_ns: int, random: bytes) -> None:
    text = new_point_id(time_ns, random)
    digits = {letter: value for value, letter in enumerate("0123456789abcdefghjkmnpqrstvwxyz")}
    number = 0
    for letter in text:
        number = number * 32 + digits[letter]
    assert number == (time_ns // 10**6 << 80) + int.from_bytes(random, "big")


@pytest.mark.parametrize(
    "text", ["", "0" * 25, "0" * 27, "8" + "0" * 25, "u" * 26, "A" * 26, "é" * 26]
)
def test_what_is_no_id(text: str) -> None:
    assert not is_point_id(text)
    with pytest.raises(InvalidRequest):
        encode_point(replace(POINT, id=text))
    if text:
        with pytest.raises(InvalidRequest):
            encode_point(replace(POINT, predecessor=text))
    with pytest.raises(InvalidRequest):
        encode_tombstone(Tombstone(text, 0))


def test_ids_are_made_of_a_time_and_ten_bytes() -> None:
    for time_ns, random in ((-1, bytes(10)), (1 << 68, bytes(10)), (0, bytes(9)), (0, bytes(11))):
        with pytest.raises(InvalidRequest):
            new_point_id(time_ns, random)


texts = st.text(st.characters(codec="utf-8"), max_size=60)
u64 = st.integers(0, 2**64 - 1)


@given(
    st.builds(
        Point,
        id=st.just(ID),
        mount=texts.filter(bool),
        mount_id=st.integers(0, 2**32 - 1),
        sequence=st.integers(1, 2**64 - 1),
        time_ns=st.integers(-(2**63), 2**63 - 1),
        root=st.just(ROOT),
        label=texts,
        logical_bytes=u64,
        files=u64,
        format=st.integers(0, 2**16 - 1),
        predecessor=st.sampled_from(("", OLD)),
        lineage=texts,
    )
)
def test_any_point_comes_back(point: Point) -> None:
    assert decode_point(encode_point(point)) == point


@pytest.mark.parametrize("point", [POINT, replace(POINT, predecessor="", label="", lineage="")])
def test_points_are_strict(point: Point) -> None:
    strict(decode_point, encode_point, encode_point(point))


def test_tombstones_are_strict() -> None:
    assert decode_tombstone(encode_tombstone(Tombstone(ID, -9))) == Tombstone(ID, -9)
    strict(decode_tombstone, encode_tombstone, encode_tombstone(Tombstone(ID, 12)))


@pytest.mark.parametrize(
    "changes",
    [
        {"mount": ""},
        {"mount": "m" * 256},
        {"mount": "\ud800"},
        {"label": "l" * 1025},
        {"lineage": "l" * 1025},
        {"sequence": 0},
        {"sequence": 1 << 64},
        {"mount_id": -1},
        {"time_ns": 1 << 63},
        {"format": 1 << 16},
        {"root": ROOT._replace(name=b"x")},
        {"root": ROOT._replace(mode=0o100644, root=b"")},
    ],
)
def test_what_cannot_be_decoded_is_not_encoded(changes: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest):
        encode_point(replace(POINT, **changes))
    with pytest.raises(InvalidRequest):
        encode_tombstone(Tombstone(ID, 1 << 63))


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        (b"P\x01", b"P\x02", "version"),
        (b"P\x01", b"T\x01", "kind"),
        (ID.encode(), b"U" * 26, "point id"),
        (OLD.encode(), b"\xff" * 26, "predecessor"),
        (b"db", b"\xff\xff", "mount"),
        (b"\x02\0\0\0\0\0\0\0", bytes(8), "sequence"),
        (b"\x02\x06\0\x1a", b"\x02\x06\x04\x1a", "bytes"),
        (b"shop", b"sh\xc3p", "lineage"),
    ],
)
def test_each_rule_has_its_message(old: bytes, new: bytes, what: str) -> None:
    data = encode_point(POINT)
    assert data.count(old) == 1
    with pytest.raises(Corrupt, match=what):
        decode_point(data.replace(old, new))
