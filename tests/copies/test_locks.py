"""Locks come to locations: the journal says them."""

from __future__ import annotations

import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from engine import Store, locks
from engine.copies import connect, journal
from engine.copies.connect import open_link
from engine.copies.holding import Holding
from engine.copies.journal import Locked, PacksChanged, Removed
from engine.copies.link import Link
from engine.errors import (
    Corrupt,
    Held,
    LocationUnavailable,
)
from engine.maintain.planning import Terms
from engine.progress import silent
from tests.copies.test_reach import grown
from tests.copies.test_upload import CHEAP, SECRET, read_all
from tests.locations.faulty import Fail, Faulty
from tests.locations.places import Place
from tests.restore.support import Maker

__all__ = ["grown"]

DAY, SECOND = 86_400, 10**9


@pytest.fixture(autouse=True)
def cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connect, "COST", CHEAP)
    monkeypatch.setattr(connect.add, "__kwdefaults__", {"cost": CHEAP})


@pytest.fixture
def far(engine: Store, grown: list[str], place: Place) -> Link:
    engine.copies.add("far", place.url, secrets=[SECRET])
    return open_link(engine._open.context, "far")


def state(engine: Store) -> Any:
    return read_all(open_link(engine._open.context, "far"))[0].state


def owed(engine: Store) -> int:
    return engine.copies.locations()[0].locking


# --- the journal ----------------------------------------------------------------------------------------------


def test_the_journal_says_what_is_locked(
    engine: Store, make: Maker, far: Link, grown: list[str]
) -> None:
    end = engine.lock_point(grown[0], for_s=DAY).locked_ns
    assert owed(engine) == 0  # it is not there yet
    engine.copies.send("far")
    assert state(engine).locks == {grown[0]: end} and owed(engine) == 0
    make.tree.barrier()
    new = engine.snapshot("m", lock_s=2 * DAY)
    engine.copies.send("far")
    assert state(engine).locks == {grown[0]: end, new.id: new.locked_ns}
    longer = engine.lock_point(grown[0], for_s=3 * DAY).locked_ns
    again = engine.lock_point(grown[1], until_ns=longer).locked_ns
    assert owed(engine) == 2
    before = far.location.stat("holdfast.json"), len(list(far.location.list("journal/")))
    assert engine.copies.bring_locks("far").told == 2
    assert len(list(far.location.list("journal/"))) == before[1] + 1  # of one time, in one entry
    assert state(engine).locks == {grown[0]: longer, grown[1]: again, new.id: new.locked_ns}
    assert engine.copies.bring_locks("far").told == owed(engine) == 0


@pytest.mark.parametrize("done", [False, True])
@pytest.mark.seldom
def test_a_lock_is_told_though_the_telling_was_cut_off(
    engine: Store, far: Link, grown: list[str], done: bool
) -> None:
    engine.copies.send("far")
    end = engine.lock_point(grown[1], for_s=DAY).locked_ns
    link = open_link(engine._open.context, "far")
    link.location = faulty = Faulty(link.location)
    faulty.on("create", Fail(LocationUnavailable("gone"), done=done), name="journal/")
    with pytest.raises(LocationUnavailable):
        Holding(engine._open, link, report=silent, stop=lambda: False).bring()
    assert owed(engine) == 1
    engine.copies.send("far")
    assert owed(engine) == 0 and state(engine).locks == {grown[1]: end}
    entries = [link.location.read(one.name) for one in link.location.list("journal/")]
    kinds = [journal.decode(link.vault, at + 1, raw).body for at, raw in enumerate(entries)]
    assert kinds.count(Locked((grown[1],), end)) == 1


def forge(link: Link, body: journal.Body) -> None:
    """An entry by this machine's key that this machine's store did not write."""
    row = link.row
    last, writer = bytes.fromhex(row.last), bytes.fromhex(row.writer)
    raw = journal.encode(link.vault, journal.Entry(row.seq + 1, last, writer, time.time_ns(), body))
    assert link.location.create(journal.path_of(row.seq + 1), raw)
    link.row = replace(row, seq=row.seq + 1, last=journal.digest(raw).hex())


