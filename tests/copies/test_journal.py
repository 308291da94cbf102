"""The journal: entries there and back, known bytes, hostile ones refused; the chain, and what it adds up to."""

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import blake3
import pytest
from backports import zstd
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from hypothesis import given
from hypothesis import strategies as st

from engine.copies import journal, marker
from engine.copies.chain import Chain
from engine.copies.journal import (
    FIRST_PREV,
    Begin,
    Body,
    Checkpoint,
    Entry,
    Locked,
    PacksChanged,
    Place,
    Point,
    PointMade,
    Removed,
    decode,
    encode,
)  # fmt: skip
from engine.copies.marker import Marker
from engine.copies.sealed import PackRow
from engine.errors import Corrupt, FormatTooNew, HoldfastError, InvalidRequest
from engine.keys import HEADER_LEN, JOURNAL_MAGIC, Vault
from engine.nodes.point import new_point_id
from tests.keys.support import ID_KEY, LOCATION, Counted

GOLDEN = Path(__file__).parent / "golden" / "entry"
KEY = b"e" * 32
VAULT = Vault(LOCATION, ID_KEY, {1: KEY}, Counted())
STORE, ME, OTHER = b"s" * 16, b"m" * 16, b"o" * 16


def pid(number: int) -> str:
    return new_point_id(number * 10**6, bytes(10))


def row(number: int) -> PackRow:
    return PackRow(f"{number:064x}", 1000, 900, 84, 3, 1, 1, bytes([number]) * 32)


def point(number: int, mount: str = "m") -> Point:
    return Point(
        pid(number), mount, bytes([number]) * 32, {"quota": number}, (b"x" * 32,), {"days": 7}
    )


BODIES: list[Body] = [
    Begin(STORE, b""), Begin(STORE, OTHER), PointMade(point(1), (row(1), row(2))), PointMade(point(2), ()),
    Removed((pid(1), pid(2))), PacksChanged((row(3),), (row(1).name,)), Locked((pid(1),), 10**18),
    Checkpoint(STORE, (point(1), point(2)), (row(1),), {pid(1): 5}),
    Place({"object_lock": True, "local": "drop"}), Place({}),
    Checkpoint(STORE, (), (), {}, {"object_lock": True}),
]  # fmt: skip


@pytest.mark.parametrize("number", range(len(BODIES)))
@pytest.mark.parametrize("vault", [VAULT, Vault(LOCATION, ID_KEY, None)], ids=["sealed", "plain"])
def test_there_and_back(number: int, vault: Vault) -> None:
    body = BODIES[number]
    entry = Entry(12, b"p" * 32, ME, -5, body)
    raw = encode(vault, entry)
    assert decode(vault, 12, raw) == entry
    assert encode(vault, entry) != raw  # a salt of its own
    with pytest.raises(Corrupt, match="number"):
        decode(vault, 13, raw)


ENTRY = Entry(2, b"p" * 32, ME, 77, BODIES[2])


def test_known_bytes() -> None:
    raw = encode(Vault(LOCATION, ID_KEY, {1: KEY}, Counted()), ENTRY)
    if not GOLDEN.exists():
        GOLDEN.write_bytes(raw)
    assert GOLDEN.read_bytes() == raw
    assert blake3.blake3(raw).digest() == journal.digest(raw)


def test_an_entry_read_by_the_page_alone() -> None:
    raw = GOLDEN.read_bytes()
    magic, location, epoch, kind, salt = struct.unpack("<8s16sIB3x32s", raw[:64])
    assert (magic, location, epoch, kind) == (b"HFJRNL01", LOCATION, 1, 0)
    key = HKDF(SHA256(), 32, salt, b"holdfast 1 journal").derive(KEY)
    body = AESGCM(key).decrypt((64).to_bytes(12, "big"), raw[64:], raw[:64])
    plain = zstd.decompress(body[4:])
    assert len(plain) == int.from_bytes(body[:4], "little")
    found = json.loads(plain)
    assert found["seq"] == 2 and found["kind"] == "point" and found["mount"] == "m"
    assert found["packs"][0][:7] == ["0" * 63 + "1", 1000, 900, 84, 3, 1, 1]


