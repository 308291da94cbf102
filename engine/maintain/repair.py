"""Repair: a new index from packs alone, and the mending of what ``check`` finds and can be mended.

Nothing is deleted: what is taken out of the way goes to ``quarantine/``.

Rebuilding reads every pack's trailer (the records themselves of a segment, and of a pack whose trailer is damaged;
damage between them is passed over), puts the chunk rows, points and hooks into a fresh LMDB beside the old one, makes
every mount that has a point again with the newest point as its live tree, but for what of it cannot be read, and then
puts the new index in the old one's place.

What a crash leaves of it: FORMAT.md, "Crash tables".
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from engine import home, locks, registry
from engine.chunks import ChunkReader, Context, reap
from engine.chunks.reader import take_back
from engine.copies.rows import FOLDER as LOCATIONS
from engine.errors import UNREADABLE, Corrupt, HoldfastError, NoKey
from engine.index import Index, Table, Txn
from engine.index.rows import (
    FLAG_SUSPECT,
    KIND_DATA,
    KIND_NODE,
    KIND_POINT,
    KIND_TOMBSTONE,
    PACK_IDLE,
    PACK_SEALED,
    U32,
    U64,
    ChunkRow,
    PackRow,
    chunk_row,
)
from engine.ingest import sketches
from engine.maintain import settle
from engine.maintain.copies import Copies
from engine.maintain.regrow import regrow_all
from engine.nodes.point import Point, decode_point, decode_tombstone
from engine.packs.files import PackFiles
from engine.packs.records import HEADER_LEN, KIND_SKETCH, decode_record_head
from engine.progress import Progress, Report
from engine.seam import REAL, Os

if TYPE_CHECKING:
    from engine.keys import Opener


@dataclass
class RepairReport:
    """``done``: one sentence per thing mended or set aside."""

    done: list[str] = field(default_factory=list)


def repair(store: home.OpenStore, *, report: Report) -> RepairReport:
    """Forget dead workers, judge suspect chunks anew, forget lost ends of segments that nothing needs."""
    result = RepairReport()
    dead = reap(store.context)
    if dead:
        result.done.append(f"{len(dead)} dead workers forgotten")
    if store.context.seal is not None:
        from engine import storering

        if storering.mend(store.path, store.context.seal, store.context.system):
            result.done.append("key ring: its two files are the same again")
    with store.context.index.read() as txn:
        marked = [
            (cid, chunk_row(raw))
            for cid, raw in txn.scan(Table.CHUNKS)
            if chunk_row(raw).flags & FLAG_SUSPECT
        ]
    for i, (cid, row) in enumerate(marked):
        report(Progress("repair", i, len(marked), "chunks"))
        try:
            store.reader.load_at(cid, row)
        except HoldfastError:
            continue
        if take_back(store.context, cid, row):
            result.done.append(f"chunk {cid.hex()} is whole again")
    added = locks.keep_missing(store.context)
    if added:
        result.done.append(f"{added} locks written down again for an index made anew")
    regained = locks.regain_kept(store.context)
    if regained:
        result.done.append(f"{regained} locks that only {locks.FILE} had hold again")
    result.done += [
        f"segment {number}: nothing needs what the disk has lost of it"
        for number in settle.short_segments(store.context)
    ]
    return result


def rebuild_index(
    path: str, *, report: Report, system: Os = REAL, key: Opener | None = None
) -> RepairReport:
    """Make the index anew from packs. Raises Busy while anybody has the store open, NoKey when something is sealed with
    a key that the store's ring lacks: what cannot be read would be left out, and then collected."""
    result = RepairReport()
    with home.locked(path, system, key) as known:
        fresh = os.path.join(path, "index.new")
        if system.exists(fresh):
            shutil.rmtree(fresh)
        system.mkdir(fresh)
        index = Index(fresh, create=True)
        files = PackFiles(path, system)
        context = Context(path, known.store_id, known.id_key, index, files, system, known.seal)
        try:
            _Builder(context, result, report).run()
        finally:
            files.close()
            index.close()
        system.fsync_dir(fresh)
        _put_in_place(path, system, fresh)
    result.done.append("index made anew from the packs")
    places = os.path.join(path, LOCATIONS)
    names = (
        [name for name in system.listdir(places) if name.endswith(".key")]
        if system.exists(places)
        else []
    )
    for name in names:
        result.done.append(
            f"location {name.removesuffix('.key')} is forgotten: what was at that location only can be had by "
            "'holdfast adopt' of it into another store"
        )
    return result


