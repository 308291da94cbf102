"""Scrub: every stored byte is read from the disk again and verified, steadily, beside everything else.

The store is verified in cycles. A pack's row says in which cycle it was verified last, so a run goes on where the last
one ended, whether that was finished, out of time or killed; a pack at most is read twice. Appending to a segment takes
its mark away. What is written during a cycle has no mark, so records that a collection moves are met where they are by
then. No transaction stays open while anything is read.

A sealed pack is read whole and must match its digest and its trailer. That proves that its bytes are those that were
sealed, and no more: a record may have been damaged while it lay in a segment. So every record in it that a chunk's row
points to is decoded and must hash to its name, as in ``check --read-data``; in open segments that is all there is.
A damaged chunk is marked suspect: whoever writes that content next stores it again. One that is a delta of what lies at
a location that does not answer is told as not looked at; the next cycle comes to it again.

META row ``scrub``: cycle u32, running u8, then three times in ns since the epoch, u64 each: begun, last run, and end
of the last complete cycle (0: none).
"""

from __future__ import annotations

import logging
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from engine.chunks import Context
from engine.errors import Away, Corrupt, HoldfastError, InvalidRequest
from engine.home import OpenStore
from engine.index import Table, Txn
from engine.index.rows import (
    FLAG_SUSPECT,
    PACK_DOOMED,
    PACK_SEALED,
    U32,
    ChunkRow,
    PackRow,
    chunk_row,
    pack_row,
)
from engine.maintain import verify
from engine.maintain.asked import AWAY, asked_once
from engine.maintain.check import Problem
from engine.packs.records import HEADER_LEN, KIND_SKETCH
from engine.progress import Progress, Report

log = logging.getLogger("holdfast.engine.maintain")

_STATE = struct.Struct(">IBQQQ")
_KEY = b"scrub"
_SECOND = 1_000_000_000
_ROWS = 512  # looked up in one transaction


class ScrubState(NamedTuple):
    """The cycle at hand (``running``), or the last one. Times in ns since the epoch, 0 for never."""

    cycle: int = 0
    running: bool = False
    begun_ns: int = 0
    last_ns: int = 0
    ended_ns: int = 0


def load(txn: Txn) -> ScrubState:
    """How far scrubbing is."""
    raw = txn.get(Table.META, _KEY)
    if raw is None:
        return ScrubState()
    try:
        cycle, running, *times = _STATE.unpack(raw)
        return ScrubState(cycle, bool(running), *times)
    except struct.error:
        raise Corrupt("index row meta/scrub", expected="a scrub's state", found=raw.hex()) from None


@dataclass
class ScrubReport:
    """What one run did: ``verified_bytes``, ``packs``, ``records``; and its cycle: ``cycle_bytes`` of ``store_bytes``.

    ``due_bytes``: how much of the cycle its schedule wants done by now, None without one. ``finished``: the cycle is
    complete. ``problems``: what this run found; ``suspects``: chunks known to be damaged, whoever found them.
    """

    verified_bytes: int = 0
    packs: int = 0
    records: int = 0
    cycle_bytes: int = 0
    store_bytes: int = 0
    due_bytes: int | None = None
    begun_ns: int = 0
    finished: bool = False
    suspects: int = 0
    problems: list[Problem] = field(default_factory=list)


class Pace:
    """Spends bytes no faster than ``rate`` a second; None for no limit."""

    def __init__(
        self, rate: int | None, clock: Callable[[], float], sleep: Callable[[float], None]
    ) -> None:
        self._rate = rate
        self._clock = clock
        self._sleep = sleep
        self._free = clock()  # when the bytes so far are paid for

    def spend(self, count: int) -> None:
        """Wait until ``count`` bytes that were read are paid for. Time not used before is not saved up."""
        if self._rate is None:
            return
        now = self._clock()
        self._free = max(self._free, now) + count / self._rate
        self._sleep(self._free - now)


