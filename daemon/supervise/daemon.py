"""The daemon: every part in its place, as one list of steps.

Nothing here waits on the loop's thread: what reads or writes files, the state or the index runs in threads.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import trio

from daemon import observe
from daemon.config import Config
from daemon.mounter.client import Mounter
from daemon.observe import logs
from daemon.service.ports import Ports
from daemon.state import State
from daemon.supervise import lifecycle
from daemon.supervise.changes import Changes
from daemon.supervise.chores import Chores
from daemon.supervise.exporting import Exporting
from daemon.supervise.jobs import Jobs
from daemon.supervise.lifecycle import Lifecycle, Step
from daemon.supervise.lock import FOLDER, StoreLock
from daemon.supervise.mounts import Mounts
from daemon.supervise.schedules import Schedules, Timetable
from daemon.supervise.served import Served
from daemon.supervise.settings import Settings
from daemon.supervise.uploading import Uploading
from daemon.supervise.workers import Workers
from engine.errors import HoldfastError, from_os, the_cause

log = logging.getLogger("holdfast.supervise")

ENDPOINT = os.path.join(
    FOLDER, "endpoint"
)  # the path of the socket that commands on this machine ask
TICK = 1.0  # s between turns of the journal of incidents
TELL_EVERY = 5.0  # s between looks at what the status line says
EXPORTS_EVERY = 10.0  # s between looks at whether the NFS server still is as it should be
JOBS_LIMIT, FRONT_LIMIT, EXPORTS_LIMIT = 30.0, 30.0, 15.0  # s to stop
DRAIN_LIMIT = (
    170.0  # s: open files are served for 20 s, a commit of what is in memory may take two minutes
)


@dataclass(frozen=True)
class Parts:
    """What a front gets to serve."""

    config: Callable[[], Config]
    service: Served
    audit: observe.Audit
    workers: Workers
    changes: Changes


class Front(Protocol):
    """What listens; a room above makes it."""

    async def start(self, nursery: trio.Nursery) -> None: ...
    async def stop(self) -> None: ...
    def check(self, config: Config) -> None:
        """[T] Take a new configuration; raises when it cannot be, and then goes on as it was."""
        ...


class Daemon:
    """One run of it. Make it inside ``trio.run``."""

    def __init__(
        self, path: str, config: Config, front: Callable[[Parts], Front], *, mounter: Mounter | None = None,
        exporter: socket.socket | None = None, leave_mounts: bool = False, clock: Callable[[], int] = time.time_ns,
    ) -> None:  # fmt: skip
        self.settings = Settings(path, config)
        self.store = os.path.abspath(config.store)
        self.clock = clock
        self.leave_mounts = leave_mounts
        self._front_of = front
        self.changes = Changes()
        self.jobs = Jobs(self.store, self.changes)
        self.mounts = Mounts(self.settings)
        self.workers = Workers(self.store, self.mounts.spot, self.mounts, mounter)
        self.exports = Exporting(self.settings, self.workers, exporter)
        self.uploading = Uploading(self.settings, clock)
        self._lock: StoreLock | None = None
        self._open = contextlib.ExitStack()
        self._maintenance = trio.CancelScope()
        self._said = ""
        self._token = trio.lowlevel.current_trio_token()
        self.schedules: Schedules | None = None
        self.service: Served
        self.front: Front
        self.chores: Chores

    def steps(self) -> list[Step]:
        """What is started, in this order, and stopped in the other."""
        return [
            Step("lock of the store", self._take_lock, self._give_lock),
            Step("state and store", self._open_store, self._close_store, 30.0),
            Step("recovery", self._recover),
            Step("jobs", self._start_jobs, self.jobs.stop, JOBS_LIMIT),
            Step("mounts", self._start_workers, self._stop_workers, DRAIN_LIMIT),
            Step("exports", self._start_exports, self._stop_exports, EXPORTS_LIMIT),
            Step("listeners", self._start_front, self._stop_front, FRONT_LIMIT),
            Step("schedules", self._start_schedules, self._stop_schedules),
        ]

    async def run(self, ready: Callable[[], None] = lambda: None) -> None:
        """Serve until SIGTERM or SIGINT. Raises why it could not."""
        life = Lifecycle(self.steps(), at=self._tell)

        def announce() -> None:
            observe.notify("READY=1")
            log.info("ready: store %s", self.store)
            ready()

        try:
            async with trio.open_nursery() as around:
                await around.start(lifecycle.signals, life.stop, self._reload)
                around.start_soon(lifecycle.watchdog, observe.watchdog_interval(), observe.notify)
                around.start_soon(self._stopping, life.stop)
                await life.run(announce)
                around.cancel_scope.cancel()
        except BaseExceptionGroup as group:
            raise the_cause(group) from group
        log.info("stopped")

    async def _stopping(self, stop: trio.Event) -> None:
        await stop.wait()
        observe.notify("STOPPING=1")

    async def _reload(self) -> None:
        """SIGHUP. What is wrong with the file is told; everything goes on as it was."""
        try:
            await trio.to_thread.run_sync(self.settings.reload)
        except HoldfastError as error:
            log.error("the configuration stays as it was: %s", error)

    def _tell(self, text: str) -> None:
        if text != self._said:
            self._said = text
            observe.status(text)

    # --- lock, state, store -----------------------------------------------------------------------------

    async def _take_lock(self, _: trio.Nursery) -> None:
        self._lock = await trio.to_thread.run_sync(StoreLock.take, self.store)

    async def _give_lock(self) -> None:
        if self._lock is not None:
            self._lock.release()

    async def _open_store(self, nursery: trio.Nursery) -> None:
        await trio.to_thread.run_sync(self._opened)
        nursery.start_soon(self._ticks)

    def _opened(self) -> None:
        state = State.open(self.store, self.clock)
        self._open.callback(state.close)
        ports = Ports(self.workers, self.jobs, self.exports, self.settings, self.uploading)
        self.service = Served(self.store, state, self.settings, ports, self.clock)
        audit = self.service.audit_log
        self._open.callback(self.service.close)
        self.mounts.open(self.service, self.workers, self.exports)
        self.exports.open(self.service)
        self.uploading.open(self.service)
        self.front = self._front_of(
            Parts(self.settings, self.service, audit, self.workers, self.changes)
        )
        self.chores = Chores(self.service, self.settings, audit)
        self.settings.checks.append(self.front.check)
        self.settings.followers += [self._follow, self.mounts.follow]
        self.settings.remarks.append(self.mounts.remarks)

    async def _close_store(self) -> None:
        await trio.to_thread.run_sync(self._open.close, abandon_on_cancel=True)

    async def _ticks(self) -> None:
        """The journal's turns, in a thread of their own: the disk may be what does not answer."""
        limiter = trio.CapacityLimiter(1)
        while True:
            await trio.to_thread.run_sync(
                self.service.store.incidents.tick, limiter=limiter, abandon_on_cancel=True
            )
            await trio.sleep(TICK)

    async def _recover(self, _: trio.Nursery) -> None:
        await trio.to_thread.run_sync(self.service.recover)

    async def _start_jobs(self, nursery: trio.Nursery) -> None:
        self.jobs.open(nursery, self.service)

    # --- mounts, exports, listeners, schedules ----------------------------------------------------------

    async def _start_workers(self, nursery: trio.Nursery) -> None:
        wanted = await trio.to_thread.run_sync(self.mounts.prepare)
        try:
            await self.workers.open(nursery, wanted)
        except BaseException:  # told to stop meanwhile: what serves already is drained as well
            with trio.move_on_after(DRAIN_LIMIT, shield=True):
                await self._stop_workers()
            raise

    async def _stop_workers(self) -> None:
        await self.workers.close(leave=self.leave_mounts)

    async def _start_exports(self, nursery: trio.Nursery) -> None:
        """A server that cannot be started is told and tried again: the mounts themselves are served."""
        if self.exports.active:
            nursery.start_soon(self._keep_exports)

    async def _keep_exports(self) -> None:
        limiter = trio.CapacityLimiter(1)
        told = ""
        while True:
            trouble = ""
            try:
                await trio.to_thread.run_sync(
                    self.exports.apply, limiter=limiter, abandon_on_cancel=True
                )
            except HoldfastError as error:
                trouble = str(error)
            if trouble and trouble != told:
                log.error("exports: %s", trouble)
                self.mounts.incident("export_failed", "exports", trouble)
            told = trouble
            await trio.sleep(EXPORTS_EVERY)

    async def _stop_exports(self) -> None:
        await trio.to_thread.run_sync(self.exports.close, abandon_on_cancel=True)

    async def _start_front(self, nursery: trio.Nursery) -> None:
        await self.front.start(nursery)
        try:
            await trio.to_thread.run_sync(self._write_endpoint)
        except BaseException:
            with trio.CancelScope(shield=True):
                await self.front.stop()
            raise

    def _write_endpoint(self) -> None:
        path = os.path.join(self.store, ENDPOINT)
        try:
            with open(f"{path}.new", "w", encoding="utf-8") as file:
                file.write(self.settings().api_socket() + "\n")
            os.replace(f"{path}.new", path)
        except OSError as error:
            raise from_os(error, path) from None

    async def _stop_front(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(self.store, ENDPOINT))
        self.changes.end()
        await self.front.stop()

    async def _start_schedules(self, nursery: trio.Nursery) -> None:
        timetable = Timetable(self.service.state.marks, self.clock, time.monotonic)
        schedules = self.schedules = Schedules(timetable, self.chores.tasks, self.chores.failed)

        async def run() -> None:
            with self._maintenance:
                async with trio.open_nursery() as inner:
                    inner.start_soon(schedules.run)
                    inner.start_soon(self._status)
                    inner.start_soon(self.uploading.run)
                    inner.start_soon(self._sweep)

        nursery.start_soon(run)

    async def _sweep(self) -> None:
        """What drills of the last daemon left: a tree may be large, so nothing waits for it."""
        try:
            await trio.to_thread.run_sync(
                self.service.sweep_drills, limiter=trio.CapacityLimiter(1), abandon_on_cancel=True
            )
        except (HoldfastError, OSError) as error:
            log.error("drills: what was left is looked for later: %s", error)

    async def _stop_schedules(self) -> None:
        self._maintenance.cancel()

    async def _status(self) -> None:
        while True:
            self._tell(self.workers.summary())
            await trio.sleep(TELL_EVERY)

    def _follow(self, old: Config, new: Config) -> None:
        """[T] What of a new configuration is not asked for each time."""
        if old.log.level != new.log.level:
            logs.setup(new.log.level, new.log.format)
        with contextlib.suppress(trio.RunFinishedError):
            trio.from_thread.run_sync(self._look, trio_token=self._token)

    def _look(self) -> None:
        if self.schedules is not None:
            self.schedules.look()
