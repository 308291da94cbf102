"""Row codecs of the chunk side of the index: chunks, packs, workers. FORMAT.md has the byte tables."""

from __future__ import annotations

import struct
from typing import NamedTuple

from engine.codec import ID_LEN
from engine.errors import Corrupt

U32 = struct.Struct(">I")
U64 = struct.Struct(">Q")

KIND_DATA, KIND_NODE, KIND_POINT, KIND_TOMBSTONE = 1, 2, 3, 4
ENC_RAW, ENC_ZSTD, ENC_DELTA, ENC_DICT = 0, 1, 2, 3  # DICT: one base, its whole content, digested

FLAG_CONDEMNED = 1  # a collection found it unreachable: do not deduplicate against it
FLAG_SUSPECT = 2  # a read failed its check: do not deduplicate against it, store it again

_CHUNK = struct.Struct("<IIIIBBBB")
_PACK = struct.Struct("<BBQQQI32s")
_WORKER = struct.Struct("<QQQ")


class ChunkRow(NamedTuple):
    """Where a chunk's record lies and what it needs. ``offset`` and ``stored`` cover the whole record."""

    pack: int
    offset: int
    stored: int
    plain: int
    kind: int
    encoding: int
    depth: int
    flags: int
    bases: tuple[bytes, ...] = ()

    def pack_bytes(self) -> bytes:
        return _CHUNK.pack(*self[:8]) + b"".join(self.bases)

    @property
    def usable(self) -> bool:
        """True when new references may be taken without storing it again."""
        return self.flags == 0


_FLAGS_AT = _CHUNK.size - 1


def usable(raw: bytes) -> bool:
    """``chunk_row(raw).usable`` without decoding the rest: asked for every chunk that is written."""
    return len(raw) > _FLAGS_AT and raw[_FLAGS_AT] == 0


def chunk_row(raw: bytes) -> ChunkRow:
    """Decode; raises Corrupt."""
    extra = len(raw) - _CHUNK.size
    if extra < 0 or extra % ID_LEN:
        raise Corrupt(
            "index row of a chunk", expected="24 bytes and whole ids", found=f"{len(raw)} bytes"
        )
    bases = (
        tuple(raw[_CHUNK.size + i : _CHUNK.size + i + ID_LEN] for i in range(0, extra, ID_LEN))
        if extra
        else ()
    )
    pack, offset, stored, plain, kind, encoding, depth, flags = _CHUNK.unpack_from(raw)
    return ChunkRow(pack, offset, stored, plain, kind, encoding, depth, flags, bases)


PACK_OPEN, PACK_IDLE, PACK_SEALED, PACK_DOOMED, PACK_BAD = 1, 2, 3, 4, 5


class PackRow(NamedTuple):
    """A segment or pack. ``length``: bytes committed; ``owner``: worker that appends (0 none); ``scrubbed``: number of
    the scrub's cycle that verified it last (0 none).
    """

    state: int
    kind: int  # KIND_DATA or KIND_NODE: data and metadata lie in packs of their own
    owner: int
    length: int
    records: int
    scrubbed: int
    digest: bytes = bytes(32)

    def pack_bytes(self) -> bytes:
        return _PACK.pack(*self)


def pack_row(raw: bytes) -> PackRow:
    """Decode; raises Corrupt."""
    if len(raw) != _PACK.size:
        raise Corrupt(
            "index row of a pack", expected=f"{_PACK.size} bytes", found=f"{len(raw)} bytes"
        )
    return PackRow(*_PACK.unpack(raw))


class WorkerRow(NamedTuple):
    """A process that commits. Alive while its lock file is locked; ``epoch``: collection epoch it has seen."""

    pid: int
    started_ns: int
    epoch: int

    def pack_bytes(self) -> bytes:
        return _WORKER.pack(*self)


def worker_row(raw: bytes) -> WorkerRow:
    """Decode; raises Corrupt."""
    if len(raw) != _WORKER.size:
        raise Corrupt(
            "index row of a worker", expected=f"{_WORKER.size} bytes", found=f"{len(raw)} bytes"
        )
    return WorkerRow(*_WORKER.unpack(raw))