class Scrubber:
    """One run."""

    def __init__(self, store: OpenStore, pace: Pace, report: Report) -> None:
        self._store = store
        self._context = store.context
        self._pace = pace
        self._report = report
        self.result = ScrubReport()

    def run(self, every_s: float | None, until: float | None) -> ScrubReport:
        """Verify until the cycle is complete, its schedule is met, or ``until`` (monotonic s), but a pack is done."""
        state = self._begin()
        result = self.result
        result.begun_ns = state.begun_ns
        self._due(state, every_s)
        with asked_once(self._store) as self._asked:
            for number, row in self._todo(state.cycle):
                late = until is not None and self._context.system.monotonic() >= until
                met = result.due_bytes is not None and result.cycle_bytes >= result.due_bytes
                if met or (late and result.packs):
                    break
                self._pack(number, row)
                self._mark(number, row, state.cycle)
            else:
                result.finished = True
            result.problems += [Problem(AWAY, *one) for one in self._asked.told()]
        self._end(state)
        self._due(state, every_s)
        return result

    def _begin(self) -> ScrubState:
        now = self._context.system.time_ns()
        with self._context.index.write() as txn:
            state = load(txn)
            if not state.running:
                state = state._replace(cycle=state.cycle + 1, running=True, begun_ns=now)
            state = state._replace(last_ns=now)
            txn.put(Table.META, _KEY, _STATE.pack(*state))
            self._count(txn, state.cycle)
        return state

    def _count(self, txn: Txn, cycle: int) -> None:
        rows = [row for _, row in _packs(txn)]
        self.result.store_bytes = sum(row.length for row in rows)
        self.result.cycle_bytes = sum(row.length for row in rows if row.scrubbed == cycle)

    def _todo(self, cycle: int) -> Iterator[tuple[int, PackRow]]:
        """Packs not verified in this cycle, each once; segments when no sealed pack is left.

        A collection moves records into segments and packs that are listed by then: what it takes from a pack not read
        yet comes to light here, what it adds to a segment read already was read where it lay before.
        """
        seen: set[int] = set()
        while True:
            with self._context.index.read() as txn:
                rows = [
                    one for one in _packs(txn) if one[1].scrubbed != cycle and one[0] not in seen
                ]
            batch = [one for one in rows if one[1].state == PACK_SEALED] or rows
            if not batch:
                return
            for number, row in batch:
                seen.add(number)
                yield number, row

    def _due(self, state: ScrubState, every_s: float | None) -> None:
        """By the clock on the wall, which may be wrong: then it is done sooner or later, and no less well."""
        if every_s is not None:
            passed = max(0, self._context.system.time_ns() - state.begun_ns) / _SECOND
            due = int(self.result.store_bytes * min(1.0, passed / every_s))
            self.result.due_bytes = max(1, due)  # the first run begins

    def _mark(self, number: int, row: PackRow, cycle: int) -> None:
        """The pack counts as verified in this cycle, damaged or not, unless it has changed meanwhile."""
        self.result.cycle_bytes += row.length  # for the schedule; counted anew at the end
        with self._context.index.write() as txn:
            raw = txn.get(Table.PACKS, U32.pack(number))
            if raw is not None and pack_row(raw) == row and load(txn).cycle == cycle:
                txn.put(Table.PACKS, U32.pack(number), row._replace(scrubbed=cycle).pack_bytes())

    def _end(self, state: ScrubState) -> None:
        with self._context.index.write() as txn:
            if self.result.finished and load(txn).cycle == state.cycle:
                now = self._context.system.time_ns()
                txn.put(Table.META, _KEY, _STATE.pack(*state._replace(running=False, ended_ns=now)))
            self._count(txn, state.cycle)
            self.result.suspects = sum(_still_suspect(txn, cid) for cid in txn.keys(Table.SUSPECTS))

    # --- one pack ---------------------------------------------------------------------------------------------

    def _pack(self, number: int, row: PackRow) -> None:
        log.debug("scrub of pack %d", number)
        self.result.packs += 1
        self.result.verified_bytes += row.length
        if row.length <= HEADER_LEN and row.state != PACK_SEALED:
            return  # nothing is in it, and perhaps it has no file yet
        files = self._context.files
        try:
            files.drop_pages(number)
            if row.state == PACK_SEALED:
                faults = verify.sealed_faults(files, number, row, content=True, read=self._read)
            else:
                faults = verify.open_faults(files, number, row)
            for text in faults:
                self._found("pack", number, row, text)
        except HoldfastError as error:
            self._found("pack", number, row, str(error))
        for rows in self._rows(number, row):
            for cid, chunk in rows:
                self.result.records += 1
                try:
                    fault = verify.record_fault(self._store, cid, chunk)
                except (
                    Away
                ):  # of what it is a delta of: what is here was verified as bytes of the pack
                    self._asked.unread += 1
                    continue
                if fault:
                    self.result.problems.append(Problem("chunk", f"chunk {cid.hex()}", fault))

    def _read(self, count: int) -> None:
        self._pace.spend(count)
        self._report(Progress("scrub", self.result.verified_bytes, None, "bytes"))

    def _found(self, code: str, number: int, row: PackRow, text: str) -> None:
        if verify.unchanged(self._store, number, row):
            self.result.problems.append(Problem(code, f"{code} {number}", text))
            verify.note(self._context, number, text)

    def _rows(self, number: int, row: PackRow) -> Iterator[list[tuple[bytes, ChunkRow]]]:
        """Rows of the chunks that lie in a pack: by its own list, or by all rows when that is damaged."""
        try:
            places = list(self._places(number, row))
        except HoldfastError as error:
            self._found("pack", number, row, str(error))
            with self._context.index.read() as txn:
                rows = ((cid, chunk_row(raw)) for cid, raw in txn.scan(Table.CHUNKS))
                found = [(cid, chunk) for cid, chunk in rows if chunk.pack == number]
            yield found
            return
        for first in range(0, len(places), _ROWS):
            with self._context.index.read() as txn:
                raws = [
                    (cid, at, txn.get(Table.CHUNKS, cid))
                    for cid, at in places[first : first + _ROWS]
                ]
            chunks = [(cid, at, chunk_row(raw)) for cid, at, raw in raws if raw is not None]
            yield [(cid, c) for cid, at, c in chunks if (c.pack, c.offset) == (number, at)]

    def _places(self, number: int, row: PackRow) -> Iterator[tuple[bytes, int]]:
        files = self._context.files
        if row.state == PACK_SEALED:
            yield from ((e.id, e.offset) for e in files.trailer(number) if e.kind != KIND_SKETCH)
            return
        for at, record in files.scan(number, row.length):
            self._pace.spend(record.size)
            if record.kind != KIND_SKETCH:
                yield record.id, at


