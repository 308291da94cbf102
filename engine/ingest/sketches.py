"""Sketches: fingerprints of content-defined pieces, so that a stream finds its earlier generations anywhere.

For every chunk made from a stream, its pieces' fingerprints are written, in stream order, in sketch records beside
the data in the same pack.  One fingerprint in ``HOOK_EVERY`` is also a row of the HOOKS table and leads to the pack.
A hook that is met loads the sketches of that whole pack (about 150 MB of neighbouring plaintext), after which the
pieces around it match in memory: one look-up in the index for hundreds of matches, and memory bounded by
``SKETCH_CACHE_PACKS``.  A lost sketch costs space in later generations, never data.

A fingerprint is 128 bits of keyed BLAKE3 and is trusted to stand for its piece.

Sketch record: repeated (chunk id 32, pieces u16, then per piece: fingerprint 16, length u16), little-endian.
"""

from __future__ import annotations

import logging
import struct
import threading
from collections import Counter, OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import NamedTuple

from engine import codec, limits
from engine.chunks import ChunkWriter, Context
from engine.errors import Corrupt, HoldfastError
from engine.index import Table
from engine.index.rows import PACK_SEALED, U32, chunk_row, pack_row
from engine.ingest.mender import WAITING_MAX, Mender
from engine.packs.records import KIND_SKETCH, decode_record_head

log = logging.getLogger("holdfast.engine.ingest")

HOOK_EVERY = 32  # one piece in so many is a hook: about one per 300 KiB
_HOOK_MASK = HOOK_EVERY - 1
_HOOK_LEN = 8
_FLUSH = (
    40 * limits.KIB
)  # bytes of sketch gathered before a record is written: about 25 MB of stream
_LOADS_PER_MATCH = (
    3  # packs loaded for one run at most: bounds the time of a span full of strange hooks
)
_SKETCH_WITHIN = 3  # packs from a chunk's own on: its sketch is written a little later

_HEAD = struct.Struct("<32sH")
_PIECE = struct.Struct("<16sH")


class Place(NamedTuple):
    """Where the bytes of a piece lie."""

    cid: bytes
    offset: int
    size: int  # plaintext length of the chunk
    pack: int


def encode(cid: bytes, pieces: Sequence[tuple[bytes, int]]) -> bytes:
    """One chunk's part of a sketch record."""
    return _HEAD.pack(cid, len(pieces)) + b"".join([_PIECE.pack(*piece) for piece in pieces])


def decode(data: bytes) -> Iterator[tuple[bytes, list[tuple[bytes, int]]]]:
    """(chunk id, [(fingerprint, length)]) of a sketch record; raises Corrupt."""
    at = 0
    try:
        while at < len(data):
            cid, count = _HEAD.unpack_from(data, at)
            at += _HEAD.size
            end = at + count * _PIECE.size
            if end > len(data):
                raise Corrupt("sketch record", expected="whole pieces", found="a torn one")
            yield cid, list(_PIECE.iter_unpack(data[at:end]))
            at = end
    except struct.error:
        raise Corrupt("sketch record", expected="whole entries", found="a torn one") from None


