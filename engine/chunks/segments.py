"""The segments one worker appends to: which, their rows, their rolling, and what happens when one fails.

``lock`` is the chunk writer's lock: it guards the lists here; ``append`` is called with it held, syncing and sealing
are done without it.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable
from typing import NamedTuple

from engine import limits
from engine.chunks.context import Context
from engine.chunks.workers import alive
from engine.errors import HoldfastError, from_os
from engine.index import Table, Txn
from engine.index.rows import (
    KIND_DATA,
    KIND_NODE,
    PACK_IDLE,
    PACK_OPEN,
    PACK_SEALED,
    U32,
    U64,
    PackRow,
    pack_row,
)  # fmt: skip
from engine.packs.records import HEADER_LEN, KIND_SKETCH, Entry, PackHeader
from engine.packs.segment import SegmentWriter

log = logging.getLogger("holdfast.engine.chunks")

_NEXT = b"next_pack"
SEAL_ON_CLOSE = (
    8 * limits.MIB
)  # a segment this large is sealed when its worker ends; a smaller one is gone on with

Moved = Callable[[int, dict[int, tuple[int, int]]], None]


def next_pack(txn: Txn) -> int:
    """The number of a new pack, here or at a location: they are one series."""
    raw = txn.get(Table.META, _NEXT)
    number: int = 1 if raw is None else U64.unpack(raw)[0]
    txn.put(Table.META, _NEXT, U64.pack(number + 1))
    return number


class _Unsafe(NamedTuple):
    """An appended record that is not committed yet."""

    segment: SegmentWriter
    offset: int
    head: bytes
    payload: bytes
    entry: Entry


class Segments:
    """Data and metadata lie in segments of their own."""

    def __init__(self, context: Context, worker: int, lock: threading.RLock) -> None:
        self._lock = lock
        self._context = context
        self._worker = worker
        self._open: dict[int, SegmentWriter] = {}
        self._full: list[tuple[int, SegmentWriter]] = []
        self._failed: dict[int, SegmentWriter] = {}  # what they hold is not written again yet
        self._unsafe: list[_Unsafe] = []
        self.unsafe_bytes = 0

    def number(self, kind: int) -> int | None:
        segment = self._open.get(_room(kind))
        return None if segment is None else segment.number

    def append(self, kind: int, head: bytes, payload: bytes, entry: Entry) -> tuple[int, int, int]:
        """Returns (pack, offset, stored length). Tries once more with a new segment when one fails."""
        try:
            return self._appended(kind, head, payload, entry)
        except OSError as error:
            known = from_os(error, f"segments of {self._context.root}")
            self._context.incidents.error(known)
            raise known from None
        except HoldfastError as error:
            self._context.incidents.error(error)
            raise

    def _appended(
        self, kind: int, head: bytes, payload: bytes, entry: Entry
    ) -> tuple[int, int, int]:
        room = _room(kind)
        size = len(head) + len(payload)
        segment = self._segment(room, size)
        try:
            offset = segment.append(head, payload, entry)
        except HoldfastError as error:
            if not segment.broken:
                raise  # there is no room, and the segment is as it was
            log.warning(
                "segment %d failed on write (%s); another one is used", segment.number, error
            )
            self._context.incidents.error(error)
            segment = self._segment(room, size)
            offset = segment.append(head, payload, entry)
        self._unsafe.append(_Unsafe(segment, offset, head, payload, entry))
        self.unsafe_bytes += size
        return segment.number, offset, size

    def make_readable(self, pack: int, end: int) -> None:
        for segment in [*self._open.values(), *(s for _, s in self._full), *self._failed.values()]:
            if segment.number == pack:
                segment.make_readable(end)
                return

    def sync(self, moved: Moved) -> dict[int, int]:
        """All appended bytes are on disk when this returns: {pack: length}. A failed segment is replaced once."""
        for attempt in (1, 2):
            lengths: dict[int, int] = {}
            failed = None
            for segment in self._in_use():
                try:
                    lengths[segment.number] = segment.sync()
                except HoldfastError as error:
                    failed = segment
                    self._context.incidents.error(error)
                    if attempt == 2 or not segment.broken:
                        raise
                    log.warning("segment %d failed: %s; its uncommitted records are written again", segment.number,
                                error)  # fmt: skip
            if failed is None:
                return lengths
            with self._lock:
                self._write_again(moved)
        raise AssertionError("unreachable")

    def _in_use(self) -> list[SegmentWriter]:
        segments = {u.segment.number: u.segment for u in list(self._unsafe)}
        return list(segments.values())

    def _write_again(self, moved: Moved) -> None:
        """What cannot be written again stays listed: the next barrier tries it, and none succeeds without it."""
        broken = [u for u in self._unsafe if u.segment.broken]
        self._failed |= {s.number: s for _, s in self._full if s.broken}
        self._full = [(room, s) for room, s in self._full if not s.broken]
        moves: dict[int, dict[int, tuple[int, int]]] = {}
        done: set[int] = set()
        try:
            for item in broken:
                pack, offset, _ = self.append(item.entry.kind, item.head, item.payload, item.entry)
                moves.setdefault(item.segment.number, {})[item.offset] = (pack, offset)
                done.add(id(item))
        finally:
            self._unsafe = [u for u in self._unsafe if id(u) not in done]
            left = {u.segment.number: u.segment for u in self._unsafe if u.segment.broken}
            for item in broken:
                if item.segment.number not in left:
                    item.segment.close()
            self._failed = left
            self.unsafe_bytes = sum(len(u.head) + len(u.payload) for u in self._unsafe)
            for old, table in moves.items():
                moved(old, table)

    def write_rows(self, txn: Txn, lengths: dict[int, int]) -> None:
        """Set the committed lengths, in the transaction that commits the records."""
        for number, length in lengths.items():
            raw = txn.get(Table.PACKS, U32.pack(number))
            assert raw is not None, "a segment has a row from its start"
            row = pack_row(raw)._replace(length=length, scrubbed=0)
            txn.put(Table.PACKS, U32.pack(number), row.pack_bytes())

    def committed(self, lengths: dict[int, int]) -> None:
        """Forget records up to ``lengths``; seal segments that are full and wholly committed."""
        with self._lock:
            keep = [u for u in self._unsafe if u.offset >= lengths.get(u.segment.number, 0)]
            self._unsafe = keep
            self.unsafe_bytes = sum(len(u.head) + len(u.payload) for u in keep)
            waiting = {u.segment.number for u in keep}
            ready = [item for item in self._full if item[1].number not in waiting]
            self._full = [item for item in self._full if item[1].number in waiting]
        for room, segment in ready:
            self._try_seal(room, segment)

    def roll(self) -> None:
        """Have segments that are large enough sealed by the next commit: a collection can free packs only."""
        with self._lock:
            for room, segment in list(self._open.items()):
                if segment.length >= SEAL_ON_CLOSE and not segment.broken:
                    self._full.append((room, segment))
                    del self._open[room]

    def close(self) -> None:
        """Everything is committed: seal or leave idle what is open."""
        for room, segment in list(self._open.items()):
            if segment.length >= SEAL_ON_CLOSE and not segment.broken:
                self._try_seal(room, segment)
                continue
            segment.close()
            try:
                self._set_state(segment.number, PACK_IDLE, 0)
            except HoldfastError as error:
                log.info("segment %d is left to whoever finds it: %s", segment.number, error)
        self._open.clear()
        for segment in self._failed.values():
            segment.close()
        self._failed.clear()

    def _try_seal(self, room: int, segment: SegmentWriter) -> None:
        """What it holds is committed: one that cannot be sealed is left to whoever finds its owner dead."""
        try:
            self._seal(room, segment)
        except HoldfastError as error:
            log.warning("segment %d cannot be sealed: %s", segment.number, error)
            self._context.incidents.error(error)
        finally:
            segment.close()

    def _seal(self, room: int, segment: SegmentWriter) -> None:
        records = len(segment.entries)
        digest = segment.seal()
        with self._context.index.write() as txn:
            row = PackRow(PACK_SEALED, room, 0, segment.length, records, 0, digest)
            txn.put(Table.PACKS, U32.pack(segment.number), row.pack_bytes())

    def _set_state(self, number: int, state: int, owner: int) -> None:
        with self._context.index.write() as txn:
            raw = txn.get(Table.PACKS, U32.pack(number))
            if raw is not None:
                row = pack_row(raw)._replace(state=state, owner=owner)
                txn.put(Table.PACKS, U32.pack(number), row.pack_bytes())

    def _segment(self, room: int, size: int) -> SegmentWriter:
        segment = self._open.get(room)
        if segment is not None and segment.broken:
            self._failed[segment.number] = segment
            del self._open[room]
            segment = None
        if segment is not None and segment.length + size > limits.PACK_MAX:
            self._full.append((room, segment))
            del self._open[room]
            segment = None
        if segment is None:
            segment = self._adopt(room) or self._create(room)
            self._open[room] = segment
        return segment

    def _adopt(self, room: int) -> SegmentWriter | None:
        """Take over a segment that nobody owns, of this kind and not full. One that cannot be used is left alone."""
        folder = f"{self._context.root}/segments"
        numbers = [
            int(name[:-4]) for name in self._context.system.listdir(folder) if name.endswith(".seg")
        ]
        for number in numbers:
            with self._context.index.write() as txn:
                raw = txn.get(Table.PACKS, U32.pack(number))
                row = None if raw is None else pack_row(raw)
                if row is None or row.kind != room:
                    continue
                if row.length < HEADER_LEN or not _free(self._context, row):
                    continue
                claimed = row._replace(state=PACK_OPEN, owner=self._worker)
                txn.put(Table.PACKS, U32.pack(number), claimed.pack_bytes())
            try:
                return SegmentWriter.adopt(
                    self._context.files, self._header(number, room), row.length
                )
            except HoldfastError as error:
                log.warning("segment %d cannot be gone on with: %s", number, error)
                self._context.incidents.error(error)
        return None

    def _create(self, room: int) -> SegmentWriter:
        with self._context.index.write() as txn:
            number = next_pack(txn)
            row = PackRow(PACK_OPEN, room, self._worker, HEADER_LEN, 0, 0)
            txn.put(Table.PACKS, U32.pack(number), row.pack_bytes())
        try:
            return SegmentWriter.create(self._context.files, self._header(number, room))
        except HoldfastError:
            self._give_up(number)
            raise

    def _give_up(self, number: int) -> None:
        """Leave neither file nor row of a segment that could not be made. What stays is mended by a collection."""
        files = self._context.files
        try:
            with contextlib.suppress(FileNotFoundError):
                files.system.unlink(files.segment_path(number))
            with self._context.index.write() as txn:
                txn.delete(Table.PACKS, U32.pack(number))
        except (OSError, HoldfastError) as error:
            log.info("segment %d could not be made and is left: %s", number, error)

    def _header(self, number: int, room: int) -> PackHeader:
        return PackHeader(self._context.store_id, number, room, self._context.system.time_ns())


def _room(kind: int) -> int:
    return KIND_DATA if kind in (KIND_DATA, KIND_SKETCH) else KIND_NODE


def _free(context: Context, row: PackRow) -> bool:
    if row.state == PACK_IDLE:
        return True
    return row.state == PACK_OPEN and row.owner != 0 and not alive(context, row.owner)
