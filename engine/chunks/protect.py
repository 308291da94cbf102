"""A commit's duties towards a running collection (ARCHITECTURE.md, "Collection beside writers")."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from engine.errors import Corrupt
from engine.index import Table, Txn
from engine.index.gcstate import GcState, Phase, load
from engine.index.rows import FLAG_CONDEMNED, U64, chunk_row, worker_row


def protect(txn: Txn, ids: Iterable[bytes], referred: Callable[[bytes], bool]) -> None:
    """While a collection runs: write down that ``ids`` are referred to, and take back a condemnation.

    ``referred(cid)``: whether the chunk must have a row by now; others may be on their way. Raises Corrupt when such a
    one is gone: then the collection did not wait for us, and committing would leave a dangling reference.
    """
    state = load(txn)
    if state.phase == Phase.IDLE:
        return
    epoch = U64.pack(state.epoch)
    kept: dict[bytes, bool] = {}
    for cid in ids:
        if (
            not _keep(txn, cid, epoch, kept)
            and txn.get(Table.CHUNKS, cid) is None
            and referred(cid)
        ):
            raise Corrupt(f"chunk {cid.hex()}", expected="a row, as work in progress refers to it", found="none",
                          do="the write is refused; write the file again")  # fmt: skip


def _keep(txn: Txn, cid: bytes, epoch: bytes, kept: dict[bytes, bool]) -> bool:
    """Protect a chunk and all it is a delta of: nothing else may refer to those, so the collection knew of none.

    False when it or a base has no row: it stays as it is. What is condemned and half swept must not come back.
    """
    known = kept.get(cid)
    if known is not None:
        return known
    raw = txn.get(Table.CHUNKS, cid)
    row = None if raw is None else chunk_row(raw)
    whole = row is not None and all(_keep(txn, base, epoch, kept) for base in row.bases)
    if whole and row is not None:
        txn.put(Table.TOUCHED, cid, epoch)
        if row.flags & FLAG_CONDEMNED:
            txn.put(Table.CHUNKS, cid, row._replace(flags=row.flags & ~FLAG_CONDEMNED).pack_bytes())
    kept[cid] = whole
    return whole


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
