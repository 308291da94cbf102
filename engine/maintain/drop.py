"""Giving up the local bytes of points that are verified elsewhere: their chunks' rows then name packs at a location.

What stays here: everything that live trees, their memories of the last snapshot, and any point that is not dropped
reach; so writing and deduplication never wait for a location.  Metadata stays as well: browsing a point needs no
network.  The bytes go with the next collection, which finds the packs' records without rows.

That a copy was verified once is not enough to give up the last bytes here: each location is asked again, whether it is
the one it was, this store is its writer still, and the pack lies there.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass

from engine import limits
from engine.copies import connect, outbox, rows
from engine.copies.link import Link
from engine.copies.rows import DROP, NAMED, VERIFIED, AwayRow, CopyRow
from engine.copies.sealed import path_of
from engine.copies.turns import alone
from engine.errors import Corrupt, HoldfastError, NotFound
from engine.home import OpenStore
from engine.index import Table, Txn
from engine.index.rows import KIND_DATA, ChunkRow, chunk_row
from engine.maintain.mark import Marker
from engine.maintain.marks import Marks
from engine.nodes.point import decode_point
from engine.progress import Progress, Report

log = logging.getLogger("holdfast.engine.maintain")

_Places = dict[bytes, CopyRow]  # of chunks: where each may be read from then


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
    with context.index.read() as txn, _There(store, txn) as there:
        names = _droppable(txn)
        result.points = len(names)
        if not names:
            return result

        def step(done: int) -> None:
            report(Progress("mark", done, None, "references"))

        marks = Marks(txn)
        lost: list[bytes] = []
        Marker(marks, store.reader, context.key, lost.append).run(step, without=names)
        batch: list[tuple[bytes, bytes]] = []
        for at in marks.dead():
            found = marks.row(txn, at)
            assert found is not None
            cid, row = found
            if row.kind == KIND_DATA and row.usable:
                batch.append((cid, row.pack_bytes()))
            if len(batch) == limits.GC_SWEEP_ROWS:
                _move(store, batch, there.places(batch), result)
                batch.clear()
                report(Progress("drop", result.chunks, None, "chunks"))
        _move(store, batch, there.places(batch), result)
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


class _There:
    """What lies now at the locations for which bytes are dropped: each pack is asked for once. Used as a context."""

    def __init__(self, store: OpenStore, txn: Txn) -> None:
        self._context = store.context
        found = outbox.locations(txn).items()
        self._names = {row.id: name for name, row in found if row.local == DROP and not row.paused}
        self._links: dict[int, Link | None] = {}  # None: not to be relied on now
        self._known: dict[int, bool] = {}  # pack: does it lie there

    def __enter__(self) -> _There:
        return self

    def __exit__(self, *_: object) -> None:
        for link in self._links.values():
            if link is not None:
                link.close()

    def places(self, batch: list[tuple[bytes, bytes]]) -> _Places:
        """Where these chunks (and their rows) lie in packs that a journal names, each at the first location of which
        that is so."""
        found: _Places = {}
        for location in self._names:
            copies, packs = self._copies(location, (one for one in batch if one[0] not in found))
            self._look(location, packs)
            found |= {cid: copy for cid, copy in copies.items() if self._known[copy.pack]}
        return found

    def _copies(
        self, location: int, batch: Iterable[tuple[bytes, bytes]]
    ) -> tuple[_Places, dict[int, AwayRow]]:
        copies: _Places = {}
        packs: dict[int, AwayRow] = {}
        with self._context.index.read() as txn:
            for cid, before in batch:
                row = chunk_row(before)
                raw = txn.get(Table.COPIES, rows.copy_key(location, cid))
                if raw is None or txn.get(Table.AWAY, rows.away_key(row.pack)) is not None:
                    continue
                copy = rows.copy_row(raw)
                pack = txn.get(Table.AWAY, rows.away_key(copy.pack))
                if not _same(copy, row, self._context.added) or pack is None:
                    continue
                if (away := rows.away_row(pack)).state == NAMED:
                    copies[cid] = copy
                    packs[copy.pack] = away
        return copies, packs

    def _look(self, location: int, packs: dict[int, AwayRow]) -> None:
        new = [number for number in packs if number not in self._known]
        link = self._link(location) if new else None
        if link is None:
            self._known.update(dict.fromkeys(new, False))
            return

        def lies(number: int) -> bool:
            row = packs[number]
            path = path_of(row.name.hex())
            try:
                size = link.location.stat(path).size
            except NotFound:
                size = -1
            except HoldfastError as error:
                log.info("nothing is dropped for pack %s: %s", row.name.hex(), error)
                return False
            if size != row.size:
                lost = Corrupt(
                    f"{link.location.shown}: {path}", expected=f"the {row.size} bytes that were verified there",
                    found="nothing" if size < 0 else f"{size} bytes", do="find out who removed it; what is here stays",
                )  # fmt: skip
                self._context.incidents.error(lost, f"location {link.name}")
            return size == row.size

        with ThreadPoolExecutor(limits.RETAINS, "holdfast-look") as pool:
            self._known.update(zip(new, pool.map(lies, new), strict=True))

    def _link(self, location: int) -> Link | None:
        """The location, where it is what it was and nobody replaced this store as its writer."""
        if location in self._links:
            return self._links[location]
        self._links[location] = None
        name = self._names[location]
        try:
            link = connect.open_link(self._context, name)
            try:
                link.catch_up()
            except BaseException:
                link.close()
                raise
        except HoldfastError as error:
            log.info("nothing is dropped that is at location %s: %s", name, error)
            return None
        self._links[location] = link
        return link


def _same(copy: CopyRow, row: ChunkRow, added: int) -> bool:
    """Whether the record there is of the form that this row says. What travels has no seal of the store."""
    return (copy.stored, copy.form) == (row.stored - added, rows.form_of(row))


def _move(
    store: OpenStore, batch: list[tuple[bytes, bytes]], places: _Places, result: DropReport
) -> None:
    """Rows that are still as they were, to where the chunks lie."""
    with store.context.index.write() as txn:
        for cid, before in batch:
            place = places.get(cid)
            if place is None or txn.get(Table.CHUNKS, cid) != before:
                continue
            row = chunk_row(before)
            moved = row._replace(pack=place.pack, offset=place.offset, stored=place.stored)
            txn.put(Table.CHUNKS, cid, moved.pack_bytes())
            result.chunks += 1
            result.bytes += row.stored