def _packs(txn: Txn) -> list[tuple[int, PackRow]]:
    rows = [(U32.unpack(key)[0], pack_row(raw)) for key, raw in txn.scan(Table.PACKS)]
    return [(number, row) for number, row in rows if row.state != PACK_DOOMED]


def _still_suspect(txn: Txn, cid: bytes) -> bool:
    raw = txn.get(Table.CHUNKS, cid)
    return raw is not None and bool(chunk_row(raw).flags & FLAG_SUSPECT)


def progress_of(txn: Txn) -> dict[str, int]:
    """For statistics: bytes verified in the cycle at hand (all, when none is), and when the last complete one ended."""
    state = load(txn)
    done = sum(row.length for _, row in _packs(txn) if row.scrubbed == state.cycle and state.cycle)
    return {"scrubbed_bytes": done, "last_scrub_ns": state.ended_ns}


def scrub(
    store: OpenStore, *, rate: int | None, budget_s: float | None, every_s: float | None,
    report: Report, sleep: Callable[[float], None],
) -> ScrubReport:  # fmt: skip
    """One run: the rest of the cycle, or as much of it as time and schedule allow.

    ``rate``: bytes a second at most. ``budget_s``: begin no further pack after so long. ``every_s``: the whole store is
    to be verified once in that time; a run does what is due by now.  Raises InvalidRequest.
    """
    for value, name in ((rate, "rate"), (every_s, "time of a cycle")):
        if value is not None and value <= 0:
            raise InvalidRequest(name, expected="more than nothing", found=str(value))
    context: Context = store.context
    started = context.system.monotonic()
    pace = Pace(rate, context.system.monotonic, sleep)
    until = None if budget_s is None else started + budget_s
    return Scrubber(store, pace, report).run(every_s, until)
