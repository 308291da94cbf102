"""Killed before every step that changes something: the store is sound, its points are whole, going on finishes.

Each step is a process of its own, on a copy of the same store, which ends as ``kill -9`` ends it.  The copies are in
memory where there is room: what a killed process has written is there either way, synced or not.
"""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from engine import Store, limits
from engine.errors import NotFound
from engine.home import OpenStore
from engine.index import Table
from engine.index.rows import FLAG_CONDEMNED, PACK_SEALED, chunk_row, pack_row
from engine.live import ROOT
from engine.maintain.repair import rebuild_index
from engine.progress import silent
from engine.seam import Os
from tests.engine.process import run
from tests.maintain.support import MortalOs, noise, put, restored, sound, three_points

UNTIL = 2_500_000_000 * 10**9
Work = Callable[[str, Os], None]


class Killed:
    """One store, and what is left of its copies when a piece of work on them is killed."""

    def __init__(self, made: Path, scratch: Path) -> None:
        self._made = made
        self._scratch = scratch
        with Store.open(str(made)) as store:
            self.points = {
                p.id: restored(store, p.id, scratch / f"expected-{p.id}") for p in store.points()
            }

    def everywhere(self, work: Work, stride: int = 1) -> Iterator[Path]:
        """A copy for each step at which the work was killed, until it is not killed any more."""
        step = 0
        while True:
            home = self._scratch / f"killed-{step}"
            shutil.copytree(self._made, home)
            status = run(lambda home=home, step=step: _mortal(work, home, step))  # type: ignore[misc]
            assert status in (0, -signal.SIGKILL), f"step {step} ended with {status}"
            if status == 0:
                assert step > 3 * stride, "the work has more steps than that"
                return
            yield home
            shutil.rmtree(home)
            step += stride

    def check_points(self, store: Store, gone: set[str], more: dict[str, dict[str, bytes]]) -> None:
        """The points are those it had, but perhaps not ``gone``, and all of them are whole."""
        found = {p.id for p in store.points()}
        assert self.points.keys() - gone <= found
        for point in found:
            target = self._scratch / "out"
            expected = self.points.get(point) or more[store.point(point).label]
            assert restored(store, point, target) == expected
            shutil.rmtree(target)


def _mortal(work: Work, home: Path, step: int) -> None:
    system = MortalOs(step)
    system.watch_transactions()
    work(str(home), system)


MEMORY = Path("/dev/shm")
ROOM = 256 << 20  # bytes: four times what the tests put there


@pytest.fixture
def scratch(tmp_path: Path) -> Iterator[Path]:
    """Where the stores are."""
    if not os.access(MEMORY, os.W_OK) or shutil.disk_usage(MEMORY).free < ROOM:
        yield tmp_path
    else:
        with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
            yield Path(folder)


