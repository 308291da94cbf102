"""Freeing what no point at a storage location needs there any more: plan, then execute.

Nobody uploads meanwhile (``Link.alone``), so what is needed can only shrink; a point made after the marking is sent
later, and then whatever was freed is sent again.  Order: flags, rows, journal, bytes.

1. Copies of nodes that are not needed lose WHOLE, all of them, before any row goes: a walk never ends at a node of
   which something was freed.
2. Rows of copies that are not needed go; packs without any are *going*. (A pack of which a part is needed stays whole.)
3. The journal says that those packs are gone; then they are removed; then their rows.

Cut off anywhere the next run goes on: rows that are gone only cost another upload.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from engine import limits
from engine.copies import journal, outbox, rows
from engine.copies.link import Link
from engine.copies.rows import GOING, REMOVED, WHOLE, AwayRow
from engine.copies.sealed import path_of
from engine.errors import Corrupt
from engine.home import OpenStore
from engine.index import Table, Txn
from engine.index.rows import chunk_row
from engine.maintain.mark import Marker
from engine.maintain.marks import Marks
from engine.progress import Progress, Report


@dataclass
class Reclaim:
    """What can be freed at a location, or was. ``waiting``: packs that are not needed but named by chunks that the next
    collection here has to free first; ``locked``: packs that are not needed, but retained by the server."""

    location: str
    packs: int = 0
    bytes: int = 0
    copies: int = 0
    waiting: int = 0
    locked: int = 0
    requests: int = 0
    done: bool = False


@dataclass
class _Found:
    """Of a location: its packs, bytes needed of each, copies that are not needed."""

    packs: dict[int, AwayRow] = field(default_factory=dict)
    live: Counter[int] = field(default_factory=Counter)
    dead: list[tuple[bytes, int]] = field(default_factory=list)  # key in COPIES, flags
    held: set[int] = field(default_factory=set)  # packs that rows of CHUNKS name
    locked: set[int] = field(default_factory=set)  # packs that the server retains


def plan(store: OpenStore, link: Link, *, report: Report) -> Reclaim:
    """What ``reclaim`` would do now. Raises Corrupt when a node that is needed cannot be read."""
    with store.context.index.read() as txn:
        return _told(link, _look(store, link, txn, report))


def reclaim(
    store: OpenStore, link: Link, *, report: Report, stop: Callable[[], bool] = lambda: False
) -> Reclaim:
    """Free it. ``stop`` is asked between steps; what is left is done by the next run."""
    with link.alone():
        link.catch_up()
        link.tell_removed()
        with store.context.index.read() as txn:
            found = _look(store, link, txn, report)
        result = _told(link, found)
        _unmark(store, found)
        _forget(store, found)
        going = [number for number, _ in _empty(found)]
        with store.context.index.write() as txn:
            for number in going:
                row = found.packs[number]._replace(state=GOING)
                txn.put(Table.AWAY, rows.away_key(number), row.pack_bytes())
        names = [found.packs[number].name.hex() for number in going]
        for at in range(0, len(names), limits.JOURNAL_NAMES_MAX):
            if stop():
                return result
            some = names[at : at + limits.JOURNAL_NAMES_MAX]
            link.append(journal.PacksChanged((), tuple(some)))
            link.location.remove([path_of(name) for name in some])
            with store.context.index.write() as txn:
                for number in going[at : at + limits.JOURNAL_NAMES_MAX]:
                    txn.delete(Table.AWAY, rows.away_key(number))
            report(Progress("reclaim", at + len(some), len(names), "packs"))
        result.done = True
    return result


def _look(store: OpenStore, link: Link, txn: Txn, report: Report) -> _Found:
    points, extras = set(), set()
    for point, row in outbox.of_location(txn, link.row.id):
        if row.state != REMOVED:
            points.add(point)
            extras |= {bytes.fromhex(one) for one in row.extras}
    strange = sorted(one for one in points if txn.get(Table.POINTS, one.encode()) is None)
    if strange:
        raise Corrupt(
            f"location {link.name!r}", expected="every point there to be a point here, or deleted here",
            found=f"{len(strange)} that are neither, first {strange[0]}", do="nothing is freed; run 'holdfast check'",
        )  # fmt: skip
    marks = Marks(txn)
    lost: list[bytes] = []

    def step(done: int) -> None:
        report(Progress("mark", done, None, "references"))

    Marker(marks, store.reader, store.context.key, lost.append).points(step, points)
    if lost:
        raise Corrupt(
            f"location {link.name!r}", expected="all that its points need", found=f"{len(lost)} chunks without a row",
            do="nothing is freed; run 'holdfast check'",
        )  # fmt: skip
    found = _Found()
    for key, raw in txn.scan(Table.AWAY):
        away = rows.away_row(raw)
        if away.location == link.row.id:
            found.packs[int.from_bytes(key, "big")] = away
            # Removing those would only hide them, and nobody would ever remove what is hidden.
            if away.locked_s * 10**9 > store.context.system.time_ns():
                found.locked.add(int.from_bytes(key, "big"))
    for key, raw in txn.scan(Table.COPIES, prefix=rows.copy_key(link.row.id, b"")):
        copy, cid = rows.copy_row(raw), key[rows.U16.size :]
        if cid in extras or marks.lives(
            cid
        ):  # the same bytes may be of a tree and the service's as well
            found.live[copy.pack] += copy.stored
        else:
            found.dead.append((key, copy.flags))
    for _, raw in txn.scan(Table.CHUNKS):
        pack = chunk_row(raw).pack
        if pack in found.packs:
            found.held.add(pack)
    return found


def _empty(found: _Found) -> Iterator[tuple[int, AwayRow]]:
    for number, row in found.packs.items():
        if not found.live[number] and number not in found.held | found.locked:
            yield number, row


def _told(link: Link, found: _Found) -> Reclaim:
    empty = list(_empty(found))
    waiting = sum(not found.live[n] and n in found.held for n in found.packs)
    locked = sum(not found.live[n] for n in found.locked - found.held)
    return Reclaim(
        link.name, len(empty), sum(row.size for _, row in empty), len(found.dead), waiting, locked,
        requests=2 * -(-len(empty) // limits.JOURNAL_NAMES_MAX),
    )  # fmt: skip


def _unmark(store: OpenStore, found: _Found) -> None:
    keys = [key for key, flags in found.dead if flags & WHOLE]
    for at in range(0, len(keys), limits.GC_SWEEP_ROWS):
        with store.context.index.write() as txn:
            for key in keys[at : at + limits.GC_SWEEP_ROWS]:
                raw = txn.get(Table.COPIES, key)
                if raw is not None:
                    row = rows.copy_row(raw)
                    txn.put(Table.COPIES, key, row._replace(flags=row.flags & ~WHOLE).pack_bytes())


def _forget(store: OpenStore, found: _Found) -> None:
    """Rows of what is not needed. What a row of CHUNKS still names stays readable: its pack is held."""
    for at in range(0, len(found.dead), limits.TXN_DELETES_MAX):
        with store.context.index.write() as txn:
            for key, _ in found.dead[at : at + limits.TXN_DELETES_MAX]:
                txn.delete(Table.COPIES, key)
