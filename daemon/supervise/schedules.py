"""What is done by itself: snapshots and retention of mounts, collection, scrub, stale sessions, history.

When something was done last is a mark in the state, so a run that was missed (the machine was off, the daemon down)
is due at once, and is made up once.  The wall clock decides when something is due; it may be set.  Set forward, what
was due between is made up once; set back, the mark lies in the future and is brought back, and what comes next comes
at its next time.  However often it is set, a task does not begin more often than half its own interval apart, by the
clock that nobody sets (at most ``GUARD_MAX``).
"""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

import trio

from daemon.config import NEVER, Schedule
from engine.errors import HoldfastError

log = logging.getLogger("holdfast.supervise")

SECOND = 1_000_000_000
LOOK_EVERY = 30.0  # s: the longest a change of the clock or of the configuration goes unseen
GUARD_MAX = 600.0  # s


@dataclass(frozen=True)
class Task:
    """Something with a schedule. ``name`` is also that of its mark; ``run`` raises what went wrong. ``at_once``: it
    is due when it was never done."""

    name: str
    schedule: Schedule
    run: Callable[[], Awaitable[None]]
    at_once: bool = False


class Marks(Protocol):
    """When tasks ran last, as ``state.marks`` keeps it. Synchronous."""

    def get(self, name: str) -> str: ...
    def put(self, name: str, value: str) -> None: ...


class Timetable:
    """When which task is due: decisions only, nothing is run and nothing waited for.

    ``wall``: ns since the epoch; ``steady``: s, never set.
    """

    def __init__(self, marks: Marks, wall: Callable[[], int], steady: Callable[[], float]) -> None:
        self._marks = marks
        self._wall = wall
        self._steady = steady
        self._began: dict[str, float] = {}  # by the steady clock

    def due(self, task: Task) -> bool:
        """Whether it is to begin now; brings a mark that cannot be back to now."""
        now = self._wall()
        last = self._last(task, now)
        return self._steady() >= self._earliest(task, last) and task.schedule.next(last) <= now

    def begun(self, task: Task) -> None:
        """It begins now: what was missed before is made up for by this."""
        self._began[task.name] = self._steady()
        self._marks.put(_mark(task), str(self._wall()))

    def wait(self, tasks: Iterable[Task]) -> float:
        """How long nothing can become due if the clock is not set, s."""
        now = self._wall()
        found = math.inf
        for task in tasks:
            last = self._last(task, now)
            wait = (task.schedule.next(last) - now) / SECOND
            found = min(found, max(wait, self._earliest(task, last) - self._steady()))
        return max(found, 0.01)

    def _last(self, task: Task, now: int) -> int:
        text = self._marks.get(_mark(task))
        last = int(text) if text.isdecimal() else -1
        if last < 0 and task.at_once:
            return 0
        if not 0 <= last <= now:
            last = now
            self._marks.put(_mark(task), str(now))
        return last

    def _earliest(self, task: Task, last: int) -> float:
        """By the steady clock; 0 for any time."""
        began = self._began.get(task.name)
        if began is None:
            return 0.0
        first = task.schedule.next(last)
        second = NEVER if first == NEVER else task.schedule.next(first)
        return began + min((second - first) / SECOND / 2, GUARD_MAX)


def _mark(task: Task) -> str:
    return f"schedule {task.name}"


class Schedules:
    """Runs what is due, each task in a task of its own, never two of a name at once.

    ``tasks`` is asked each time, so that a new configuration holds from then on (``look`` says that there is one).
    ``failed(name, error)`` is told what a run raised.
    """

    def __init__(
        self, timetable: Timetable, tasks: Callable[[], Awaitable[list[Task]]],
        failed: Callable[[str, Exception], None], *, look_every: float = LOOK_EVERY,
    ) -> None:  # fmt: skip
        self._timetable = timetable
        self._tasks = tasks
        self._failed = failed
        self._look_every = look_every
        self._running: set[str] = set()
        self._wake = trio.Event()

    def look(self) -> None:
        """Something changed: look at once."""
        self._wake.set()

    async def run(self) -> None:
        """Until cancelled. A state that cannot be read or written is told, and looked at again later."""
        async with trio.open_nursery() as nursery:
            while True:
                wait = self._look_every
                try:
                    wait = await self._turn(nursery)
                except (HoldfastError, OSError) as error:
                    self._failed("schedules", error)
                with trio.move_on_after(wait):
                    await self._wake.wait()
                self._wake = trio.Event()

    async def _turn(self, nursery: trio.Nursery) -> float:
        tasks = [one for one in await self._tasks() if one.name not in self._running]
        due = await trio.to_thread.run_sync(self._take, tasks)
        for task in due:
            self._running.add(task.name)
            nursery.start_soon(self._one, task)
        others = [one for one in tasks if one not in due]
        wait = await trio.to_thread.run_sync(self._timetable.wait, others)
        return min(wait, self._look_every)

    def _take(self, tasks: list[Task]) -> list[Task]:
        """[T] Those that are due, marked as begun: a run that ends the daemon is not begun again and again."""
        due = [one for one in tasks if self._timetable.due(one)]
        for task in due:
            self._timetable.begun(task)
        return due

    async def _one(self, task: Task) -> None:
        try:
            await task.run()
        except Exception as error:  # noqa: BLE001  one task's trouble is no other's
            self._failed(task.name, error)
        finally:
            self._running.discard(task.name)
            self._wake.set()
