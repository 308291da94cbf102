"""Bugs about processes that die and processes that meet; each is found by one of the rigs here."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable
from typing import Any

from tools.torture.bugs import bug


def put(place: Any, name: str, value: object) -> None:
    """Put something else in the place of a function, for good."""
    assert hasattr(place, name), name
    setattr(place, name, value)


# --- through mounts -------------------------------------------------------------------------------------------


@bug("dead-mount-stays")
def dead_mount_stays() -> None:
    """Mounting does not take away the mount of a worker that was killed."""
    from fsmount import mountpoint

    put(mountpoint, "is_stale", lambda path: False)


@bug("snapshot-early-word")
def snapshot_early_word() -> None:
    """A snapshot says its id before the commit that makes the point."""
    from engine.points import snapshot

    real = snapshot._commit

    def late(txn: Any, name: str, before: int, cut: int, made: Any, record: bytes) -> None:
        os.write(sys.stdout.fileno(), f"point {made.sequence} of {name}: {made.id}\n".encode())
        time.sleep(0.2)
        real(txn, name, before, cut, made, record)

    put(snapshot, "_commit", late)


@bug("adopted-too-short")
def adopted_too_short() -> None:
    """A dead worker's segment is cut back by a record too many when it is gone on with."""
    from engine.packs.segment import SegmentWriter

    real = SegmentWriter.adopt.__func__  # type: ignore[attr-defined]

    def adopt(cls: Any, files: Any, header: Any, length: int) -> Any:
        ends = [at for at, _ in files.scan(header.number, length)]
        return real(cls, files, header, ends[-1] if ends else length)

    put(SegmentWriter, "adopt", classmethod(adopt))


@bug("worker-lock-let-go")
def worker_lock_let_go() -> None:
    """A worker lets go of its lock as soon as it has its row: everybody takes it for dead."""
    from engine.chunks.workers import Worker

    real = Worker.__init__

    def begin(worker: Worker, context: Any, *, reads_only: bool = False) -> None:
        real(worker, context, reads_only=reads_only)
        os.close(worker._fd)
        worker._fd = os.open(os.devnull, os.O_RDONLY)

    put(Worker, "__init__", begin)


# --- beside each other ----------------------------------------------------------------------------------------


@bug("commit-touches-nothing")
def commit_touches_nothing() -> None:
    """Commits do not write down for a running collection what they refer to."""
    from engine.chunks import writer

    put(writer, "protect", lambda txn, ids, referred: None)


@bug("bases-unprotected")
def bases_unprotected() -> None:
    """Commits write down what they refer to, but not what that is a delta of."""
    from engine.chunks import protect as module
    from engine.index import Table
    from engine.index.rows import ChunkRow, chunk_row

    def family(txn: Any, cid: bytes, done: set[bytes]) -> dict[bytes, ChunkRow] | None:
        raw = txn.get(Table.CHUNKS, cid)
        return None if raw is None else {cid: chunk_row(raw)}

    put(module, "_family", family)


@bug("sweep-without-waiting")
def sweep_without_waiting() -> None:
    """A collection sweeps without waiting until every writer has seen what it condemned."""
    from engine.maintain.waiting import Patience

    put(Patience, "writers", lambda patience, state: None)


@bug("old-readers-forgotten")
def old_readers_forgotten() -> None:
    """A collection does not wait for snapshots that build a point from an older state."""
    from engine.maintain.waiting import Patience

    put(Patience, "older_readers", lambda patience, txn: None)


@bug("sweep-before-condemning")
def sweep_before_condemning() -> None:
    """A collection deletes what it found dead, whether the flag that warns writers was written or not."""
    from engine.index import Table
    from engine.maintain import collect

    def condemn(context: Any, marks: Any) -> None:
        for at in list(marks.dead()):
            marks.condemn(at)

    def delete(txn: Any, marks: Any, at: int, result: Any) -> None:
        found = marks.row(txn, at)
        if found is not None:
            txn.delete(Table.CHUNKS, found[0])
            result.dead_chunks += 1

    put(collect, "_condemn", condemn)
    put(collect, "_delete", delete)


@bug("bases-unmarked")
def bases_unmarked() -> None:
    """Marking does not follow a delta to its bases."""
    from engine.maintain.mark import Marker

    put(Marker, "_bases", lambda marker, cid: None)


@bug("pins-ignored")
def pins_ignored() -> None:
    """A point is removed whoever is reading it."""
    from engine.index.env import Txn
    from engine.index.tables import Table
    from engine.points import snapshot

    real = Txn.scan

    def scan(
        txn: Txn, table: Table, *bounds: bytes, **named: bytes
    ) -> Iterable[tuple[bytes, bytes]]:
        pins = table is Table.PINS and sys._getframe(1).f_code.co_filename == snapshot.__file__
        return iter(()) if pins else real(txn, table, *bounds, **named)

    put(Txn, "scan", scan)
