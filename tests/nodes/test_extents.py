"""The codec of extent lists."""

from __future__ import annotations

import pytest
from hypothesis import given

from engine.codec import ID_LEN
from engine.errors import Corrupt, InvalidRequest
from engine.limits import CHUNK_MAX, SLOT, SLOTS_PER_SPAN, SPAN, SPAN_ROW_MAX
from engine.nodes.extents import EMPTY, Extent, decode_extents, encode_extents, extent_ids
from tests.nodes.support import cid, extent_lists, only_canonical, slots, strict

A, B = b"a" * 32, b"b" * 32

GOLDEN: list[tuple[list[Extent], bytes]] = [
    ([], b"\x01\x00\x00"),
    ([(0, SLOT, A, 0)], b"\x01\x01\x01" + A + b"\x00"),
    ([(0, SLOT, A, 0), (SLOT, SLOT, B, 0)], b"\x01\x02\x02" + A + B + b"\x00\x00"),
    ([(0, 100, A, 0)], b"\x01\x01\x01" + A + b"\x02\x64"),
    ([(4096, 5000, A, 0)], b"\x01\x01\x01" + A + b"\x03\x80\x20\x88\x27"),
    (
        # A slot of which 4 KiB were overwritten, and a hole behind it.
        [(0, 8192, A, 0), (8192, 4096, B, 0), (12288, 53248, A, 12288), (3 * SLOT, SLOT, A, 0)],
        b"\x01\x04\x02" + A + B
        + b"\x02\x80\x40" + b"\x02\x80\x20" + b"\x0e\x80\xa0\x03\x00\x80\x60"
        + b"\x05\x80\x80\x08\x00",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("extents", "encoded"), GOLDEN)
def test_the_bytes_are_as_the_format_says(extents: list[Extent], encoded: bytes) -> None:
    assert encode_extents(extents) == encoded
    assert decode_extents(encoded) == extents


def test_whole_slots_cost_one_byte_beside_each_id() -> None:
    full = slots(0)
    assert len(full) == SLOTS_PER_SPAN
    assert len(encode_extents(full)) == 3 + len(full) * (ID_LEN + 1)
    assert encode_extents([]) == EMPTY


@given(extent_lists())
def test_any_list_comes_back(extents: list[Extent]) -> None:
    encoded = encode_extents(extents)
    assert decode_extents(encoded) == extents
    assert extent_ids(encoded) == list(dict.fromkeys(extent[2] for extent in extents))


@pytest.mark.parametrize("extents", [case[0] for case in GOLDEN] + [slots(0), slots(7, 31)])
def test_hostile_bytes_are_refused(extents: list[Extent]) -> None:
    strict(decode_extents, encode_extents, encode_extents(extents))


@given(extent_lists())
def test_a_list_with_any_byte_changed_is_refused_or_another_list(extents: list[Extent]) -> None:
    encoded = encode_extents(extents)
    for at in range(min(len(encoded), 3)):
        for bit in range(8):
            bad = bytearray(encoded)
            bad[at] ^= 1 << bit
            only_canonical(decode_extents, encode_extents, bytes(bad))
    tags = 3 + ID_LEN * len(extent_ids(encoded))
    for at in range(tags, len(encoded)):
        for bit in range(8):
            bad = bytearray(encoded)
            bad[at] ^= 1 << bit
            only_canonical(decode_extents, encode_extents, bytes(bad))


@pytest.mark.parametrize(
    ("encoded", "what"),
    [
        (b"\x02\x00\x00", "form"),
        (b"\x01\x01\x01" + A + b"\x10", "tag"),
        (b"\x01\x01\x01" + A + b"\x01\x00", "tag"),  # a gap of 0
        (b"\x01\x01\x01" + A + b"\x02\x00", "inside"),  # a length of 0
        (b"\x01\x01\x01" + A + b"\x02\x80\x80\x04", "tag"),  # a slot's length, spelled out
        (b"\x01\x01\x01" + A + b"\x02\x85\x00", "shortest"),
        (b"\x01\x01\x01" + A + b"\x02\x80\x80\x80\x80\x01", "at most 4 bytes"),
        (b"\x01\x01\x01" + A + b"\x08\x81\x80\x0c", "inside"),  # past the largest chunk
        (b"\x01\x01\x01" + A + b"\x04\x00", "named before"),
        (b"\x01\x02\x02" + A + A + b"\x00\x00", "each once"),
        (b"\x01\x02\x02" + A + B + b"\x00\x04\x00", "nothing behind"),  # B is never used
        (b"\x01\x01\x02" + A + B + b"\x00", "chunks"),
        (b"\x01\x21\x21" + b"".join(map(cid, range(33))) + bytes(33), "slots"),
        (b"\x01\x21\x01" + A + b"\0" + b"\x04\0" * 32, "inside"),  # 33 slots of one chunk
        (b"\x01\xff\xff\x7f\x00", "chunks"),
    ],
)
def test_each_rule_has_its_message(encoded: bytes, what: str) -> None:
    with pytest.raises(Corrupt, match=what) as caught:
        decode_extents(encoded, B)
    if "number" not in str(caught.value):
        assert B.hex() in str(caught.value)
    with pytest.raises(Corrupt, match=what):
        extent_ids(encoded)


def test_a_list_too_long_for_a_row_is_encoded_but_not_decoded() -> None:
    many: list[Extent] = [(index * 1024, 1000, A, 0) for index in range(SPAN // 1024)]
    encoded = encode_extents(many)
    assert len(encoded) > SPAN_ROW_MAX
    with pytest.raises(Corrupt):
        decode_extents(encoded)


@pytest.mark.parametrize(
    "extents",
    [
        [(-1, 10, A, 0)],
        [(0, 0, A, 0)],
        [(0, SLOT, A, -1)],
        [(0, SLOT, b"short", 0)],
        [(0, 10, b"short", 0)],
        [(SPAN - 10, 11, A, 0)],
        [(0, 11, A, CHUNK_MAX - 10)],
        [(0, 10, A, 0), (9, 10, A, 0)],
        [(20, 10, A, 0), (0, 10, A, 0)],
    ],
)
def test_what_cannot_be_decoded_is_not_encoded(extents: list[Extent]) -> None:
    with pytest.raises(InvalidRequest):
        encode_extents(extents)
