"""What a store is put through while something fails, and the model of what it accepted and acknowledged.

Files stay below one span, so that a file after a crash is as it was after one of its changes: the last one that was
acknowledged, or a later one.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from engine import HoldfastError, Store, home
from engine.index import Table
from engine.index.rows import U64
from engine.live import ROOT, Ctx, LiveTree
from engine.seam import REAL, Os
from tools.torture.faults.layer import SteadyOs

CTX = Ctx(0, 0)
KIB = 1024
Tree = dict[bytes, bytes]


@dataclass(frozen=True)
class Refusal:
    """A step that was told of an error."""

    step: str
    slug: str
    errno: int
    text: str


@dataclass
class Model:
    """``states[n]``: the tree after n changes that were accepted."""

    states: list[Tree] = field(default_factory=lambda: [{}])
    whole: int = 0  # state up to which everything is durable
    synced: dict[bytes, int] = field(default_factory=dict)  # the same for single files
    points: dict[str, Tree] = field(default_factory=dict)
    unsure: list[Tree] = field(default_factory=list)  # of snapshots that failed: there or not
    removed: set[str] = field(default_factory=set)

    @property
    def now(self) -> Tree:
        return self.states[-1]

    def put(self, name: bytes, data: bytes | None) -> None:
        """A change was accepted; None removes the file."""
        state = {**self.now}
        if data is None:
            state.pop(name, None)
        else:
            state[name] = data
        self.states.append(state)

    def allowed(self, name: bytes) -> list[bytes | None]:
        """What a crash may leave of a file; None: no such file."""
        first = max(self.whole, self.synced.get(name, 0))
        return list(dict.fromkeys(state.get(name) for state in self.states[first:]))


def possible(found: bytes | None, allowed: list[bytes | None]) -> bool:
    """One of the states, or a mixture: each piece from one of them, and an end no later than theirs.

    The end may lie between theirs: a file after a crash ends before its first byte that was not stored.
    """
    if found in allowed:
        return True
    there = [one for one in allowed if one is not None]
    if found is None or not min(map(len, there)) <= len(found) <= max(map(len, there)):
        return False
    return all(
        any(
            one[at : at + 512].ljust(512, b"\0")[: len(found) - at] == found[at : at + 512]
            for one in there
        )
        for at in range(0, len(found), 512)
    )


class Run:
    """One store under one workload. ``step`` names what is being done."""

    def __init__(self, path: str, target: Path, system: Os = REAL) -> None:
        self.target = target
        self.step = "open"
        self.refusals: list[Refusal] = []
        self.model = Model()
        self.store = Store(home.OpenStore(path, system=system))
        self.tree: LiveTree = self.store.open_live("m")
        self.inos: dict[bytes, int] = {}

    def attempt(self, step: str, action: Callable[[], object]) -> bool:
        """Do it; False when the engine said why not. Anything else it may raise is for the caller's caller."""
        self.step = step
        try:
            action()
        except HoldfastError as error:
            self.refusals.append(Refusal(step, error.kind.slug, error.errno, str(error)))
            return False
        return True

    # --- steps --------------------------------------------------------------------------------------------

    def ino(self, name: bytes) -> int:
        """Of a file that is there."""
        return self.tree.lookup(ROOT, name).ino

    def create(self, name: bytes) -> bool:
        if self.attempt(f"create {name!r}", lambda: self.tree.create(ROOT, name, 0o640, CTX)):
            self.model.put(name, b"")
            return True
        return False

    def write(self, name: bytes, at: int, data: bytes) -> None:
        """Into a file; made if it is not there."""
        if name not in self.model.now and not self.create(name):
            return
        if self.attempt(f"write {name!r}", lambda: self.tree.write(self.ino(name), at, data)):
            old = self.model.now[name].ljust(at, b"\0")
            self.model.put(name, old[:at] + data + old[at + len(data) :])

    def truncate(self, name: bytes, size: int) -> None:
        if name in self.model.now and self.attempt(
            f"truncate {name!r}", lambda: self.tree.setattr(self.ino(name), size=size, now_ns=1)
        ):
            self.model.put(name, self.model.now[name][:size].ljust(size, b"\0"))

    def unlink(self, name: bytes) -> None:
        if name not in self.model.now:
            return

        def remove() -> None:
            ino = self.ino(name)
            self.tree.unlink(ROOT, name)
            self.tree.forgotten(ino)

        if self.attempt(f"unlink {name!r}", remove):
            self.model.put(name, None)

    def fsync(self, name: bytes) -> None:
        """The file is durable if this succeeds."""
        if name in self.model.now and self.attempt(
            f"fsync {name!r}", lambda: self.tree.fsync(self.ino(name))
        ):
            self.model.synced[name] = len(self.model.states) - 1

    def barrier(self) -> None:
        """Everything is, if this does."""
        if self.attempt("barrier", self.tree.barrier):
            self.model.whole = len(self.model.states) - 1

    def snapshot(self) -> None:
        """A point of the tree as it is now."""
        made: list[str] = []

        def cut() -> None:
            self.tree.freeze()
            try:
                self.tree.barrier()
                made.append(self.store.snapshot("m", thaw=self.tree.thaw).id)
            finally:
                self.tree.thaw()

        if self.attempt("snapshot", cut):
            self.model.points[made[0]] = self.model.now
            self.model.whole = len(self.model.states) - 1
        else:
            self.model.unsure.append(self.model.now)

    def remove(self, point: str) -> None:
        """Delete a point; one that was refused may be gone all the same."""
        self.model.removed.add(point)
        self.attempt("remove point", lambda: self.store.remove_point(point))

    def collect(self) -> None:
        self.attempt("collect", self.store.collect)

    def tick(self) -> None:
        self.attempt("tick", self.tree.tick)

    def read(self, name: bytes) -> bytes | None:
        """The content through the tree, or None when the engine said why not."""
        found: list[bytes] = []
        size = len(self.model.now[name])
        if self.attempt(
            f"read {name!r}",
            lambda: found.append(self.tree.read(self.ino(name), 0, size + 1)),
        ):
            return found[0]
        return None

    def restore(self, point: str, name: str) -> Tree | None:
        """The files of a point, or None."""
        target = self.target / name
        reports: list[bool] = []

        def go() -> None:
            report = self.store.restore(point, b"", os.fsencode(target))
            reports.append(not report.damaged)

        if self.attempt(f"restore {name}", go) and reports[0]:
            return {os.fsencode(p.name): p.read_bytes() for p in target.iterdir()}
        return None

    def close(self) -> None:
        """Tree, then store; both are tried."""
        self.attempt("close tree", self.tree.close)
        self.attempt("close store", self.store.close)


