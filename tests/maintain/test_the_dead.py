"""What a process that was killed leaves in a store keeps nobody from anything, and goes."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from engine import Store
from engine.chunks import Worker, alive, reap
from engine.errors import Busy
from engine.home import OpenStore
from engine.index import Table
from engine.seam import Os
from tests.engine.process import run
from tests.maintain.support import MortalOs, three_points


def killed(home: Path, work: Callable[[Store], object]) -> None:
    """A process that dies when it has done the work."""

    def die() -> None:
        with Store.open(str(home)) as store:
            work(store)
            os.kill(os.getpid(), signal.SIGKILL)

    assert run(die) == -signal.SIGKILL


def test_a_point_that_a_dead_process_was_reading_can_be_removed(home: Path) -> None:
    with Store.open(str(home)) as store:
        store.create_mount("m")
        ids = three_points(store)
    killed(home, lambda store: store.view(ids[0]))
    with Store.open(str(home)) as store, Store.open(str(home)) as living:
        living.view(ids[1])
        store.remove_point(ids[0])
        with pytest.raises(Busy, match="worker"):
            store.remove_point(ids[1])
        assert [point.id for point in store.points()] == ids[1:]


class Slow(Os):
    """Somebody else asks whether a worker lives while this one holds the lock it asked with."""

    def __init__(self) -> None:
        self.between: Callable[[], None] | None = None

    def close(self, fd: int) -> None:
        between, self.between = self.between, None
        if between is not None:
            between()
        super().close(fd)


def test_two_that_ask_at_once_whether_a_dead_worker_lives(home: Path) -> None:
    killed(home, lambda store: store._open.session)
    with OpenStore(str(home), system=(system := Slow())) as store, OpenStore(str(home)) as other:
        with store.context.index.read() as txn:
            (dead,) = [int.from_bytes(key) for key, _ in txn.scan(Table.WORKERS)]
        answers = []
        system.between = lambda: answers.append(alive(other.context, dead))
        answers.append(alive(store.context, dead))
        assert answers == [False, False]
        living = Worker(other.context)
        assert alive(store.context, living.id)
        living.close()


def test_burying_the_dead_can_be_interrupted(home: Path) -> None:
    for _ in range(3):
        killed(home, lambda store: store._open.session)

    def bury(system: MortalOs) -> None:
        system.watch_transactions()
        with OpenStore(str(home), system=system) as store:
            reap(store.context)

    step = 0
    while run(lambda step=step: bury(MortalOs(step))):  # type: ignore[misc]
        step += 1
    assert step >= 3
    with OpenStore(str(home)) as store, store.context.index.read() as txn:
        assert txn.count(Table.WORKERS) == 0
    assert os.listdir(home / "workers") == []
