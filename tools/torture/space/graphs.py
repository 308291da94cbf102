"""Random graphs of points: mounts that share content, chains of deltas, dictionaries; deletions, collections between.

Each case is a store of its own and some twenty steps; after every one all that must be there is read from the disk and
compared.  A collection that was finished leaves exactly what is reached, by decoders that are not the engine's; what a
deletion frees is what was said before; a killed one costs nothing; an index made from the packs alone tells the same.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
from collections import Counter
from collections.abc import Callable

from engine import Store
from engine.errors import HoldfastError
from engine.home import OpenStore
from engine.index import Table
from engine.index.rows import ENC_DELTA, ENC_DICT, PACK_SEALED, U32, chunk_row, pack_row
from engine.live.tree import LiveTree
from engine.maintain import collect as collecting
from engine.maintain.compact import REWRITE_BELOW
from engine.maintain.repair import rebuild_index
from engine.maintain.report import CollectReport
from engine.progress import silent
from tools.torture.rig import Job, Rig
from tools.torture.space.child import MortalOs, every
from tools.torture.space.content import Contents
from tools.torture.space.reach import Reach
from tools.torture.space.world import World

CASES, STEPS = 200, 14
_NAMES = (
    b"disk.img",
    b"users.dbf",
    b"set.tar",
    b"notes.txt",
    b"d/a.txt",
    b"d/b.txt",
    b"d/data.dbf",
    b"e/file",
)


class Graph:
    """One case."""

    def __init__(self, job: Job, case: int) -> None:
        self._job = job
        self._rng = job.random("graph", case)
        self._world = World(
            job, case, job.scratch / f"graph-{case}", mounts=self._rng.randint(1, 3)
        )
        self._contents = Contents(self._rng, self._rng.choice((20_000, 60_000, 120_000)))
        self._gone: list[tuple[bytes, bytes]] = []  # path and content that deleted points had

    def run(self) -> None:
        self._write()
        steps: list[tuple[Callable[[], None], int]] = [
            (self._write, 4), (self._snapshot, 4), (self._chain, 4), (self._remove, 4), (self._collect, 2),
            (self._partly, 1), (self._beside, 6), (self._killed, 5), (self._scrub, 1),
        ]  # fmt: skip
        calls, weights = zip(*steps, strict=True)
        for step in range(STEPS):
            (call,) = self._rng.choices(calls, weights)
            call()
            if self._job.case:
                self._job.say(f"{step}: {call.__name__.strip('_')}")
            self._job.count("steps")
            self._world.verify(self._rng)
        self._remove()
        self._collect()
        self._rebuilt()
        self._census()

    # --- steps ------------------------------------------------------------------------------------------------

    def _write(self) -> None:
        with self._world.open() as store:
            mount = self._rng.choice(list(self._world.live))
            with self._world.tree(store, mount) as tree:
                self._change(tree, mount)

    def _change(self, tree: LiveTree, mount: str) -> None:
        rng, files = self._rng, self._world.live[mount]
        for _ in range(rng.randint(1, 4)):
            path = rng.choice(_NAMES)
            if path in files and rng.random() < 0.2:
                self._world.remove(tree, mount, path)
                continue
            data = self._contents.next()
            if path in files and rng.random() < 0.4:
                data = _near(rng, files[path][0])
            if self._gone and rng.random() < 0.4:
                path, data = rng.choice(self._gone[-8:])  # as it was, so that it is found again
            value = rng.randbytes(rng.randint(300, 4000)) if rng.random() < 0.1 else b""
            self._world.put(tree, mount, path, data, value)
            if rng.random() < 0.2:
                tree.barrier()

    def _snapshot(self) -> None:
        with self._world.open() as store:
            self._world.snapshot(store, self._rng.choice(list(self._world.live)))
        self._job.count("points")

    def _chain(self) -> None:
        """Versions of one file, each a delta of the one before, and a point of each; then perhaps few of them."""
        rng = self._rng
        mount, path = rng.choice(list(self._world.live)), rng.choice(_NAMES)
        made = []
        for _ in range(rng.randint(2, 5)):
            with self._world.open() as store:
                with self._world.tree(store, mount) as tree:
                    data = self._world.live[mount].get(path, (b"", b""))[0] or rng.randbytes(30_000)
                    self._world.put(tree, mount, path, _near(rng, data))
                made.append(self._world.snapshot(store, mount))
        self._job.count("points", len(made))
        if rng.random() < 0.6:
            with self._world.open() as store:
                store.remove_points([self._forget(name) for name in made[:-1]])
                store.collect()
            self._job.count("deleted points", len(made) - 1)
            self._exact()

    def _drop(self) -> list[str]:
        """Choose points, and forget them in the model."""
        points = list(self._world.points)
        chosen = self._rng.sample(points, min(len(points), self._rng.randint(1, 3)))
        return [self._forget(name) for name in chosen]

    def _forget(self, name: str) -> str:
        files = self._world.points.pop(name)
        self._gone += [(path, data) for path, (data, _) in files.items()]
        del self._gone[:-30]
        return name

    def _remove(self) -> None:
        """Delete points, often followed by a collection that must free what was foretold."""
        if self._rng.random() < 0.5:
            self._dead(self._rng.choice(list(self._world.live)))
        with self._world.open() as store:
            chosen = self._drop()
            told = store.would_free(chosen)
            if told.points != chosen:
                self._world.fail(f"rm of {chosen} speaks of {told.points}")
            store.remove_points(chosen)
        self._job.count("deleted points", len(chosen))
        if self._rng.random() < 0.5:
            return
        with self._world.open() as store:
            freed = store.collect()
        said = (told.chunks + told.waiting_chunks, told.freed_bytes + told.waiting_bytes, told.returned_bytes,
                told.packs_removed, told.packs_rewritten)  # fmt: skip
        done = (freed.dead_chunks, freed.freed_bytes, freed.returned_bytes, freed.packs_removed,
                freed.packs_rewritten)  # fmt: skip
        if said != done:
            self._world.fail(f"rm said it would free {said}, and {done} was freed")
        self._job.count("forecasts kept")
        self._exact()

    def _collect(self) -> None:
        with self._world.open() as store:
            store.collect()
        self._exact()

    def _partly(self) -> None:
        """No time for packs."""
        with self._world.open() as store:
            store.collect(budget_s=self._rng.choice((0.0, 0.001)))
        self._job.count("collections")

    def _beside(self) -> None:
        """A collection while a writer has content in hand that nothing but deleted points had."""
        rng = self._rng
        mount = rng.choice(list(self._world.live))
        again = self._dead(mount) if rng.random() < 0.7 else None
        with (
            self._world.open() as store,
            self._world.open() as other,
            self._world.tree(store, mount) as tree,
        ):
            session = store._open.session
            waiting = rng.random() < 0.5
            if again is not None and rng.random() < 0.7:
                self._world.put(tree, mount, *again)
            else:
                self._change(tree, mount)
            if rng.random() < 0.8:
                _seal(tree)  # looked up and held, not committed

            def sleep(_: float) -> None:
                nonlocal waiting
                if waiting:
                    waiting = False
                    self._change(tree, mount)
                session.writer.acknowledge()

            _collected(other, sleep)
        self._job.count("collections beside a writer")

    def _dead(self, mount: str) -> tuple[bytes, bytes]:
        """Have a pack mostly dead, of content that only a point had which is deleted now: (path, that content)."""
        rng = self._rng
        path, data = rng.choice(_NAMES), rng.randbytes(rng.randint(20_000, 60_000))
        made = []
        for content in (data, rng.randbytes(100)):
            with self._world.open() as store:
                with self._world.tree(store, mount) as tree:
                    self._world.put(tree, mount, path, content)
                    if content is data:
                        self._world.put(tree, mount, b"kept", rng.randbytes(len(data) // 4))
                made.append(self._world.snapshot(store, mount))
        with self._world.open() as store:
            store.remove_points([self._forget(made[0])])
        self._job.count("points", 2)
        self._job.count("deleted points")
        return path, data

    def _killed(self) -> None:
        """A collection that dies at a step chosen by chance; the next one does what is left."""
        self._dead(self._rng.choice(list(self._world.live)))
        kind = self._rng.choice(MortalOs.KINDS)
        left = self._rng.choice((0, 0, 0, 1, 2, 4))
        pid = os.fork()
        if not pid:
            try:
                with Store(OpenStore(str(self._world.home), system=MortalOs(kind, left))) as store:
                    store.collect()
                os._exit(0)
            finally:
                os._exit(1)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        if status not in (0, -signal.SIGKILL):
            self._world.fail(f"a collection ended with status {status}")
        self._job.count("killed collections", int(status < 0))
        self._world.verify(self._rng)
        self._collect()

    def _scrub(self) -> None:
        with self._world.open() as store:
            report = store.scrub(budget_s=self._rng.choice((None, 0.0)))
        if report.problems or report.suspects:
            self._world.fail(f"scrub: {report.problems[:1]}, {report.suspects} suspects")

    # --- oracles ----------------------------------------------------------------------------------------------

    def _exact(self) -> None:
        """After a collection that was finished: what is left is what is reached, and packs are half alive."""
        self._job.count("collections")
        poor = ""
        for _ in range(3):
            with self._world.open() as store:
                reach = Reach(store._open)
                if reach.complaint():
                    self._world.fail(f"after a collection {reach.complaint()}")
                poor = _poor_packs(store, reach)
            if not poor:
                return
            # A collection may end with sealing a segment it has gone on with, which was mostly dead.
            with self._world.open() as store:
                store.collect()
        self._world.fail(f"after collections {poor}")

    def _rebuilt(self) -> None:
        """An index made from the packs alone tells of the same points, with the same content."""
        copy = self._world.home.with_suffix(".rebuilt")
        shutil.copytree(self._world.home, copy)
        real, self._world.home = self._world.home, copy
        live = self._world.live
        try:
            rebuild_index(str(copy), report=silent, system=self._world.system)
            newest: dict[str, str] = {}
            with self._world.open() as store:
                for point in store.points():
                    newest[point.mount] = point.id
            self._world.live = {m: self._world.points[p] for m, p in newest.items()}
            self._world.verify(self._rng)
            with self._world.open() as store:
                store.collect()
            self._world.verify(self._rng)
        except HoldfastError as error:
            self._world.fail(f"rebuilding: {error}")
        finally:
            self._world.home, self._world.live = real, live
            shutil.rmtree(copy)
        self._job.count("rebuilt indexes")

    def _census(self) -> None:
        with self._world.open() as store, store._open.context.index.read() as txn:
            kinds = [chunk_row(raw).encoding for _, raw in txn.scan(Table.CHUNKS)]
        self._job.count("chunks left", len(kinds))
        self._job.count("deltas left", kinds.count(ENC_DELTA))
        self._job.count("dictionary chunks left", kinds.count(ENC_DICT))


def _poor_packs(store: Store, reach: Reach) -> str:
    """Sealed packs that are mostly dead."""
    live: Counter[int] = Counter()
    for row in reach.rows.values():
        live[row.pack] += row.stored
    with store._open.context.index.read() as txn:
        packs = {U32.unpack(key)[0]: pack_row(raw) for key, raw in txn.scan(Table.PACKS)}
    return ", ".join(
        f"{live[number]} bytes of {pack.length} live in pack {number}"
        for number, pack in packs.items()
        if pack.state == PACK_SEALED and live[number] < REWRITE_BELOW * pack.length
    )


def _seal(tree: LiveTree) -> None:
    inodes = [tree._state.get(ino) for ino in tree.dirty_inodes()]
    tree._sealing.seal_now(inodes)


def _collected(store: Store, sleep: Callable[[float], None]) -> CollectReport:
    return collecting.collect(
        store._open,
        dry_run=False, budget_s=None, report=silent, sleep=sleep,
    )  # fmt: skip


def _near(rng: random.Random, data: bytes) -> bytes:
    """The same but for some bytes: a delta of what was there."""
    at = rng.randrange(len(data) + 1)
    return data[:at] + rng.randbytes(min(200, len(data) - at)) + data[at + 200 :]


def run(job: Job) -> None:
    every(job, CASES, "graph", "graphs", lambda one, case: Graph(one, case).run())


RIGS = (
    Rig(
        "space-graphs",
        "random graphs of points, deleted and collected: nothing needed goes, nothing else stays",
        run,
        bugs=(
            "mark-forgets-bases", "mark-forgets-bases-of-bases", "collection-trusts-the-clock",
            "sweep-takes-touched", "unlink-before-commit", "forecast-counts-shared",
            "forecast-forgets-copies", "packs-stay",
        ),
        teeth=0.1,
    ),
)  # fmt: skip
