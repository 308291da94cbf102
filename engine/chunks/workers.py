"""Workers: the processes that commit to a store, and how one knows that another is dead.

A worker holds an exclusive lock on ``workers/<id>.lock`` as long as it lives; the kernel lets go of it however the
process dies, in whatever container it ran.  The lock decides nothing about data: it only tells that a row's owner
is gone, so that its segment, its mount and its pins may be taken over, in a transaction.
"""

from __future__ import annotations

import contextlib
import logging
import os

from engine import clock
from engine.chunks.context import Context
from engine.errors import HoldfastError, from_os
from engine.index import Table, Txn
from engine.index.rows import U64, WorkerRow

log = logging.getLogger("holdfast.engine.chunks")

_COUNTER = b"next_worker"
NEVER = 2**64 - 1  # epoch of a worker that only reads


def lock_path(context: Context, worker: int) -> str:
    return os.path.join(context.root, "workers", f"{worker:016x}.lock")


def alive(context: Context, worker: int) -> bool:
    """False when the worker's process has ended."""
    try:
        fd = context.system.open(lock_path(context, worker), os.O_RDWR)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise from_os(error, lock_path(context, worker)) from None
    try:
        # Shared: else two that ask about a dead worker at once take each other for it.
        return not context.system.try_lock(fd, shared=True)
    finally:
        context.system.close(fd)


class Worker:
    """This process's place among the workers of a store.

    A row has its lock file from the commit that makes it; when a worker leaves, the file goes first. A row without
    its file, or with one that can be locked, is a dead worker's.
    """

    def __init__(self, context: Context, *, reads_only: bool = False) -> None:
        """``reads_only``: it commits no references, so a collection need not wait for it."""
        self._context = context
        # In one transaction: killed in it, the next worker gets the same number and the same file.
        with context.index.write() as txn:
            raw = txn.get(Table.META, _COUNTER)
            self.id = 1 if raw is None else U64.unpack(raw)[0]
            clock.look(context.system, txn, context.root)
            txn.put(Table.META, _COUNTER, U64.pack(self.id + 1))
            path = lock_path(context, self.id)
            try:
                self._fd = context.system.open(path, os.O_RDWR | os.O_CREAT)
            except OSError as error:
                raise from_os(error, path) from None
            try:
                assert context.system.try_lock(self._fd), "a new worker's lock is free"
                row = WorkerRow(os.getpid(), context.system.time_ns(), NEVER if reads_only else 0)
                txn.put(Table.WORKERS, U64.pack(self.id), row.pack_bytes())
            except BaseException:
                context.system.close(self._fd)
                raise

    def close(self) -> None:
        """Leave: lock file, row, lock. A row without its file is a dead worker's; a file without a row is nobody's.

        What of that fails is left: without the lock, whoever comes takes this worker for dead, as it then is.
        """
        path = lock_path(self._context, self.id)
        try:
            self._context.system.unlink(path)
            with self._context.index.write() as txn:
                _delete(txn, self.id)
        except OSError as error:
            log.warning("worker %d cannot leave: %s", self.id, from_os(error, path))
            self._context.incidents.error(from_os(error, path))
        except HoldfastError as error:
            log.warning("worker %d cannot leave: %s", self.id, error)
        finally:
            self._context.system.close(self._fd)


def reap(context: Context) -> list[int]:
    """Remove rows, pins and lock files of dead workers; returns their ids."""
    with context.index.read() as txn:
        ids = [U64.unpack(key)[0] for key, _ in txn.scan(Table.WORKERS)]
    dead = [worker for worker in ids if not alive(context, worker)]
    if dead:
        # Files first, as a worker that leaves does: a row without its file is found again, a file without a row is not.
        for worker in dead:
            with contextlib.suppress(FileNotFoundError):
                context.system.unlink(lock_path(context, worker))
        with context.index.write() as txn:
            for worker in dead:
                _delete(txn, worker)
    return dead


def _delete(txn: Txn, worker: int) -> None:
    """A worker's row and its pins."""
    txn.delete(Table.WORKERS, U64.pack(worker))
    for key, _ in list(txn.scan(Table.PINS, prefix=U64.pack(worker))):
        txn.delete(Table.PINS, key)
