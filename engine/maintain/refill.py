"""An empty index filled with what a storage location says of a store: packs, chunks, points, mounts, the outbox."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from engine import limits, locks, registry
from engine.copies import journal, outbox, rows
from engine.copies.bare import Bare, ahead, trailers
from engine.copies.fetch import Fetcher
from engine.copies.link import Link, away_of
from engine.copies.reach import missing
from engine.copies.rows import EXTRA, FAILED, NAMED, UNNAMED, VERIFIED, WHOLE, CopyRow, OutboxRow
from engine.copies.sealed import PackRow
from engine.errors import Corrupt, HoldfastError, LocationUnavailable, NotFound
from engine.home import OpenStore
from engine.index import Table, Txn
from engine.index.rows import U64, ChunkRow, chunk_row
from engine.ingest.mode import CHOICES
from engine.maintain.copies import Copies
from engine.maintain.regrow import regrow_all
from engine.nodes.point import Point, decode_point
from engine.packs.records import KIND_SKETCH, Entry
from engine.progress import Progress, Report

_MOST = 2**63 - 1
_NOT_WHOLE = "it was not whole there when the location was adopted"
Item = TypeVar("Item")


@dataclass
class AdoptReport:
    """What was found. ``fingerprint``: see ``Vault.fingerprint``; ``settings``: of each mount, as its newest point has
    them; ``done``: one sentence per thing that was made, or was left out."""

    location: str = ""
    fingerprint: str = ""
    points: int = 0
    mounts: int = 0
    packs: int = 0
    chunks: int = 0
    taken_over: bool = False
    left_out: int = 0
    settings: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    done: list[str] = field(default_factory=list)


class Refill:
    """One filling. What cannot be had is left out and told; what may pass ends it."""

    def __init__(
        self, store: OpenStore, link: Link, bare: Bare, result: AdoptReport, report: Report
    ) -> None:  # fmt: skip
        self._store = store
        self._context = store.context
        self._index = store.context.index
        self._reader = store.reader
        self._link = link
        self._bare = bare
        self._result = result
        self._report = report
        self._copies = Copies(self._index, self._reader)
        self._twice: set[bytes] = set()
        self._batch: dict[bytes, tuple[ChunkRow, bytes]] = {}
        self._away: list[tuple[bytes, bytes]] = []
        self._next = 1
        self._missing = 0  # packs
        self._copying = True  # what is there is noted by location as well: for who sends more
        self._broken: set[str] = set()  # points that are not whole there

    def run(self) -> None:
        """Fill everything. Raises Corrupt for what cannot be a store, and what the location raises."""
        files = self._context.files
        files.elsewhere = Fetcher(self._context, 0, [self._link])
        self._packs()
        points = self._points()
        files.elsewhere = Fetcher(self._context, links=[self._link])
        newest = _newest(points)
        for point in newest if not self._missing else sorted(points, key=_age, reverse=True):
            self._walk(point)
        self._mounts(newest)
        self._outbox(points)
        self._locks({point.id for point in points})

    def run_for_reading(self) -> None:
        """Fill what reading points needs: packs, chunks, points, mounts without their trees. Raises as ``run``."""
        self._copying = False
        self._context.files.elsewhere = Fetcher(self._context, 0, [self._link])
        self._packs()
        points = self._points()
        with self._index.write() as txn:
            for point in _newest(points):
                settings = self._bare.state.points[point.id].settings
                self._result.settings[point.mount] = settings
                self._result.mounts += 1
                registry.save(txn, _mount(point, settings))
        self._outbox(points)

    def _tell(self, text: str) -> None:
        self._result.done.append(text)
        self._result.left_out += 1

    # --- packs and chunks ---------------------------------------------------------------------------------

    def _packs(self) -> None:
        total = len(self._bare.state.packs)
        for done, (pack, found) in enumerate(trailers(self._bare)):
            self._report(Progress("read packs", done, total, "packs"))
            if isinstance(found, HoldfastError) and pack.name not in self._bare.state.packs:
                continue  # it is gone, as was said
            if isinstance(found, HoldfastError):
                self._missing += 1
                self._tell(f"pack {pack.name} is left out: {found}")
            else:
                self._pack(pack, found)
                self._result.packs += 1
        self._flush()
        dropped = self._copies.settle() if self._copying or self._twice else 0
        if dropped:
            # Reclaiming leaves such: what no point needs, in a pack of which a part is needed. The walk tells.
            self._missing += 1
            self._result.done.append(
                f"{dropped} chunks without what they are deltas of: all points are walked"
            )
        if self._copying:
            self._agree(dropped)
        with self._index.write() as txn:
            txn.put(Table.META, b"next_pack", U64.pack(self._next))
            self._result.chunks = txn.count(Table.CHUNKS)

    def _pack(self, pack: PackRow, entries: list[Entry]) -> None:
        number, self._next = self._next, self._next + 1
        # One that was said to be gone is named again by the next entry.
        named = NAMED if pack.name in self._bare.state.packs else UNNAMED
        row = away_of(pack, self._link.row.id, named)
        self._away.append((rows.away_key(number), row.pack_bytes()))
        for one in entries:
            if one.kind == KIND_SKETCH:
                continue  # an aid, which is not sent
            if one.id in self._batch:
                self._flush()
            chunk = ChunkRow(
                number, one.offset, one.stored, one.plain, one.kind, one.encoding, one.depth, 0, one.bases
            )  # fmt: skip
            copy = CopyRow(number, one.offset, one.stored, rows.form_of(one))
            self._batch[one.id] = chunk, copy.pack_bytes()
            if len(self._batch) >= limits.ADOPT_ROWS:
                self._flush()

    def _flush(self) -> None:
        """In order of keys: each page of the index is gone to once."""
        batch, self._batch = self._batch, {}
        away, self._away = self._away, []
        order = sorted(batch)
        prefix = rows.copy_key(self._link.row.id, b"")
        with self._index.write() as txn:
            for key, value in away:
                txn.put(Table.AWAY, key, value)
            added = txn.fill(Table.CHUNKS, [(cid, batch[cid][0].pack_bytes()) for cid in order])
            if self._copying:
                txn.fill(Table.COPIES, [(prefix + cid, batch[cid][1]) for cid in order])
            if added < len(order):
                self._again(txn, {cid: batch[cid][0] for cid in order})

    def _again(self, txn: Txn, batch: dict[bytes, ChunkRow]) -> None:
        """Chunks that lay in a pack before already: the first record that can be read is theirs."""
        for cid, row in batch.items():
            raw = txn.get(Table.CHUNKS, cid)
            assert raw is not None
            known = chunk_row(raw)
            if known == row:
                continue
            self._twice.add(cid)
            if self._copies.again(cid, known, row) > limits.ADOPT_TWICE_MAX:
                raise Corrupt(
                    self._bare.location.shown, expected=f"at most {limits.ADOPT_TWICE_MAX} chunks in several packs",
                    found="more", do="find out who wrote to the location",
                )  # fmt: skip

    def _agree(self, dropped: int) -> None:
        """COPIES as CHUNKS: of those that were chosen, and without those that were dropped."""
        place = self._link.row.id
        for part in _parts(sorted(self._twice)):
            with self._index.write() as txn:
                for cid in part:
                    raw = txn.get(Table.CHUNKS, cid)
                    if raw is not None:
                        row = chunk_row(raw)
                        copy = CopyRow(row.pack, row.offset, row.stored, rows.form_of(row))
                        txn.put(Table.COPIES, rows.copy_key(place, cid), copy.pack_bytes())
        if not dropped:
            return
        with self._index.read() as txn:
            keys = txn.keys(Table.COPIES)
            lost = [key for key in keys if txn.get(Table.CHUNKS, key[rows.U16.size :]) is None]
        for part in _parts(lost):
            with self._index.write() as txn:
                for key in part:
                    txn.delete(Table.COPIES, key)

    # --- points -------------------------------------------------------------------------------------------

    def _points(self) -> list[Point]:
        """Those of the journal whose records can be read and say the same."""
        named = self._bare.state.points
        found = []
        batch: list[tuple[str, bytes]] = []
        reading = ahead(
            named.values(), lambda one: self._reader.read(one.record), limits.ADOPT_THREADS
        )
        for done, (one, future) in enumerate(reading):
            self._report(Progress("read points", done, len(named), "points"))
            try:
                data = future.result()
                point = decode_point(data)
                _same(one, point)
            except (Corrupt, NotFound) as error:
                self._tell(f"point {one.id} is left out: {error}")
                continue
            found.append(point)
            batch.append((point.id, data))
        for part in _parts(batch):
            with self._index.write() as txn:
                for name, data in part:
                    txn.put(Table.POINTS, name.encode(), data)
        self._result.points = len(found)
        return found

    def _walk(self, point: Point) -> None:
        """All that a point needs is there; its nodes are noted to be whole."""
        top = self._bare.state.points[point.id].record
        place = self._link.row.id
        whole: dict[bytes, CopyRow] = {}

        def has(cid: bytes) -> CopyRow | None:
            if cid in whole:
                return whole[cid]
            with self._index.read() as txn:
                raw = txn.get(Table.COPIES, rows.copy_key(place, cid))
            return None if raw is None else rows.copy_row(raw)

        def note() -> None:
            with self._index.write() as txn:
                for cid in sorted(whole):
                    txn.put(Table.COPIES, rows.copy_key(place, cid), whole[cid].pack_bytes())
            whole.clear()

        try:
            for done, need in enumerate(missing(self._reader, has, top)):
                row = has(need.cid)
                if row is None:
                    raise NotFound(f"chunk {need.cid.hex()}", found="in no pack of the location")
                whole[need.cid] = row._replace(flags=row.flags | WHOLE)
                if len(whole) >= limits.GC_SWEEP_ROWS:
                    note()
                    self._report(Progress("walk", done, None, "nodes"))
        except (Corrupt, NotFound) as error:
            self._broken.add(point.id)
            self._tell(f"point {point.id} is not whole at the location: {error}")
        note()

    # --- mounts and outbox --------------------------------------------------------------------------------

    def _mounts(self, newest: list[Point]) -> None:
        numbers = {point.mount_id for point in newest}
        if len(numbers) != len(newest):
            raise Corrupt(
                self._bare.location.shown, expected="mounts of different numbers", found="two of one number",
                do="find out who wrote to the location",
            )  # fmt: skip
        settings = self._result.settings
        mounts = []
        for point in newest:
            settings[point.mount] = self._bare.state.points[point.id].settings
            mounts.append((_mount(point, settings[point.mount]), point))
        for mount, point, count, lost in regrow_all(self._context, self._reader, mounts):
            self._report(Progress("make mounts", self._result.mounts, len(mounts), "mounts"))
            if lost and point.id not in self._broken:
                raise LocationUnavailable(self._bare.location.shown, found=lost[0], do="try again")
            self._result.mounts += 1
            self._result.done.append(f"mount {mount.name}: {count} entries as in point {point.id}")
            for text in lost:
                self._tell(f"mount {mount.name}: {text}")

    def _outbox(self, points: list[Point]) -> None:
        """A row for all that the journal names: what of it could not be had must not be freed there either."""
        place, now = self._link.row.id, self._context.system.time_ns()
        good = {point.id for point in points} - self._broken
        ends = self._bare.state.locks
        for part in _parts(list(self._bare.state.points.values())):
            with self._index.write() as txn:
                for one in part:
                    state, reason = (VERIFIED, "") if one.id in good else (FAILED, _NOT_WHOLE)
                    row = OutboxRow(
                        state, now, reason=reason, entry=self._bare.named[one.id],
                        extras=[cid.hex() for cid in one.extras], locked_ns=ends.get(one.id, 0),
                    )  # fmt: skip
                    outbox.put(txn, place, one.id, row)
                    for cid in one.extras:
                        self._extra(txn, rows.copy_key(place, cid))

    def _locks(self, points: set[str]) -> None:
        state = self._bare.state
        with self._index.write() as txn:
            found = {point: end for point, end in state.locks.items() if point in points}
            locks.put(self._context, txn, found)
        for point in sorted(state.contested & points):
            self._result.done.append(
                f"point {point} stays: an entry that deletes it was written while it was locked"
            )

    def _extra(self, txn: Txn, key: bytes) -> None:
        raw = txn.get(Table.COPIES, key)
        if raw is not None:
            row = rows.copy_row(raw)
            txn.put(Table.COPIES, key, row._replace(flags=row.flags | EXTRA).pack_bytes())


def _parts(items: list[Item]) -> Iterable[list[Item]]:
    size = limits.GC_SWEEP_ROWS
    return (items[at : at + size] for at in range(0, len(items), size))


def _age(point: Point) -> tuple[int, int]:
    """Of one mount's points: a mount made again under its name has a greater number."""
    return point.mount_id, point.sequence


def _newest(points: list[Point]) -> list[Point]:
    """Of each mount its newest point."""
    return list({point.mount: point for point in sorted(points, key=_age)}.values())


def _same(named: journal.Point, found: Point) -> None:
    if (named.id, named.mount) != (found.id, found.mount):
        raise Corrupt(
            f"record of point {named.id}", expected=f"mount {named.mount}, as the journal says",
            found=f"point {found.id} of mount {ascii(found.mount)[:80]}",
        )  # fmt: skip


def _mount(point: Point, settings: object) -> registry.Mount:
    """The mount's row; of its settings those that are known and make sense."""
    given = settings if isinstance(settings, dict) else {}
    quota, files = (
        value if type(value) is int and 0 <= value <= _MOST else registry.NO_QUOTA
        for value in (given.get("quota"), given.get("max_files"))
    )
    chunking = given.get("chunking")
    if not isinstance(chunking, str) or chunking not in CHOICES:
        chunking = "auto"
    return registry.Mount(point.mount, point.mount_id, chunking, quota, 0, point.sequence, files)