def test_every_changed_byte_is_noticed() -> None:
    for vault in (VAULT, Vault(LOCATION, ID_KEY, None)):
        raw = encode(vault, ENTRY)
        for at in range(len(raw)):
            other = bytearray(raw)
            other[at] ^= 1 << at % 8
            with pytest.raises(HoldfastError):
                decode(vault, 2, bytes(other))
            with pytest.raises(HoldfastError):
                decode(vault, 2, raw[:at])


def forged(plain: bytes, size: int | None = None) -> bytes:
    seal = VAULT.new_file(JOURNAL_MAGIC, 0)
    head = struct.pack("<I", len(plain) if size is None else size)
    return seal.header + seal.seal(HEADER_LEN, head + zstd.compress(plain))


def fields(kind: str = "remove", **more: Any) -> dict[str, Any]:
    head = {"seq": 2, "prev": "00" * 32, "writer": "00" * 16, "time_ns": 1, "kind": kind}
    return head | ({"points": [pid(1)]} if kind == "remove" else {}) | more


def text(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value).encode()


ROW = [row(1).name, 1000, 900, 84, 3, 1, 1, "AQEB" * 10 + "AQE="]
MADE = {
    "point": pid(1),
    "mount": "m",
    "record": "00" * 32,
    "settings": {},
    "extras": [],
    "keep": {},
}
DEEP: Any = {}
for _ in range(40):
    DEEP = {"a": DEEP}

HOSTILE: list[bytes] = [
    forged(b"{}"), forged(b"[]"), forged(b"null"), forged(b""), forged(b"\xff"), forged(b"[" * 10**6),
    forged(b'{"a":' * 500 + b"1" + b"}" * 500), forged(b'{"seq":2,"seq":2}'),
    forged(bytes(40 << 20), 40 << 20), forged(bytes(40 << 20), 10), forged(text(fields()), 2**32 - 1),
    forged(text(fields()), 5), forged(text(fields(seq=3))), forged(text(fields(seq=True))),
    forged(text(fields(seq=2.0))), forged(text(fields(time_ns=2**64))), forged(text(fields(prev="00"))),
    forged(text(fields(prev="ZZ" * 32))), forged(text(fields(points=[]))), forged(text(fields(points="x"))),
    forged(text(fields(points=[pid(1)] * 2))), forged(text(fields(points=["../../etc/passwd"]))),
    forged(text(fields(points=[1]))), forged(text(fields("begin", store="00" * 16))),
    forged(text(fields("point", **MADE, packs=[ROW, ROW]))),
    forged(text(fields("point", **MADE, packs=[ROW[:-1]]))),
    forged(text(fields("point", **MADE, packs=[["../" * 20, *ROW[1:]]]))),
    forged(text(fields("point", **MADE, packs=[[ROW[0], 10**12, *ROW[2:]]]))),
    forged(text(fields("point", **MADE, packs=[[*ROW[:2], 901, *ROW[3:]]]))),
    forged(text(fields("point", **MADE, packs=[[*ROW[:4], 10**9, *ROW[5:]]]))),
    forged(text(fields("point", **MADE | {"mount": "../x"}, packs=[]))),
    forged(text(fields("point", **MADE | {"mount": "\ud800"}, packs=[]))),
    forged(text(fields("point", **MADE | {"settings": DEEP}, packs=[]))),
    forged(text(fields("point", **MADE | {"settings": {"a": "x" * 10**5}}, packs=[]))),
    forged(text(fields("point", **MADE | {"settings": {"a": float("nan")}}, packs=[]))),
    forged(text(fields("point", **MADE | {"settings": {"a": 0}}, packs=[])).replace(b'"a": 0', b'"a": 1e999')),
    forged(text(fields("packs", packs=[ROW], gone=[ROW[0]]))),
    forged(text(fields("lock", points=[pid(1)], until_ns=0))),
    forged(text(fields("checkpoint", store="00" * 16, points=[MADE, MADE], packs=[], locks={}))),
    forged(text(fields("checkpoint", store="00" * 16, points=[], packs=[], locks={pid(1): 5}))),
    forged(text(fields("checkpoint", store="00" * 16, points=[], packs=[], locks={}, place={}))),
    forged(text(fields("place", place=[]))), forged(text(fields("place", place={"a": "x" * 10**5}))),
]  # fmt: skip


