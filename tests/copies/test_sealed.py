"""Sealed packs: round trips, known bytes read by other means, hostile bytes refused."""

import struct
from collections.abc import Sequence
from pathlib import Path

import blake3
import pytest
from backports import zstd
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from hypothesis import given
from hypothesis import strategies as st

from engine import codec, limits
from engine.copies import sealed
from engine.copies.sealed import PackBuilder, SealedPack
from engine.errors import Corrupt, HoldfastError, InvalidRequest
from engine.keys import FRAME_OVERHEAD, HEADER_LEN, PACK_MAGIC, Vault
from engine.packs.records import Base, Entry, encode_entries, encode_record_head
from tests.keys.support import ID_KEY, LOCATION, Counted

GOLDEN = Path(__file__).parent / "golden" / "pack"
KEY = b"e" * 32


def vault(is_sealed: bool = True) -> Vault:
    return Vault(LOCATION, ID_KEY, {1: KEY} if is_sealed else None, Counted())


def record(number: int, payload: bytes, bases: Sequence[bytes] = ()) -> tuple[bytes, bytes, Entry]:
    cid = number.to_bytes(32, "big")
    parts = tuple(Base(base, 0, 100) for base in bases)
    encoding, depth, plain = (2, 1, 500) if bases else (0, 0, len(payload))
    head = encode_record_head(1, encoding, depth, plain, len(payload), cid, parts)
    size = len(head) + len(payload)
    return head, payload, Entry(cid, 0, size, plain, 1, encoding, depth, tuple(bases))


def built(payloads: list[bytes], *, is_sealed: bool = True) -> SealedPack:
    builder = PackBuilder(vault(is_sealed), sealed.DATA)
    for number, payload in enumerate(payloads):
        base = [bytes(32), bytes(32), b"b" * 32] if number % 3 == 2 else []
        head, body, entry = record(number, payload, base)
        at = builder.add(head, body, entry)
        assert (at == HEADER_LEN) == (number == 0) and entry.id in builder
    return builder.finish()


PACK = built([b"first", b"", b"a delta of two" * 20])
PLAIN = built([b"first", b"", b"a delta of two" * 20], is_sealed=False)


@given(st.lists(st.binary(max_size=300), min_size=1, max_size=12), st.booleans())
def test_round_trip(payloads: list[bytes], is_sealed: bool) -> None:
    pack = built(payloads, is_sealed=is_sealed)
    sealed.check_name(pack.row.name, pack.data)
    entries, every = sealed.read_pack(vault(is_sealed), pack.data)
    assert entries == pack.entries
    for (_, head, raw), payload in zip(every, payloads, strict=True):
        assert raw[head.head :] == payload
    assert sealed.row_of(vault(is_sealed), pack.data) == pack.row
    # One frame alone, by what the journal says of the pack.
    seal = pack.row.seal(vault(is_sealed))
    last = entries[-1]
    frame = pack.data[last.offset : last.offset + last.stored + FRAME_OVERHEAD]
    assert sealed.read_record(seal, last, frame)[1].endswith(payloads[-1])


def test_both_kinds_are_as_long() -> None:
    data, plain = bytes(PACK.data), bytes(PLAIN.data)
    assert len(data) == len(plain) and b"first" in plain
    assert b"first" not in data and bytes(31) not in data[72:]


def test_known_bytes() -> None:
    if not GOLDEN.exists():
        GOLDEN.write_bytes(PACK.data)
    assert GOLDEN.read_bytes() == PACK.data


