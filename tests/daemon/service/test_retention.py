"""Retention: what is given up, what never is, and no clock that jumps deletes more."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.contract import MountSpec, PointQuery, RestoreSpec
from daemon.service import Service, retention
from daemon.service.retention import Seen
from engine import PointInfo
from tests.daemon.service.support import DAY, HOUR, Clock, new_store, served, settings

NOW = 1_000 * DAY


def point(seq: int, time_ns: int) -> PointInfo:
    return PointInfo(f"p{seq}", "m", seq, time_ns, "", 0, 0)


@given(
    times=st.lists(st.integers(0, 2 * NOW), max_size=30), last=st.integers(0, 8),
    days=st.integers(0, 500), kept=st.sets(st.integers(1, 30)), back=st.integers(0, NOW),
)  # fmt: skip
def test_what_is_expired(times: list[int], last: int, days: int, kept: set[int], back: int) -> None:
    points = [point(seq, time_ns) for seq, time_ns in enumerate(times, 1)]
    names = {f"p{seq}" for seq in kept}

    def expired(now_ns: int) -> list[str]:
        found = retention.expired(points, names, last=last, within_s=days * 86400.0, now_ns=now_ns)
        return [one.id for one in found]

    gone = expired(NOW)
    assert not set(gone) & names
    assert not set(gone) & {one.id for one in points[-max(last, 1) :]}
    young = [one.id for one in points if one.time_ns >= NOW - days * DAY]
    assert not days or not set(gone) & set(young)
    if not last and not days:
        assert gone == []
    if days:  # set back, the clock deletes no more
        assert set(expired(NOW - back)) <= set(gone) | {
            one.id for one in points if one.time_ns > NOW - back
        }
        assert set(expired(max(0, NOW - back))) & set(young) == set()
    assert gone == [one.id for one in points if one.id in gone], "the oldest first"


def test_the_rule_by_example() -> None:
    points = [point(seq, NOW - (10 - seq) * DAY) for seq in range(1, 11)]

    def left(last: int, days: float) -> int:
        return 10 - len(retention.expired(points, (), last=last, within_s=days * 86400, now_ns=NOW))

    assert [left(0, 0), left(1, 0), left(3, 0), left(20, 0)] == [10, 1, 3, 10]
    assert [left(0, 0.5), left(0, 2.5), left(5, 2.5), left(2, 4.5)] == [1, 3, 5, 5]


def test_a_point_made_while_the_clock_was_wrong_is_as_young_as_those_before_it() -> None:
    points = [point(1, NOW - DAY), point(2, NOW - 900 * DAY), point(3, NOW)]
    assert retention.expired(points, (), last=1, within_s=2 * 86400, now_ns=NOW) == []


@pytest.mark.parametrize(
    ("wall", "boot", "believed", "ahead"),
    [(HOUR, 3600.0, HOUR, 0), (HOUR + 9 * 10**9, 3600.0, HOUR, 0),
     (500 * DAY, 3600.0, HOUR, 500 * DAY - HOUR), (-DAY, 3600.0, -DAY, -DAY - HOUR)],
)  # fmt: skip
def test_which_time_is_believed(wall: int, boot: float, believed: int, ahead: int) -> None:
    last = Seen(NOW, 100.0, "boot")
    found = retention.believable(Seen(NOW + wall, 100.0 + boot, "boot"), last)
    assert found[:2] == (NOW + believed, ahead)
    assert found[2].time_ns == NOW + HOUR, "however often it is set a little"
    assert retention.believable(Seen(NOW + wall, 5.0, "another"), last)[:2] == (NOW + wall, 0)
    assert retention.from_mark(retention.to_mark(last)) == last and retention.from_mark("") is None


@contextmanager
def kept(tmp_path: Path, **keep: float) -> Iterator[tuple[Service, Clock, Callable[[float], None]]]:
    """A service whose points are a day apart; the last value lets that many days go by."""
    path = str(tmp_path / "store")
    new_store(path)
    clock, boot = Clock(), [1000.0]

    def days(count: float) -> None:
        clock.now += int(count * DAY)
        boot[0] += count * 86400

    config = settings(path, {"m": {"keep": keep}})
    with served(path, config, clock=clock, since_boot=lambda: boot[0]) as service:
        service.create_mount(MountSpec("m"))
        yield service, clock, days


def labels(service: Service) -> list[str]:
    return [one.label for one in service.points(PointQuery()).items]


def at(service: Service, clock: Clock, label: str, monkeypatch: pytest.MonkeyPatch) -> None:
    planned = service.store.plan_point()._replace(time_ns=clock.now)
    with monkeypatch.context() as patch:
        patch.setattr(service.store, "plan_point", lambda: planned)
        service.snapshot("m", label=label)


def test_expired_points_are_deleted_and_those_in_use_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with kept(tmp_path, last=2, within_s=2.5 * 86400) as (service, clock, days):
        for number in range(6):
            at(service, clock, str(number), monkeypatch)
            days(1)
        points = service.points(PointQuery()).items
        service.restore(RestoreSpec(points[0].id))
        service.keep(points[1].id)
        assert service.point(points[1].id).kept
        service.lock(points[3].id, for_s=3600)
        assert [one.label for one in service.expire("m", clock.now)] == ["2"]
        assert labels(service) == ["0", "1", "3", "4", "5"]
        with service.pinned(points[4].id):
            days(30)  # as retention knows; the machine has not been up so long
            assert service.expire("m", clock.now) == []
        assert labels(service) == ["0", "1", "3", "4", "5"]


def test_a_clock_that_jumps_deletes_nothing_and_is_an_incident(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with kept(tmp_path, within_s=2.5 * 86400) as (service, clock, days):
        for number in range(3):
            at(service, clock, str(number), monkeypatch)
            days(1)
        assert [one.label for one in service.expire("m", clock.now)] == ["0"]
        true = clock.now
        for jump in (400 * DAY, -400 * DAY):
            clock.now = true + jump
            assert service.expire("m", clock.now) == [] and labels(service) == ["1", "2"]
        assert [one["kind"] for one in service.incidents()] == ["clock"]
        clock.now = true
        days(1)
        assert labels(service) == ["1", "2"]
        service.expire("m", clock.now)
        assert labels(service) == ["2"]
        at(service, clock, "3", monkeypatch)
        clock.now += 30 * DAY
        assert service.expire("m", clock.now) == []
        service.reset_incidents()
        assert [one.label for one in service.expire("m", clock.now)] == ["2"]
