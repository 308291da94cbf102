"""Giving up the local bytes of points that are verified elsewhere: their chunks' rows then name packs at a location.

What stays here: everything that live trees, their memories of the last snapshot, and any point that is not dropped
reach; so writing and deduplication never wait for a location.  Metadata stays as well: browsing a point needs no
network.  The bytes go with the next collection, which finds the packs' records without rows.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass

from engine import limits
from engine.copies import outbox, rows
from engine.copies.rows import DROP, NAMED, VERIFIED
from engine.copies.turns import alone
from engine.home import OpenStore
from engine.index import Table, Txn
from engine.index.rows import KIND_DATA, chunk_row
from engine.maintain.mark import Marker
from engine.maintain.marks import Marks
from engine.nodes.point import decode_point
from engine.progress import Progress, Report


@dataclass
class DropReport:
    """``points``: whose bytes may go; ``chunks``, ``bytes``: records given up here now."""

    points: int = 0
    chunks: int = 0
    bytes: int = 0


def drop(store: OpenStore, *, report: Report) -> DropReport:
    """Drop what may be dropped. Raises Corrupt when a node that is needed cannot be read, Busy while a location is sent
    to or reclaimed."""
    context = store.context
    with context.index.read() as txn:
        places = outbox.locations(txn)
    with ExitStack() as stack:
        for name, row in places.items():
            stack.enter_context(alone(context, name, row, limits.ALONE_WAIT))
        return _drop(store, report)


def _drop(store: OpenStore, report: Report) -> DropReport:
    result = DropReport()
    context = store.context
    with context.index.read() as txn:
        names = _droppable(txn)
        result.points = len(names)
        if not names:
            return result

        def step(done: int) -> None:
            report(Progress("mark", done, None, "references"))

        marks = Marks(txn)
        lost: list[bytes] = []
        Marker(marks, store.reader, context.key, lost.append).run(step, without=names)
        there = {row.id for row in outbox.locations(txn).values() if not row.paused}
        batch: list[tuple[bytes, bytes]] = []
        for at in marks.dead():
            found = marks.row(txn, at)
            assert found is not None
            cid, row = found
            if row.kind == KIND_DATA and row.usable:
                batch.append((cid, row.pack_bytes()))
            if len(batch) == limits.GC_SWEEP_ROWS:
                _move(store, batch, there, result)
                batch.clear()
                report(Progress("drop", result.chunks, None, "chunks"))
        _move(store, batch, there, result)
    return result


def _droppable(txn: Txn) -> set[str]:
    """Points that every location of their mount has whole, and of which each lets the local bytes go."""
    places = outbox.locations(txn).values()
    found = set()
    for name, raw in txn.whole(Table.POINTS):
        point = decode_point(raw)
        wanted = [row for row in places if row.takes(point.mount)]
        states = [outbox.get(txn, row.id, name.decode()) for row in wanted]
        if wanted and all(
            row.local == DROP and state is not None and state.state == VERIFIED
            for row, state in zip(wanted, states, strict=True)
        ):
            found.add(point.id)
    return found


def _move(
    store: OpenStore, batch: list[tuple[bytes, bytes]], there: set[int], result: DropReport
) -> None:
    """Rows that are still as they were, of chunks that a location has in a pack that its journal names."""
    with store.context.index.write() as txn:
        for cid, before in batch:
            raw = txn.get(Table.CHUNKS, cid)
            if raw != before:
                continue
            row = chunk_row(raw)
            if txn.get(Table.AWAY, rows.away_key(row.pack)) is not None:
                continue
            place = _place(txn, cid, there)
            bare = row.stored - store.context.added  # what travels has no seal of the store
            if place is None or (place.stored, place.form) != (bare, rows.form_of(row)):
                continue
            moved = row._replace(pack=place.pack, offset=place.offset, stored=bare)
            txn.put(Table.CHUNKS, cid, moved.pack_bytes())
            result.chunks += 1
            result.bytes += row.stored


def _place(txn: Txn, cid: bytes, there: set[int]) -> rows.CopyRow | None:
    for location in there:
        raw = txn.get(Table.COPIES, rows.copy_key(location, cid))
        if raw is not None:
            row = rows.copy_row(raw)
            pack = txn.get(Table.AWAY, rows.away_key(row.pack))
            if pack is not None and rows.away_row(pack).state == NAMED:
                return row
    return None
