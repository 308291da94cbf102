"""Locks of points, brought to a location.

The journal there says them; and where the server retains objects and that is wanted, whatever a locked point needs is
retained as long: its packs, the journal up to its entry, marker and key ring. A pack is so retained until the last of
the points that need it may go. What is owed follows from rows alone (locks, OUTBOX, AWAY, the location's), which say
what was done: cut off anywhere, the next run goes on. Order: FORMAT-copies.md, "Crash table".
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TypeVar

from engine import codec, limits
from engine.copies import journal, marker, outbox, rows
from engine.copies.link import Link
from engine.copies.needs import Needs
from engine.copies.rings import RINGS
from engine.copies.rows import AwayRow, LocationRow, OutboxRow
from engine.copies.sealed import path_of
from engine.errors import ShuttingDown
from engine.home import OpenStore
from engine.index import Table
from engine.nodes.point import decode_point
from engine.progress import Progress, Report

_SECOND = 10**9
Item = TypeVar("Item")
_BATCH = 8 * limits.RETAINS  # objects between two transactions


@dataclass
class Brought:
    """``told``: locks that the journal there says now; ``retained``: objects whose retention was made longer."""

    told: int = 0
    retained: int = 0


def server_time(end_ns: int, now_ns: int) -> int:
    """Until when a server retains for a lock, in s: whole days; whole weeks for a lock of weeks, so that what a point
    that is made each day shares with the one before is made longer once a week."""
    far = end_ns - now_ns > limits.LOCK_WEEK * _SECOND
    step = (limits.LOCK_WEEK if far else limits.DAY) * _SECOND
    return -(-end_ns // step) * step // _SECOND


class Holding:
    """Brings locks to one location; of processes, one at a time (see ``Link``)."""

    def __init__(
        self, store: OpenStore, link: Link, *, report: Report, stop: Callable[[], bool]
    ) -> None:
        self._store = store
        self._context = store.context
        self._link = link
        self._report = report
        self._stop = stop
        self._needs: tuple[int, Needs] | None = None  # and until when what it knows is retained
        self._until: dict[str, int] = {}  # points whose packs are all retained, and until when

    def bring(self) -> Brought:
        """Everything that is owed, longest locks first. Raises ShuttingDown, and what the location raises."""
        made = Brought()
        self._until.clear()
        now = self._context.system.time_ns()
        with self._context.index.read() as txn:
            found = outbox.owed(txn, self._link.row, now)
        made.told = self._tell(
            {point: end for point, (end, row) in found.items() if row.locked_ns < end}
        )
        wanted: dict[str, int] = {}
        for point, (end, row) in sorted(found.items(), key=lambda one: (-one[1][0], one[0])):
            if outbox.not_retained(self._link.row, row, end):
                wanted[point] = server_time(end, now)
                made.retained += self._point(point, row, wanted[point])
        if wanted:
            made.retained += self._rest(max(wanted.values()))
            self._note_points(wanted)
        return made

    # --- the journal ----------------------------------------------------------------------------------------

    def _tell(self, ends: dict[str, int]) -> int:
        by_end: dict[int, list[str]] = {}
        for point, end in ends.items():
            by_end.setdefault(end, []).append(point)
        for end, points in by_end.items():
            for some in _parts(points, limits.JOURNAL_NAMES_MAX):
                self._link.append(journal.Locked(tuple(some), end))
        return len(ends)

    # --- packs ----------------------------------------------------------------------------------------------

    def _point(self, point: str, row: OutboxRow, until: int) -> int:
        """Have every pack that a point needs retained; of how many that was made longer."""
        with self._context.index.read() as txn:
            record = txn.get(Table.POINTS, point.encode())
        if record is None:
            return 0  # its lock has ended, and it was deleted
        try:
            made = self._extend(point, record, row, until)
        except BaseException:
            self._needs = None  # what it has met is not all retained
            raise
        self._until[point] = until
        return made

    def _extend(self, point: str, record: bytes, row: OutboxRow, until: int) -> int:
        needs = self._known(until)
        wanted = needs.packs(
            codec.chunk_id(self._context.key, record), map(bytes.fromhex, row.extras),
            self._before(point, decode_point(record).mount, until),
        )  # fmt: skip
        with self._context.index.read() as txn:
            packs = {
                int.from_bytes(key, "big"): away
                for key, raw in txn.scan(Table.AWAY)
                if (away := rows.away_row(raw)).location == self._link.row.id
            }
        short = [
            (number, away)
            for number, away in packs.items()
            if (needs.unsure or number in wanted) and away.locked_s < until
        ]
        for some in _parts(short, _BATCH):
            self._retain([path_of(away.name.hex()) for _, away in some], until)
            self._note_packs(some, until)
        return len(short)

    def _note_points(self, wanted: dict[str, int]) -> None:
        """All that these need is retained, what a reader needs beside the packs too."""
        place = self._link.row.id
        with self._context.index.write() as txn:
            for point, until in wanted.items():
                known = outbox.get(txn, place, point)
                if known is not None and known.retained_s < until:
                    outbox.put(txn, place, point, replace(known, retained_s=until))

    def _known(self, until: int) -> Needs:
        """What finds packs; what it has met is retained that long already."""
        if self._needs is None or self._needs[0] < until:
            self._needs = (
                until, Needs(self._store.reader, self._context.index, self._link, self._step)
            )  # fmt: skip
        return self._needs[1]

    def _before(self, point: str, mount: str, until: int) -> bytes:
        """The record of the nearest point of the mount whose packs are all retained that long, an older one if there is
        one, b"" when there is none: what a point shares with it needs no look."""
        index = self._context.index
        with index.read() as txn:
            if not self._until:
                found = outbox.of_location(txn, self._link.row.id)
                self._until = {other: row.retained_s for other, row in found if row.retained_s}
            near = sorted(other for other, end in self._until.items() if end >= until)
            at = bisect_left(near, point)
            for other in (*reversed(near[:at]), *near[at:]):
                raw = txn.get(Table.POINTS, other.encode()) if other != point else None
                if raw is not None and decode_point(raw).mount == mount:
                    return codec.chunk_id(self._context.key, raw)
        return b""

    def _step(self, done: int) -> None:
        if self._stop():
            raise self._stopped()
        self._report(Progress("needed packs", done, None, "nodes"))

    def _stopped(self) -> ShuttingDown:
        return ShuttingDown(f"locks at location {self._link.name}", found="a request to stop",
                            do="it goes on where it was, next time")  # fmt: skip

    def _note_packs(self, some: Sequence[tuple[int, AwayRow]], until: int) -> None:
        with self._context.index.write() as txn:
            for number, _ in some:
                raw = txn.get(Table.AWAY, rows.away_key(number))
                if raw is not None:
                    row = rows.away_row(raw)._replace(locked_s=until)
                    txn.put(Table.AWAY, rows.away_key(number), row.pack_bytes())

    # --- what else a reader needs -----------------------------------------------------------------------------

    def _rest(self, until: int) -> int:
        """Marker, key rings and the journal as far as it goes."""
        row = self._link.row
        if until > row.held_s:
            row = self._save(held_s=until, held_seq=0, held_ring=0)
        done = 0
        location = self._link.location
        if not row.held_seq or row.held_ring < row.ring:
            names = [marker.NAME, *(one.name for one in location.list(RINGS))]
            self._retain(names, row.held_s)
            done += len(names)
            row = self._save(held_ring=row.ring)
        after = journal.path_of(row.held_seq) if row.held_seq else ""
        found = (one.name for one in location.list(journal.FOLDER, after))
        entries = [
            seq for name in found if (seq := journal.seq_of(name.removeprefix(journal.FOLDER)))
        ]
        for some in _parts(entries, _BATCH):
            self._retain([journal.path_of(seq) for seq in some], row.held_s)
            done += len(some)
            self._save(held_seq=some[-1])
        return done

    def _save(self, **fields: int) -> LocationRow:
        with self._context.index.write() as txn:
            row = replace(outbox.location(txn, self._link.name), **fields)  # type: ignore[arg-type]
            outbox.save(txn, self._link.name, row)
        self._link.row = row
        return row

    def _retain(self, names: Sequence[str], until: int) -> None:
        if self._stop():
            raise self._stopped()
        with ThreadPoolExecutor(limits.RETAINS, "holdfast-retain") as pool:
            list(pool.map(lambda name: self._link.location.retain(name, until), names))
        self._report(Progress("retain", len(names), None, "objects"))


def _parts(items: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
    return (items[at : at + size] for at in range(0, len(items), size))