def test_a_pack_read_by_the_page_alone() -> None:
    raw = GOLDEN.read_bytes()
    assert blake3.blake3(raw).hexdigest() == PACK.row.name
    magic, location, epoch, kind, zero, salt = struct.unpack("<8s16sIB3s32s", raw[:64])
    assert (magic, location, epoch, kind, zero) == (b"HFSEAL01", LOCATION, 1, 1, bytes(3))
    key = HKDF(SHA256(), 32, salt, b"holdfast 1 pack").derive(KEY)

    def opened(at: int, size: int) -> bytes:
        return AESGCM(key).decrypt(at.to_bytes(12, "big"), raw[at : at + size], raw[:64])

    at, size, end = struct.unpack("<QI4s", raw[-16:])
    assert end == b"HFSE" and at + size + 16 == len(raw)
    trailer = opened(at, size)
    length, count = struct.unpack_from("<II", trailer)
    body = zstd.decompress(trailer[8:])
    assert (len(body), count) == (length, 3) == (3 * 48 + 2 * 32, 3)
    position = 64
    for number in range(count):
        cid, offset, stored, plain, *_ = struct.unpack_from("<32sIIIBBBB", body, 48 * number)
        assert (cid, offset) == (number.to_bytes(32, "big"), position)
        found = opened(offset, stored + 16)
        assert found[:4] == b"HFR1" and found[16:48] == cid and len(found) == stored
        assert struct.unpack_from("<I", found, 8)[0] == plain
        position += stored + 16
    assert position == at and body[3 * 48 :] == bytes(32) + b"b" * 32


def whole(pack: bytes, one: Vault) -> None:
    list(sealed.read_pack(one, pack)[1])


@pytest.mark.parametrize("is_sealed", [True, False])
def test_every_changed_byte_is_noticed_twice(is_sealed: bool) -> None:
    pack, one = PACK if is_sealed else PLAIN, vault(is_sealed)
    for at in range(len(pack.data)):
        other = bytearray(pack.data)
        other[at] ^= 1 << at % 8
        with pytest.raises(Corrupt):
            sealed.check_name(pack.row.name, other)
        with pytest.raises(HoldfastError):
            whole(bytes(other), one)
    for size in range(len(pack.data)):
        with pytest.raises(HoldfastError):
            whole(pack.data[:size], one)
    for more in (b"\0", pack.data[-16:]):
        with pytest.raises(Corrupt):
            whole(bytes(pack.data) + more, one)


def forged(*, body: bytes | None = None, size: int | None = None, count: int = 1) -> bytes:
    """A pack of whoever has the keys and writes what he likes as trailer."""
    seal = vault().new_file(PACK_MAGIC, 1)
    head, payload, entry = record(1, b"x")
    frame = seal.seal(64, head + payload)
    at = 64 + len(frame)
    if body is None:
        body = struct.pack("<32sIIIBBBB", entry.id, 64, entry.stored, 1, 1, 0, 0, 0)
    plain = struct.pack("<II", len(body) if size is None else size, count)
    trailer = seal.seal(at, plain + zstd.compress(body))
    return b"".join(
        (seal.header, frame, trailer, struct.pack("<QI4s", at, len(trailer), sealed.END_MAGIC))
    )


def entry_bytes(**changes: int) -> bytes:
    fields = {
        "offset": 64,
        "stored": 53,
        "plain": 1,
        "kind": 1,
        "encoding": 0,
        "depth": 0,
        "bases": 0,
    }
    cid = (changes.pop("cid", 1)).to_bytes(32, "big")
    return struct.pack("<32sIIIBBBB", cid, *(fields | changes).values())


@pytest.mark.parametrize(
    "pack",
    [
        forged(body=bytes(40 << 20), size=40 << 20),
        forged(body=bytes(9 << 20), count=1),
        forged(body=bytes(9 << 20), size=48),
        forged(size=47),
        forged(count=0),
        forged(count=2),
        forged(count=2**32 - 1, size=2**32 - 1),
        forged(body=entry_bytes(offset=65)),
        forged(body=entry_bytes(stored=2**32 - 1)),
        forged(body=entry_bytes(stored=52)),
        forged(body=entry_bytes(bases=255)),
        forged(body=entry_bytes(plain=2)),
        forged(body=entry_bytes(cid=2)),
        forged(body=entry_bytes(kind=2)),
        forged(body=entry_bytes() * 2, count=2),
        forged(body=b""),
    ],
)
def test_hostile_trailers(pack: bytes) -> None:
    with pytest.raises(Corrupt):
        whole(pack, vault())


