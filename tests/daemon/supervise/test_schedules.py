"""When what is due, against clocks that are set, stop and jump; the machine that was off."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from daemon.config import Schedule
from daemon.supervise.schedules import LOOK_EVERY, SECOND, Schedules, Task, Timetable
from engine.errors import Busy

HOUR = 3600.0
START = 1_800_000_000 * SECOND  # on the hour


class Marks:
    def __init__(self) -> None:
        self.values: dict[str, str] = {}

    def get(self, name: str) -> str:
        return self.values.get(name, "")

    def put(self, name: str, value: str) -> None:
        self.values[name] = value


async def _nothing() -> None:
    pass


def task(text: str, name: str = "t", run: Callable[[], Awaitable[None]] = _nothing) -> Task:
    return Task(name, Schedule.parse(text), run)


class World:
    """Two clocks, and a timetable that is followed as ``Schedules`` does."""

    def __init__(self) -> None:
        self.wall = START
        self.steady = 1000.0
        self.marks = Marks()
        self.runs: list[float] = []
        self.restart()

    def restart(self) -> None:
        self.table = Timetable(self.marks, lambda: self.wall, self._passing)

    def _passing(self) -> float:
        """Between two looks some time goes by."""
        self.steady += 1e-6
        return self.steady

    def live(self, one: Task, seconds: float) -> int:
        """That much time goes by; how often it ran."""
        before = len(self.runs)
        end = self.steady + seconds
        while True:
            if self.table.due(one):
                self.table.begun(one)
                self.runs.append(self.steady)
            wait = min(self.table.wait([one]), LOOK_EVERY, end - self.steady)
            if wait <= 0:
                return len(self.runs) - before
            self.steady += wait
            self.wall += int(wait * SECOND)


def test_each_time_once() -> None:
    world = World()
    assert world.live(task("every 1h"), 10 * HOUR + 1) == 10
    assert all(abs(at - 1000 - (n + 1) * HOUR) < 1 for n, at in enumerate(world.runs))


def test_never() -> None:
    world = World()
    assert world.live(task(""), 10 * HOUR) == 0


def test_what_was_missed_is_made_up_once() -> None:
    world = World()
    world.live(task("every 1h"), 2 * HOUR + 60)
    world.wall += int(5.5 * HOUR) * SECOND  # the machine was off
    world.restart()
    assert world.live(task("every 1h"), 60) == 1
    assert world.live(task("every 1h"), HOUR) == 1


def test_a_restart_repeats_nothing() -> None:
    world = World()
    assert world.live(task("every 1h"), HOUR + 1) == 1
    for _ in range(20):
        world.restart()
        assert world.live(task("every 1h"), 10) == 0


def test_a_clock_set_forward_makes_up_once() -> None:
    world = World()
    world.live(task("every 1h"), 60)
    world.wall += int(365 * 24 * HOUR) * SECOND
    assert world.live(task("every 1h"), 60) == 1


def test_a_clock_set_back_goes_on_at_the_next_time() -> None:
    world = World()
    world.live(task("every 1h"), HOUR + 60)
    world.wall -= int(365 * 24 * HOUR) * SECOND
    assert world.live(task("every 1h"), 60) == 0
    assert world.live(task("every 1h"), 2 * HOUR) == 2


def test_a_mark_that_is_nonsense() -> None:
    world = World()
    world.marks.values["schedule t"] = "soon"
    assert world.live(task("every 1h"), HOUR + 1) == 1


def test_what_was_never_done_may_be_due_at_once() -> None:
    world = World()
    one = Task("t", Schedule.parse("every 1h"), _nothing, at_once=True)
    assert world.live(one, 10) == 1
    assert world.live(one, 10) == 0


@settings(max_examples=40)
@given(
    st.lists(st.tuples(st.floats(0.1, 7200), st.integers(-(10**9), 10**9)), min_size=1, max_size=8),
    st.sampled_from(["every 1m", "every 1h", "every 24h", "7 3 * * *"]),
)
def test_no_storm_however_the_clock_jumps(jumps: list[tuple[float, int]], text: str) -> None:
    """Never more runs than the jumps and the time that went by account for, nor two close together."""
    world = World()
    one = task(text)
    allowed = 1
    for seconds, jump in jumps:
        world.live(one, seconds)
        world.wall = max(0, world.wall + jump * SECOND)
        allowed += 2 + int(seconds // 60)
    assert len(world.runs) <= allowed
    pause = 29.9 if text == "every 1m" else 599.9
    assert all(b - a >= pause for a, b in zip(world.runs, world.runs[1:], strict=False))


@pytest.fixture
def clock() -> trio.testing.MockClock:
    return trio.testing.MockClock(autojump_threshold=0.02)  # threads are given their time


async def test_one_that_hangs_or_fails_holds_up_no_other(clock: trio.testing.MockClock) -> None:
    runs: dict[str, int] = {"slow": 0, "bad": 0, "good": 0}

    async def slow() -> None:
        runs["slow"] += 1
        await trio.sleep_forever()

    async def bad() -> None:
        runs["bad"] += 1
        raise Busy("bad")

    async def good() -> None:
        runs["good"] += 1

    # The clock of the table is trio's: it may only be asked on the loop's thread, so the time is kept here.
    failed: list[str] = []
    tasks = [task("every 1h", n, r) for n, r in (("slow", slow), ("bad", bad), ("good", good))]
    now = [0.0]
    table = Timetable(Marks(), lambda: START + int(now[0] * SECOND), lambda: now[0])

    async def ask() -> list[Task]:
        now[0] = trio.current_time() - begin
        if now[0] > 4.5 * HOUR:
            scope.cancel()  # a deadline would be jumped to while a thread works
        return tasks

    begin = trio.current_time()
    schedules = Schedules(table, ask, lambda name, error: failed.append(name), look_every=900)
    with trio.CancelScope() as scope:
        await schedules.run()
    assert runs == {"slow": 1, "bad": 4, "good": 4}
    assert failed == ["bad"] * 4


async def test_a_state_that_fails_is_looked_at_again(clock: trio.testing.MockClock) -> None:
    failed: list[str] = []
    asked = 0
    begin = trio.current_time()

    async def ask() -> list[Task]:
        nonlocal asked
        asked += 1
        if asked == 4:
            scope.cancel()
        raise Busy("state")

    table = Timetable(Marks(), lambda: START, lambda: 0.0)
    schedules = Schedules(table, ask, lambda name, error: failed.append(name))
    with trio.CancelScope() as scope:
        await schedules.run()
    assert failed == ["schedules"] * asked
    assert trio.current_time() - begin == 90


async def test_a_new_configuration_is_looked_at_at_once() -> None:
    asked: list[trio.Event] = [trio.Event(), trio.Event()]
    waiting = iter(asked)

    async def ask() -> list[Task]:
        next(waiting).set()
        return []

    schedules = Schedules(Timetable(Marks(), lambda: START, lambda: 0.0), ask, lambda *_: None)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(schedules.run)
        with trio.fail_after(5):
            await asked[0].wait()
            await trio.testing.wait_all_tasks_blocked()
            schedules.look()
            await asked[1].wait()
        nursery.cancel_scope.cancel()
