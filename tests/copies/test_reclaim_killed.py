"""Reclaiming, killed before any of its steps: who has the location alone finds every point whole, and so does the
store; the next run ends what was begun, and nothing is left over."""

from __future__ import annotations

import contextlib
import shutil
import signal
from pathlib import Path

import pytest

from engine import Store, limits
from engine.copies.connect import Wanted, add, open_link
from engine.copies.rows import DROP, GOING, away_row, copy_row
from engine.errors import NotFound
from engine.home import OpenStore
from engine.index import Table
from engine.index.rows import chunk_row
from engine.live import ROOT
from engine.maintain.planning import Terms
from engine.seam import Os
from tests.copies.test_upload import CHEAP, SECRET, read_all
from tests.engine.process import run
from tests.maintain.support import MortalOs, noise, put, restored, sound
from tests.maintain.test_killed import scratch

__all__ = ["scratch"]
STRIDE = 3
NOW = Terms(grace_s=0)


def three(store: Store) -> list[str]:
    """Points of 20 files, of a third of them, and of none."""
    tree = store.open_live("m")
    points = []
    for number in range(20):
        put(tree, b"f%d" % number, noise(20_000, number))
        tree.barrier()
    for kept in (20, 6, 0):
        for number in range(kept, 20):
            with contextlib.suppress(NotFound):
                tree.unlink(ROOT, b"f%d" % number)
        tree.barrier()
        points.append(store.snapshot("m").id)
    tree.close()
    return points


@pytest.fixture
def made(scratch: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store of one point of three, which is at a location only, with what the others needed."""
    monkeypatch.setattr(limits, "GC_SWEEP_ROWS", 4)
    monkeypatch.setattr(limits, "SEALED_PACK", 90_000)
    monkeypatch.setattr(limits, "RECLAIM_BELOW", 0.7)
    monkeypatch.setattr(limits, "RECLAIM_LEAST", 100)
    monkeypatch.setattr(limits, "CHECKPOINT_EVERY", 3)
    monkeypatch.setattr("engine.restore.tree._sync", lambda fd: None)
    home = scratch / "made"
    (home / "there").mkdir(parents=True)
    Store.init(str(home / "store"))
    with Store.open(str(home / "store")) as store:
        store.create_mount("m")
        points = three(store)
        wanted = Wanted("file://" + str(scratch / "now" / "there"), [SECRET], local=DROP)
        (scratch / "now").mkdir()
        (scratch / "now" / "there").mkdir()
        add(store._open.context, "far", wanted, cost=CHEAP).location.close()
        store.copies.send("far")
        store.remove_points([points[2]])
        store.copies.reclaim("far", NOW)
        store.copies.drop_local()
        store.remove_points([points[0]])
        store.collect()
    shutil.rmtree(home / "there")
    (scratch / "now" / "there").rename(home / "there")
    (scratch / "now").rmdir()
    return home


def mortal(home: Path, step: int) -> None:
    system = MortalOs(step)
    system.watch_transactions()
    work(home, system)


def work(home: Path, system: Os) -> None:
    store = Store(OpenStore(str(home / "store"), system=system))
    with store:
        assert store.copies.reclaim("far", NOW).done


def test_killed_anywhere(made: Path, scratch: Path) -> None:
    home = scratch / "now"
    shutil.copytree(made, home)
    with Store.open(str(home / "store")) as store:
        (point,) = (one.id for one in store.points())
        expected = restored(store, point, scratch / "expected")
    shutil.rmtree(home)
    step, least = 0, 0
    while True:
        shutil.copytree(made, home)
        status = run(lambda step=step: mortal(home, step))  # type: ignore[misc]
        assert status in (0, -signal.SIGKILL), f"step {step} ended with {status}"
        report = Store.adopt(str(home / "new"), f"file://{home / 'there'}", SECRET)
        assert report.left_out == 0
        with Store.open(str(home / "new")) as fresh:
            assert restored(fresh, point, home / "alone") == expected
        with Store.open(str(home / "store")) as store:
            sound(store)
            done = store.copies.reclaim("far", NOW)
            assert done.done and done.later_packs == 0 and done.left == 0
            assert restored(store, point, home / "out") == expected
            least = least or tidy(store, home)
            assert tidy(store, home) <= least, "nothing is left over"
        shutil.rmtree(home)
        if status == 0:
            break
        step += STRIDE
    assert step > 40


def tidy(store: Store, home: Path) -> int:
    """Index, journal and location agree; packs that are there."""
    chain, _ = read_all(open_link(store._open.context, "far"))
    with store._open.context.index.read() as txn:
        away = {int.from_bytes(key, "big"): away_row(raw) for key, raw in txn.scan(Table.AWAY)}
        named = {copy_row(raw).pack for _, raw in txn.scan(Table.COPIES)}
        named |= {chunk_row(raw).pack for _, raw in txn.scan(Table.CHUNKS)} & away.keys()
    there = {one.name for one in (home / "there" / "packs").rglob("*") if one.is_file()}
    assert not any(row.state == GOING for row in away.values())
    assert {row.name.hex() for row in away.values()} == there == set(chain.state.packs)
    assert named == away.keys()
    return len(there)
