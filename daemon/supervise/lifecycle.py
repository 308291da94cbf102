"""Start and stop: one list of steps, started in order, stopped from its end, each within a limit of its own.

A step that cannot start stops what had started, in reverse, and the error says which step it was.  Steps stop also
when a background task dies: what they do then must not depend on tasks of the nursery, which are cancelled.
"""

from __future__ import annotations

import logging
import signal
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import trio

from engine.errors import HoldfastError, from_os, the_cause
from fsmount.remote import revived

log = logging.getLogger("holdfast.supervise")

START_LIMIT = 120.0  # s a step may take to start: recovery after a crash may come first


async def _nothing() -> None:
    """What a step without an end does at its end."""


@dataclass(frozen=True)
class Step:
    """One thing that starts and stops. ``start`` gets the root nursery for its background tasks; ``stop`` is called
    if ``start`` returned, and is cut off after ``limit`` s."""

    name: str
    start: Callable[[trio.Nursery], Awaitable[None]]
    stop: Callable[[], Awaitable[None]] = _nothing
    limit: float = 10.0


class Lifecycle:
    """Runs steps. ``stop`` may be set from any task; ``at`` is told what is being done, for people to see."""

    def __init__(self, steps: Sequence[Step], *, at: Callable[[str], None]) -> None:
        self._steps = steps
        self._at = at
        self.stop = trio.Event()

    async def run(self, ready: Callable[[], None]) -> None:
        """Start everything, call ``ready``, wait for ``stop``, stop everything. Raises what a step or a task raised."""
        started: list[Step] = []
        try:
            async with trio.open_nursery() as nursery:
                try:
                    for step in self._steps:
                        if not await self._start(step, nursery):
                            break
                        started.append(step)
                    else:
                        ready()
                        await self.stop.wait()
                finally:
                    with trio.CancelScope(shield=True):
                        await self._stop(started)
                nursery.cancel_scope.cancel()
        except BaseExceptionGroup as group:
            raise the_cause(group) from group

    async def _start(self, step: Step, nursery: trio.Nursery) -> bool:
        """False when it was told to stop before."""
        self._at(f"starting: {step.name}")
        finished = False

        async def give_up_when_told() -> None:
            await self.stop.wait()
            inner.cancel_scope.cancel()

        try:
            async with trio.open_nursery() as inner:
                inner.start_soon(give_up_when_told)
                with trio.fail_after(START_LIMIT):
                    await step.start(nursery)
                finished = True
                inner.cancel_scope.cancel()
        except BaseExceptionGroup as group:
            cause = the_cause(group)
            if not isinstance(cause, Exception):
                raise
            raise _told(step, cause) from group
        return finished

    async def _stop(self, started: Sequence[Step]) -> None:
        for step in reversed(started):
            self._at(f"stopping: {step.name}")
            try:
                with trio.fail_after(step.limit):
                    await step.stop()
            except trio.TooSlowError:
                log.error(
                    "stopping %s takes longer than %g s: left as it is", step.name, step.limit
                )
            except (HoldfastError, OSError) as error:
                log.error("stopping %s: %s", step.name, error)
            except Exception as error:  # a bug must not keep the others from being stopped
                log.exception("stopping %s: %r", step.name, error)


def _told(step: Step, error: Exception) -> HoldfastError:
    """The same error, with the step it came from."""
    what = f"start, step '{step.name}'"
    if isinstance(error, trio.TooSlowError):
        return HoldfastError(what, expected=f"its end within {START_LIMIT:.0f} s", found="none")
    if isinstance(error, OSError):
        error = from_os(error, str(error.filename or "a system call"))
    if isinstance(error, HoldfastError):
        return revived(error.kind.slug, f"{what}: {error}")
    return HoldfastError(f"{what}: {error!r}")


async def signals(
    stop: trio.Event,
    reload: Callable[[], Awaitable[None]],
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """SIGTERM and SIGINT set ``stop``; SIGHUP reloads. Runs until cancelled."""
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as received:
        task_status.started()
        async for number in received:
            if number == signal.SIGHUP:
                await reload()
            elif not stop.is_set():
                log.info("%s: stopping", signal.Signals(number).name)
                stop.set()


async def watchdog(interval: float | None, tell: Callable[[str], object]) -> None:
    """Feed systemd's watchdog from the event loop: a loop that is stuck does not. Runs until cancelled."""
    if interval is None:
        return
    while True:
        tell("WATCHDOG=1")
        await trio.sleep(interval)
