"""Points that are not like those before them: what is told from figures, and what retention does then."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.config import Config
from daemon.config.models import Freeze
from daemon.contract import MountSpec, PointQuery
from daemon.service import Service
from daemon.service.collapse import ENOUGH, Figures, Watch, collapse
from engine import PointInfo
from engine.errors import NotFound
from tests.daemon.service.support import HOUR, Clock, fill, new_store, served, settings

LIMITS = Freeze()
MIB = 1 << 20
USUAL = Figures("p", 1, 100 * MIB, 1000, 30, 3 * MIB, 3 * MIB, MIB)


def told(new: Figures, before: int = 5, limits: Freeze = LIMITS, *, accepted: bool = False) -> str:
    return collapse([USUAL] * before, new, limits, accepted=accepted)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({}, ""),
        ({"bytes": 50 * MIB}, ""),
        ({"bytes": 50 * MIB - 1}, "bytes"),
        ({"bytes": 0, "files": 1}, "bytes"),
        ({"files": 499}, "files"),
        ({"bytes": 10_000 * MIB, "files": 10**6}, ""),  # growth is no collapse
        ({"new": 20 * MIB, "plain": 9 * MIB, "stored": 9 * MIB}, "encrypted"),
        ({"new": 20 * MIB, "plain": 9 * MIB, "stored": 10 * MIB}, "encrypted"),
        ({"new": 19 * MIB, "plain": 9 * MIB, "stored": 9 * MIB}, ""),  # too little of it
        ({"new": 90 * MIB, "plain": 9 * MIB, "stored": 8 * MIB}, ""),  # it compresses still
        ({"new": -1, "plain": -1, "stored": -1}, ""),  # nobody knows
        ({"new": 90 * MIB, "plain": 0, "stored": 0}, ""),
    ],
)
def test_what_collapses(change: dict[str, int], word: str) -> None:
    found = told(replace(USUAL, **change))  # type: ignore[arg-type]
    assert (word in found) if word else not found
    assert not found or ("expected" in found and "found" in found)


def test_what_never_compressed_does_not_collapse() -> None:
    dense = replace(USUAL, plain=MIB, stored=MIB)
    assert collapse([dense] * 5, replace(dense, new=90 * MIB), LIMITS) == ""


def test_how_many_points_are_needed_and_which_count() -> None:
    bad = replace(USUAL, bytes=0)
    assert told(bad, 2) == "" and told(bad, 3) and told(bad, 1, accepted=True)
    assert told(bad, 0, accepted=True) == ""
    small = [replace(USUAL, bytes=0)] * 10
    assert collapse([*[USUAL] * 90, *small], bad, LIMITS) == ""  # long ago
    assert collapse([*small[:4], *[USUAL] * 5], bad, LIMITS)  # the median of what may be off itself


def test_each_can_be_switched_off() -> None:
    none = Freeze(bytes_below=0, files_below=0, stored_above=0)
    worst = Figures("p", 9, 0, 0, 1, ENOUGH, ENOUGH, ENOUGH)
    assert told(worst) and told(worst, limits=none) == ""


FIGURES = st.builds(
    Figures, st.just("p"), st.integers(1, 99), *[st.integers(0, 2**50)] * 2, *[st.integers(-1, 2**50)] * 4
)  # fmt: skip


@given(st.lists(FIGURES, max_size=14), FIGURES, st.booleans())
def test_any_figures(before: list[Figures], new: Figures, accepted: bool) -> None:
    collapse(before, new, LIMITS, accepted=accepted)
    watch = Watch(tuple(before), accepted)
    for _ in range(3):
        watch = watch.looked_at(new, LIMITS, 5)
        assert len(watch.seen) <= LIMITS.points + 1
    assert Watch.from_json(watch.to_json()) == watch
    assert collapse([new] * 5, new, LIMITS) == ""  # what is as always is never a collapse


def test_what_is_frozen_stays_so_until_it_is_released() -> None:
    watch = Watch((USUAL,) * 4)
    assert watch.released() == watch
    watch = watch.looked_at(replace(USUAL, point="bad", bytes=5), LIMITS, 7)
    assert (watch.point, watch.since_ns) == ("bad", 7) and watch.frozen
    why = watch.frozen
    for number in range(20):
        watch = watch.looked_at(replace(USUAL, point="good", seq=10 + number), LIMITS, 8)
    assert (watch.frozen, watch.point, watch.since_ns) == (why, "bad", 7)
    free = watch.released()
    assert free.frozen == "" and [one.seq for one in free.seen] == [29]
    assert free.looked_at(replace(USUAL, bytes=1), LIMITS, 9).frozen  # somebody said what is usual


# --- with points ---------------------------------------------------------------------------------------------


class Mount:
    """A mount that keeps its last two points, written to as a producer would."""

    def __init__(self, service: Service, path: str, clock: Clock) -> None:
        self.service, self.path, self.clock = service, path, clock
        self.points: list[str] = []

    def point(self, files: dict[str, bytes]) -> PointInfo:
        fill(self.path, "m", files)
        made = self.service.snapshot("m").point
        self.points.append(made.id)
        self.clock.now += HOUR
        return made

    def expire(self) -> list[str]:
        return [one.id for one in self.service.expire("m", self.clock.now)]

    def left(self) -> list[str]:
        return [one.id for one in self.service.points(PointQuery()).items]


def config(path: str, **table: object) -> Config:
    return settings(path, {"m": {"keep": {"last": 2}, **table}})


def text(number: int, size: int = ENOUGH) -> bytes:
    return (b"line %d of a log that compresses well\n" % number * (size // 20))[:size]


def test_retention_of_a_mount_that_was_encrypted_waits_for_somebody(tmp_path: Path) -> None:
    path, clock = str(tmp_path / "store"), Clock()
    new_store(path)
    with served(path, config(path), clock=clock, since_boot=lambda: clock.now / 1e9) as service:
        service.create_mount(MountSpec("m"))
        mount = Mount(service, path, clock)
        for number in range(5):
            mount.point({"log": text(number), "other": text(0)})
            mount.expire()
        assert mount.left() == mount.points[-2:]
        bad = mount.point({"log": os.urandom(2 * ENOUGH), "other": os.urandom(ENOUGH)})
        assert mount.expire() == []
        found = service.retention()[0]
        assert found.point == bad.id and "encrypted" in found.frozen and found.last == 2
        assert service.mount("m").frozen == found.frozen
        assert [one["kind"] for one in service.incidents()] == ["expiry_frozen"]
        assert [(one.act, one.origin) for one in service.audit()] == [
            ("freeze retention", "retention")
        ]
        for number in range(4):  # healthy ones do not thaw it
            mount.point({"log": text(number), "other": text(1)})
            assert mount.expire() == []
        left = mount.points[-7:]
        assert mount.left() == left
    with served(
        path, config(path), clock=clock, since_boot=lambda: clock.now / 1e9
    ) as service:  # nor does a restart
        mount.service = service
        assert mount.expire() == [] and service.retention()[0].frozen == found.frozen
        service.remove_points([mount.points[-7]])  # by hand is another's decision
        assert service.release_retention("m").frozen == ""
        assert mount.expire() == left[1:-2] and mount.left() == left[-2:]
        assert service.release_retention("m") == service.retention()[0]
        with pytest.raises(NotFound):
            service.release_retention("n")


def test_a_mount_that_was_emptied(tmp_path: Path) -> None:
    path, clock = str(tmp_path / "store"), Clock()
    new_store(path)
    with served(path, config(path), clock=clock, since_boot=lambda: clock.now / 1e9) as service:
        service.create_mount(MountSpec("m"))
        mount = Mount(service, path, clock)
        for number in range(4):
            mount.point({f"d/{one}": text(number, 5000) for one in range(9)})
        emptied = mount.point({f"d/{one}": b"" for one in range(9)})
        assert mount.expire() == []  # looked at for the first time: those before are what is usual
        found = service.retention()[0]
        assert found.point == emptied.id and "bytes" in found.frozen and "files" not in found.frozen
        service.release_retention("m")
        assert len(mount.expire()) == 3
        service.delete_mount("m")
        service.create_mount(MountSpec("m"))
        assert service.retention()[0].frozen == ""


def test_a_mount_without_new_points(tmp_path: Path) -> None:
    path, clock = str(tmp_path / "store"), Clock()
    new_store(path)
    with served(
        path, config(path, unprotected_s=7200.0), clock=clock, since_boot=lambda: clock.now / 1e9
    ) as service:
        service.create_mount(MountSpec("m"))
        service.watch_all(clock.now)
        made = service.snapshot("m").point
        service.watch_all(made.time_ns + 2 * HOUR)
        assert service.incidents() == []
        service.watch_all(made.time_ns + 2 * HOUR + HOUR)
        assert [one["kind"] for one in service.incidents()] == ["points_late"]


def test_the_order_is_that_of_the_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever clocks said when points were made, those made first go first, and are what the others are compared
    with."""
    path, clock = str(tmp_path / "store"), Clock()
    new_store(path)
    with served(path, config(path), clock=clock, since_boot=lambda: clock.now / 1e9) as service:
        service.create_mount(MountSpec("m"))
        made = []
        for number in range(6):
            back = service.store.plan_point()._replace(time_ns=clock.now - number * 1000 * HOUR)
            with monkeypatch.context() as patch:
                patch.setattr(service.store, "plan_point", lambda back=back: back)
                fill(path, "m", {"f": b"x" * (1000 if number < 5 else 1)})
                made.append(service.snapshot("m").point.id)
            if number == 4:
                assert [one.id for one in service.expire("m", clock.now)] == made[:3]
        assert service.expire("m", clock.now) == []
        assert service.retention()[0].point == made[5]


def test_what_cannot_be_compared_is_judged_by_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, clock = str(tmp_path / "store"), Clock()
    new_store(path)
    with served(path, config(path), clock=clock, since_boot=lambda: clock.now / 1e9) as service:
        service.create_mount(MountSpec("m"))
        mount = Mount(service, path, clock)
        refuse: Callable[..., object] = lambda *_: (_ for _ in ()).throw(NotFound("a node"))  # noqa: E731
        monkeypatch.setattr(service.store, "novelty", refuse)
        for _ in range(4):
            mount.point({"f": text(1)})
        mount.expire()
        mount.point({"f": b""})
        assert mount.expire() == [] and "bytes" in service.retention()[0].frozen
