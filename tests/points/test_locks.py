"""A locked point stays, whoever asks and whatever the clock is set to; its lock is only ever made longer."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine import Store, clock, home, limits, locks
from engine.clock import Now, Seen
from engine.errors import Busy, Held, InvalidRequest, NotFound, StoreFull
from engine.home import OpenStore
from engine.index import Table
from engine.index.rows import KIND_TOMBSTONE, U64
from engine.maintain.repair import rebuild_index
from engine.nodes import point as codec
from engine.nodes.point import Tombstone
from engine.progress import silent
from engine.seam import Os

SECOND = 10**9
DAY = 86_400
BEGIN = 1_800_000_000 * SECOND


class SetOs(Os):
    """A machine whose clock is set: ``wall``, ``up`` and ``booted`` are what it says."""

    def __init__(self) -> None:
        self.wall, self.up, self.booted = BEGIN, 100.0, "one"

    def time_ns(self) -> int:
        return self.wall

    def since_boot(self) -> float:
        return self.up

    def boot(self) -> str:
        return self.booted

    def wait(self, seconds: float) -> None:
        self.wall += int(seconds * SECOND)
        self.up += seconds


@pytest.fixture
def system() -> SetOs:
    return SetOs()


@pytest.fixture
def engine(tmp_path: Path, system: SetOs) -> Iterator[Store]:
    home.init(str(tmp_path / "store"), system=system)
    store = opened(tmp_path / "store", system)
    store.create_mount("m")
    yield store
    with suppress(KeyError):  # a test may have closed it
        store.close()


def opened(path: Path, system: SetOs) -> Store:
    return Store(OpenStore(str(path), system=system))


def test_a_locked_point_stays_until_its_time(engine: Store, system: SetOs) -> None:
    point, other = engine.snapshot("m").id, engine.snapshot("m").id
    assert engine.lock_point(point, for_s=30 * DAY).locked_ns == BEGIN + 30 * DAY * SECOND
    assert [one.locked_ns for one in engine.points()] == [BEGIN + 30 * DAY * SECOND, 0]
    for names in ([point], [other, point]):
        with pytest.raises(Held, match="one until 2027-02-14 08:00:00 UTC"):
            engine.remove_points(names)
    system.wait(30 * DAY - 1)
    with pytest.raises(Held):
        engine.remove_point(point)
    assert len(engine.points()) == 2
    system.wait(1)
    engine.remove_points([point, other])
    with engine._open.context.index.read() as txn:
        assert locks.every(txn) == {}


def test_a_lock_is_only_made_longer(engine: Store, system: SetOs) -> None:
    point = engine.snapshot("m", lock_s=10 * DAY)
    end = BEGIN + 10 * DAY * SECOND
    assert point.locked_ns == end == engine.point("m@latest").locked_ns
    assert engine.lock_point(point.id, until_ns=end).locked_ns == end
    with pytest.raises(Held, match="longer only"):
        engine.lock_point(point.id, until_ns=end - 1)
    with pytest.raises(Held):
        engine.lock_point(point.id, for_s=9 * DAY)
    assert engine.lock_point(point.id, until_ns=end + 1).locked_ns == end + 1
    for wrong in (
        {},
        {"until_ns": 1, "for_s": 1.0},
        {"until_ns": BEGIN},
        {"for_s": 101 * 366.0 * DAY},
    ):
        with pytest.raises(InvalidRequest):
            engine.lock_point(point.id, **wrong)  # type: ignore[arg-type]
    with pytest.raises(NotFound):
        engine.lock_point("0" * 26, for_s=1)


def test_no_mount_with_a_locked_point_is_deleted(engine: Store) -> None:
    points = [engine.snapshot("m").id for _ in range(3)]
    engine.lock_point(points[1], for_s=DAY)
    with pytest.raises(Held):
        engine.remove_mount("m")
    assert [one.id for one in engine.points()] == points
    engine.open_live("m").close()


def test_a_clock_that_was_set_ends_no_lock(engine: Store, system: SetOs, tmp_path: Path) -> None:
    point = engine.snapshot("m", lock_s=30 * DAY).id
    system.wall += 400 * DAY * SECOND
    with pytest.raises(Held, match="may have been set: this store knows of 2027-01-15"):
        engine.remove_point(point)
    with opened(tmp_path / "store", system) as again, pytest.raises(Held):
        again.remove_point(point)
    later = engine.snapshot("m", lock_s=DAY)  # nor does it make one shorter
    assert later.locked_ns >= system.wall + DAY * SECOND
    system.wall -= 500 * DAY * SECOND
    assert engine.snapshot("m", lock_s=DAY).locked_ns == BEGIN + DAY * SECOND
    system.wait(31 * DAY)
    with pytest.raises(Held):
        engine.remove_point(point)
    system.wall = BEGIN + 31 * DAY * SECOND
    engine.remove_point(point)


def test_over_a_boot_the_clock_is_believed_as_it_was_first_seen(
    engine: Store, system: SetOs, tmp_path: Path
) -> None:
    point = engine.snapshot("m", lock_s=30 * DAY).id
    engine.close()
    system.wall, system.up, system.booted = BEGIN + 20 * DAY * SECOND, 5.0, "two"
    with opened(tmp_path / "store", system) as again:
        with pytest.raises(Held):
            again.remove_point(point)
        system.wall += 20 * DAY * SECOND
        with pytest.raises(Held):
            again.remove_point(point)
        system.up += 11 * DAY
        again.remove_point(point)


@given(
    st.lists(
        st.tuples(st.integers(0, 100), st.integers(-1000, 1000), st.integers(0, 20)), max_size=8
    )
)
def test_time_never_goes_by_faster_than_the_machine_is_up(
    steps: list[tuple[int, int, int]],
) -> None:
    """Within a boot, whatever the clock is set to: (time that goes by, by how much it is set, looks)."""
    wall, up = 10**6, 50
    _, seen = clock.judged(wall, up, "b", None)
    for gone, step, looks in steps:
        wall, up = max(0, wall + gone + step), up + gone
        for _ in range(looks):
            now, seen = clock.judged(wall, float(up), "b", seen)
            truly = 10**6 + (up - 50) * SECOND
            assert now.earliest <= truly <= now.latest
            assert now.earliest <= wall <= now.latest


def test_which_time_it_is() -> None:
    last = Seen(1000 * SECOND, 10.0, "b")
    assert clock.judged(1005 * SECOND, 15.0, "b", last)[0] == Now(1005 * SECOND, 1005 * SECOND)
    assert clock.judged(9005 * SECOND, 15.0, "b", last)[0] == Now(1005 * SECOND, 9005 * SECOND)
    assert clock.judged(5 * SECOND, 15.0, "b", last)[0] == Now(5 * SECOND, 1005 * SECOND)
    assert clock.judged(9005 * SECOND, 1.0, "c", last)[0] == Now(9005 * SECOND, 9005 * SECOND)
    assert clock.judged(5 * SECOND, 1.0, "c", last)[0] == Now(5 * SECOND, 1000 * SECOND)
    assert clock.judged(9 * SECOND, 1.0, "", Seen(8 * SECOND, 2.0, ""))[0].earliest == 9 * SECOND


def test_a_store_that_heard_a_server_believes_no_clock_over_a_boot(
    engine: Store, system: SetOs, tmp_path: Path
) -> None:
    point = engine.snapshot("m", lock_s=30 * DAY).id
    clock.hear(engine._open.context.index, BEGIN)
    system.wait(10 * DAY)
    engine.close()
    system.booted, system.up = "two", 100.0
    system.wall += 400 * DAY * SECOND
    with opened(tmp_path / "store", system) as again:
        with pytest.raises(Held, match="may have been set"):
            again.remove_point(point)
        system.up += 19 * DAY
        with pytest.raises(Held):  # it was looked last at the beginning
            again.remove_point(point)
        clock.hear(again._open.context.index, BEGIN + 29 * DAY * SECOND)
        with pytest.raises(Held):
            again.remove_point(point)
        clock.hear(again._open.context.index, BEGIN + 31 * DAY * SECOND)
        clock.hear(again._open.context.index, BEGIN)
        again.remove_point(point)


@given(
    st.lists(
        st.tuples(
            st.integers(0, 100), st.integers(0, 100), st.integers(-1000, 1000), st.booleans()
        ),
        max_size=8,
    )
)
def test_with_a_server_the_time_is_never_later_than_it_is(
    steps: list[tuple[int, int, int, bool]],
) -> None:
    """Over boots too: (time off, time up, by how much the clock is set meanwhile, whether the server is heard)."""
    truly = wall = 10**6 * SECOND
    _, seen = clock.judged(wall, 50.0, "0", None)
    heard = truly
    for boot, (off, up, step, told) in enumerate(steps, 1):
        truly += (off + up) * SECOND
        wall = max(0, wall + (off + up + step) * SECOND)
        heard = truly if told else heard
        now, seen = clock.judged(wall, float(up), str(boot), seen, heard)
        assert now.earliest <= truly and (not told or now.earliest == min(wall, truly))
        assert now.earliest <= wall <= now.latest


@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.integers(0, 100), st.integers(-1000, 1000), st.integers(0, 4000)),
        max_size=8,
    )
)  # fmt: skip
def test_whatever_a_server_says_no_lock_ends_sooner_by_it(
    steps: list[tuple[int, int, int, int]],
) -> None:
    """It may be on this machine: (the same boot, time that goes by, step of the clock, what the server says)."""
    wall, up, boot = 1000 * SECOND, 50, 0
    heard = believed = clock.judged(wall, 50.0, "0", None)[1]
    there = 0
    for another, gone, step, said in steps:
        boot, up = (boot, up + gone) if another else (boot + 1, gone)
        wall, there = max(0, wall + (gone + step) * SECOND), max(there, said * SECOND)
        now, heard = clock.judged(wall, float(up), str(boot), heard, there)
        usual, believed = clock.judged(wall, float(up), str(boot), believed)
        assert now.earliest <= usual.earliest and now.latest == usual.latest


# --- crashes and damage -------------------------------------------------------------------------------------


def test_an_index_made_anew_has_the_locks(engine: Store, system: SetOs, tmp_path: Path) -> None:
    kept, gone = (engine.snapshot("m", lock_s=days * DAY).id for days in (30, 1))
    engine.lock_point(kept, for_s=40 * DAY)
    system.wait(2 * DAY)
    engine.remove_point(gone)
    engine.close()
    path = tmp_path / "store"
    with (path / locks.FILE).open("ab") as file:
        file.write(b"0123 torn")
    done = rebuild_index(str(path), report=silent, system=system).done
    assert "1 lines of locked cannot be read" in done
    with opened(path, system) as again:
        found = again.points()
        assert [(one.id, one.locked_ns) for one in found] == [(kept, BEGIN + 40 * DAY * SECOND)]
        with pytest.raises(Held):
            again.remove_point(kept)
        again.lock_point(kept, for_s=50 * DAY)  # behind the torn line
        assert locks.kept(again._open.context)[0][kept] == BEGIN + 52 * DAY * SECOND
        assert again.check().problems == []


def test_an_index_put_back_from_an_older_copy_has_the_locks(
    engine: Store, system: SetOs, tmp_path: Path
) -> None:
    path = tmp_path / "store"
    longer, new, gone = (engine.snapshot("m").id for _ in range(3))
    engine.lock_point(longer, for_s=DAY)
    engine.close()
    shutil.copytree(path / "index", tmp_path / "older")
    with opened(path, system) as store:
        store.lock_point(longer, for_s=30 * DAY)
        store.lock_point(new, for_s=20 * DAY)
        store.lock_point(gone, for_s=DAY)
    shutil.rmtree(path / "index")
    (tmp_path / "older").rename(path / "index")
    with opened(path, system) as store:
        with pytest.raises(Held, match="longer only"):
            store.lock_point(longer, for_s=29 * DAY)
        system.wait(2 * DAY)
        for point in (longer, new):
            with pytest.raises(Held):
                store.remove_point(point)
        store.remove_point(gone)
        assert locks.regain_kept(store._open.context) == 0
        ends = {one.id: one.locked_ns for one in store.points()}
        assert ends == {
            longer: BEGIN + 30 * DAY * SECOND, new: BEGIN + 20 * DAY * SECOND,
        }  # fmt: skip
        assert store.check().problems == []


def test_an_index_made_anew_believes_no_clock_that_was_set(
    engine: Store, system: SetOs, tmp_path: Path
) -> None:
    path = tmp_path / "store"
    point = engine.snapshot("m", lock_s=30 * DAY).id
    engine.close()
    system.wait(DAY)
    system.wall += 400 * DAY * SECOND
    rebuild_index(str(path), report=silent, system=system)
    with opened(path, system) as again:
        with pytest.raises(Held):
            again.remove_point(point)
        system.wait(29 * DAY)
        again.remove_point(point)


def test_the_file_has_the_lock_before_anybody_hears_of_it(
    engine: Store, system: SetOs, monkeypatch: pytest.MonkeyPatch
) -> None:
    point = engine.snapshot("m").id

    def full(*_: object) -> None:
        raise OSError(28, "no room")

    with monkeypatch.context() as broken:
        broken.setattr(system, "pwritev", full)
        with pytest.raises(StoreFull):
            engine.lock_point(point, for_s=DAY)
    assert engine.point(point).locked_ns == 0
    engine.lock_point(point, for_s=DAY)
    (Path(engine.path) / locks.FILE).unlink()
    assert [one.code for one in engine.check().problems] == ["lock"]
    assert "1 locks written down again for an index made anew" in engine.repair().done
    assert engine.check().problems == []


def test_a_tombstone_of_a_deletion_that_was_refused_deletes_nothing(
    engine: Store, system: SetOs
) -> None:
    """The disk filled up behind it, and the point was locked later."""
    point = engine.snapshot("m").id
    writer = engine._open.session.writer
    with writer.holds.open() as hold:
        tomb = codec.encode_tombstone(Tombstone(point, BEGIN))
        writer.put_record(KIND_TOMBSTONE, tomb, hold)
        writer.commit(lambda txn: None)
    engine.lock_point(point, for_s=DAY)
    path = engine.path
    engine.close()
    rebuild_index(path, report=silent, system=system)
    with opened(Path(path), system) as again:
        assert [one.id for one in again.points()] == [point]


def test_what_is_being_deleted_is_not_locked(engine: Store) -> None:
    point = engine.snapshot("m").id
    pin = U64.pack(engine._open.session.worker.id) + point.encode()
    with engine._open.context.index.write() as txn:
        txn.put(Table.PINS, pin, b"rm")
    with pytest.raises(Busy):
        engine.lock_point(point, for_s=DAY)


def test_the_file_stays_small(
    engine: Store, system: SetOs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "LOCK_SPARE", 10)
    path = Path(engine.path) / locks.FILE
    point = engine.snapshot("m").id
    sizes = []
    for number in range(60):
        engine.lock_point(point, for_s=DAY + number)
        sizes.append(path.stat().st_size)
    assert max(sizes) < 15 * 61
    system.wait(3 * DAY)
    engine.remove_point(point)
    with suppress(Held):
        engine.snapshot("m", lock_s=DAY)
    assert locks.kept(engine._open.context)[1] == 0
