"""A thousand generations: each changes a little, makes a point, deletes old ones; nothing grows but what is kept.

Everything is measured after each collection: bytes in packs and segments, the index's file and its pages in use, rows
of every table, files of every kind. Processes die now and then, with a pin and a lock, as they do.
"""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

from engine import Store
from engine.index import Table
from engine.index.rows import KIND_TOMBSTONE, chunk_row
from engine.live.tree import LiveTree
from engine.maintain.compact import REWRITE_BELOW
from tools.torture.rig import Job, Rig
from tools.torture.space import plot
from tools.torture.space.child import SEAL_ON_CLOSE, apart
from tools.torture.space.content import KIB, edited, pages, text
from tools.torture.space.world import World

GENERATIONS = 1000
KEPT = 5  # points
EVERY = 3  # generations between collections
DIES = 7  # generations between deaths of a reader
LOOKED = 100  # generations between full comparisons
WARM = 25  # generations until all that is kept is there
# What a series may gain beside a tenth, at full size: chance. A pack is rewritten when half of it is dead, so what is
# stored goes up and down; medians of few generations tell less.
_ROWS, _BYTES = 7, 100 * KIB
_TOMBSTONES = 30
_SEGMENTS = 12 * SEAL_ON_CLOSE  # as ``child.small`` has it, and packs sealed since the collection
_SHOWN = (
    "bytes stored", "bytes alive", "bytes of the index in use", "bytes of the index's file", "packs",
    "rows of CHUNKS", "rows of HOOKS", "rows of DICTS", "tombstones",
)  # fmt: skip


class Soak:
    """One store, and what was measured of it."""

    def __init__(self, job: Job, home: Path) -> None:
        self._job = job
        self._rng = job.random("soak")
        self._world = World(job, "soak", home, mounts=1)
        self._series: dict[str, list[float]] = {}
        self._disk = self._rng.randbytes(300 * KIB)
        self._base = pages(self._rng, 24)
        self._set = [self._rng.randbytes(self._rng.randint(2, 12) * KIB) for _ in range(16)]

    def run(self, generations: int) -> None:
        first = 0
        while first < generations:  # a mount's worker lives for some generations
            last = min(generations, first + self._rng.randint(2, 6))
            with self._world.open() as store, self._world.tree(store, "m0") as tree:
                for number in range(first, last):
                    self._generation(store, tree, number)
            if first // LOOKED != last // LOOKED:
                self._world.verify(self._rng)
            first = last
        self._world.verify(self._rng)
        self._judge(generations)

    def _generation(self, store: Store, tree: LiveTree, number: int) -> None:
        self._change(tree, number)
        tree.barrier()
        self._world.snapshot(store, "m0")
        old = list(self._world.points)[:-KEPT]
        if old:
            store.remove_points(old)
            for name in old:
                del self._world.points[name]
        if number % DIES == DIES - 1:
            self._die()
        if number % EVERY == EVERY - 1:
            report = store.collect()
            self._job.count("packs removed", report.packs_removed)
            if number >= WARM:
                self._measure(store)
        self._job.count("generations")

    def _change(self, tree: LiveTree, number: int) -> None:
        rng, put = self._rng, self._put
        self._disk = edited(rng, self._disk, 4)
        put(tree, b"disk.img", self._disk)
        self._base = edited(rng, self._base, 3)
        put(tree, b"users.dbf", self._base)
        self._set[rng.randrange(len(self._set))] = rng.randbytes(rng.randint(2, 12) * KIB)
        rng.shuffle(self._set)
        put(tree, b"set.tar", b"".join(self._set))
        # Names that never come again, of a kind that never comes again: a group of similar files each.
        put(tree, b"log/%06d.log%d" % (number, number), pages(rng, 24))
        put(tree, b"note-%06d.txt" % number, text(rng, rng.randint(10, 900)))
        for path in (b"log/%06d.log%d" % (number - 3, number - 3), b"note-%06d.txt" % (number - 8)):
            if path in self._world.live["m0"]:
                self._world.remove(tree, "m0", path)

    def _put(self, tree: LiveTree, path: bytes, data: bytes) -> None:
        self._world.put(tree, "m0", path, data)

    def _die(self) -> None:
        """A process that reads a point is killed: its lock file, its row and its pin stay."""
        name = next(reversed(self._world.points))

        def read() -> None:
            with self._world.open() as store:
                store.view(name)
                os.kill(os.getpid(), signal.SIGKILL)

        _child(read)
        self._job.count("processes killed")

    # --- measuring --------------------------------------------------------------------------------------------

    def _measure(self, store: Store) -> None:
        home = self._world.home
        index = store._open.context.index
        with index.read() as txn:
            counts = {f"rows of {table.name}": txn.count(table) for table in Table}
            used = index.used(txn)
            rows = [chunk_row(raw) for _, raw in txn.scan(Table.CHUNKS)]
        packs, segments = list(home.glob("packs/*/*")), list(home.glob("segments/*"))
        self._note("bytes stored", sum(path.stat().st_size for path in (*packs, *segments)))
        self._note("bytes of the index in use", used)
        self._note("bytes of the index", index.size())
        self._note("bytes of the index's file", (home / "index" / "data.mdb").stat().st_size)
        self._note("bytes alive", sum(row.stored for row in rows))
        self._note("tombstones", [row.kind for row in rows].count(KIND_TOMBSTONE))
        self._note("packs", len(packs))
        for folder in ("segments", "workers", "quarantine", "run"):
            self._note(f"files in {folder}", len(os.listdir(home / folder)))
        for name, number in counts.items():
            self._note(name, number)

    def _note(self, name: str, value: float) -> None:
        self._series.setdefault(name, []).append(value)

    def _judge(self, generations: int) -> None:
        few = max(1, GENERATIONS / generations)
        for name, values in self._series.items():
            slack = few * (_BYTES if name.startswith("bytes") else _ROWS)
            if not plot.flat(values, slack):
                before, after = plot.growth(values)
                self._world.fail(f"{name}: {before:,.0f} became {after:,.0f}: {plot.bars(values)}")
        pairs = zip(self._series["bytes stored"], self._series["bytes alive"], strict=True)
        most = max(stored - alive / REWRITE_BELOW for stored, alive in pairs)
        if most > _SEGMENTS:
            self._world.fail(
                f"{most:,.0f} bytes more than packs that are half alive, and segments, may hold"
            )
        most = max(self._series["tombstones"])
        if most > _TOMBSTONES:
            self._world.fail(
                f"{most} tombstones of deleted points: {plot.bars(self._series['tombstones'])}"
            )
        if max(self._series["files in quarantine"]):
            self._world.fail("files in quarantine, though nothing was damaged")
        for name in _SHOWN:
            before, after = plot.growth(self._series[name])
            self._job.note(f"{name} {before:,.0f} → {after:,.0f} {plot.bars(self._series[name])}")


def _child(work: Callable[[], None]) -> None:
    pid = os.fork()
    if not pid:
        try:
            work()
        finally:
            os._exit(1)
    os.waitpid(pid, 0)


def run(job: Job) -> None:
    """Generations at the job's size, at least as many as a median needs."""
    home = job.scratch / "soak"
    apart(job, lambda one: Soak(one, home).run(one.size(GENERATIONS, least=60)), "soak")
    shutil.rmtree(home)


RIGS = (
    Rig(
        "space-soak",
        "generations of small changes, with points made and deleted: everything stays as large as it is",
        run,
        bugs=("hooks-stay", "tombstones-stay"),
        teeth=0.1,
        test=0.1,
    ),
)
