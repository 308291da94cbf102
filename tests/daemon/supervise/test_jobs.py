"""Jobs as processes: bounded, watched, cancelled, and told to their end whatever that is."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from daemon.contract import JobInfo, JobKind
from daemon.state import State
from daemon.supervise import changes, jobs
from daemon.supervise.changes import Changes
from daemon.supervise.jobs import Jobs
from daemon.supervise.polite import NICE, give_way
from engine import Store, supply
from engine.errors import HoldfastError, ShuttingDown

SCRIPTS = {
    "fine": "say(progress={'stage': 'a', 'done': 1}); say(result={'files': 3})",
    "chatty": "[say(progress={'stage': 'a', 'done': n}) for n in range(20000)]; say(result={'n': 20000})",
    "error": "say(error={'kind': 'not_found', 'message': 'gone'}); sys.exit(10)",
    "silent": "print('what it said', file=sys.stderr); sys.exit(3)",
    "segv": "os.kill(os.getpid(), 11)",
    "killed": "os.kill(os.getpid(), 9)",
    "nonsense": "os.write(1, b'{{{' + bytes(3 << 20) + b'\\n[1]\\n'); say(result={'n': 1})",
    "slow": "say(progress={'stage': 'a', 'done': 1}); time.sleep(60)",
    "deaf": "signal.signal(signal.SIGTERM, signal.SIG_IGN); say(progress={}); time.sleep(60)",
    "short": "time.sleep(0.2); say(result={})",
    "nice": "time.sleep(0.3); say(result={'nice': os.nice(0)})",
    "handed": "say(result={'n': len(os.pread(int(os.environ['HOLDFAST_KEY_FD']), 999, 0))})",
    "leaves": "subprocess.Popen(['sleep', '20']); say(result={})",
}
PROLOGUE = """
import json, os, signal, subprocess, sys, time
def say(**what): os.write(1, json.dumps(what).encode() + b"\\n")
"""


def command(_store: str, job: JobInfo) -> Sequence[str]:
    if job.options["script"] == "missing":
        return ["/nonexistent/program"]
    return [sys.executable, "-S", "-c", PROLOGUE + SCRIPTS[job.options["script"]]]


class Rig:
    """Jobs over a real state."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.changes = Changes()
        self.jobs = Jobs("", self.changes, command=command)
        self.atonce = self.most = 0
        self._lock = threading.Lock()

    def job_started(self, job_id: int) -> JobInfo:
        with self._lock:
            self.atonce += 1
            self.most = max(self.most, self.atonce)
        return self.state.jobs.started(job_id)

    def job_progress(self, job_id: int, progress: dict[str, Any]) -> None:
        self.state.jobs.progress(job_id, progress)

    def job_ended(self, job_id: int, state: Any, **what: Any) -> JobInfo:
        with self._lock:
            self.atonce -= 1
        return self.state.jobs.ended(job_id, state, **what)

    async def begin(self, script: str, kind: JobKind = "check") -> int:
        job = await trio.to_thread.run_sync(self.state.jobs.create, kind, {"script": script})
        await trio.to_thread.run_sync(self.jobs.start, job)
        return job.id

    async def until(self, number: int, *states: str) -> JobInfo:
        wanted = states or ("done", "failed", "cancelled")
        with trio.fail_after(20), self.changes.watch(number) as watch:
            job = self.state.jobs.get(number)
            while job.state not in wanted:
                job = await anext(watch)
        return self.state.jobs.get(number)


@pytest.fixture
def state(tmp_path: Path) -> State:
    Store.init(str(tmp_path / "store"))
    return State.open(str(tmp_path / "store"))


@pytest.fixture
async def rig(state: State, nursery: trio.Nursery) -> Rig:
    made = Rig(state)
    made.jobs.open(nursery, made)
    return made


async def test_a_result(rig: Rig) -> None:
    job = await rig.until(await rig.begin("fine"))
    assert (job.state, job.result, job.error) == ("done", {"files": 3}, {})
    assert job.progress == {"stage": "a", "done": 1}


async def test_a_job_is_handed_what_opens_the_store(rig: Rig) -> None:
    """Over a descriptor: no environment and no argument has a key in it."""
    supply.remember(b"s" * 16, b"m" * 32)
    try:
        job = await rig.until(await rig.begin("handed"))
    finally:
        supply.forget(b"s" * 16, b"m" * 32)
    assert (job.state, job.result) == ("done", {"n": 48})


@pytest.mark.parametrize(
    ("script", "kind", "message"),
    [
        ("error", "not_found", "gone"),
        ("silent", "internal", "status 3 (what it said)"),
        ("segv", "corrupt", "holdfast check"),
        ("killed", "internal", "memory"),
        ("missing", "internal", "No such file"),
    ],
)
async def test_failures(
    rig: Rig, script: str, kind: str, message: str, expect_log: Callable[[str], None]
) -> None:
    expect_log("job 1")
    job = await rig.until(await rig.begin(script))
    assert (job.state, job.error["kind"]) == ("failed", kind)
    assert message in job.error["message"]


async def test_nonsense_is_passed_over(rig: Rig) -> None:
    assert (await rig.until(await rig.begin("nonsense"))).result == {"n": 1}


async def test_much_progress_is_written_seldom(rig: Rig) -> None:
    count = 0
    progress = rig.state.jobs.progress

    def counted(*arguments: Any) -> None:
        nonlocal count
        count += 1
        progress(*arguments)

    rig.state.jobs.progress = counted  # type: ignore[method-assign]
    assert (await rig.until(await rig.begin("chatty"))).state == "done"
    assert count < 20


