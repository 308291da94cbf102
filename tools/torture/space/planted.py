"""Bugs of collections and of what is said about space."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from typing import Any
from unittest import mock

from engine.index import Table
from engine.index.rows import chunk_row
from engine.maintain import collect, compact, settle, tombs
from engine.maintain.compact import Compactor
from engine.maintain.mark import Marker
from engine.maintain.waiting import Patience
from tools.torture.bugs import bug


@bug("mark-forgets-bases")
def _mark_forgets_bases() -> None:
    """A collection marks chunks, not what they are deltas of."""
    Marker._bases = lambda self, cid: None  # type: ignore[method-assign]


@bug("mark-forgets-bases-of-bases")
def _mark_forgets_bases_of_bases() -> None:
    """A collection marks the bases of a chunk, not those of the bases."""

    def bases(self: Marker, cid: bytes) -> None:
        raw = self._txn.get(Table.CHUNKS, cid)
        for base in chunk_row(raw).bases if raw is not None else ():
            self._raise(base, 1)

    Marker._bases = bases  # type: ignore[method-assign]


@bug("collection-trusts-the-clock")
def _collection_trusts_the_clock() -> None:
    """After a while writers have surely gone on: the collection waits for a time, not for their commits."""
    Patience.writers = lambda self, state: time.sleep(0.001)  # type: ignore[method-assign]


@bug("sweep-takes-touched")
def _sweep_takes_touched() -> None:
    """Chunks that were found again while the collection ran are swept all the same."""

    def delete(txn: Any, marks: Any, at: int, result: Any) -> None:
        found = marks.row(txn, at)
        if found is not None:
            txn.delete(Table.CHUNKS, found[0])
            result.dead_chunks += 1
            result.freed_bytes += found[1].stored

    collect._delete = delete


@bug("unlink-before-commit")
def _unlink_before_commit() -> None:
    """Compaction unlinks a pack before its live records are committed to another place."""
    real = Compactor._rewrite

    def rewrite(self: Compactor, number: int, entries: Any) -> int:
        writer = self._store.session.writer
        commit = writer.commit

        def late() -> None:
            self._context.system.unlink(self._context.files.pack_path(number))
            commit()

        with mock.patch.object(writer, "commit", late):
            return real(self, number, entries)

    Compactor._rewrite = rewrite  # type: ignore[method-assign]


@bug("forecast-counts-shared")
def _forecast_counts_shared() -> None:
    """What rm would free counts everything the points reach, shared with others or not."""
    real = Marker.run

    def run(self: Marker, step: Callable[[int], None], without: Collection[str] = (),
            forgotten: Collection[bytes] = ()) -> None:  # fmt: skip
        if not without:
            real(self, step, without, forgotten)
            return
        self.points(step, without)
        states = self.marks._states
        for at in range(len(self.marks)):  # what they reach is dead, all else is not
            states[at] = states[at] & 0x80 | (not self.marks.alive(at))

    Marker.run = run  # type: ignore[method-assign]


@bug("forecast-forgets-copies")
def _forecast_forgets_copies() -> None:
    """What would go back to the file system is said without what is written anew."""
    real = compact.gain

    def gain(context: Any, number: int, pack: Any, live: int, lives: Any) -> int | None:
        found = real(context, number, pack, live, lives)
        return None if found is None else pack.length

    compact.gain = gain


@bug("hooks-stay")
def _hooks_stay() -> None:
    """Hooks that lead to packs which are gone are kept."""
    settle.hooks = lambda context: 0


@bug("tombstones-stay")
def _tombstones_stay() -> None:
    """The record of a deletion is kept when no pack tells of the point any more."""
    tombs.outlived = lambda store, tombs: []


@bug("packs-stay")
def _packs_stay() -> None:
    """Packs are never rewritten, only removed when nothing in them lives."""
    compact.worth = lambda pack, live: not live


@bug("packs-are-not-unlinked")
def _packs_are_not_unlinked() -> None:
    """Packs that are removed go from the index, not from the file system."""
    real = Compactor._remove

    def remove(self: Compactor, number: int, pack: Any, entries: Any) -> bool:
        system = self._context.system
        with mock.patch.object(system, "unlink", return_value=None):
            return real(self, number, pack, entries)

    Compactor._remove = remove  # type: ignore[method-assign]