@pytest.fixture
def made(scratch: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store of three points, small packs, and batches of few rows."""
    monkeypatch.setattr(limits, "PACK_MAX", 400_000)
    monkeypatch.setattr(limits, "GC_SWEEP_ROWS", 7)
    monkeypatch.setattr("engine.restore.tree._sync", lambda fd: None)
    Store.init(str(scratch / "store"))
    with Store.open(str(scratch / "store")) as store:
        store.create_mount("m")
        three_points(store)
    return scratch / "store"


@pytest.fixture
def thinned(made: Path) -> Path:
    """The same when two of its points were deleted."""
    with Store.open(str(made)) as store:
        for point in store.points()[:2]:
            store.remove_point(point.id)
    return made


def opened(home: str, system: Os) -> Store:
    return Store(OpenStore(home, system=system))


def held_back(store: Store) -> int:
    """Chunks that wait for their deletion."""
    with store._open.context.index.read() as txn:
        flags = [chunk_row(raw).flags for _, raw in txn.scan(Table.CHUNKS)]
    return sum(bool(flag & FLAG_CONDEMNED) for flag in flags)


# --- what is killed -----------------------------------------------------------------------------------------

FOURTH = {
    "db.dbf": noise(500_000, 40),
    "only": noise(300_000, 12),
    "new": noise(700_000, 41),
    "small": b"a few bytes",
}


def snapshot(home: str, system: Os) -> None:
    with opened(home, system) as store:
        tree = store.open_live("m")
        for name in ("db.dbf", "new", "small"):
            put(tree, name.encode(), FOURTH[name])
            tree.fsync(tree.lookup(ROOT, name.encode()).ino)
        tree.barrier()
        store.snapshot("m", "fourth")
        tree.close()


def collect(home: str, system: Os) -> None:
    with opened(home, system) as store:
        store.collect()


def rebuild(home: str, system: Os) -> None:
    rebuild_index(home, report=silent, system=system)


def remove(home: str, system: Os) -> None:
    with opened(home, system) as store:
        for point in store.points()[:1]:
            if len(store.points()) == 3:
                store.remove_point(point.id)


# --- that it costs nothing ----------------------------------------------------------------------------------


def test_a_snapshot_and_the_commits_and_packs_before_it(made: Path, scratch: Path) -> None:
    killed = Killed(made, scratch)
    sealed, points = set(), set()
    for home in killed.everywhere(snapshot):
        with Store.open(str(home)) as store:
            sound(store)
            killed.check_points(store, set(), {"fourth": FOURTH})
            points.add(len(store.points()))
            with store._open.context.index.read() as txn:
                states = [pack_row(raw).state for _, raw in txn.scan(Table.PACKS)]
            sealed.add(states.count(PACK_SEALED))
        snapshot(str(home), MortalOs())
        with Store.open(str(home)) as store:
            assert store.points()[-1].label == "fourth"
            sound(store)
    assert points == {3, 4}, "killed before and behind the point"
    assert len(sealed) >= 3, "killed between the sealing of packs"


def test_a_collection(thinned: Path, scratch: Path) -> None:
    killed = Killed(thinned, scratch)
    condemned = set()
    for home in killed.everywhere(collect):
        with Store.open(str(home)) as store:
            sound(store)
            killed.check_points(store, set(), {})
            condemned.add(held_back(store))
        collect(str(home), MortalOs())
        with Store.open(str(home)) as store:
            sound(store)
            killed.check_points(store, set(), {})
            assert held_back(store) == 0
            again = store.collect()
            assert (again.dead_chunks, again.packs_removed) == (0, 0)
    assert len(condemned) >= 3, "killed while condemning and while sweeping"


def test_a_rebuilding_of_the_index(thinned: Path, scratch: Path) -> None:
    killed = Killed(thinned, scratch)
    openings = set()
    for home in killed.everywhere(rebuild):
        try:
            with Store.open(str(home)) as store:
                sound(store)
                killed.check_points(store, set(), {})
            openings.add("")
        except NotFound as error:
            openings.add(str(error).rpartition("; ")[2])
        rebuild(str(home), MortalOs())
        with Store.open(str(home)) as store:
            sound(store)
            killed.check_points(store, set(), {})
        assert not (home / "index.new").exists()
    assert openings == {"", "run 'holdfast repair --rebuild-index'"}


def test_a_deletion_of_a_point(made: Path, scratch: Path) -> None:
    killed = Killed(made, scratch)
    first = min(killed.points)
    left = set()
    for home in killed.everywhere(remove):
        with Store.open(str(home)) as store:
            sound(store)
            killed.check_points(store, {first}, {})
            left.add(len(store.points()))
        remove(str(home), MortalOs())
        with Store.open(str(home)) as store:
            assert {p.id for p in store.points()} == killed.points.keys() - {first}
            store.collect()
            sound(store)
            killed.check_points(store, {first}, {})
    assert left == {2, 3}, "killed before and behind the deletion"


def lock(home: str, system: Os) -> None:
    with opened(home, system) as store:
        store.lock_point(store.points()[0].id, until_ns=UNTIL)


def test_a_locking_of_a_point(made: Path, scratch: Path) -> None:
    """Once the index has the lock, an index made anew has it too."""
    killed = Killed(made, scratch)
    first = min(killed.points)
    found = set()
    for home in killed.everywhere(lock):
        with Store.open(str(home)) as store:
            sound(store)
            before = store.point(first).locked_ns
        rebuild_index(str(home), report=silent)
        with Store.open(str(home)) as store:
            after = store.point(first).locked_ns
        assert before <= after <= UNTIL
        found.add((before, after))
    assert (0, 0) in found and (0, UNTIL) in found


def test_lock_files_of_the_dead_are_taken_away(made: Path, scratch: Path) -> None:
    killed = Killed(made, scratch)
    for home in killed.everywhere(remove):
        collect(str(home), MortalOs())
        assert os.listdir(home / "workers") == []
