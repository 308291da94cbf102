"""A commit's duties towards a running collection (ARCHITECTURE.md, "Collection beside writers")."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable

from engine.errors import Corrupt
from engine.index import Table, Txn
from engine.index.gcstate import GcState, Phase, load
from engine.index.rows import FLAG_CONDEMNED, U64, ChunkRow, chunk_row, worker_row


def protect(txn: Txn, ids: Iterable[bytes], referred: Callable[[bytes], bool]) -> None:
    """While a collection runs: write down that ``ids`` are referred to, and take back a condemnation.

    The same for what they are deltas of: a base may be reached by nothing else.  ``referred(cid)``: whether the chunk
    must have a row by now.  Others may be on their way, or be what an earlier collection left of a dead delta chunk
    when it was killed, its base gone: these stay condemned, so that nobody finds them.

    Raises Corrupt when one that is referred to is gone, or its base: then the collection did not wait for us, and
    committing would leave a dangling reference.
    """
    state = load(txn)
    if state.phase == Phase.IDLE:
        return
    epoch = U64.pack(state.epoch)
    done: set[bytes] = set()
    for cid in ids:
        family = _family(txn, cid, done)
        if family is None:
            if referred(cid):
                raise Corrupt(f"chunk {cid.hex()}", expected="a row, as work in progress refers to it", found="none",
                              do="the write is refused; write the file again")  # fmt: skip
            continue
        for one, row in family.items():
            txn.put(Table.TOUCHED, one, epoch)
            if row.flags & FLAG_CONDEMNED:
                fresh = row._replace(flags=row.flags & ~FLAG_CONDEMNED)
                txn.put(Table.CHUNKS, one, fresh.pack_bytes())
        done.update(family)


def _family(txn: Txn, cid: bytes, done: Container[bytes]) -> dict[bytes, ChunkRow] | None:
    """The rows of a chunk and of all it is a delta of, but for those ``done``; None when one has none."""
    found: dict[bytes, ChunkRow] = {}
    todo = [cid]
    while todo:
        one = todo.pop()
        if one in done or one in found:
            continue
        raw = txn.get(Table.CHUNKS, one)
        if raw is None:
            return None
        found[one] = chunk_row(raw)
        todo += found[one].bases
    return found


def report_epoch(txn: Txn, worker: int, seen: GcState) -> None:
    """Tell the collection that look-ups of this worker from now on see its condemned flags."""
    if seen.phase != Phase.CONDEMNED:
        return
    key = U64.pack(worker)
    raw = txn.get(Table.WORKERS, key)
    if raw is not None:
        row = worker_row(raw)
        if row.epoch != seen.epoch:
            txn.put(Table.WORKERS, key, row._replace(epoch=seen.epoch).pack_bytes())


def seen_epoch(txn: Txn, worker: int) -> int:
    """The collection epoch this worker has reported last."""
    raw = txn.get(Table.WORKERS, U64.pack(worker))
    return 0 if raw is None else worker_row(raw).epoch
