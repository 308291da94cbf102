"""The workload of the crash rigs as a program: a store of its own, operations by seed, a mark for each step.

``python -m tools.torture.crash.session PLAN``, the plan as JSON.  Marks: ``begin WHAT`` before something is asked for,
``done WHAT`` when it has been acknowledged.  Everything happens in one thread unless the plan says ``threads``.
"""

from __future__ import annotations

import json
import os
import random
import sys
from dataclasses import asdict, dataclass
from typing import Any

from engine import Store, home, limits
from engine.chunks import segments
from engine.live.tree import LiveTree
from engine.seam import Os
from tools.torture.bugs import plant_chosen
from tools.torture.crash.engine_files import TreeFiles
from tools.torture.history import History, Op
from tools.torture.workload import Script

MOUNT = "m"
AFTER = b"after the crash"  # name and content of the file a recovery adds


@dataclass(frozen=True)
class Plan:
    """What one session does. ``store`` and ``marks`` are paths, the first not existing unless ``again``."""

    store: str
    marks: str
    seed: int
    operations: int = 200
    threads: int = 0
    again: bool = False  # open the store there is, change a little, close it

    def command(self) -> list[str]:
        """The program that carries it out."""
        return [sys.executable, "-m", "tools.torture.crash.session", json.dumps(asdict(self))]

    def random(self, what: str) -> random.Random:
        """Chance of one kind."""
        return random.Random(f"{self.seed}:{what}")


class SeededOs(Os):
    """The real system, but for chance."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng

    def random(self, count: int) -> bytes:
        """Bytes that are the same the next time."""
        return self._rng.randbytes(count)


def small_limits() -> None:
    """Packs, buffers and batches so small that a few megabytes meet every edge."""
    small: dict[str, Any] = {
        "PACK_MAX": 400_000, "APPEND_BUFFER": 32_768, "GC_SWEEP_ROWS": 7, "WRITE_BEHIND": 65_536,
        "COMMIT_INTERVAL": limits.TICK, "TXN_DELETES_MAX": 40,
    }  # fmt: skip
    for name, value in small.items():
        setattr(limits, name, value)
    segments.SEAL_ON_CLOSE = 200_000


class Session:
    """One run of a plan."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._system = SeededOs(plan.random("ids"))
        self._marks = os.open(plan.marks, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self._chance = plan.random("steps")
        self._history = History()
        self._script = Script(plan.random("script"), self._history)
        self._points: list[str] = []
        self._made = 0

    def mark(self, text: str) -> None:
        """Tell the outside."""
        os.write(self._marks, f"{text}\n".encode())

    def open(self) -> tuple[Store, LiveTree]:
        """The store and its tree."""
        store = Store(home.OpenStore(self._plan.store, system=self._system))
        return store, store.open_live(MOUNT)

    def close(self, store: Store, tree: LiveTree) -> None:
        """Leave, as an unmount does."""
        self.mark("begin close")
        tree.close()
        store.close()
        self.mark("done close")

    def run(self) -> None:
        """Make the store, then operations, points, deletions and collections in turns."""
        self.mark("begin init")
        home.init(self._plan.store, system=self._system)
        with Store(home.OpenStore(self._plan.store, system=self._system)) as store:
            store.create_mount(MOUNT)
        self.mark("done init")
        store, tree = self.open()
        for number in range(1, self._plan.operations + 1):
            self._operation(tree)
            if number % 9 == 0:
                tree.tick()
            if number % 23 == 0:
                self._snapshot(store, tree)
            if number % 71 == 0:
                self._remove(store)
                self.close(store, tree)
                self._collect()
                store, tree = self.open()
        self.close(store, tree)

    def recover(self) -> None:
        """Open what a crash left, change one thing durably, take a point, close."""
        store, tree = self.open()
        files = TreeFiles(tree)
        files.do(Op("create", AFTER, number=0o600))
        files.do(Op("write", AFTER, data=AFTER))
        tree.barrier()
        store.snapshot(MOUNT, "after")
        tree.close()
        store.close()
        self.mark("done recovery")

    def _operation(self, tree: LiveTree) -> None:
        op = self._script.next()
        self._history.begin(op)
        self.mark("begin op")
        TreeFiles(tree).do(op)
        self.mark("done op")
        self._history.done(op)

    def _snapshot(self, store: Store, tree: LiveTree) -> None:
        self._made += 1
        self.mark(f"begin snapshot {self._made}")
        tree.barrier()
        point = store.snapshot(MOUNT, str(self._made)).id
        self.mark(f"done snapshot {self._made}")
        self._points.append(point)

    def _remove(self, store: Store) -> None:
        for _ in range(min(2, len(self._points) - 1)):
            at = self._chance.randrange(len(self._points))
            point = self._points.pop(at)
            label = store.point(point).label
            self.mark(f"begin remove {label}")
            store.remove_point(point)
            self.mark(f"done remove {label}")

    def _collect(self) -> None:
        self.mark("begin collection")
        with Store(home.OpenStore(self._plan.store, system=self._system)) as store:
            store.collect()
        self.mark("done collection")


def main() -> None:
    """Carry out the plan."""
    plan = Plan(**json.loads(sys.argv[1]))
    small_limits()
    plant_chosen()
    assert LiveTree.__init__.__kwdefaults__ is not None
    LiveTree.__init__.__kwdefaults__["seal_threads"] = plan.threads
    session = Session(plan)
    if plan.again:
        session.recover()
    else:
        session.run()


if __name__ == "__main__":
    main()
