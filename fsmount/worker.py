"""The life of a worker: mount, serve, capture and freeze on request, drain on SIGTERM, close.

Ends when the file system is unmounted, whoever does it.  A worker told to stop unmounts; when files are still open it
first makes everything durable, cuts the mount off the tree of names, and serves what is open for a while.
"""

from __future__ import annotations

import contextlib
import logging
import os
import resource
import signal
import time
from collections.abc import Callable
from dataclasses import asdict

import trio

from engine import limits
from engine.errors import HoldfastError, NotFound, ShuttingDown, Unsupported
from fsmount import control, mountpoint, remote, restores
from fsmount.capture import capture
from fsmount.channel import kernel
from fsmount.channel.adapter import Adapter
from fsmount.channel.errors import troubles
from fsmount.channel.guarded import Guarded
from fsmount.channel.session import Session
from fsmount.contract import ROOT, Tree
from fsmount.files import RESTORES, Files
from fsmount.live import LiveFiles
from fsmount.options import Options, mount_options
from fsmount.pointfs import PointFiles
from fsmount.snapdir import NAME, SnapDir
from fsmount.spin import Spin
from fsmount.subject import Subject

log = logging.getLogger("holdfast.fsmount")

TICK = 1.0  # s between the engine's background turns
WRITERS_MAX = 1000  # paths in one answer
WRITERS_BYTES = 1 << 19  # and their bytes as JSON