@pytest.mark.parametrize("number", range(len(HOSTILE)))
def test_hostile_entries(number: int) -> None:
    with pytest.raises(Corrupt):
        decode(VAULT, 2, HOSTILE[number])


def test_what_is_newer_says_so() -> None:
    for plain in (text(fields("merge")), text(fields(colour="blue"))):
        with pytest.raises(FormatTooNew):
            decode(VAULT, 2, forged(plain))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
)  # fmt: skip


@given(st.sampled_from(sorted(MADE)) | st.just("packs"), JSON)
def test_fields_of_any_type(name: str, value: Any) -> None:
    raw = forged(text(fields("point", **MADE, packs=[ROW]) | {name: value}))
    try:
        entry = decode(VAULT, 2, raw)
    except HoldfastError:
        return
    assert decode(VAULT, 2, encode(VAULT, entry)) == entry


@given(st.binary(max_size=300))
def test_any_bytes(raw: bytes) -> None:
    with pytest.raises(Corrupt):
        decode(VAULT, 2, raw)
    with pytest.raises(
        (Corrupt, FormatTooNew)
    ):  # sealed by us: of a kind that is not known, perhaps
        decode(VAULT, 2, forged(raw))
    with pytest.raises(Corrupt):
        marker.decode(raw)


def test_nothing_is_written_that_nobody_reads() -> None:
    for body in (Removed(()), Begin(b"short", b""), PacksChanged((row(1), row(1)), ())):
        with pytest.raises(InvalidRequest):
            encode(VAULT, Entry(2, bytes(32), ME, 1, body))


def test_names_of_entries() -> None:
    assert journal.path_of(7) == "journal/0000000000000007"
    assert journal.seq_of("0000000000000007") == 7
    for wrong in ("7", "0" * 16, "0000000000000007.tmp", "-000000000000007", "٠" * 15 + "7"):
        assert journal.seq_of(wrong) is None


class Writer:
    """Appends to a chain, and keeps the bytes."""

    def __init__(self) -> None:
        self.chain = Chain(VAULT)
        self.raw: dict[int, bytes] = {}

    def add(self, body: Body, writer: bytes = ME, time_ns: int = 1) -> None:
        seq = self.chain.seq + 1
        raw = encode(VAULT, self.chain.next(writer, time_ns, body))
        self.chain.take(seq, raw)
        self.raw[seq] = raw

    def read(self, *numbers: int) -> Chain:
        chain = Chain(VAULT)
        for number in numbers:
            chain.take(number, self.raw[number])
        return chain


@pytest.fixture
def writer() -> Writer:
    one = Writer()
    one.add(Begin(STORE, b""))
    one.add(PointMade(point(1), (row(1), row(2))))
    one.add(PointMade(point(2, "n"), (row(3),)))
    one.add(Locked((pid(2),), 100))
    one.add(Locked((pid(2),), 50))
    one.add(PacksChanged((row(4),), (row(1).name, row(9).name)))
    one.add(Removed((pid(1),)))
    one.add(one.chain.state.checkpoint())
    one.add(Begin(STORE, ME), OTHER)
    one.add(PointMade(point(3, "n"), ()), OTHER)
    return one


def test_what_entries_add_up_to(writer: Writer) -> None:
    for start in (1, 8):
        chain = writer.read(*range(start, 11))
        state = chain.state
        assert list(state.points) == [pid(2), pid(3)]
        assert set(state.packs) == {row(n).name for n in (2, 3, 4)}
        assert state.locks == {pid(2): 100} and state.store == STORE and chain.writer == OTHER
        assert state.settings == {"n": {"quota": 3}} and not state.contested
        assert chain.digest == writer.chain.digest


