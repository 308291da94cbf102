"""Start in order, stop in reverse, and what happens when a step cannot."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import trio
import trio.testing

from daemon.supervise import lifecycle
from daemon.supervise.lifecycle import Lifecycle, Step
from daemon.supervise.lock import StoreLock
from engine import Store
from engine.errors import Busy, HoldfastError, NotFound, PermissionDenied


class Log:
    """Steps that write down what happens."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.at: list[str] = []

    def step(
        self, name: str, *, fail: BaseException | None = None, stop_s: float = 0.0,
        stop_fail: Exception | None = None, limit: float = 5.0, start_s: float = 0.0,
    ) -> Step:  # fmt: skip
        async def start(nursery: trio.Nursery) -> None:
            await trio.sleep(start_s)
            if fail is not None:
                raise fail
            self.lines.append(f"+{name}")

        async def stop() -> None:
            await trio.sleep(stop_s)
            if stop_fail is not None:
                raise stop_fail
            self.lines.append(f"-{name}")

        return Step(name, start, stop, limit)

    def life(self, *steps: Step) -> Lifecycle:
        return Lifecycle(steps, at=self.at.append)


async def test_order() -> None:
    log = Log()
    life = log.life(log.step("a"), log.step("b"), log.step("c"))
    await life.run(lambda: (log.lines.append("ready"), life.stop.set())[0])
    assert log.lines == ["+a", "+b", "+c", "ready", "-c", "-b", "-a"]
    assert log.at[0] == "starting: a"
    assert log.at[-1] == "stopping: a"


@pytest.mark.parametrize(
    "error", [Busy("port 1"), PermissionError(13, "no", "/x"), ValueError("v")]
)
async def test_a_step_that_fails_stops_the_others_and_is_named(error: Exception) -> None:
    log = Log()
    life = log.life(log.step("a"), log.step("b"), log.step("c", fail=error), log.step("d"))
    with pytest.raises(HoldfastError, match="step 'c'") as caught:
        await life.run(lambda: log.lines.append("ready"))
    assert log.lines == ["+a", "+b", "-b", "-a"]
    kinds: dict[type, type] = {Busy: Busy, PermissionError: PermissionDenied}
    assert type(caught.value) is kinds.get(type(error), HoldfastError)


async def test_a_step_that_hangs_is_given_up(autojump_clock: trio.testing.MockClock) -> None:
    log = Log()
    life = log.life(log.step("a"), log.step("b", start_s=1e6))
    with pytest.raises(HoldfastError, match=r"step 'b'.*120 s"):
        await life.run(lambda: None)
    assert log.lines == ["+a", "-a"]


async def test_told_to_stop_while_starting(autojump_clock: trio.testing.MockClock) -> None:
    log = Log()
    life = log.life(log.step("a"), log.step("b", start_s=100), log.step("c"))
    async with trio.open_nursery() as nursery:

        async def soon() -> None:
            await trio.sleep(1)
            life.stop.set()

        nursery.start_soon(soon)
        await life.run(lambda: log.lines.append("ready"))
    assert log.lines == ["+a", "-a"]
    assert trio.current_time() < 10


async def test_a_stop_that_hangs_or_fails_holds_up_none(
    autojump_clock: trio.testing.MockClock, expect_log: Callable[[str], None]
) -> None:
    expect_log("stopping b takes longer than 5 s")
    expect_log("stopping c: .*gone")
    log = Log()
    life = log.life(
        log.step("a"),
        log.step("b", stop_s=1e6),
        log.step("c", stop_fail=NotFound("gone")),
        log.step("d", stop_fail=HoldfastError("gone too")),
    )
    expect_log("gone too")
    start = trio.current_time()
    await life.run(life.stop.set)
    assert log.lines[-1] == "-a"
    assert trio.current_time() - start < 6


async def test_a_background_task_that_dies_stops_everything() -> None:
    log = Log()

    async def start(nursery: trio.Nursery) -> None:
        async def die() -> None:
            raise Busy("the task")

        nursery.start_soon(die)

    life = log.life(log.step("a"), Step("b", start), log.step("c"))
    with pytest.raises(Busy, match="the task"):
        await life.run(lambda: None)
    assert log.lines[-1] == "-a"


async def test_signals() -> None:
    stop = trio.Event()
    reloaded = trio.Event()

    async def reload() -> None:
        reloaded.set()

    async with trio.open_nursery() as nursery:
        await nursery.start(lifecycle.signals, stop, reload)
        os.kill(os.getpid(), signal.SIGHUP)
        with trio.fail_after(5):
            await reloaded.wait()
        assert not stop.is_set()
        os.kill(os.getpid(), signal.SIGTERM)
        with trio.fail_after(5):
            await stop.wait()
        nursery.cancel_scope.cancel()


async def test_the_watchdog_is_fed_by_the_loop(autojump_clock: trio.testing.MockClock) -> None:
    told: list[str] = []
    with trio.move_on_after(10):
        await lifecycle.watchdog(1.0, told.append)
    assert 9 <= len(told) <= 11
    await lifecycle.watchdog(None, told.append)


def test_the_lock(tmp_path: Path) -> None:
    store = str(tmp_path / "store")
    with pytest.raises(NotFound, match="holdfast init"):
        StoreLock.take(store)
    Store.init(store)
    lock = StoreLock.take(store)
    script = (
        "import sys; from daemon.supervise.lock import StoreLock; from engine.errors import Busy\n"
        "try: StoreLock.take(sys.argv[1])\n"
        "except Busy as error: print(error)"
    )
    answer = subprocess.run(
        [sys.executable, "-c", script, store], capture_output=True, text=True, timeout=30
    )
    assert f"process {os.getpid()}" in answer.stdout, answer
    lock.release()
    lock.release()
    StoreLock.take(store).release()
