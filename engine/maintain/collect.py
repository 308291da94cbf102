"""Collection: free what nothing reaches, beside running writers. ARCHITECTURE.md has the protocol and why it is safe.

Killed at any moment it has cost nothing but its progress: rows are deleted before bytes, bytes only when no row points
to them, and the next run begins anew.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from itertools import islice

from engine import limits
from engine.chunks import Context, alive, reap
from engine.errors import Busy
from engine.home import OpenStore
from engine.index import Table, Txn, gcstate
from engine.index.gcstate import GcState, Phase
from engine.index.rows import FLAG_CONDEMNED, U64, chunk_row, worker_row
from engine.maintain.compact import Compactor
from engine.maintain.mark import Marker
from engine.maintain.report import CollectReport
from engine.progress import Progress, Report

log = logging.getLogger("holdfast.engine.maintain")

WAIT = 60.0  # s for writers to make a commit; a worker ticks every second
_POLL = 0.1
_OWNER = b"gc_worker"


def collect(
    store: OpenStore, *, dry_run: bool, budget_s: float | None, report: Report, wait_s: float = WAIT,
    sleep: Callable[[float], None],
) -> CollectReport:  # fmt: skip
    """One collection. Raises Busy when another runs or a writer does not move; Corrupt when a node is unreadable."""
    context = store.context
    result = CollectReport()
    started = context.system.monotonic()
    if dry_run:
        for _, raw in _candidates(store, report)[0]:
            result.dead_chunks += 1
            result.freed_bytes += chunk_row(raw).stored
        return result
    worker = store.session.worker.id
    reap(context)
    state = _begin(context, worker)
    try:
        dead, flagged = _candidates(store, report)
        _unflag(context, flagged)
        condemned = _condemn(context, state, dead)
        if condemned:
            _wait(store, state, wait_s, sleep)
            _sweep(context, condemned, result, report)
    finally:
        _end(context, state)
    deadline = None if budget_s is None else started + budget_s
    Compactor(store, report).run(result, deadline)
    return result


def _candidates(store: OpenStore, report: Report) -> tuple[list[tuple[bytes, bytes]], list[bytes]]:
    """(rows nothing reaches, ids that are reached and still flagged), of one moment."""
    with store.context.index.read() as txn:
        lost: list[bytes] = []
        marker = Marker(txn, store.reader, store.context.key, lost.append)
        marked = marker.run(lambda done: report(Progress("mark", done, None, "chunks")))
        if lost:
            log.warning("%d chunks that are needed have no row; run 'holdfast check'", len(lost))
        dead, flagged = [], []
        for cid, raw in txn.scan(Table.CHUNKS):
            if cid not in marked:
                dead.append((cid, raw))
            elif chunk_row(raw).flags & FLAG_CONDEMNED:
                flagged.append(cid)
    return dead, flagged


def _begin(context: Context, worker: int) -> GcState:
    with context.index.write() as txn:
        raw = txn.get(Table.META, _OWNER)
        owner = 0 if raw is None else U64.unpack(raw)[0]
        if owner not in (0, worker) and alive(context, owner):
            raise Busy(
                "collection",
                expected="none running",
                found=f"one of worker {owner}",
                do="wait for it to end",
            )
        txn.put(Table.META, _OWNER, U64.pack(worker))
    while (
        True
    ):  # what an earlier run left; nothing is added while the phase is idle or nobody commits
        with context.index.write() as txn:
            old = [key for key, _ in islice(txn.scan(Table.TOUCHED), limits.TXN_DELETES_MAX)]
            for key in old:
                txn.delete(Table.TOUCHED, key)
            if len(old) < limits.TXN_DELETES_MAX:
                state = GcState(gcstate.load(txn).epoch + 1, Phase.MARKING)
                gcstate.save(txn, state)
                return state


def _end(context: Context, state: GcState) -> None:
    with context.index.write() as txn:
        gcstate.save(txn, GcState(state.epoch, Phase.IDLE))
        txn.delete(Table.META, _OWNER)


def _unflag(context: Context, ids: list[bytes]) -> None:
    for some in _batches(ids):
        with context.index.write() as txn:
            for cid in some:
                raw = txn.get(Table.CHUNKS, cid)
                if raw is not None:
                    row = chunk_row(raw)
                    txn.put(
                        Table.CHUNKS,
                        cid,
                        row._replace(flags=row.flags & ~FLAG_CONDEMNED).pack_bytes(),
                    )


def _condemn(context: Context, state: GcState, dead: list[tuple[bytes, bytes]]) -> list[bytes]:
    """Flag what is dead and was not touched since; then say so. Returns the ids flagged."""
    condemned = []
    for some in _batches(dead):
        with context.index.write() as txn:
            for cid, seen in some:
                if txn.get(Table.TOUCHED, cid) is not None or txn.get(Table.CHUNKS, cid) != seen:
                    continue
                row = chunk_row(seen)
                txn.put(
                    Table.CHUNKS, cid, row._replace(flags=row.flags | FLAG_CONDEMNED).pack_bytes()
                )
                condemned.append(cid)
    with context.index.write() as txn:
        gcstate.save(txn, GcState(state.epoch, Phase.CONDEMNED))
    return condemned


def _wait(store: OpenStore, state: GcState, wait_s: float, sleep: Callable[[float], None]) -> None:
    """Until every other living worker has made a commit that began after the flags were set."""
    context = store.context
    end = context.system.monotonic() + wait_s
    while True:
        with context.index.read() as txn:
            late = [
                U64.unpack(key)[0]
                for key, raw in txn.scan(Table.WORKERS)
                if worker_row(raw).epoch < state.epoch
            ]
        late = [
            worker
            for worker in late
            if worker != store.session.worker.id and alive(context, worker)
        ]
        if not late:
            return
        if context.system.monotonic() >= end:
            raise Busy("collection", expected="every writer to go on", found=f"worker {late[0]} standing still",
                       do="see to that mount, then run it again")  # fmt: skip
        sleep(_POLL)


def _sweep(context: Context, condemned: list[bytes], result: CollectReport, report: Report) -> None:
    done = 0
    for some in _batches(condemned):
        with context.index.write() as txn:
            for cid in some:
                _delete(txn, cid, result)
        done += len(some)
        report(Progress("sweep", done, len(condemned), "chunks"))


def _delete(txn: Txn, cid: bytes, result: CollectReport) -> None:
    raw = txn.get(Table.CHUNKS, cid)
    if raw is None or txn.get(Table.TOUCHED, cid) is not None:
        return
    row = chunk_row(raw)
    if not row.flags & FLAG_CONDEMNED:
        return  # stored anew, or taken back by a commit
    txn.delete(Table.CHUNKS, cid)
    txn.delete(Table.SUSPECTS, cid)
    result.dead_chunks += 1
    result.freed_bytes += row.stored


def _batches(items: list[tuple[bytes, bytes]] | list[bytes]) -> Iterator[list]:  # type: ignore[type-arg]
    for at in range(0, len(items), limits.GC_SWEEP_ROWS):
        yield list(items[at : at + limits.GC_SWEEP_ROWS])
