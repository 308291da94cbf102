"""The workers: one for each mount that is wanted, each watched by a task of its own, so that a bad one holds up none.

    stopped -> starting -> serving -> draining -> stopped
                  ^  v        v
                 failed <-----'     and again after a while

What ``wanted`` says is brought about by the mount's task alone; who asks for something changes what is wanted, wakes
the task and waits.  ``told.served(name)`` is called, in a thread, whenever a worker has begun to serve or was found
serving, and ``told.moved()`` when what is mounted has changed or is about to: exports follow.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, TypeVar

import trio

import fsmount
from daemon.contract import MountState
from daemon.mounter.client import Mounter
from daemon.service.ports import Shown, told_restores
from daemon.supervise import serving
from daemon.supervise.backoff import OFTEN, WITHIN, Backoff
from daemon.supervise.serving import Place, Process
from engine.errors import Busy, HoldfastError, NotFound, ShuttingDown

log = logging.getLogger("holdfast.supervise")

AT_ONCE = 8  # workers being started: each takes half a second of a processor
SETTLE_LIMIT = 30.0  # s the daemon's start waits for mounts; those that take longer come later
ANSWER_LIMIT = 120.0  # s for a worker to launder what is dirty before it is fenced

T = TypeVar("T")


class Told(Protocol):
    """Who wants to know. The first two are called in threads and may raise the engine's errors."""

    def served(self, name: str) -> None: ...
    def moved(self) -> None: ...
    def incident(self, kind: str, thing: str, text: str) -> None:
        """On the loop: must not wait for a disk."""
        ...


@dataclass(frozen=True)
class Spot:
    """Where and how a mount is to be served. ``make``: the directory is made if it is not there."""

    path: str
    options: fsmount.Options
    make: bool


