"""Jobs: each a process of its own, few at once, watched to the end.

``python -m daemon.job REQUEST`` says on its standard output, a JSON object a line, ``{"progress": …}`` and in the end
``{"result": …}`` or ``{"error": {"kind", "message"}}``; SIGTERM asks it to end.  Its row is the service's: this part
says when it began, how far it is and how it ended, also of one that said nothing (killed, out of memory, a damaged
index).  A job whose daemon is gone has nobody at the other end of its output, and ends.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Protocol

import trio

from daemon.contract import JobInfo, JobState
from daemon.job import request_of
from daemon.service.jobs import may_go_on
from daemon.supervise.changes import Changes
from daemon.supervise.polite import give_way
from engine import supply
from engine.errors import Corrupt, HoldfastError, ShuttingDown

log = logging.getLogger("holdfast.supervise")

AT_ONCE = {"restore": 2}  # of each other kind one: they would only wait for each other's disk
POLITE = frozenset(
    {"collect", "scrub", "check", "delete-mount", "upload", "reclaim"}
)  # somebody waits for a restore
PROGRESS_EVERY = 0.5  # s between two of a job's steps being written down: each is a transaction
LEFT_BEHIND = (
    1.0  # s for what a job that has ended left in its pipes: what it started may hold them open
)
TERM_LIMIT = 20.0  # s between being asked to end and being killed
LINE_MAX = 1 << 20
TAIL = 2000  # bytes of what a job said on standard error that are told when it said nothing else
_DAMAGE = (signal.SIGBUS, signal.SIGSEGV, signal.SIGABRT)


class Rows(Protocol):
    """What of ``Service`` is needed; synchronous, in threads."""

    def job_started(self, job_id: int) -> JobInfo: ...
    def job_progress(self, job_id: int, progress: dict[str, Any]) -> None: ...
    def job_ended(
        self, job_id: int, state: JobState, *, result: dict[str, Any] | None = None,
        error: dict[str, str] | None = None,
    ) -> JobInfo: ...  # fmt: skip
    def job_again(self, job_id: int, *, counted: bool) -> JobInfo: ...


def command(store: str, job: JobInfo) -> list[str]:
    """What runs a job."""
    return [sys.executable, "-m", "daemon.job", request_of(job, store)]


class _Running:
    """A job that was asked for and has not ended."""

    def __init__(self, job: JobInfo) -> None:
        self.job = job
        self.waiting = trio.CancelScope()  # for a place
        self.process: trio.Process | None = None
        self.asked_to_end = trio.Event()
        self.cancelled = False  # somebody asked for that; else the daemon stops


class Jobs:
    """The port, and its tasks. Public methods without "[T]" run on the loop's thread."""

    def __init__(
        self, store: str, changes: Changes, *, command: Callable[[str, JobInfo], Sequence[str]] = command
    ) -> None:  # fmt: skip
        self._store = store
        self._command = command
        self._changes = changes
        self._rows: Rows | None = None
        self._running: dict[int, _Running] = {}
        self._places: dict[str, trio.CapacityLimiter] = {}
        self._threads = trio.CapacityLimiter(4)  # of state's transactions, which take milliseconds
        self._nursery: trio.Nursery | None = None
        self._token = trio.lowlevel.current_trio_token()
        self._stopping = False
        self._less = trio.Event()  # one of the running ended
        self._early: list[JobInfo] = []

    def open(self, nursery: trio.Nursery, rows: Rows) -> None:
        """Jobs run from now on, those first that were started before."""
        self._nursery, self._rows = nursery, rows
        early, self._early = self._early, []
        for job in early:
            self._begin(job)

    # --- the port: called by the service, in threads ----------------------------------------------------

    def start(self, job: JobInfo) -> None:
        """[T] Run it when there is a place. Raises ShuttingDown."""
        self._on_loop(self._begin, job)

    def cancel(self, job_id: int) -> None:
        """[T] Have it end soon. Harmless when it has."""
        self._on_loop(self._cancel, job_id)

    def _on_loop(self, function: Callable[..., None], argument: object) -> None:
        try:
            trio.from_thread.run_sync(function, argument, trio_token=self._token)
        except trio.RunFinishedError:
            raise ShuttingDown("the daemon", found="that it has ended") from None

    def _begin(self, job: JobInfo) -> None:
        if self._stopping:
            raise ShuttingDown(f"job {job.id}", expected="a running daemon", found="one that is stopping")  # fmt: skip
        if self._nursery is None:
            self._early.append(job)
        elif job.id not in self._running:
            running = self._running[job.id] = _Running(job)
            self._changes.publish(job)
            self._nursery.start_soon(self._one, running)

    def _cancel(self, job_id: int) -> None:
        running = self._running.get(job_id)
        if running is not None and not running.cancelled:
            running.cancelled = not running.asked_to_end.is_set()
            self._end(running)

    def _end(self, running: _Running) -> None:
        running.asked_to_end.set()
        running.waiting.cancel()
        if running.process is not None:
            running.process.terminate()

    # --- one job ----------------------------------------------------------------------------------------

    async def stop(self) -> None:
        """No job begins any more; those that run are asked to end, and are waited for. Those that wait stay queued."""
        self._stopping = True
        for running in list(self._running.values()):
            self._end(running)
        await self.idle()

    async def idle(self) -> None:
        """Wait until no job runs or waits for a place."""
        while self._running:
            self._less = trio.Event()
            await self._less.wait()

    async def _one(self, running: _Running) -> None:
        """What was begun is told to its end, also while the daemon stops."""
        job = running.job
        lane = f"{job.kind} {job.options.get('location', '')}"  # one upload to each location
        place = self._places.setdefault(lane, trio.CapacityLimiter(AT_ONCE.get(job.kind, 1)))
        try:
            with running.waiting:
                await place.acquire_on_behalf_of(job.id)
            with trio.CancelScope(shield=True):
                again = True
                while again and not running.asked_to_end.is_set():
                    again = await self._run(running)
                if again and running.cancelled:
                    await self._ended(job, "cancelled")
        except (HoldfastError, OSError) as error:
            log.error("job %d (%s): its end could not be written down: %s", job.id, job.kind, error)
        except Exception as error:  # a bug costs this job, not the daemon
            log.exception("job %d (%s): %r", job.id, job.kind, error)
        finally:
            if job.id in place.statistics().borrowers:
                place.release_on_behalf_of(job.id)
            del self._running[job.id]
            self._less.set()

    async def _run(self, running: _Running) -> bool:
        """Run it in a process; whether it was cut off and is to be run again."""
        assert self._rows is not None
        running.job = job = await self._thread(self._rows.job_started, running.job.id)
        self._changes.publish(job)
        last: dict[str, Any] = {}
        tail: deque[bytes] = deque(maxlen=1)
        try:
            with supply.handing() as (variables, fds):
                process = await trio.lowlevel.open_process(
                    self._command(self._store, job), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE, cwd="/", env=_environment() | variables, pass_fds=fds,
                    start_new_session=True,
                )  # fmt: skip
        except OSError as error:
            await self._ended(
                job, "failed", error=_told(HoldfastError(f"job {job.id}", found=str(error)))
            )
            return False
        running.process = process
        if job.kind in POLITE:
            give_way(process.pid)
        if running.asked_to_end.is_set():
            process.terminate()
        assert process.stdout is not None
        assert process.stderr is not None
        async with process.stdout, process.stderr, trio.open_nursery() as nursery:
            nursery.start_soon(self._kill_late, running, process)
            async with trio.open_nursery() as reading:
                reading.start_soon(_drain, process.stderr, tail)
                reading.start_soon(self._listen, process.stdout, running, last)
                await process.wait()
                reading.cancel_scope.deadline = trio.current_time() + LEFT_BEHIND
            nursery.cancel_scope.cancel()
        return await self._settle(running, last, process.returncode or 0, b"".join(tail))

    async def _kill_late(self, running: _Running, process: trio.Process) -> None:
        """Kill what was asked to end and does not."""
        await running.asked_to_end.wait()
        await trio.sleep(TERM_LIMIT)
        log.warning("job %d does not end: killed", running.job.id)
        process.kill()

    async def _listen(
        self, out: trio.abc.ReceiveStream, running: _Running, last: dict[str, Any]
    ) -> None:
        """Until it has closed its output; ``last`` is what it said of its end."""
        rest = b""
        written = -PROGRESS_EVERY
        async for more in out:
            *lines, rest = (rest + more).split(b"\n")
            if len(rest) > LINE_MAX:
                rest = b""
            progress = None
            for line in lines:
                said = _decode(line)
                if "progress" in said:
                    progress = said["progress"]
                elif said:
                    last.update(said)
            if isinstance(progress, dict):
                self._changes.publish(_progressed(running.job, progress))
                if trio.current_time() - written >= PROGRESS_EVERY:
                    written = trio.current_time()
                    await self._progress(running.job, progress)

    async def _progress(self, job: JobInfo, progress: dict[str, Any]) -> None:
        assert self._rows is not None
        try:
            await self._thread(self._rows.job_progress, job.id, progress)
        except (HoldfastError, OSError) as error:  # the job goes on
            log.warning("progress of job %d could not be written down: %s", job.id, error)

    async def _settle(
        self, running: _Running, last: dict[str, Any], status: int, tail: bytes
    ) -> bool:
        """Write down how it ended: what it said counts before what was asked of it. Whether it is to be run again."""
        job = running.job
        if isinstance(last.get("result"), dict) and status == 0:
            await self._ended(job, "done", result=last["result"])
        elif running.cancelled:
            await self._ended(job, "cancelled")
        elif running.asked_to_end.is_set() and may_go_on(job):
            await self._again(running, counted=False)  # by the next daemon
        elif running.asked_to_end.is_set():
            why = ShuttingDown(
                f"job {job.id}", expected="its end", found="that the daemon was stopped",
                do="start it again",
            )  # fmt: skip
            await self._ended(job, "failed", error=_told(why))
        elif isinstance(last.get("error"), dict):
            error = {str(key): str(value) for key, value in last["error"].items()}
            await self._ended(job, "failed", error=error, result=last.get("result"))
        elif status == -signal.SIGKILL and may_go_on(job):
            log.warning("job %d (%s) was killed, and goes on", job.id, job.kind)
            await self._again(running, counted=True)
            return True
        else:
            await self._ended(job, "failed", error=_told(_silent(job, status, tail)))
        return False

    async def _again(self, running: _Running, *, counted: bool) -> None:
        assert self._rows is not None
        work = partial(self._rows.job_again, running.job.id, counted=counted)
        running.job = await self._thread(work)
        self._changes.publish(running.job)

    async def _ended(self, job: JobInfo, state: JobState, **what: Any) -> None:
        assert self._rows is not None
        if state == "failed":
            log.error("job %d (%s): %s", job.id, job.kind, what["error"].get("message", ""))
        # In a thread without a limit of ours: a hook of the administrator's may run in it.
        ended = await trio.to_thread.run_sync(
            partial(self._rows.job_ended, job.id, state, **what), limiter=trio.CapacityLimiter(1)
        )
        self._changes.publish(ended)

    async def _thread(self, function: Callable[..., Any], *arguments: object) -> Any:
        return await trio.to_thread.run_sync(function, *arguments, limiter=self._threads)