def test_who_removes_a_locked_point_there_is_contested(
    engine: Store, far: Link, grown: list[str], tmp_path: Path, place: Place
) -> None:
    """By the journal alone: whoever has this machine's key can write there, but not bring a deletion about."""
    engine.copies.send("far")
    end = engine.lock_point(grown[0], for_s=DAY).locked_ns
    engine.copies.send("far")
    link = open_link(engine._open.context, "far")
    forge(link, Removed((grown[0], grown[1])))
    forge(link, Locked((grown[0],), end - 5 * SECOND))  # nor is it made shorter
    forge(link, PacksChanged((), tuple(sorted(state(engine).packs))))
    with pytest.raises(Corrupt, match="adopt the location anew"):  # this store takes none of them
        engine.copies.send("far")
    chain = state(engine)
    assert list(chain.points) == [grown[0], grown[2]] and chain.contested == {grown[0]}
    assert chain.locks == {grown[0]: end}
    report = Store.adopt(str(tmp_path / "new"), place.url, SECRET)
    assert any("it was locked" in one for one in report.done) and report.points == 2
    with Store.open(str(tmp_path / "new")) as store:
        assert store.point(grown[0]).locked_ns == end and store.point(grown[2]).locked_ns == 0
        with pytest.raises(Held):
            store.remove_point(grown[0])
        assert locks.kept(store._open.context)[0] == {grown[0]: end}
        assert store.check(read_data=True).problems == []


@pytest.mark.seldom
def test_a_deletion_after_a_lock_is_told_with_its_time(
    engine: Store, far: Link, grown: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clock that was set back since must not make readers take it for one of a locked point."""
    engine.copies.send("far")
    system = engine._open.context.system
    real_time, real_up = system.time_ns, system.since_boot
    end = engine.lock_point(grown[0], for_s=60).locked_ns
    engine.copies.send("far")
    with monkeypatch.context() as later:
        later.setattr(system, "time_ns", lambda: real_time() + 100 * SECOND)
        later.setattr(system, "since_boot", lambda: real_up() + 100)
        engine.remove_point(grown[0])
    engine.copies.send("far")
    chain = state(engine)
    assert grown[0] not in chain.points and not chain.contested and real_time() < end


def test_a_deletion_that_this_store_never_made_frees_nothing(
    engine: Store, far: Link, grown: list[str], tmp_path: Path, place: Place
) -> None:
    """Somebody had this machine's key: what is here is there, or is sent again."""
    engine.copies.send("far")
    end = engine.lock_point(grown[0], for_s=DAY).locked_ns
    engine.copies.send("far")
    open_link(engine._open.context, "far").append(Removed((grown[0], grown[1])))
    engine.copies.reclaim("far", terms=Terms(grace_s=0))
    assert sorted(state(engine).points) == sorted((grown[0], grown[2]))
    engine.copies.send("far")
    assert sorted(state(engine).points) == sorted(grown)
    assert {one.state for one in engine.copies.uploads()} == {"verified"}
    report = Store.adopt(str(tmp_path / "new"), place.url, SECRET)
    assert report.points == 3 and not report.left_out
    with Store.open(str(tmp_path / "new")) as store:
        assert store.point(grown[0]).locked_ns == end
        assert store.check(read_data=True).problems == []


def test_a_store_put_back_from_an_older_copy_takes_the_locks_that_were_told(
    engine: Store, far: Link, grown: list[str], tmp_path: Path
) -> None:
    engine.copies.send("far")
    shutil.copytree(engine.path, tmp_path / "older")
    end = engine.lock_point(grown[0], for_s=DAY).locked_ns
    engine.copies.send("far")
    with Store.open(str(tmp_path / "older")) as store:
        store.copies.send("far")
        assert store.point(grown[0]).locked_ns == end
        with pytest.raises(Held):
            store.remove_point(grown[0])
        assert store.check().problems == []
