"""Byte formats of packs: the pack header, chunk records, the trailer. FORMAT.md has the tables.

Every decoder is strict and bounded: it raises Corrupt for anything that a writer of this format cannot have made.
"""

from __future__ import annotations

import struct
from typing import NamedTuple
from zlib import crc32

from engine import limits
from engine.codec import ID_LEN, Bytes, Digest
from engine.errors import Corrupt
from engine.index.rows import ENC_DELTA, ENC_DICT, ENC_RAW, ENC_ZSTD

SEALED = 0x80  # beside the encoding in a record's head: its payload is sealed (FORMAT.md, "Sealed stores")

KIND_SKETCH = 5  # fingerprints of pieces, an aid to deduplication; not a chunk of any file

HEADER_MAGIC = b"HFPACK01"
RECORD_MAGIC = b"HFR1"
END_MAGIC = b"HFPKEND1"

_HEADER = struct.Struct(
    "<8s16sIBxxxQ20x"
)  # magic, store id, pack number, kind, created ns; then CRC
_RECORD = struct.Struct(
    "<4sBBBBII32s"
)  # magic, kind, encoding, bases, depth, plain, payload, id; then CRC
_BASE = struct.Struct("<32sII")  # base id, offset and length of the part of it that is used
_ENTRY = struct.Struct("<32sIIIBBBB")  # id, offset, stored, plain, kind, encoding, depth, bases
_FOOTER = struct.Struct(
    "<8sIII32s32s"
)  # magic, trailer offset, trailer length, entries, digest, trailer hash; CRC
_CRC = struct.Struct("<I")

HEADER_LEN = _HEADER.size + 4
RECORD_HEAD = _RECORD.size + 4
FOOTER_LEN = _FOOTER.size + 4
ENTRY_LEN = _ENTRY.size  # of a trailer, without the ids of bases


class Base(NamedTuple):
    """A part of a base chunk's plaintext; the parts, in order, form the prefix of a delta."""

    id: bytes
    offset: int
    length: int


class Record(NamedTuple):
    """The header of one record, decoded. ``size``: bytes of the whole record; ``sealed``: its payload is, and that long
    as it is stored."""

    kind: int
    encoding: int
    depth: int
    plain: int
    payload: int
    id: bytes
    bases: tuple[Base, ...]
    sealed: bool = False

    @property
    def head(self) -> int:
        return RECORD_HEAD + len(self.bases) * _BASE.size

    @property
    def size(self) -> int:
        return self.head + self.payload


class Entry(NamedTuple):
    """One record as the trailer lists it."""

    id: bytes
    offset: int
    stored: int
    plain: int
    kind: int
    encoding: int
    depth: int
    bases: tuple[bytes, ...]


class PackHeader(NamedTuple):
    """Head of a pack file."""

    store_id: bytes
    number: int
    kind: int
    created_ns: int


def _sealed(body: bytes) -> bytes:
    return body + _CRC.pack(crc32(body))


def _unsealed(raw: bytes, size: int, what: str) -> bytes:
    if len(raw) != size + 4 or _CRC.unpack_from(raw, size)[0] != crc32(raw[:size]):
        raise Corrupt(
            what, expected=f"{size + 4} bytes that match their check", found="other bytes"
        )
    return raw[:size]


def encode_header(header: PackHeader) -> bytes:
    """64-byte head of a pack file, and its CRC."""
    return _sealed(_HEADER.pack(HEADER_MAGIC, *header))


def decode_header(raw: bytes) -> PackHeader:
    magic, store_id, number, kind, created = _HEADER.unpack(
        _unsealed(raw, _HEADER.size, "pack header")
    )
    if magic != HEADER_MAGIC:
        raise Corrupt("pack header", expected=repr(HEADER_MAGIC), found=repr(magic))
    return PackHeader(store_id, number, kind, created)


def encode_record_head(
    kind: int,
    encoding: int,
    depth: int,
    plain: int,
    payload: int,
    cid: bytes,
    bases: tuple[Base, ...] = (),
    sealed: bool = False,
) -> bytes:
    """Head of a record: fixed part, bases, CRC over both. The payload follows it."""
    encoding |= SEALED if sealed else 0
    fixed = _RECORD.pack(RECORD_MAGIC, kind, encoding, len(bases), depth, plain, payload, cid)
    tail = b"".join([_BASE.pack(*base) for base in bases])
    return fixed + _CRC.pack(crc32(tail, crc32(fixed))) + tail


