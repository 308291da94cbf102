"""Collection: free what nothing reaches, beside running writers. ARCHITECTURE.md has the protocol and why it is safe.

Killed at any moment it has cost nothing but its progress: rows are deleted before bytes, bytes only when no row points
to them, and the next run begins anew.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import TypeVar

from engine import limits
from engine.chunks import Context, alive, reap
from engine.errors import Busy
from engine.home import OpenStore
from engine.index import Table, Txn, gcstate
from engine.index.gcstate import GcState, Phase
from engine.index.rows import FLAG_CONDEMNED, U64
from engine.maintain import settle, tombs, unmake
from engine.maintain.compact import Compactor
from engine.maintain.forecast import forecast
from engine.maintain.mark import Marker
from engine.maintain.marks import Marks
from engine.maintain.report import CollectReport
from engine.maintain.waiting import WAIT, Patience
from engine.progress import Progress, Report

log = logging.getLogger("holdfast.engine.maintain")

_OWNER = b"gc_worker"
_T = TypeVar("_T")

_guard = threading.Lock()
# Sessions of this process that collect; between processes the row in the index tells.
_running: set[int] = set()


def collect(
    store: OpenStore, *, dry_run: bool, budget_s: float | None, report: Report, wait_s: float = WAIT,
    sleep: Callable[[float], None],
) -> CollectReport:  # fmt: skip
    """One collection. Raises Busy when another runs or a writer does not move; Corrupt when a node or the index is.

    ``budget_s``: after so long no further pack is rewritten or removed; marking and sweeping are always finished.
    ``sleep`` is called between looks at what it waits for, ``wait_s`` in all.
    """
    context = store.context
    context.index.verify()
    if dry_run:
        return _dry(store, report)
    started = context.system.monotonic()
    result = CollectReport()
    with _alone(store):
        reap(context)
        settle.lock_files(context)
        result.packs_mended = len(settle.sealed_packs(context))
        settle.empty_rows(context)
        unmake.finish(context, report)
        settle.memories(context)
        state = _begin(context, store.session.worker.id)
        try:
            _free(store, state, Patience(store, wait_s, sleep), result, report)
        finally:
            with context.index.write() as txn:
                gcstate.save(txn, GcState(state.epoch, Phase.IDLE))
        settle.dictionaries(context)
        settle.suspects(context)
        result.packs_mended += len(settle.short_segments(context))
        deadline = None if budget_s is None else started + budget_s
        Compactor(store, report).run(result, deadline)
    return result


def _dry(store: OpenStore, report: Report) -> CollectReport:
    seen = forecast(store, (), report=report)
    return CollectReport(
        dead_chunks=seen.waiting_chunks, freed_bytes=seen.waiting_bytes,
        returned_bytes=seen.returned_bytes, packs_removed=seen.packs_removed,
        packs_rewritten=seen.packs_rewritten,
    )  # fmt: skip


def _marker(store: OpenStore, txn: Txn, report: Report) -> Marker:
    lost: list[bytes] = []
    marker = Marker(Marks(txn), store.reader, store.context.key, lost.append)
    marker.run(lambda done: report(Progress("mark", done, None, "references")))
    if lost:
        log.warning("%d chunks that are needed have no row; run 'holdfast check'", len(lost))
    return marker


@contextmanager
def _alone(store: OpenStore) -> Iterator[None]:
    """The right to collect in this store: one row in the index, whose owner lives or has lost it."""
    context, worker, session = store.context, store.session.worker.id, id(store.session)
    with _guard:
        if session in _running:
            raise _busy(worker)
        _running.add(session)
    try:
        with context.index.write() as txn:
            raw = txn.get(Table.META, _OWNER)
            owner = 0 if raw is None else U64.unpack(raw)[0]
            if owner not in (0, worker) and alive(context, owner):
                raise _busy(owner)
            txn.put(Table.META, _OWNER, U64.pack(worker))
        try:
            yield
        finally:
            with context.index.write() as txn:
                txn.delete(Table.META, _OWNER)
    finally:
        with _guard:
            _running.discard(session)


def _busy(owner: int) -> Busy:
    return Busy("collection", expected="none running", found=f"one of worker {owner}",
                do="wait for it to end")  # fmt: skip


def _begin(context: Context, worker: int) -> GcState:
    """Transaction A. What an earlier run noted as touched goes first; it protects nothing any more."""
    log.debug("worker %d collects", worker)
    while True:
        with context.index.write() as txn:
            old = list(islice(txn.keys(Table.TOUCHED), limits.TXN_DELETES_MAX))
            for key in old:
                txn.delete(Table.TOUCHED, key)
            if len(old) < limits.TXN_DELETES_MAX:
                state = GcState(gcstate.load(txn).epoch + 1, Phase.MARKING)
                gcstate.save(txn, state)
                return state


def _free(
    store: OpenStore, state: GcState, patience: Patience, result: CollectReport, report: Report
) -> None:
    """Mark, condemn, wait, sweep."""
    context = store.context
    with context.index.read() as txn:
        marker = _marker(store, txn, report)
        marks = marker.marks
        patience.older_readers(txn)
        with context.index.read() as later:
            marker.again(later, lambda done: report(Progress("mark", done, None, "references")))
        marks.let_go(tombs.outlived(store, marks.tombs))
        _unflag(context, marks)
        _condemn(context, marks)
    with context.index.write() as out:
        gcstate.save(out, GcState(state.epoch, Phase.CONDEMNED))
    patience.writers(state)
    for done, some in enumerate(_batches(marks.condemned())):
        with context.index.write() as out:
            for at in some:
                _delete(out, marks, at, result)
        report(Progress("sweep", done * limits.GC_SWEEP_ROWS + len(some), None, "chunks"))


def _unflag(context: Context, marks: Marks) -> None:
    """Take back what an earlier run condemned and is reached."""
    for some in _batches(marks.flagged()):
        with context.index.write() as txn:
            for at in some:
                found = marks.row(txn, at)
                if found is not None:
                    row = found[1]._replace(flags=found[1].flags & ~FLAG_CONDEMNED)
                    txn.put(Table.CHUNKS, found[0], row.pack_bytes())


def _condemn(context: Context, marks: Marks) -> None:
    """Flag what is dead, is as it was when marked from, and was not touched since."""
    for some in _batches(marks.dead()):
        with context.index.write() as txn:
            for at in some:
                found = marks.row(txn, at)
                if found is None or found != marks.row(marks.txn, at):
                    continue
                cid, row = found
                if txn.get(Table.TOUCHED, cid) is None:
                    flagged = row._replace(flags=row.flags | FLAG_CONDEMNED)
                    txn.put(Table.CHUNKS, cid, flagged.pack_bytes())
                    marks.condemn(at)


def _delete(txn: Txn, marks: Marks, at: int, result: CollectReport) -> None:
    found = marks.row(txn, at)
    if found is None:
        return
    cid, row = found
    if not row.flags & FLAG_CONDEMNED or txn.get(Table.TOUCHED, cid) is not None:
        return  # stored anew, or taken back by a commit
    txn.delete(Table.CHUNKS, cid)
    txn.delete(Table.SUSPECTS, cid)
    result.dead_chunks += 1
    result.freed_bytes += row.stored


def _batches(items: Iterator[_T]) -> Iterator[list[_T]]:
    while some := list(islice(items, limits.GC_SWEEP_ROWS)):
        yield some
