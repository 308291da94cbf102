"""What may pass is tried again, by time; what does not pass is told at once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from engine import limits
from engine.errors import (
    Away,
    Corrupt,
    HoldfastError,
    LocationDenied,
    LocationUnavailable,
    NotFound,
    ShuttingDown,
    StoreFull,
)
from engine.locations import Retry, open_location
from tests.locations.faulty import Call, Fail, Faulty, Lose, Tear

GONE = LocationUnavailable("server", found="nothing")


class Time:
    """A clock that sleeping moves."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


@pytest.fixture
def inner(tmp_path: Path) -> Faulty:
    return Faulty(open_location(f"file://{tmp_path}"))


@pytest.fixture
def time_() -> Time:
    return Time()


@pytest.fixture
def retry(inner: Faulty, time_: Time) -> Retry:
    return Retry(inner, 180.0, clock=lambda: time_.now, sleep=time_.sleep, chance=lambda: 1.0)


def test_a_disk_that_was_taken_away_is_not_waited_for(
    tmp_path: Path, retry: Retry, time_: Time
) -> None:
    retry.put("packs/x", b"1")
    tmp_path.rename(f"{tmp_path}.away")
    tmp_path.mkdir()
    for ask in (retry.read, retry.stat, lambda name: retry.put(name, b"2")):
        with pytest.raises(Away, match="mount its disk"):
            ask("packs/x")
    assert not time_.slept


def down(inner: Faulty, time_: Time, until: float, operation: str = "*") -> None:
    """Whatever is asked before that time fails."""

    def check(*_: str) -> None:
        if time_.now < until:
            raise LocationUnavailable("server", found="connection refused")

    inner.on(operation, Call(check), times=-1)


def test_a_server_gone_for_two_minutes_is_survived(
    inner: Faulty, time_: Time, retry: Retry
) -> None:
    down(inner, time_, 120)
    retry.put("a", b"data")
    assert 120 <= time_.now <= 120 + limits.RETRY_LONGEST
    assert retry.read("a") == b"data"
    assert time_.slept[:4] == [0.5, 1.0, 2.0, 4.0] and max(time_.slept) == limits.RETRY_LONGEST


def test_one_gone_for_longer_is_told(inner: Faulty, time_: Time, retry: Retry) -> None:
    down(inner, time_, 10_000)
    with pytest.raises(LocationUnavailable, match=r"connection refused .*tried 1. times in 1.. s"):
        retry.stat("a")
    assert 180 - limits.RETRY_LONGEST <= time_.now <= 180


@pytest.mark.parametrize("error", [LocationDenied, NotFound, Corrupt, StoreFull])
def test_what_does_not_pass_is_not_tried_again(
    inner: Faulty, retry: Retry, error: type[HoldfastError]
) -> None:
    inner.on("*", Fail(error("a")), times=-1)
    for ask in (
        lambda: retry.put("a", b""),
        lambda: retry.create("a", b""),
        lambda: retry.read("a"),
        lambda: retry.ranges("a", [(0, 1)]),
        lambda: retry.stat("a"),
        lambda: next(retry.list("")),
        lambda: retry.remove(["a"]),
        lambda: retry.retain("a", 1),
        retry.features,
        lambda: retry.tidy(1),
    ):
        inner.calls.clear()
        with pytest.raises(error):
            ask()
        assert len(inner.calls) == 1


def test_a_create_that_meets_its_own_success(inner: Faulty, retry: Retry) -> None:
    inner.on("create", Fail(GONE, done=True))
    assert retry.create("j/1", b"mine") is True
    assert retry.create("j/1", b"mine") is False  # this one never was unsure


def test_a_create_that_meets_another_after_an_error(inner: Faulty, retry: Retry) -> None:
    inner.on("create", Call(lambda *_: inner.inner.create("j/1", b"theirs")))
    inner.on("create", Fail(GONE))
    assert retry.create("j/1", b"ours") is False
    inner.clear()
    inner.on("create", Fail(GONE))
    assert retry.create("j/1", b"ours") is False
    inner.clear()
    inner.on("create", Fail(GONE))
    assert retry.create("j/2", b"ours") is True and inner.calls == [("create", "j/2")] * 2


def test_unsure_and_the_comparison_fails_as_well(inner: Faulty, retry: Retry) -> None:
    inner.on("create", Fail(GONE, done=True))
    inner.on("stat", Fail(GONE))
    inner.on("read", Fail(GONE))
    assert retry.create("j/1", b"mine") is True


def test_a_list_goes_on_where_it_broke_off(inner: Faulty, retry: Retry) -> None:
    expected = [f"n/{number:03}" for number in range(50)]
    for name in expected:
        inner.inner.put(name, b"")

    class Breaking(Faulty):
        def list(self, prefix: str, after: str = ""):  # type: ignore[no-untyped-def]
            for number, one in enumerate(super().list(prefix, after)):
                if number == 20:
                    raise LocationUnavailable("list")
                yield one

    broken = Breaking(inner.inner)
    again = Retry(broken, 100, sleep=lambda _: None)
    assert [one.name for one in again.list("n/")] == expected
    assert broken.calls == [("list", "n/")] * 3


def test_closing_ends_a_wait(inner: Faulty) -> None:
    retry = Retry(inner, 1000.0)
    inner.on("stat", Call(lambda *_: retry.close()))
    inner.on("stat", Fail(GONE), times=-1)
    inner.inner.put("a", b"")
    assert retry.stat("a").size == 0  # what was under way ends as it ends
    with pytest.raises(ShuttingDown):
        retry.stat("a")


def test_faults_of_the_wrapper_for_tests(inner: Faulty) -> None:
    """What others build on: torn, lost and hidden things."""
    inner.on("put", Tear(3), name="packs/", after=1)
    inner.on("put", Lose(), name="lost")
    for name in ("packs/a", "packs/b", "lost", "seen"):
        inner.put(name, b"123456")
    assert inner.read("packs/a") == b"123456" and inner.read("packs/b") == b"123"
    inner.on("list", Lose(), name="packs/", times=-1)
    assert [one.name for one in inner.list("")] == ["seen"]
    inner.on("read", Tear(2))
    with pytest.raises(Corrupt):
        inner.read("seen")
    found: Callable[[], bytes] = lambda: inner.read("seen")  # noqa: E731
    assert found() == b"123456"
