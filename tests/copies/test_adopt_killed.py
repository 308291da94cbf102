"""Adopting, killed before any of its steps: there is nothing, or a whole store, and the next try ends well."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine import Store, keys
from engine.copies.connect import Wanted, add
from engine.copies.rings import newest_ring
from engine.locations import open_location
from engine.maintain.adopt import NOT_TAKEN_OVER, adopt
from engine.progress import silent
from engine.seam import REAL, Os
from tests.copies.test_upload import CHEAP, SECRET
from tests.maintain.support import MortalOs, three_points
from tests.maintain.test_killed import run, scratch

__all__ = ["scratch"]
STRIDE = 3


@pytest.fixture
def place(scratch: Path) -> Iterator[Path]:
    """A location of three points; the store is gone."""
    place = scratch / "made"
    place.mkdir()
    Store.init(str(scratch / "store"))
    with Store.open(str(scratch / "store")) as store:
        store.create_mount("m")
        three_points(store)
        add(
            store._open.context, "far", Wanted(f"file://{place}", [SECRET]), cost=CHEAP
        ).location.close()
        store.copies.send("far")
    shutil.rmtree(scratch / "store")
    return place  # type: ignore[return-value]


def work(home: Path, system: Os) -> None:
    adopt(
        str(home / "new"), f"file://{home / 'there'}", SECRET, credentials="environment", name="origin",
        take_over=True, report=silent, system=system,
    )  # fmt: skip


def mortal(home: Path, step: int) -> None:
    system = MortalOs(step)
    system.watch_transactions()
    work(home, system)


def whole(home: Path) -> bool:
    """A sound store of all points; whether it has taken over."""
    with Store.open(str(home / "new")) as store:
        assert store.check(read_data=True).problems == []
        assert len(store.points()) == 3 and store.mount("m").points == 3
        paused = store.copies.locations()[0].paused
    assert paused in ("", NOT_TAKEN_OVER)
    return not paused


def test_killed_anywhere(place: Path, scratch: Path) -> None:
    step, found = 0, set()
    while True:
        home = scratch / f"killed-{step}"
        shutil.copytree(place, home / "there")
        status = run(lambda home=home, step=step: mortal(home, step))  # type: ignore[misc]
        assert status in (0, -signal.SIGKILL), f"step {step} ended with {status}"
        there = (home / "new").exists()
        found.add((status, there and whole(home)))
        if not there:
            work(home, REAL)
            assert whole(home) and not (home / "new.adopting").exists()
        ring = newest_ring(open_location(f"file://{home / 'there'}"))[1]
        assert len(keys.facts(ring).slots) <= 3, "an earlier try's key is used again"
        shutil.rmtree(home)
        if status == 0:
            break
        step += STRIDE
    assert step > 40 and {(-signal.SIGKILL, False), (0, True)} <= found