class Worker:
    """One mount being served. Everything runs on the loop's thread."""

    def __init__(self, subject: Subject, where: str, options: Options) -> None:
        self.subject = subject
        self.options = options
        self.freeze_limit = options.freeze_limit
        self._mounts = options.fuse_fd < 0
        if self._mounts:
            where = mountpoint.prepare(where, lambda path: kernel.detach(path, lazy=True))
        else:
            where = mountpoint.absolute(where)  # not touched: it is mounted, and nobody answers yet
        self.mountpoint = where
        self.state = "starting"
        self._draining = trio.Event()
        self._committing = trio.Lock()
        self._showing = trio.Lock()
        self._turn = 0.0  # when the background turn that goes on began, monotonic s
        self.live: LiveFiles | None = None
        self._restores: restores.Restores | None = None
        if subject.points is not None:
            self._restores = restores.Restores(subject.points)
            self._shown = SnapDir(self._restores, RESTORES)
        files: Files
        virtual: Files | None = None
        if subject.tree is not None:
            self.live = LiveFiles(
                subject.tree, self._launder, self._stale, late_writes=options.writeback
            )
            self.live.fence(options.fenced)
            files = self.live
            virtual = SnapDir(subject.points) if subject.points is not None else None
        else:
            assert subject.view is not None
            files = PointFiles(subject.view)
        troubles.incidents = subject.incidents
        self._adapter = self._adapted(files, virtual)
        self._spin = Spin(options.spin)
        self.session = Session(
            self._adapter,
            self.mountpoint,
            mount_options(options, subject.source, read_only=self.live is None),
            self._spin,
            options.fuse_fd,
        )

    def _adapted(self, files: Files, virtual: Files | None) -> Adapter:
        hidden = NAME if virtual is not None else None
        if self.options.root_squash:
            nobody = self.options.squash_uid, self.options.squash_gid
            return Guarded(files, virtual, hidden, nobody)
        adapter = Adapter(files, virtual, hidden)
        adapter.enable_writeback_cache = self.options.writeback and self.live is not None
        return adapter

    def _launder(self, ino: int) -> None:
        self.session.launder(ino)

    def _stale(self, ino: int) -> None:
        self.session.attributes_changed(ino)

    async def run(self, ready: Callable[[], None]) -> None:
        """Serve until unmounted; ``ready`` is called when the mount can be used."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._signals)
                nursery.start_soon(self._drain_when_told)
                nursery.start_soon(self._announce, ready)
                nursery.start_soon(self._keep_incidents)
                if self.live is not None:
                    nursery.start_soon(self._ticks, self.live)
                    nursery.start_soon(self._watch_ticks)
                    nursery.start_soon(self._drop_refused, self.live)
                    listener = control.listen(
                        self.subject.folder, remote.socket_name(self.subject.name)
                    )
                    nursery.start_soon(control.serve, listener, self)
                await self.session.serve()
                nursery.cancel_scope.cancel()
        finally:
            self._leave()

    def _leave(self) -> None:
        """Nothing stays behind: no mount that answers to nobody, no socket, nothing uncommitted.

        A mount that another made is that one's to take away.
        """
        try:
            if not self._mounts:
                self.session.close()
                return
            there = mountpoint.at(self.mountpoint)
            self.session.close()
            ours = there is not None and there.source == self.subject.source
            if ours and mountpoint.at(self.mountpoint) == there:
                kernel.detach(self.mountpoint, lazy=True)
        finally:
            if self.live is not None:
                control.remove(self.subject.folder, remote.socket_name(self.subject.name))
                self.thaw()
                self.live.tree.close()

    async def _announce(self, ready: Callable[[], None]) -> None:
        await self.session.ready.wait()
        there = mountpoint.at(self.mountpoint)
        if there is not None and self._mounts:
            kernel.tune(there.device, self.options.readahead)
        self.state = "serving"
        ready()

    async def _ticks(self, live: LiveFiles) -> None:
        limiter = trio.CapacityLimiter(1)
        while True:
            await trio.sleep(TICK)
            self._turn = time.monotonic()
            try:
                await trio.to_thread.run_sync(live.tree.tick, limiter=limiter)
            except HoldfastError as error:
                log.error("background commit: %s", error)
            except Exception as error:  # a bug or a lack of threads must not end the mount
                log.exception("background turn")
                self.subject.incidents.note("internal", "background turn", repr(error))
            self._turn = 0.0

    async def _watch_ticks(self) -> None:
        """Tell when a background turn waits for a disk that does not answer."""
        name = f"mount {self.subject.name}"
        while True:
            await trio.sleep(TICK)
            if self._turn and time.monotonic() - self._turn > limits.STALL:
                self.subject.incidents.note(
                    "stalled", name, f"a background turn takes longer than {limits.STALL:.0f} s"
                )

    async def _drop_refused(self, live: LiveFiles) -> None:
        """What the fence refused, the kernel must not go on showing as if it were there."""
        limiter = trio.CapacityLimiter(1)
        while True:
            await trio.sleep(TICK)
            refused, live.refused = live.refused, set()
            for ino in refused:
                with contextlib.suppress(OSError):  # the mount is gone, and that with it
                    await trio.to_thread.run_sync(self._launder, ino, limiter=limiter)

    async def _keep_incidents(self) -> None:
        """Write what was noted: in a thread of its own, for the disk may be what does not answer."""
        limiter = trio.CapacityLimiter(1)
        while True:
            await trio.to_thread.run_sync(
                self.subject.incidents.tick, limiter=limiter, abandon_on_cancel=True
            )
            await trio.sleep(TICK)

    async def _signals(self) -> None:
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as received:
            async for number in received:
                log.info("signal %d: draining", number)
                self.drain()

    # --- control ------------------------------------------------------------------------------------

    def status(self) -> remote.Reply:
        """Counters and state; cheap."""
        live, adapter = self.live, self._adapter
        return {
            "mount": self.subject.name,
            "mountpoint": self.mountpoint,
            "pid": os.getpid(),
            "state": self.state,
            "options": self.options.served(),
            "frozen": live is not None and live.gate.shut,
            "writable": live is not None and not live.gate.fenced,
            "requests": adapter.requests,
            "bytes_read": adapter.bytes_read,
            "bytes_written": adapter.bytes_written,
            "fsyncs": adapter.fsyncs,
            "fsync_seconds": adapter.fsync_ns / 1e9,
            "queues": live.queues() if live is not None else {},
            **self.subject.counters(),
            "open_writers": len(live.writers) if live is not None else 0,
            "spin_us": round(self._spin.window * 1e6, 1),
            "peak_rss": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        }

    def incidents(self) -> remote.Reply:
        """What this worker has met; the store may not have all of it yet."""
        return {"incidents": [asdict(line) for line in self.subject.incidents.known()]}

    async def _captured(self, live: LiveFiles) -> None:
        if self.state not in ("serving", "draining"):
            raise ShuttingDown(f"mount {self.subject.name}", found=self.state)
        await trio.to_thread.run_sync(
            capture, self.mountpoint, live.open_writers(), self.session.launder
        )
        for ino, error in live.lost.items():
            raise type(error)(
                f"mount {self.subject.name}",
                expected="every write stored",
                found=f"one to inode {ino} that was not ({error})",
                do="close or fsync that file, free space, and try again",
            )

    async def barrier(self) -> None:
        """Everything written before is durable and indexed when this returns."""
        live = self._changing()
        async with self._committing:
            await self._captured(live)
            await trio.to_thread.run_sync(live.tree.barrier)

    async def freeze(self) -> None:
        """As ``barrier``, and no change is made from then on until ``thaw``.

        Most is captured while everything goes on. The rest, written since, is captured with names held up: what was
        written before a file got its name is there with the name.
        """
        live = self._changing()
        async with self._committing:
            await self._captured(live)
            live.hold_names()
            await self._captured(live)
            live.freeze()
            await trio.to_thread.run_sync(live.tree.barrier)

    def thaw(self) -> None:
        """Let changes go on; harmless when nothing is frozen. Follows every ``freeze``, also one that failed."""
        if self.live is not None and (self.live.gate.shut or self.live.names.closed):
            self.live.thaw()

    async def fence(self, writable: bool) -> None:
        """Refuse every change from now on, with EROFS, or none any more. Never called while frozen.

        Writes that returned before the call are in the tree when it returns. One that returns while it runs may be
        refused when the kernel hands it over, and its writer is then told by fsync or close. A worker that starts
        has the fence that its options say.
        """
        live = self._changing()
        if writable or live.gate.fenced:
            live.fence(not writable)
            return
        async with self._committing:
            await self._captured(live)
            live.hold_names()
            try:
                await self._captured(live)
                live.fence(True)
            finally:
                live.thaw()

    async def writers(self) -> remote.Reply:
        """Paths of files that are open for writing, the first of them; how many have no name any more."""
        live = self._changing()
        found = [ino for ino, _ in live.open_writers()]
        return await trio.to_thread.run_sync(_paths, live.tree, found)

    async def show_restores(self, wanted: object) -> None:
        """Show these in the directory ``restores``, and no others. Raises AlreadyExists where the tree has the name."""
        live = self._changing()
        if self._restores is None:
            raise Unsupported("restores in a mount without recovery points")
        async with self._showing:
            plan = await trio.to_thread.run_sync(self._restores.planned, wanted)
            if plan.shown and _has_name(live.tree, restores.NAME):
                raise restores.taken()
            self._restores.show(plan)
            self._adapter.show(restores.NAME if plan.shown else b"", self._shown)
            await trio.to_thread.run_sync(self.session.name_changed, ROOT, restores.NAME)

    def _changing(self) -> LiveFiles:
        assert self.live is not None, "only live trees have a control socket"
        return self.live

    def drain(self) -> None:
        """Unmount and end, soon."""
        self._draining.set()

    async def _drain_when_told(self) -> None:
        await self._draining.wait()
        self.state = "draining"
        self.thaw()
        if not self._mounts:
            await self._barrier_before_the_end()
            await trio.sleep(self.options.drain_limit)  # who mounted sees the state, and unmounts
            log.warning("%s: still mounted, ending", self.mountpoint)
            self.session.stop()
            return
        why = await trio.to_thread.run_sync(lambda: kernel.detach(self.mountpoint, lazy=False))
        if not why:
            return  # the kernel tells the session
        log.warning(
            "%s is in use (%s): files still open are served for a while", self.mountpoint, why
        )
        await self._barrier_before_the_end()
        await trio.to_thread.run_sync(lambda: kernel.detach(self.mountpoint, lazy=True))
        await trio.sleep(self.options.drain_limit)
        log.warning("%s: cutting off files still open", self.mountpoint)
        self.session.stop()

    async def _barrier_before_the_end(self) -> None:
        if self.live is not None:
            try:
                await self.barrier()
            except (HoldfastError, OSError) as error:
                log.error("draining: %s", error)


def _has_name(tree: Tree, name: bytes) -> bool:
    try:
        tree.lookup(ROOT, name)
    except NotFound:
        return False
    return True


def _paths(tree: Tree, inodes: list[int]) -> remote.Reply:
    """[T] What fits into a reply: each path is looked up by itself, and a file may be closed or removed meanwhile."""
    paths: list[str] = []
    unlinked, room = 0, WRITERS_BYTES
    for ino in inodes[:WRITERS_MAX]:
        try:
            path = tree.path(ino)
        except HoldfastError:
            continue
        if path is None:
            unlinked += 1
            continue
        paths.append(os.fsdecode(path))
        room -= 6 * len(path) + 4  # the most that JSON makes of it
        if room < 0:
            paths.pop()
            return {"writers": paths, "unlinked": unlinked, "more": True}
    return {"writers": paths, "unlinked": unlinked, "more": len(inodes) > WRITERS_MAX}