class _Mount:
    """One mount, as its task and those who ask see it. On the loop's thread, but for reading."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.wanted = False
        self.state: MountState = "stopped"
        self.spot: Spot | None = None
        self.process: Process | None = None
        self.error: HoldfastError | None = None
        self.tries = 0
        self.deaths = 0  # of workers that served, and that nobody had told to end
        self.told_to_end: Process | None = None
        self.leaving = False  # it is being unmounted: no export may keep it
        self.busy = trio.Lock()  # held by who starts or ends its worker
        self.backoff = Backoff()
        self.woken = trio.Event()
        self.changed = trio.Event()

    def wake(self) -> None:
        self.woken.set()

    def become(self, state: MountState) -> None:
        self.state = state
        self.changed.set()
        self.changed = trio.Event()


class Workers:
    """The port. Its methods are for threads; ``open`` and what follows it are for the loop's."""

    def __init__(
        self, store: str, spot: Callable[[str], Spot], told: Told, mounter: Mounter | None = None
    ) -> None:  # fmt: skip
        """``spot`` says where and how a mount is to be served now; asked in threads, may raise."""
        self._store = store
        self._spot = spot
        self._told = told
        self._mounter = mounter
        self._mounts: dict[str, _Mount] = {}
        self._nursery: trio.Nursery | None = None
        self._starting = trio.CapacityLimiter(AT_ONCE)
        self._token = trio.lowlevel.current_trio_token()
        self._stopping = False

    # --- the port, in threads ---------------------------------------------------------------------------

    def status(self, name: str) -> tuple[MountState, str, int]:
        """(state, where it is or would be mounted, process id or 0)."""
        mount = self._mounts.get(name)
        state: MountState = "stopped" if mount is None else mount.state
        if mount is not None and mount.spot is not None:
            process = mount.process
            return state, mount.spot.path, process.pid if process else 0
        try:
            return state, self._spot(name).path, 0
        except HoldfastError:  # why is told to who starts it
            return state, "", 0

    def start(self, name: str) -> None:
        """Serve it; returns when it can be used. Raises why it cannot; it is tried again later all the same."""
        self._ask(self._start, name)

    def stop(self, name: str) -> None:
        """Serve it no longer. Raises Busy while its files are in use, and then it is served on."""
        self._ask(self._stop, name)

    def fence(self, name: str, *, writable: bool) -> None:
        """Let programs change what is in it, or not."""
        self._tell(name, "fence", writable=writable)

    def show_restores(self, name: str, show: dict[int, Shown]) -> None:
        """What is under its ``restores``, by job."""
        self._tell(name, "restores", show=told_restores(show))

    def want(self, name: str) -> None:
        """Serve it, soon; nobody waits."""
        self._ask(self._want, name)

    def mounted(self) -> dict[str, str]:
        """Mounts that are served, or will be in a moment, and where; for exports."""
        return {
            one.name: one.spot.path
            for one in list(self._mounts.values())
            if one.spot is not None and one.wanted and not one.leaving
        }

    def statuses(self) -> dict[str, dict[str, Any]]:
        """What the workers that serve say of themselves, those that answer at once; for metrics."""
        found = {}
        for one in list(self._mounts.values()):
            if one.state == "serving":
                try:
                    found[one.name] = fsmount.request(self._store, one.name, "status", timeout=2.0)
                except HoldfastError:
                    continue
        return found

    def restarts(self) -> dict[str, int]:
        """How often the worker of each mount has died; for metrics."""
        return {one.name: one.deaths for one in list(self._mounts.values())}

    def summary(self) -> str:
        """For people: how many mounts are in which state."""
        states = [one.state for one in list(self._mounts.values())]
        told = [f"{states.count(state)} {state}" for state in sorted(set(states))]
        return f"mounts: {', '.join(told) or 'none'}"

    def _tell(self, name: str, operation: str, **arguments: object) -> None:
        try:
            client = fsmount.client(self._store, name, timeout=ANSWER_LIMIT)
        except NotFound:
            return
        with client:
            client.request(operation, **arguments)

    def _ask(self, function: Callable[[str], Awaitable[None]], name: str) -> None:
        try:
            trio.from_thread.run(function, name, trio_token=self._token)
        except (trio.RunFinishedError, trio.Cancelled):
            raise ShuttingDown("the daemon", found="that it has ended") from None

    # --- asking, on the loop ----------------------------------------------------------------------------

    async def open(self, nursery: trio.Nursery, wanted: list[str]) -> None:
        """Serve these from now on; returns when each does or has failed once, or after a while."""
        self._nursery = nursery
        mounts = [self._mount(name) for name in wanted]
        for one in mounts:
            one.wanted = True
            one.wake()
        with trio.move_on_after(SETTLE_LIMIT):
            for one in mounts:
                while one.state not in ("serving", "failed"):
                    await one.changed.wait()

    async def close(self, *, leave: bool) -> None:
        """Drain every worker, or (``leave``) let them serve on; nothing is started any more."""
        self._stopping = True
        async with trio.open_nursery() as nursery:
            for mount in self._mounts.values():
                mount.wanted = False
                mount.wake()
                if not leave:
                    nursery.start_soon(self._drain, mount)

    def _mount(self, name: str) -> _Mount:
        if self._stopping or self._nursery is None:
            raise ShuttingDown(
                f"mount {name!r}", expected="a running daemon", found="one that is not"
            )
        if name not in self._mounts:
            self._mounts[name] = _Mount(name)
            self._nursery.start_soon(self._keep, self._mounts[name])
        return self._mounts[name]

    async def _start(self, name: str) -> None:
        mount = self._mount(name)
        tries = mount.tries
        mount.wanted = True
        mount.wake()
        while mount.state != "serving":
            if mount.state == "failed" and mount.tries > tries and mount.error is not None:
                raise mount.error
            await mount.changed.wait()
            if not mount.wanted:
                raise Busy(f"mount {name!r}", expected="to be served", found="that it was stopped")

    async def _want(self, name: str) -> None:
        mount = self._mount(name)
        mount.wanted = True
        mount.wake()

    async def _stop(self, name: str) -> None:
        mount = self._mounts.get(name)
        if mount is None:
            return
        async with mount.busy:
            if mount.process is not None:
                await self._unmount(mount, mount.process)
                mount.told_to_end = mount.process
            mount.wanted = False
            mount.wake()
            mount.become("stopped")

    async def _unmount(self, mount: _Mount, process: Process) -> None:
        """Politely; on Busy all is as before."""
        mount.leaving = True
        mount.become("draining")
        try:
            await self._moved()
            await _thread(partial(serving.unmount, self._place(mount), process, self._mounter))
        except HoldfastError:
            mount.become("serving")
            raise
        finally:
            mount.leaving = False
            await self._moved()

    async def _drain(self, mount: _Mount) -> None:
        """Whoever uses it. What does not end in time goes on by itself."""
        async with mount.busy:
            if mount.process is None:
                return
            mount.leaving = True
            mount.told_to_end = mount.process
            mount.become("draining")
            try:
                gone = await _thread(
                    partial(serving.drain, self._place(mount), mount.process, self._mounter)
                )
            except (HoldfastError, OSError) as error:
                log.error("mount %s: draining: %s", mount.name, error)
                return
            if not gone:
                log.error("mount %s: its worker still commits; it goes on by itself", mount.name)
            mount.become("stopped")

    # --- the task of one mount --------------------------------------------------------------------------

    async def _keep(self, mount: _Mount) -> None:
        while True:
            if not mount.wanted:
                await mount.woken.wait()
                mount.woken = trio.Event()
                continue
            process = await self._begin(mount)
            died = process is None or await self._watch(mount, process)
            if died and mount.wanted:
                await self._pause(mount)

    async def _pause(self, mount: _Mount) -> None:
        """Until the next try, or until somebody asks for it."""
        wait = mount.backoff.ended(trio.current_time())
        if mount.backoff.often():
            text = f"its worker ended {OFTEN} times within {WITHIN / 60:.0f} minutes"
            self._told.incident("worker_failed", f"mount {mount.name}", text)
        mount.woken = trio.Event()
        with trio.move_on_after(wait):
            await mount.woken.wait()

    async def _begin(self, mount: _Mount) -> Process | None:
        """A worker that serves the mount: one that is there, or a new one; None, and why in ``error``, when neither."""
        async with mount.busy:
            if not mount.wanted:
                return None
            mount.become("starting")
            try:
                mount.spot = await _thread(partial(self._spot, mount.name))
                process = await _thread(partial(self._take, self._place(mount)), self._starting)
            except (HoldfastError, OSError) as error:
                self._failed(mount, error)
                return None
            except Exception as error:  # a bug costs this mount, not the daemon
                log.exception("mount %s", mount.name)
                self._failed(mount, HoldfastError(f"mount {mount.name}", found=repr(error)))
                return None
            finally:
                mount.tries += 1
            mount.process, mount.error = process, None
            mount.backoff.serving(trio.current_time())
            try:
                await _thread(partial(self._told.served, mount.name))
            except HoldfastError as error:
                log.error("mount %s: %s", mount.name, error)
                self._told.incident("worker_failed", f"mount {mount.name}", str(error))
            mount.become("serving")
        await self._moved()
        return process

    def _take(self, place: Place) -> Process:
        """[T] Adopt the worker that serves already, if it is the right one; else end it and start one."""
        found = serving.find(place)
        if found is not None:
            process, status = found
            if serving.fits(place, status):
                log.info("mount %s: process %d serves it already", place.name, process.pid)
                return process
            log.info("mount %s: process %d serves it otherwise: drained", place.name, process.pid)
            there = place._replace(path=str(status.get("mountpoint", place.path)))
            try:
                if status.get("state") != "draining":
                    serving.drain(there, process, self._mounter)
                if not serving.ended(process, serving.END_LIMIT):
                    raise Busy(
                        f"mount {place.name!r}", found=f"process {process.pid}, which does not end"
                    )
            finally:
                serving.reap(process)
        process = serving.start(place, self._mounter, make=bool(self._makes(place.name)))
        log.info("mount %s: process %d serves it at %s", place.name, process.pid, place.path)
        return process

    def _makes(self, name: str) -> bool:
        mount = self._mounts[name]
        return mount.spot is not None and mount.spot.make

    def _failed(self, mount: _Mount, error: HoldfastError | OSError) -> None:
        known = error if isinstance(error, HoldfastError) else HoldfastError(str(error))
        if mount.error is None or str(mount.error) != str(known):
            log.error("mount %s cannot be served: %s", mount.name, known)
        mount.error = known
        self._told.incident("worker_failed", f"mount {mount.name}", str(known))
        mount.become("failed")

    async def _watch(self, mount: _Mount, process: Process) -> bool:
        """Until it has ended; whether nobody had asked for that."""
        await trio.lowlevel.wait_readable(process.fd)
        async with mount.busy:  # who ends it waits for that itself
            status = serving.reap(process)
            mount.process = None
            if mount.told_to_end is process or not mount.wanted:
                mount.become("stopped")
                return False
            mount.deaths += 1
            mount.error = HoldfastError(
                f"worker of mount {mount.name}", expected="to run",
                found="that it has ended" + ("" if status is None else f" with status {status}"),
                do=f"see run/{mount.name}.log in the store",
            )  # fmt: skip
            log.error("%s; it is started again", mount.error)
            mount.become("failed")
        return True

    async def _moved(self) -> None:
        try:
            await _thread(self._told.moved)
        except HoldfastError as error:
            log.error("exports: %s", error)

    def _place(self, mount: _Mount) -> Place:
        assert mount.spot is not None, "it has been looked up"
        return Place(self._store, mount.name, mount.spot.path, mount.spot.options)


async def _thread(function: Callable[[], T], limiter: trio.CapacityLimiter | None = None) -> T:
    """In a thread that no other mount's can keep waiting. When the daemon ends it is left behind."""
    return await trio.to_thread.run_sync(
        function, limiter=limiter or trio.CapacityLimiter(1), abandon_on_cancel=True
    )