async def _drain(stream: trio.abc.ReceiveStream, tail: deque[bytes]) -> None:
    kept = b""
    async for more in stream:
        kept = (kept + more)[-TAIL:]
        tail.append(kept)


def _decode(line: bytes) -> dict[str, Any]:
    try:
        said = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return said if isinstance(said, dict) else {}


def _progressed(job: JobInfo, progress: dict[str, Any]) -> JobInfo:
    return replace(job, state="running", progress=progress)


def _silent(job: JobInfo, status: int, tail: bytes) -> HoldfastError:
    what = f"job {job.id} ({job.kind})"
    if status < 0 and signal.Signals(-status) in _DAMAGE:
        return Corrupt(what, expected="its result", found=f"that it was stopped by {signal.Signals(-status).name},"
                       " which a damaged index causes", do="run 'holdfast check'")  # fmt: skip
    if status == -signal.SIGKILL:
        return HoldfastError(what, expected="its result", found="that it was killed",
                             do="see whether memory ran out (journalctl -k), then start it again")  # fmt: skip
    said = tail.decode("utf-8", "replace").strip().splitlines()
    found = f"an end with status {status}" + (f" ({said[-1][:200]})" if said else "")
    return HoldfastError(what, expected="its result", found=found)


def _told(error: HoldfastError) -> dict[str, str]:
    return {"kind": error.kind.slug, "message": str(error)}


def _environment() -> dict[str, str]:
    """Ours, with this package where the job finds it."""
    here = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    path = os.pathsep.join([here, *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**os.environ, "PYTHONPATH": path}