def test_what_the_forger_changes_makes_the_difference() -> None:
    whole(forged(), vault())
    whole(forged(body=entry_bytes()), vault())


def test_a_record_is_no_trailer() -> None:
    """A footer that points to the last record, in a pack cut off behind it."""
    last = PACK.entries[-1]
    end = last.offset + last.stored + FRAME_OVERHEAD
    footer = struct.pack("<QI4s", last.offset, end - last.offset, b"HFSE")
    with pytest.raises(Corrupt, match="131072 records"):
        whole(bytes(PACK.data[:end]) + footer, vault())
    assert int.from_bytes(b"HFR1", "little") > limits.SEALED_TRAILER_MAX


def test_what_does_not_fit_together_is_not_sealed() -> None:
    head, payload, entry = record(1, b"payload")
    for wrong in (
        entry._replace(id=b"o" * 32), entry._replace(stored=entry.stored + 1), entry._replace(plain=3),
        entry._replace(kind=2), entry._replace(encoding=1), entry._replace(depth=1),
    ):  # fmt: skip
        with pytest.raises(Corrupt):
            PackBuilder(vault(), sealed.DATA).add(head, payload, wrong)
    builder = PackBuilder(vault(), sealed.DATA)
    with pytest.raises(InvalidRequest):
        builder.finish()
    builder.add(head, payload, entry)
    with pytest.raises(AssertionError):
        builder.add(head, payload, entry)


def test_a_builder_is_bounded() -> None:
    builder = PackBuilder(vault(False), sealed.DATA)
    payload = bytes(limits.CHUNK_MAX)
    number = 0
    while builder.fits(record(number, payload)[2]):
        builder.add(*record(number, payload))
        number += 1
    pack = builder.finish()
    assert limits.SEALED_PACK - limits.RECORD_MAX < len(pack.data) <= limits.SEALED_PACK
    with pytest.raises(Corrupt):
        sealed.trailer_place(bytes(pack.data[-16:]), limits.SEALED_PACK_MAX + 1)


@given(st.binary(max_size=400))
def test_any_bytes(raw: bytes) -> None:
    with pytest.raises(Corrupt):
        whole(raw, vault())
    with pytest.raises(Corrupt):
        sealed.trailer_place(raw, len(raw))


@given(st.binary(max_size=200), st.integers(0, 2**32 - 1))
def test_any_trailer_of_one_who_has_the_keys(body: bytes, count: int) -> None:
    for plain in (body, struct.pack("<II", len(body), count) + codec.compress(body)):
        again = vault().new_file(PACK_MAGIC, 1)
        frame = again.seal(64, plain)
        with pytest.raises(Corrupt):
            sealed.read_trailer(vault().file(again.header), 64, frame)


BASES = tuple(bytes([9, number]) * 16 for number in range(2))
ENTRIES = [Entry(bytes([n]) * 32, 0, 60 + n, 50, 1, 2 if n else 1, n, BASES[:n]) for n in range(3)]


@given(
    st.integers(0, 3 * 48 + 3 * 32 - 1),
    st.sampled_from([b"\0", b"\1", b"\xff", b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x02" * 32]),
    st.integers(0, 40),
)
def test_a_changed_trailer_of_one_who_has_the_keys(at: int, piece: bytes, cut: int) -> None:
    end, entries = 64, []
    for entry in ENTRIES:
        entries.append(entry._replace(offset=end))
        end += entry.stored + 16
    body = encode_entries(entries)
    other = body[:at] + piece + body[at + len(piece) :]
    other = other[: len(other) - (cut if cut < 5 else 0)]
    again = vault().new_file(PACK_MAGIC, 1)
    frame = again.seal(end, struct.pack("<II", len(other), 3) + codec.compress(other))
    try:
        found = sealed.read_trailer(vault().file(again.header), end, frame)
    except Corrupt:
        return
    assert encode_entries(found) == other and len({one.id for one in found}) == 3
