"""Bytes a second by the time of day, and the count of requests."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from engine import limits
from engine.errors import InvalidRequest, LocationUnavailable, ShuttingDown
from engine.locations import Bandwidth, Retry, Throttle, Window, open_location, parse_windows
from engine.locations.throttle import local_second
from tests.locations.faulty import Fail, Faulty

MIB = 1 << 20


class Day:
    """A clock that sleeping moves; second 0 is midnight."""

    def __init__(self, start: float = 0.0) -> None:
        self.now = start
        self.slept: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds

    def throttle(self, tmp_path: Path, up: str, down: str = "") -> Throttle:
        self.bandwidth = Bandwidth(parse_windows(up), parse_windows(down))
        return Throttle(
            open_location(f"file://{tmp_path}"),
            lambda: self.bandwidth,
            clock=lambda: int(self.now * 1e9),
            ticks=lambda: self.now,
            sleep=self.sleep,
            second=lambda ns: ns // 10**9 % 86_400,
        )


def test_each_direction_has_its_rate(tmp_path: Path) -> None:
    day = Day()
    location = day.throttle(tmp_path, "1M")
    for number in range(10):
        location.put(f"p/{number}", bytes(MIB))
        assert len(location.read(f"p/{number}")) == MIB
    assert location.create("last", b"1")
    assert 9.9 <= day.now <= 10.1
    assert max(day.slept) <= 1.0  # looks at the clock again and again
    day = Day()
    location = day.throttle(tmp_path, "", "2M")
    for number in range(10):
        assert len(location.read(f"p/{number}")) == MIB
        assert len(location.read(f"p/{number}", 0, MIB)) == MIB
        location.put(f"p/{number}", bytes(MIB))
    location.ranges("p/1", [(0, MIB // 2), (MIB // 2, MIB // 2)])
    assert 9.4 <= day.now <= 10.6


def test_what_was_not_used_is_saved_up_for_a_moment_only(tmp_path: Path) -> None:
    day = Day()
    location = day.throttle(tmp_path, "1M")
    day.now += 1000
    for number in range(5):
        location.put(f"p/{number}", bytes(MIB))
    assert 1002.9 <= day.now <= 1003.1


def test_by_the_time_of_day(tmp_path: Path) -> None:
    day = Day(8 * 3600 - 1)
    location = day.throttle(tmp_path, "08:00-18:00=1M")
    for _ in range(30):
        location.put("a", bytes(MIB))
    assert day.now == 8 * 3600 - 1 and not day.slept
    day.now += 1
    for number in range(10):
        location.put(f"b/{number}", bytes(MIB))
    assert 9 <= day.now - 8 * 3600 <= 10
    day.now = 18 * 3600 - 0.5
    location.put("c", bytes(3600 * MIB // 3600))
    location.put("d", bytes(8 * MIB))
    location.put("e", b"1")  # owed for eight seconds, and then the day's limit ends
    assert day.now - 18 * 3600 < 1.5


def test_windows_over_midnight_and_the_first_that_fits() -> None:
    night, always = parse_windows("22:00-06:30=5M, 100")
    assert night == Window(22 * 3600, 6 * 3600 + 1800, 5 * MIB) and always.rate == 100
    assert night.holds(23 * 3600) and night.holds(0) and night.holds(6 * 3600 + 1799)
    assert not night.holds(6 * 3600 + 1800) and not night.holds(12 * 3600)
    assert all(always.holds(second) for second in (0, 86_399))


@pytest.mark.parametrize(
    "text",
    [
        "fast", "0", "-5", "10T", "1M at 08:00", "8:00-9:00=1M", "24:01-08:00=1M", "08:00-25:00=1M", "08:00-08:00=1M",
        "08:00-24:30=1M", "08:00=1M", "08:00-18:00", "1M\n", "\u0661M",
    ],
)  # fmt: skip
def test_windows_that_make_no_sense(text: str) -> None:
    for number, windows in enumerate((text, f"5M,{text}"), 1):
        with pytest.raises(InvalidRequest, match=f"limit {number} of bytes a second"):
            parse_windows(windows)


def test_no_windows() -> None:
    assert parse_windows("") == () == Bandwidth().up


def test_other_windows_at_once(tmp_path: Path) -> None:
    day = Day()
    location = day.throttle(tmp_path, "1")
    location.put("a", bytes(1000))

    def lift(seconds: float) -> None:
        day.sleep(seconds)
        if day.now > 5:
            day.bandwidth = Bandwidth()

    location._sleep = lift
    location.put("b", bytes(1000))
    assert 5 < day.now < 7 + limits.BANDWIDTH_LOOK


def test_requests_are_counted(tmp_path: Path) -> None:
    location = Throttle(open_location(f"file://{tmp_path}"))
    location.put("small", b"123")
    location.put("large", bytes(limits.PUT_PART * 2 + 1))
    location.create("j/1", b"12")
    location.create("j/1", b"12")
    location.read("small")
    location.read("large", 10, 100)
    location.ranges("large", [(0, 1), (5, 5), (limits.PUT_PART, 10), (3, 0)])
    location.stat("small")
    assert len(list(location.list(""))) == 3
    location.remove([f"n/{number}" for number in range(limits.LIST_PAGE + 1)])
    assert location.counts() == {
        "put": 3, "part": 3, "create": 2, "get": 4, "head": 1, "list": 1, "delete": 2,
        "bytes_up": 3 + limits.PUT_PART * 2 + 1 + 4, "bytes_down": 3 + 100 + 10 + 10,
    }  # fmt: skip


def test_threads_share_the_rate(tmp_path: Path) -> None:
    day = Day()
    lock = threading.Lock()
    location = day.throttle(tmp_path, "1M")

    def sleep(seconds: float) -> None:
        with lock:
            day.now += min(seconds, 0.05)

    location._sleep = sleep

    def work(number: int) -> None:
        for turn in range(3):
            location.put(f"t/{number}/{turn}", bytes(MIB))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert day.now >= 10.9


def test_closing_ends_a_wait(tmp_path: Path) -> None:
    slow = Bandwidth(parse_windows("1"))
    location = Throttle(open_location(f"file://{tmp_path}"), lambda: slow)
    location.put("a", bytes(10_000))
    threading.Timer(0.1, location.close).start()
    with pytest.raises(ShuttingDown):
        location.put("b", b"12")


def test_the_second_of_the_day_is_this_machines() -> None:
    assert 0 <= local_second(1_700_000_000 * 10**9) < 86_400


def test_a_wait_for_a_turn_is_no_absence(tmp_path: Path) -> None:
    """Tries are paid for and counted each; only what they take counts as time that the location was gone."""
    day = Day()
    faulty = Faulty(open_location(f"file://{tmp_path}"))
    faulty.on("put", Fail(LocationUnavailable("gone")), times=5)
    slow = Bandwidth(parse_windows("1M"))
    throttle = Throttle(
        faulty, lambda: slow, clock=lambda: int(day.now * 1e9), ticks=lambda: day.now, sleep=day.sleep,
    )  # fmt: skip
    location = Retry(throttle, 20.0, clock=throttle.working, sleep=day.sleep, chance=lambda: 0.0)
    location.put("a", bytes(30 * MIB))
    assert 150 <= day.now < 180 and location.counts()["bytes_up"] == 6 * 30 * MIB
    faulty.on("put", Fail(LocationUnavailable("gone")), times=-1)
    with pytest.raises(LocationUnavailable, match=r"in 1[0-9] s"):
        location.put("b", bytes(MIB))