def decode_record_head(raw: Bytes) -> Record:
    """Decode the head at the start of ``raw`` (which may be longer). Raises Corrupt."""
    if len(raw) < RECORD_HEAD:
        raise Corrupt(
            "record", expected=f"a head of {RECORD_HEAD} bytes", found=f"{len(raw)} bytes"
        )
    magic, kind, encoding, count, depth, plain, payload, cid = _RECORD.unpack_from(raw)
    end = RECORD_HEAD + count * _BASE.size
    if magic != RECORD_MAGIC or count > limits.DELTA_BASES_MAX or len(raw) < end:
        raise Corrupt("record", expected="a record's head", found="other bytes")
    tail = bytes(raw[RECORD_HEAD:end])
    if _CRC.unpack_from(raw, _RECORD.size)[0] != crc32(tail, crc32(raw[: _RECORD.size])):
        raise Corrupt("record", expected="a head that matches its check", found="damage")
    bases = (
        tuple(Base(*_BASE.unpack_from(tail, i)) for i in range(0, len(tail), _BASE.size))
        if tail
        else ()
    )
    sealed = encoding >= SEALED
    if sealed:
        encoding -= SEALED
        _check_record(kind, encoding, depth, plain, payload - limits.RECORD_SEAL, bases)
    else:
        _check_record(kind, encoding, depth, plain, payload, bases)
    return Record(kind, encoding, depth, plain, payload, cid, bases, sealed)


def _check_record(
    kind: int, encoding: int, depth: int, plain: int, payload: int, bases: tuple[Base, ...]
) -> None:
    sound = (
        1 <= kind <= KIND_SKETCH
        and encoding in (ENC_RAW, ENC_ZSTD, ENC_DELTA, ENC_DICT)
        and plain <= limits.CHUNK_MAX
        and 0 <= payload <= limits.RECORD_MAX
        and (encoding != ENC_RAW or plain == payload)
        and bool(bases) == (encoding in (ENC_DELTA, ENC_DICT))
        and (depth > 0) == (encoding == ENC_DELTA)
        and (encoding != ENC_DICT or len(bases) == 1)
        and depth <= limits.DELTA_DEPTH_MAX
    )
    if sound and bases:
        sound = 8 <= sum(base.length for base in bases) <= limits.DELTA_PREFIX_MAX and all(
            base.offset + base.length <= limits.CHUNK_MAX and base.length for base in bases
        )
    if not sound:
        raise Corrupt("record", expected="fields within their limits", found="others")


def encode_entries(entries: list[Entry]) -> bytes:
    """What a trailer says of its records: their fixed parts, then the ids of all their bases."""
    body = b"".join([_ENTRY.pack(*e[:7], len(e.bases)) for e in entries])
    return body + b"".join([b"".join(e.bases) for e in entries])


def encode_trailer(entries: list[Entry], offset: int, digest: bytes) -> bytes:
    """Trailer and footer of a sealed pack. ``offset``: where the trailer starts; ``digest``: of all before it."""
    body = encode_entries(entries)
    trailer_hash = Digest()
    trailer_hash.update(body)
    footer = _FOOTER.pack(END_MAGIC, offset, len(body), len(entries), digest, trailer_hash.digest())
    return body + _sealed(footer)


class Footer(NamedTuple):
    """End of a sealed pack: where its trailer is, and the hashes over pack and trailer."""

    offset: int
    length: int
    entries: int
    digest: bytes
    trailer_hash: bytes


def decode_footer(raw: bytes) -> Footer:
    magic, *rest = _FOOTER.unpack(_unsealed(raw, _FOOTER.size, "pack footer"))
    footer = Footer(*rest)
    if magic != END_MAGIC or footer.offset + footer.length > limits.PACK_HARD_MAX:
        raise Corrupt("pack footer", expected="a footer within its limits", found="other bytes")
    return footer


def decode_trailer(body: bytes, footer: Footer) -> list[Entry]:
    """The entries of a sealed pack, in file order. Raises Corrupt."""
    check = Digest()
    check.update(body)
    if (
        len(body) != footer.length
        or check.digest() != footer.trailer_hash
        or footer.entries * _ENTRY.size > len(body)
    ):
        raise Corrupt("pack trailer", expected="a trailer that matches its hash", found="damage")
    return decode_entries(body, footer.entries, footer.offset)


def decode_entries(body: bytes, count: int, end: int, between: int = 0) -> list[Entry]:
    """The entries of a trailer, in file order. Raises Corrupt.

    ``end``: where the trailer starts, and so the records end; ``between``: bytes behind each record that are not its.
    """
    if count * _ENTRY.size > len(body):
        raise Corrupt("pack trailer", expected=f"{count} records", found=f"{len(body)} bytes")
    entries = []
    at = count * _ENTRY.size
    position = HEADER_LEN
    for i in range(count):
        cid, offset, stored, plain, kind, encoding, depth, bases_of = _ENTRY.unpack_from(
            body, i * _ENTRY.size
        )
        bases = tuple(body[at + j * ID_LEN : at + (j + 1) * ID_LEN] for j in range(bases_of))
        at += bases_of * ID_LEN
        behind = offset + stored + between
        if offset != position or stored < RECORD_HEAD or behind > end or at > len(body):
            raise Corrupt(
                "pack trailer", expected="records one after the other", found="another offset"
            )
        position = behind
        entries.append(Entry(cid, offset, stored, plain, kind, encoding, depth, bases))
    if at != len(body) or position != end:
        raise Corrupt("pack trailer", expected="nothing beside its entries", found="other bytes")
    return entries
