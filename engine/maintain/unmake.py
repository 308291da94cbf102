"""Deleting a mount: its points, its row, the rows of its live tree, in transactions of bounded size.

 1. points are deleted, some at a time, while nobody serves the mount;
 2. one transaction takes the mount's row away, if it has no point left, and notes its number as dead: from here on
    nobody finds the mount, and its name is free;
 3. rows of the dead number are deleted, some at a time; with the last of them goes the note.

What a crash leaves: FORMAT.md, "Crash tables". A number is never given to another mount.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from engine import limits, locks, registry
from engine.chunks import Context
from engine.errors import Busy
from engine.home import OpenStore
from engine.index import Table, Txn
from engine.index.rows import U32
from engine.live import rows
from engine.points import snapshot
from engine.progress import Progress, Report

_DEAD = b"dead_mount"  # of a META key, before the number
_POINTS = 100  # deleted at once: all of them or none
_TABLES = (
    Table.ROOTS, Table.DIRENTS, Table.PARENTS, Table.CHANGED_NAMES, Table.CHANGED_SPANS, Table.CHANGED,
    Table.XATTRS, Table.SPANS, Table.ORPHANS, Table.INODES, Table.LIVE_META,
)  # fmt: skip
"""Every table whose keys begin with a mount's number."""


def remove_mount(store: OpenStore, name: str, *, report: Report) -> int:
    """Delete a mount with everything in it; how many points it had. Their space goes with the next collection.

    Raises NotFound, Held while one of its points is locked, Busy while it is served, or one of its points is open;
    points deleted until then stay so, but of a mount with a locked point none is.
    """
    context, worker = store.context, store.session.worker.id
    refuse_held(context, name)
    registry.claim(context, name, worker)
    try:
        removed = _points(store, name, report)
        number = _unname(context, name, worker)
    except BaseException:
        registry.let_go(context, name, worker)
        raise
    _rows(context, number, report)
    return removed


def refuse_held(context: Context, name: str) -> None:
    """Raises Held while a point of the mount is locked, NotFound."""
    with context.index.write() as txn:
        registry.find(txn, name)
        locks.refuse_held(context, txn, _names(txn, name))


def _names(txn: Txn, name: str) -> list[str]:
    return [point.id for point in snapshot.every(txn) if point.mount == name]


def _points(store: OpenStore, name: str, report: Report) -> int:
    removed = 0
    while True:
        with store.context.index.read() as txn:
            found = _names(txn, name)
        if not found:
            return removed
        snapshot.remove(store, found[:_POINTS])
        removed += len(found[:_POINTS])
        report(Progress("points", removed, removed + len(found) - len(found[:_POINTS]), "points"))


def _unname(context: Context, name: str, worker: int) -> int:
    with context.index.write() as txn:
        mount = registry.find(txn, name)
        if mount.worker != worker or any(point.mount == name for point in snapshot.every(txn)):
            raise Busy(f"mount {name!r}", expected="nobody using it", found="a point that was just made",
                       do="try again")  # fmt: skip
        txn.delete(Table.MOUNTS, name.encode())
        txn.put(Table.META, _DEAD + U32.pack(mount.id), b"")
    return mount.id


def _rows(context: Context, number: int, report: Report) -> None:
    prefix = rows.meta_key(number)

    def every(txn: Txn) -> Iterator[tuple[Table, bytes]]:
        return ((table, key) for table in _TABLES for key in txn.keys(table, prefix=prefix))

    done = 0
    while True:
        with context.index.write() as txn:
            some = list(islice(every(txn), limits.GC_SWEEP_ROWS))
            for table, key in some:
                txn.delete(table, key)
            if len(some) < limits.GC_SWEEP_ROWS:
                txn.delete(Table.META, _DEAD + U32.pack(number))
                return
        done += len(some)
        report(Progress("rows", done, None, "rows"))


def finish(context: Context, report: Report) -> int:
    """Delete what deletions that died have left; how many there were."""
    with context.index.read() as txn:
        found = [U32.unpack(key[len(_DEAD) :])[0] for key in txn.keys(Table.META, prefix=_DEAD)]
    for number in found:
        _rows(context, number, report)
    return len(found)
