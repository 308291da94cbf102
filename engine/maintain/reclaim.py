"""Freeing what no point at a storage location needs there any more: plan, then execute.

What is needed is found beside uploads. The rest is done in steps, each while nobody uploads (``Link.alone``) and short,
so that others have their turn: rows of what is not needed go, the journal says which packs are gone, packs of which
little is needed are rewritten, and packs whose grace is over are removed. Cut off anywhere the next run goes on.
FORMAT-copies.md, "Reclaiming", has what holds at each moment and what a crash leaves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from engine import limits
from engine.chunks.segments import next_pack
from engine.copies import checkpoint, journal, outbox, rows
from engine.copies.link import Link, put_just_now
from engine.copies.rows import GOING, WHOLE, AwayRow
from engine.copies.sealed import name_in, path_of
from engine.errors import Busy, Corrupt, NotFound, ShuttingDown
from engine.home import OpenStore
from engine.index import Table, Txn
from engine.maintain.needed import Found, Needed, removable
from engine.maintain.planning import SECOND, Reclaim, Terms, prices_of, told
from engine.maintain.rewrite import Rewriter, groups
from engine.progress import Progress, Report

_TRIES = 3  # markings beside uploads; the next one keeps them out


def reclaim(
    store: OpenStore, link: Link, terms: Terms, *, report: Report, stop: Callable[[], bool]
) -> Reclaim:
    """Free it. ``stop`` is asked between steps; what is left is done by the next run.

    Raises Corrupt when a node that is needed cannot be read, Busy when another writer took over, or while others have
    the location, and what the location raises.
    """
    run = _Run(store, link, terms, report, stop)
    try:
        run.all()
    except _Cut:
        run.result.done = False
    finally:
        run.later()
        freed = run.result.bytes + run.result.later_bytes - run.result.added
        run.result.count(run.counts(), prices_of(link, terms), freed)
    return run.result


class _Cut(Exception):
    """Somebody asked to stop, or the budget is used up."""


class _Run:
    """One reclaiming."""

    def __init__(
        self, store: OpenStore, link: Link, terms: Terms, report: Report, stop: Callable[[], bool]
    ) -> None:  # fmt: skip
        self._store = store
        self._index = store.context.index
        self._system = store.context.system
        self._link = link
        self._terms = terms
        self._report = report
        self._stop = stop
        self._before = link.location.counts()
        self._began = self._system.monotonic()
        self._first = True
        self._there_ns = 0
        self._over: dict[int, bool] = {}  # whether the grace of what an entry said is over
        self.result = Reclaim(link.name)

    def all(self) -> None:
        """Every step, in order. Raises _Cut."""
        found = self._forgotten()
        self._remove()  # first what costs nothing
        together = groups(found)
        for done, group in enumerate(together):
            self._report(Progress("rewrite", done, len(together), "packs"))
            self._go_on(moved=True)
            with self._turn():
                made = Rewriter(self._store, self._link).run(group)
                self.result.rewritten += made.packs
                self.result.added += made.new
                self.result.left += made.left
                self._say()
        self._remove()
        if checkpoint.due(self._link):
            self._go_on()
            with self._turn():
                self.result.entries = checkpoint.write(self._link, self._report)
        self.result.done = True

    # --- turns and budget ---------------------------------------------------------------------------------

    def _left(self) -> float:
        """Seconds of the budget."""
        budget = self._terms.budget_s
        if budget is None:
            return float("inf")
        return budget - (self._system.monotonic() - self._began)

    def _go_on(self, *, moved: bool = False) -> None:
        """Raises _Cut when it is time to leave the rest. ``moved``: also when enough bytes were."""
        counts = self.counts() if moved and self._terms.bytes else {}
        over = sum(counts.get(kind, 0) for kind in ("bytes_up", "bytes_down")) >= self._terms.bytes
        if self._stop() or self._left() <= 0 or (counts and over):
            raise _Cut

    def counts(self) -> dict[str, int]:
        """Requests and bytes since this began."""
        found = self._link.location.counts()
        return {kind: count - self._before.get(kind, 0) for kind, count in found.items()}

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """Nobody else changes what is there. The first turn is waited for as long as any, others as long as may be."""
        wait = max(self._left(), limits.ALONE_WAIT) if self._terms.budget_s else limits.ALONE_WAIT
        wait = wait if self._first else self._left()
        entered = False
        try:
            with self._link.alone(wait, self._stop):
                entered = True
                self._first = False
                if self._link.row.paused:
                    raise Busy(
                        f"location {self._link.name!r}", expected="one that this store sends to",
                        found=self._link.row.paused, do="see 'holdfast location list'",
                    )  # fmt: skip
                self._link.catch_up()
                yield
        except (Busy, ShuttingDown) as error:
            if entered or (self._first and isinstance(error, Busy)):
                raise
            raise _Cut from None

    # --- rows ---------------------------------------------------------------------------------------------

    def _forgotten(self) -> Found:
        """Find what is needed; rows of the rest go, and the journal says which packs do."""

        def report(progress: Progress) -> None:
            if self._stop():
                raise _Cut
            self._report(progress)

        needed = Needed(self._store, self._link, report)
        for _ in range(_TRIES):
            with self._index.read() as txn:
                needed.mark(txn)
            with self._turn():
                with self._index.read() as txn:
                    still = needed.still(txn)
                if still:
                    return self._forget(needed)
        with self._turn():
            with self._index.read() as txn:
                needed.mark(txn)
            return self._forget(needed)

    def _forget(self, needed: Needed) -> Found:
        self._link.tell_removed()
        with self._index.read() as txn:
            found = needed.look(txn)
        # What a clock here takes for over is so by the server's alone: else what it still holds would be rewritten.
        held = {number: row.locked_s for number, row in found.packs.items() if row.locked_s}
        found.locked |= {n for n, until in held.items() if until > self._there() // SECOND}
        self.result = told(self._link, found)
        self._unmark(found)
        for at in range(0, len(found.dead), limits.TXN_DELETES_MAX):
            self._go_on()
            with self._index.write() as txn:
                for key, _ in found.dead[at : at + limits.TXN_DELETES_MAX]:
                    txn.delete(Table.COPIES, key)
        with self._index.write() as txn:
            for number in found.empty():
                if found.packs[number].state != GOING:
                    row = found.packs[number]._replace(state=GOING, said=0)
                    txn.put(Table.AWAY, rows.away_key(number), row.pack_bytes())
            place = outbox.location(txn, self._link.name)
            outbox.save(txn, self._link.name, replace(place, needed=self.result.needed))
        self._compare(found)
        self._say()
        return found

    def _unmark(self, found: Found) -> None:
        """A walk must not end at a node of which something is freed: all of them, before any row goes."""
        keys = [key for key, flags in found.dead if flags & WHOLE]
        for at in range(0, len(keys), limits.GC_SWEEP_ROWS):
            self._go_on()
            with self._index.write() as txn:
                for key in keys[at : at + limits.GC_SWEEP_ROWS]:
                    raw = txn.get(Table.COPIES, key)
                    if raw is not None:
                        row = rows.copy_row(raw)
                        txn.put(
                            Table.COPIES, key, row._replace(flags=row.flags & ~WHOLE).pack_bytes()
                        )

    def _compare(self, found: Found) -> None:
        """What lies there with what has a row here."""
        place = self._link.row
        # What was removed may be listed all the same.
        hidden = place.object_lock or "versions=1" in place.url
        known = {row.name for row in found.packs.values()}
        lost = {row.name: row for row in found.packs.values() if row.state != GOING}
        strange = []
        for one in self._link.location.list("packs/"):
            name = name_in(one.name)
            digest = bytes.fromhex(name or "")
            if digest in lost and lost[digest].size == one.size:
                del lost[digest]
            if name and digest not in known and not hidden and self._is_old(one.modified_ns):
                strange.append((digest, one.size))
        self._unknown(strange)
        self._lost(list(lost.values()))

    def _unknown(self, strange: list[tuple[bytes, int]]) -> None:
        """Packs there that have no row: an upload put them, and was killed, or another store let them go."""
        for at in range(0, len(strange), limits.GC_SWEEP_ROWS):
            with self._index.write() as txn:
                for digest, size in strange[at : at + limits.GC_SWEEP_ROWS]:
                    row = AwayRow(
                        self._link.row.id, GOING, 0, 0, size, 0, 0, 0, 0, bytes(32), digest
                    )
                    txn.put(Table.AWAY, rows.away_key(next_pack(txn)), row.pack_bytes())
        self.result.unknown = len(strange)

    def _lost(self, packs: list[AwayRow]) -> None:
        """Packs that were verified there, and that no list names any more: points that need them are not whole."""
        gone = []
        for row in packs[: limits.LIST_PAGE]:
            try:
                if self._link.location.stat(path_of(row.name.hex())).size == row.size:
                    continue  # the list was old
            except NotFound:
                pass
            gone.append(row.name.hex())
        if not gone:
            return
        error = Corrupt(
            f"location {self._link.name!r}", expected="every pack that was verified there",
            found=f"{len(gone)} missing or of another size, the first {gone[0]}",
            do="points that need them cannot be restored from there: find out who removed them, and give the store"
            " another location",
        )  # fmt: skip
        self._store.context.incidents.error(error, f"location {self._link.name}")

    # --- packs --------------------------------------------------------------------------------------------

    def _say(self) -> None:
        """Have the journal say which packs are gone, and in the same entry which are there that it has not named."""
        with self._index.read() as txn:
            names = [
                row.name.hex() for _, row in self._rows(txn) if row.state == GOING and not row.said
            ]
        for at in range(0, len(names), limits.JOURNAL_NAMES_MAX):
            some = names[at : at + limits.JOURNAL_NAMES_MAX]
            self._link.append(journal.PacksChanged(self._link.to_name(), tuple(some)))

    def _remove(self) -> None:
        """Remove packs that an entry said are gone, once their grace and their retention are over."""
        ready = self._ready(self._gone())
        for at in range(0, len(ready), limits.LIST_PAGE):
            self._go_on()
            some = ready[at : at + limits.LIST_PAGE]
            self._link.location.remove([path_of(row.name.hex()) for _, row in some])
            with self._index.write() as txn:
                for number, _ in some:
                    txn.delete(Table.AWAY, rows.away_key(number))
            self.result.packs += len(some)
            self.result.bytes += sum(row.size for _, row in some)
            self._report(Progress("remove", at + len(some), len(ready), "packs"))

    def later(self) -> None:
        """Count what stays for now."""
        gone = self._gone()
        self.result.later_packs = len(gone)
        self.result.later_bytes = sum(row.size for _, row in gone)

    def _gone(self) -> list[tuple[int, AwayRow]]:
        """Packs that an entry said are gone, and that are there."""
        with self._index.read() as txn:
            return [(number, row) for number, row in self._rows(txn) if removable(row)]

    def _ready(self, gone: list[tuple[int, AwayRow]]) -> list[tuple[int, AwayRow]]:
        over = self._over
        for _, row in gone:
            if row.said not in over:
                over[row.said] = not self._terms.grace_s or self._is_old(self._written(row.said))
        return [
            (number, row)
            for number, row in gone
            if over[row.said] and (not row.locked_s or row.locked_s <= self._there() // SECOND)
        ]

    def _written(self, seq: int) -> int:
        """When a journal entry was written, by the location; of one before a checkpoint, the next that is there."""
        listed = self._link.location.list(journal.FOLDER, journal.path_of(seq - 1))
        return next((one.modified_ns for one in listed), self._there())

    def _is_old(self, time_ns: int) -> bool:
        grace = int(self._terms.grace_s * SECOND)
        return not grace or self._there() - time_ns >= grace

    def _there(self) -> int:
        """The time there: of this machine's clock nobody knows who has set it."""
        if not self._there_ns:
            name = f"probe-{self._system.random(8).hex()}"
            self._link.location.put(name, b"")
            try:
                with put_just_now(f"{self._link.location.shown}: {name}"):
                    self._there_ns = self._link.location.stat(name).modified_ns
            finally:
                self._link.location.remove([name])
        return self._there_ns

    def _rows(self, txn: Txn) -> Iterator[tuple[int, AwayRow]]:
        for key, raw in txn.scan(Table.AWAY):
            row = rows.away_row(raw)
            if row.location == self._link.row.id:
                yield int.from_bytes(key, "big"), row