async def test_one_of_a_kind_and_two_restores_at_once(rig: Rig) -> None:
    numbers = [await rig.begin("short") for _ in range(3)]
    for number in numbers:
        await rig.until(number)
    assert rig.most == 1
    numbers = [await rig.begin("short", "restore") for _ in range(4)]
    for number in numbers:
        await rig.until(number)
    assert rig.most == 2


async def test_cancel(rig: Rig) -> None:
    number = await rig.begin("slow")
    waits = await rig.begin("slow")
    await rig.until(number, "running")
    await trio.to_thread.run_sync(rig.jobs.cancel, waits)
    assert (await rig.until(waits)).state == "cancelled"
    await trio.to_thread.run_sync(rig.jobs.cancel, number)
    assert (await rig.until(number)).state == "cancelled"
    await trio.to_thread.run_sync(rig.jobs.cancel, number)
    await trio.to_thread.run_sync(rig.jobs.cancel, 999)


async def test_one_that_does_not_listen_is_killed(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, expect_log: Callable[[str], None]
) -> None:
    expect_log("does not end: killed")
    monkeypatch.setattr(jobs, "TERM_LIMIT", 0.2)
    with rig.changes.watch() as watch:
        number = await rig.begin("deaf")
        async for job in watch:
            if job.state == "running" and job.progress == {} and job.started_ns:
                break
    await trio.sleep(0.3)
    await trio.to_thread.run_sync(rig.jobs.cancel, number)
    assert (await rig.until(number)).state == "cancelled"


async def test_stop(rig: Rig, expect_log: Callable[[str], None]) -> None:
    expect_log("that the daemon was stopped")
    runs = await rig.begin("slow")
    waits = await rig.begin("slow")
    await rig.until(runs, "running")
    with trio.fail_after(10):
        await rig.jobs.stop()
    assert rig.state.jobs.get(runs).error["kind"] == "shutting_down"
    assert rig.state.jobs.get(waits).state == "queued"  # the next daemon begins it
    with pytest.raises(ShuttingDown):
        await rig.begin("fine")


async def test_they_are_polite_where_nobody_waits(rig: Rig) -> None:
    ours = os.nice(0)
    polite = await rig.until(await rig.begin("nice", "collect"))
    assert polite.result["nice"] == min(19, max(ours, NICE))
    assert (await rig.until(await rig.begin("nice", "restore"))).result["nice"] == ours
    begin = time.monotonic()
    assert (await rig.until(await rig.begin("leaves"))).state == "done"
    assert time.monotonic() - begin < 10  # what it left behind is not waited for


async def test_those_asked_for_early_begin_later(state: State, nursery: trio.Nursery) -> None:
    rig = Rig(state)
    number = await rig.begin("fine")
    assert state.jobs.get(number).state == "queued"
    rig.jobs.open(nursery, rig)
    assert (await rig.until(number)).state == "done"


async def test_a_state_that_fails_costs_one_job(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, expect_log: Callable[[str], None]
) -> None:
    expect_log("could not be written down")
    good = rig.job_ended

    def bad(*_: Any, **__: Any) -> JobInfo:
        raise HoldfastError("no room")

    monkeypatch.setattr(rig, "job_ended", bad)
    await rig.begin("fine")
    with trio.fail_after(10):
        await rig.jobs.idle()
    monkeypatch.setattr(rig, "job_ended", good)
    assert (await rig.until(await rig.begin("fine"))).state == "done"


def _job(number: int, state: Any, done: int = 0) -> JobInfo:
    return JobInfo(number, "check", state, 1, progress={"done": done})


async def test_a_slow_reader_misses_only_progress() -> None:
    told = Changes()
    with told.watch() as every, told.watch(2) as second:
        told.publish(_job(1, "queued"))
        for done in range(1000):
            told.publish(_job(1, "running", done))
            told.publish(_job(2, "running", done))
        told.publish(_job(1, "done"))
        told.end()
        seen = [(job.id, job.state, job.progress["done"]) async for job in every]
        assert seen == [(1, "queued", 0), (1, "running", 999), (2, "running", 999), (1, "done", 0)]
        assert [job.id async for job in second] == [2]
    with told.watch() as late:
        assert [job async for job in late] == []


async def test_a_reader_that_is_far_too_slow_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changes, "QUEUE_MAX", 10)
    told = Changes()
    with told.watch() as watch:
        for number in range(20):
            told.publish(_job(number, "queued"))
        assert [job async for job in watch] == []


async def test_a_reader_waits(nursery: trio.Nursery) -> None:
    told = Changes()
    seen: list[int] = []

    async def read() -> None:
        with told.watch() as watch:
            seen.extend([job.id async for job in watch])

    nursery.start_soon(read)
    await trio.testing.wait_all_tasks_blocked()
    told.publish(_job(7, "queued"))
    told.end()
    await trio.testing.wait_all_tasks_blocked()
    assert seen == [7]


def test_who_is_politer_already_stays_so() -> None:
    with subprocess.Popen(["nice", "-n", "15", "cat"], stdin=subprocess.PIPE) as child:
        while os.getpriority(os.PRIO_PROCESS, child.pid) < 15:
            time.sleep(0.01)
        before = os.getpriority(os.PRIO_PROCESS, child.pid)
        give_way(child.pid)
        assert os.getpriority(os.PRIO_PROCESS, child.pid) == before