def _put_in_place(path: str, system: Os, fresh: str) -> None:
    old = os.path.join(path, "index")
    if system.exists(old):
        system.rename(old, os.path.join(path, "quarantine", f"index-{system.random(6).hex()}"))
    system.rename(fresh, old)
    system.fsync_dir(path)
    system.fsync_dir(os.path.join(path, "quarantine"))


class _Builder:
    """Fills a fresh index."""

    def __init__(self, context: Context, result: RepairReport, report: Report) -> None:
        self._context = context
        self._result = result
        self._report = report
        self._reader = ChunkReader(context)
        self._copies = Copies(context.index, self._reader)
        self._records: list[tuple[int, bytes]] = []  # kind and id of point records and tombstones

    def run(self) -> None:
        numbers = sorted(self._numbers())
        for i, number in enumerate(numbers):
            self._report(Progress("rebuild", i, len(numbers), "packs"))
            try:
                self._pack(number)
            except HoldfastError as error:
                self._result.done.append(f"pack {number} is left out: {error}")
        dropped = self._copies.settle()
        self._refuse_lacking()
        if dropped:
            self._result.done.append(
                f"{dropped} chunks are left out: torn records, or what they are deltas of is gone"
            )
        with self._context.index.write() as txn:
            txn.put(Table.META, b"next_pack", U64.pack(max(numbers, default=0) + 1))
            txn.put(
                Table.META, b"next_worker", U64.pack(1 << 32)
            )  # past any lock file an old worker left
        points = self._points()
        self._mounts(points)
        self._refuse_lacking()

    def _refuse_lacking(self) -> None:
        seal = self._context.seal
        if seal is not None and seal.lacking:
            raise NoKey(
                f"key ring of store {self._context.root}", expected=f"keys of the epochs {sorted(seal.lacking)}",
                found="none", do="put the newest keys.json of the store back; the index is as it was",
            )  # fmt: skip

    def _numbers(self) -> Iterator[int]:
        system, root = self._context.system, self._context.root
        for name in system.listdir(os.path.join(root, "segments")):
            if name.endswith(".seg"):
                yield int(name[:-4])
        for folder in system.listdir(os.path.join(root, "packs")):
            for name in system.listdir(os.path.join(root, "packs", folder)):
                if name.endswith(".pack"):
                    yield int(name[:-5])

    def _pack(self, number: int) -> None:
        files = self._context.files
        sealed = self._context.system.exists(files.pack_path(number))
        kind = self._kind(number)
        footer = None
        rows: list[tuple[bytes, ChunkRow]] = []
        try:
            if sealed:
                footer = files.footer(number)
                rows = [
                    (e.id, ChunkRow(number, e.offset, e.stored, e.plain, e.kind, e.encoding, e.depth, 0, e.bases))
                    for e in files.trailer(number)
                ]  # fmt: skip
        except HoldfastError as error:
            footer = None
            self._result.done.append(f"pack {number} is searched for records: {error}")
        if footer is None:
            rows = list(self._salvaged(number, sealed))
            length = max((row.offset + row.stored for _, row in rows), default=HEADER_LEN)
            pack = PackRow(PACK_SEALED if sealed else PACK_IDLE, 0, 0, length, len(rows), 0)
        else:
            pack = PackRow(PACK_SEALED, 0, 0, footer.offset, footer.entries, 0, footer.digest)
        if not kind:
            data = any(row.kind in (KIND_DATA, KIND_SKETCH) for _, row in rows)
            kind = KIND_DATA if data else KIND_NODE
        self._store(number, pack._replace(kind=kind), rows, vouched=footer is not None)

    def _kind(self, number: int) -> int:
        """What the header says the pack is of, 0 when it is damaged: of records it says nothing. Raises Corrupt."""
        try:
            header = self._context.files.header(number)
        except Corrupt as error:
            self._result.done.append(f"pack {number}: {error}")
            return 0
        if header.store_id != self._context.store_id:
            raise Corrupt(f"pack {number}", expected="this store's id", found="another store's")
        return header.kind

    def _salvaged(self, number: int, sealed: bool) -> Iterator[tuple[bytes, ChunkRow]]:
        """Rows of a file without a trailer that can be trusted."""
        at = HEADER_LEN
        for offset, r in self._context.files.salvage(number):
            if offset > at:
                self._result.done.append(
                    f"pack {number}: bytes {at} to {offset} are no record, and passed over"
                )
            at = max(at, offset + r.size)
            ids = tuple(dict.fromkeys(base.id for base in r.bases))
            yield (
                r.id,
                ChunkRow(number, offset, r.size, r.plain, r.kind, r.encoding, r.depth, 0, ids),
            )
        size = self._context.files.size(number)
        if at != size and not sealed:
            self._result.done.append(
                f"segment {number} ends at {at}, {size - at} bytes before its file does"
            )

    def _store(
        self, number: int, pack: PackRow, rows: list[tuple[bytes, ChunkRow]], *, vouched: bool
    ) -> None:
        with self._context.index.write() as txn:
            txn.put(Table.PACKS, U32.pack(number), pack.pack_bytes())
            for cid, row in rows:
                if row.kind == KIND_SKETCH:
                    self._hooks(txn, number, row)
                    continue
                if row.kind in (KIND_POINT, KIND_TOMBSTONE):
                    self._records.append((row.kind, cid))
                self._copies.put(txn, cid, row, vouched=vouched)

    def _hooks(self, txn: Txn, number: int, row: ChunkRow) -> None:
        try:
            raw = self._context.files.read(number, row.offset, row.stored)
            head, bare = self._context.bare(decode_record_head(raw), raw)
            for _, pieces in sketches.decode(bytes(bare[head.head :])):
                for hook in sketches.hooks_of(pieces):
                    txn.put(Table.HOOKS, hook, U32.pack(number))
        except UNREADABLE:
            return  # an aid: no data is lost with it

    def _points(self) -> list[Point]:
        found: dict[str, tuple[Point, bytes]] = {}
        dead: dict[str, int] = {}
        for kind, cid in self._records:
            if (
                self._reader.row(cid) is None
            ):  # it is no damage: a collection took what a deleted point's was made of
                self._result.done.append(
                    "a point's record is left out: what it is a delta of is gone"
                )
                continue
            try:
                data = self._reader.read(cid)
                if kind == KIND_TOMBSTONE:
                    tomb = decode_tombstone(data)
                    dead[tomb.id] = max(tomb.time_ns, dead.get(tomb.id, tomb.time_ns))
                else:
                    point = decode_point(data)
                    found[point.id] = (point, data)
            except HoldfastError as error:
                self._result.done.append(f"a point's record is left out: {error}")
        ends, damaged = locks.kept(self._context)
        if damaged:
            self._result.done.append(f"{damaged} lines of {locks.FILE} cannot be read")
        # A tombstone written while a lock held is of a deletion that was refused.
        alive = {
            name: pair
            for name, pair in found.items()
            if name not in dead or dead[name] < ends.get(name, dead[name])
        }
        with self._context.index.write() as txn:
            for name, (_, data) in alive.items():
                txn.put(Table.POINTS, name.encode(), data)
            locks.regain(txn, {name: end for name, end in ends.items() if name in alive})
        self._result.done.append(f"{len(alive)} points found")
        return [point for point, _ in alive.values()]

    def _mounts(self, points: list[Point]) -> None:
        """Each mount as its newest point has it; what was written after that point is not in any pack's manifest."""
        newest: dict[str, Point] = {}
        for point in sorted(points, key=lambda p: p.sequence):
            newest[point.mount] = point
        mounts = [
            (registry.Mount(name, point.mount_id, "auto", 0, 0, point.sequence), point)
            for name, point in newest.items()
        ]
        for mount, point, count, lost in regrow_all(self._context, self._reader, mounts):
            self._result.done.append(
                f"mount {mount.name}: {count} entries as in point {point.id}, without quota, chunking auto"
            )
            self._result.done += [f"mount {mount.name}: {text}" for text in lost]