@pytest.mark.parametrize(
    "numbers", [(2,), (9,), (1, 3), (1, 2, 2), (1, 1), (8, 10), (8, 7), (1, 2, 8)]
)
def test_gaps_and_replays(writer: Writer, numbers: tuple[int, ...]) -> None:
    chain = writer.read(*numbers[:-1])
    before = (chain.seq, chain.digest, chain.writer, dict(chain.state.points))
    with pytest.raises(Corrupt):
        chain.take(numbers[-1], writer.raw[numbers[-1]])
    assert before == (chain.seq, chain.digest, chain.writer, chain.state.points)


def test_a_fork_is_refused(writer: Writer) -> None:
    chain = writer.read(1)
    other = encode(VAULT, Entry(2, FIRST_PREV, ME, 1, PointMade(point(7), ())))
    with pytest.raises(Corrupt, match="fork"):
        chain.take(2, other)
    again = writer.read(1, 2, 3)
    raw = encode(VAULT, Entry(3, chain.digest, ME, 1, PointMade(point(7), ())))
    with pytest.raises(Corrupt):
        again.take(4, raw)


def contradictions() -> list[tuple[Body, bytes]]:
    changed = row(2)._replace(salt=b"z" * 32)
    return [
        (PointMade(Point(pid(2), "other", bytes(32)), ()), OTHER),
        (PointMade(point(9), (changed,)), OTHER),
        (Removed((pid(8),)), OTHER),
        (Removed((pid(3), pid(8))), OTHER),
        (Locked((pid(8),), 9), OTHER),
        (Checkpoint(STORE, (), (), {}), OTHER),
        (Begin(b"t" * 16, OTHER), ME),
        (Begin(STORE, ME), ME),
        (Begin(STORE, OTHER), OTHER),
        (PointMade(point(9), ()), ME),
    ]


@pytest.mark.parametrize("number", range(len(contradictions())))
def test_contradictions_are_refused_whole(writer: Writer, number: int) -> None:
    body, by = contradictions()[number]
    before = writer.chain.state.checkpoint()
    with pytest.raises(Corrupt):
        writer.add(body, by)
    assert writer.chain.state.checkpoint() == before and writer.chain.seq == 10


def test_a_locked_point_stays(writer: Writer) -> None:
    writer.add(Removed((pid(2),)), OTHER, time_ns=99)
    assert pid(2) in writer.chain.state.points and writer.chain.state.contested == {pid(2)}
    writer.add(Removed((pid(2),)), OTHER, time_ns=100)
    assert pid(2) not in writer.chain.state.points


def test_what_is_set_is_said_anew_but_retention_stays(writer: Writer) -> None:
    for settings in ({"object_lock": True, "local": "drop"}, {"verify": 1.0}):
        writer.add(Place(settings), OTHER)
    assert writer.chain.state.place == {"object_lock": True, "verify": 1.0}
    assert writer.chain.state.checkpoint().place == writer.chain.state.place
    entry = Entry(99, bytes(32), OTHER, 1, Checkpoint(STORE, (), (), {}))
    writer.chain.state.locks.clear()
    assert isinstance(entry.body, Checkpoint)
    with pytest.raises(Corrupt, match="object_lock"):
        writer.chain.state.refuse_forgetting(entry.body, entry)


def test_a_large_checkpoint() -> None:
    rows = tuple(
        row(1)._replace(name=f"{n:064x}", salt=n.to_bytes(32, "big")) for n in range(14_000)
    )
    entry = Entry(5, bytes(32), ME, 1, Checkpoint(STORE, (point(1),), rows, {}))
    assert decode(VAULT, 5, encode(VAULT, entry)) == entry


def test_markers() -> None:
    for one in (Marker(LOCATION, STORE, True), Marker(LOCATION, STORE, False, ID_KEY)):
        raw = marker.encode(one)
        assert marker.decode(raw) == one
        assert ID_KEY.hex() not in repr(one) and repr(ID_KEY)[2:12] not in repr(one)
        value = json.loads(raw)
        with pytest.raises(FormatTooNew):
            marker.decode(text(value | {"holdfast": 2}))
        for change in ({"sealed": 1}, {"location": "00"}, {"holdfast": 0}, {"store": None}):
            with pytest.raises(Corrupt):
                marker.decode(text(value | change))