def noise(rng: random.Random, size: int) -> bytes:
    """Bytes that do not compress."""
    return rng.randbytes(size)


def fill(run: Run, rng: random.Random, first: str) -> None:
    """The workload: every kind of step, small. ``first``: a point that may go."""
    run.write(b"a", 0, noise(rng, rng.randrange(100, 220) * KIB))
    run.fsync(b"a")
    run.write(b"a", rng.randrange(90) * KIB, noise(rng, 10 * KIB))
    run.write(b"b", 0, noise(rng, 100 * KIB) + bytes(50 * KIB))
    run.fsync(b"b")
    run.unlink(b"old")  # only the first point has it still, then nothing
    run.snapshot()
    for number in range(5):
        run.write(b"s%d" % number, 0, noise(rng, 3000 + number))
    run.write(b"c", 0, noise(rng, 150 * KIB))
    run.barrier()
    run.remove(first)
    run.collect()
    run.truncate(b"a", 90 * KIB + 17)
    run.write(b"a", 95 * KIB, noise(rng, 30 * KIB))
    run.fsync(b"a")
    run.tick()
    run.snapshot()


def template(path: str, seed: int) -> tuple[str, Tree]:
    """A store with a mount and a point, to be copied for each case: the point's id, and what is in it."""
    rng = random.Random(seed)
    system = SteadyOs(seed)
    home.init(path, system=system)
    with Store(home.OpenStore(path, system=system)) as store:
        store.create_mount("m")
        tree = store.open_live("m")
        content = {b"old": noise(rng, 300 * KIB), b"kept": noise(rng, 80 * KIB)}
        for name, data in content.items():
            tree.write(tree.create(ROOT, name, 0o640, CTX).ino, 0, data)
        tree.barrier()
        point = store.snapshot("m").id
        tree.close()
        with store._open.context.index.write() as txn:
            txn.put(Table.META, b"next_pack", U64.pack(1023))
    return point, content