class Sketches:
    """The sketches in memory, and the way to those in packs. Thread-safe."""

    def __init__(self, context: Context, writer: ChunkWriter) -> None:
        self._context = context
        self._writer = writer
        self.mender = Mender(context, writer)
        self._looked = False  # for suspects
        self._lock = threading.Lock()
        self._places: dict[bytes, Place] = {}
        self._packs: OrderedDict[int, list[bytes]] = OrderedDict()
        self._unwritten: list[bytes] = []
        self._unwritten_size = 0
        self._hooks: list[bytes] = []

    def match(self, fingerprints: Sequence[bytes]) -> list[Place | None]:
        """Where each piece lies already, or None."""
        places = self._places
        found = [places.get(f) for f in fingerprints]
        hooks = [
            f[:_HOOK_LEN]
            for f, p in zip(fingerprints, found, strict=True)
            if p is None and _is_hook(f)
        ]
        if hooks:
            wanted = self._packs_of(hooks)
            for pack in wanted[:_LOADS_PER_MATCH]:
                self._load(pack)
            if wanted:
                found = [places.get(f) for f in fingerprints]
        with self._lock:
            for pack in {p.pack for p in found if p is not None}:
                if pack in self._packs:
                    self._packs.move_to_end(pack)
        return found

    def add(self, cid: bytes, size: int, pieces: Sequence[tuple[bytes, int]]) -> None:
        """Remember the pieces of a chunk just stored; written to its pack with the next record."""
        pack = self._writer.data_pack() or 0
        with self._lock:
            self._remember(pack, cid, size, pieces)
            part = encode(cid, pieces)
            self._unwritten.append(part)
            self._unwritten_size += len(part)
            self._hooks.extend(hooks_of(pieces))
            full = self._unwritten_size >= _FLUSH
        if full:
            self.flush()

    def flush(self) -> None:
        """Write what is not written yet (before a snapshot's barrier, and on close)."""
        with self._lock:
            parts, self._unwritten, self._unwritten_size = self._unwritten, [], 0
            hooks, self._hooks = self._hooks, []
        if parts:
            self._writer.put_sketch(b"".join(parts), hooks)

    def _packs_of(self, hooks: list[bytes]) -> list[int]:
        counts: Counter[int] = Counter()
        with self._context.index.read() as txn:
            for hook in hooks:
                raw = txn.get(Table.HOOKS, hook)
                if raw is not None:
                    counts[U32.unpack(raw)[0]] += 1
        with self._lock:
            return [pack for pack, _ in counts.most_common() if pack not in self._packs]

    def _load(self, pack: int) -> None:
        try:
            sketches = list(self._read(pack))
        except HoldfastError as error:
            log.info("sketches of pack %d cannot be used: %s", pack, error)
            sketches = []
        with self._lock:
            self._packs.setdefault(pack, [])
            for cid, pieces in sketches:
                self._remember(pack, cid, sum(length for _, length in pieces), pieces)

    def _read(self, pack: int) -> Iterator[tuple[bytes, list[tuple[bytes, int]]]]:
        files = self._context.files
        with self._context.index.read() as txn:
            raw = txn.get(Table.PACKS, U32.pack(pack))
        if raw is None:
            return
        row = pack_row(raw)
        try:
            if row.state == PACK_SEALED:
                where = [(e.offset, e.stored) for e in files.trailer(pack) if e.kind == KIND_SKETCH]
            else:
                where = [
                    (at, r.size) for at, r in files.scan(pack, row.length) if r.kind == KIND_SKETCH
                ]
        except Corrupt:
            where = [(at, r.size) for at, r in files.salvage(pack) if r.kind == KIND_SKETCH]
        for offset, stored in where:
            record = files.read(pack, offset, stored)
            head, bare = self._context.bare(decode_record_head(record), record)
            data = bytes(bare[head.head :])
            if codec.chunk_id(self._context.key, data) != head.id:
                raise Corrupt(
                    f"sketch in pack {pack}",
                    expected="content that hashes to its name",
                    found="other",
                )
            yield from decode(data)

    def _remember(
        self, pack: int, cid: bytes, size: int, pieces: Sequence[tuple[bytes, int]]
    ) -> None:
        names = self._packs.setdefault(pack, [])
        offset = 0
        for name, length in pieces:
            if name not in self._places:
                self._places[name] = Place(cid, offset, size, pack)
                names.append(name)
            offset += length
        while len(self._packs) > limits.SKETCH_CACHE_PACKS:
            old, gone = self._packs.popitem(last=False)
            for name in gone:
                self._places.pop(name, None)
            if old == pack:
                break

    def lose(self, cids: set[bytes], places: Sequence[Place | None]) -> None:
        """Chunks of these places cannot be referred to any more (condemned, suspect, removed): forget their pieces.

        They are stored again when all of their pieces are met; see ``Mender``.
        """
        self._wait_for(cids, {p.pack for p in places if p is not None and p.cid in cids})
        self._forget(cids)

    def look_for_suspects(self) -> None:
        """Once: have chunks that were found damaged before put together again, should their pieces come by."""
        if self._looked:
            return
        self._looked = True
        cids: set[bytes] = set()
        packs: set[int] = set()
        with self._context.index.read() as txn:
            for cid in islice(txn.keys(Table.SUSPECTS), WAITING_MAX):
                raw = txn.get(Table.CHUNKS, cid)
                if raw is not None:
                    cids.add(cid)
                    pack = chunk_row(raw).pack
                    packs.update(range(pack, pack + _SKETCH_WITHIN))
        if cids:
            self._wait_for(cids, packs)

    def _wait_for(self, cids: set[bytes], packs: Iterable[int]) -> None:
        for pack in sorted(packs):
            try:
                for cid, pieces in self._read(pack):
                    if cid in cids:
                        self.mender.wait_for(cid, pieces)
            except HoldfastError as error:
                log.info("sketches of pack %d cannot be used: %s", pack, error)

    def _forget(self, cids: set[bytes]) -> None:
        with self._lock:
            for name in [n for n, p in self._places.items() if p.cid in cids]:
                del self._places[name]


def hooks_of(pieces: Sequence[tuple[bytes, int]]) -> list[bytes]:
    """The HOOKS keys of some pieces."""
    return [name[:_HOOK_LEN] for name, _ in pieces if _is_hook(name)]


def always_hook(fingerprint: bytes) -> bytes:
    """The fingerprint of a whole small file: five of its bits say that it is a hook."""
    return (
        fingerprint[:_HOOK_LEN]
        + bytes((fingerprint[_HOOK_LEN] & ~_HOOK_MASK & 0xFF,))
        + fingerprint[_HOOK_LEN + 1 :]
    )


def _is_hook(fingerprint: bytes) -> bool:
    return not fingerprint[_HOOK_LEN] & _HOOK_MASK
