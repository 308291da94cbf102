"""Serving a live tree: each request as one call of the engine, on the loop when it is short, in a thread when not.

Changes pass the freeze gate first and are then made without an await, so none is ever half made when the gate
closes.  A freeze holds up names before it holds up content (``hold_names``): while the kernel's last dirty pages are
fetched, no name may be made or moved, or a recovery point would show it without the bytes written before it.

Reads that need a chunk, fsync and waiting for room run in threads, each kind with its own limit, so that a crowd of one
kind never keeps the others waiting.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import AsyncGenerator, Callable

import trio

from engine.errors import HoldfastError, PosixError, ReadOnly
from fsmount.contract import Attr, Change, Ctx, StatFs, Tree
from fsmount.files import Files
from fsmount.gate import Gate
from fsmount.killpriv import KillPriv
from fsmount.lookups import Lookups
from fsmount.xattrs import ACCESS, CAPABILITY, admit

READ_THREADS = (
    8  # readahead of 1 MiB pieces from cold packs; more than the cores: they wait for disk too
)
TIMED = 120 * 10**9
"""ns after the kernel told a file's mtime in which a write leaves it: the cache hands writes over late (after 35 s as
Linux comes), after the time the writer set, and sends the mtime of later ones itself."""
OVERTAKEN = 10 * 10**9
"""ns by which times that the cache hands over may be older than those told last, and count as overtaken on their way:
it reads and sends them without the file's lock. More is a clock that was set back."""
WRITTEN = {"mtime_ns", "ctime_ns"}  # what the kernel hands over, some time after the content
SYNC_THREADS = 32  # fsyncs waiting for one group commit
NAMES_WAITING_MAX = (
    32  # changes of names held up before the others: each occupies one of the channel's tasks (64),
)
# and pages that are being fetched need some; more go on as they would have a moment earlier
ROOM_THREADS = 4  # writers waiting for room; the kernel limits how many requests there can be


class LiveFiles(Files):
    """A live tree behind the channel. Everything runs on the loop's thread unless said otherwise."""

    def __init__(
        self,
        tree: Tree,
        launder: Callable[[int], None],
        stale: Callable[[int], None],
        *,
        late_writes: bool = True,
    ) -> None:
        """``launder(ino)`` [T] makes the kernel hand over a file's dirty pages, ``stale(ino)`` ask anew.

        ``late_writes``: the kernel gathers writes, hands them over when it likes and keeps their times itself.
        """
        self.tree = tree
        self.gate = Gate()
        self.names = Gate()
        self.lookups = Lookups()
        self.writers: dict[int, int] = {}
        self.lost: dict[int, HoldfastError] = {}
        self.refused: set[int] = (
            set()
        )  # files whose pages the fence did not let in, and the kernel still shows
        self._owed: set[int] = set()  # files whose times the kernel may still hand over at a fence
        self._timed: dict[int, int] = {}  # the change time told with a file's last mtime, ns
        self._late: list[Callable[[], None]] = []
        self._launder = launder
        self._late_writes = late_writes
        self._kill = KillPriv(tree, stale)
        self._read_limit = trio.CapacityLimiter(READ_THREADS)
        self._sync_limit = trio.CapacityLimiter(SYNC_THREADS)
        self._room_limit = trio.CapacityLimiter(ROOM_THREADS)

    # --- looking ------------------------------------------------------------------------------------

    async def lookup(self, parent: int, name: bytes) -> Attr:
        if (
            name == b"."
        ):  # how the kernel finds the inode of a handle again, which need not be a directory
            return self.tree.getattr(parent)
        return self.tree.lookup(parent, name)

    async def getattr(self, ino: int) -> Attr:
        return self.tree.getattr(ino)

    async def readlink(self, ino: int) -> bytes:
        return self.tree.readlink(ino)

    async def read(self, ino: int, offset: int, size: int) -> bytes:
        data = self.tree.read_now(ino, offset, size)
        if data is None:
            data = await trio.to_thread.run_sync(
                self.tree.read, ino, offset, size, limiter=self._read_limit
            )
        return data

    async def readdir(self, ino: int, cookie: int) -> AsyncGenerator[tuple[bytes, Attr, int], None]:
        for entry in self.tree.readdir(ino, cookie):
            yield entry

    async def getxattr(self, ino: int, name: bytes) -> bytes:
        if name == CAPABILITY and not self._kill.has_capability(ino):
            raise PosixError(errno.ENODATA, "extended attribute")
        admit(name)
        return self.tree.getxattr(ino, name)

    async def listxattr(self, ino: int) -> list[bytes]:
        return self.tree.listxattr(ino)

    async def statfs(self) -> StatFs:
        return StatFs(*self.tree.statfs())

    # --- what the kernel holds ------------------------------------------------------------------------

    def known(self, ino: int) -> None:
        self.lookups.add(ino)

    def forget(self, ino: int, count: int) -> None:
        if self.lookups.drop(ino, count):
            self._timed.pop(ino, None)
            self._settle(lambda: self.tree.forgotten(ino))

    def _settle(self, action: Callable[[], None]) -> None:
        """Now, or after the freeze: it may remove an unlinked file."""
        if self.gate.shut:
            self._late.append(action)
        else:
            action()

    def hold_names(self) -> None:
        """Hold up changes of names from now on, until ``thaw``; content may still arrive."""
        self.names.close()

    def freeze(self) -> None:
        """Hold up every change from now on."""
        self.gate.close()
        self.tree.freeze()

    def thaw(self) -> None:
        """Let changes go on."""
        self.tree.thaw()
        self.names.open()
        self.gate.open()
        late, self._late = self._late, []
        for action in late:
            action()

    def fence(self, fenced: bool) -> None:
        """Refuse changes, or not any more. Files that are open for writing now may still get their times."""
        self._owed = set(self.writers) if fenced else set()
        self.gate.fence(fenced)

    async def opened(self, ino: int, writable: bool) -> None:
        if writable:
            self.gate.check()
        self._open(ino, writable)

    def _open(self, ino: int, writable: bool) -> None:
        self.tree.opened(ino, os.O_RDWR if writable else os.O_RDONLY)
        if writable:
            self.writers[ino] = self.writers.get(ino, 0) + 1

    async def released(self, ino: int, writable: bool) -> None:
        if writable:
            left = self.writers.get(ino, 0) - 1
            if left > 0:
                self.writers[ino] = left
            else:
                self.writers.pop(ino, None)
                self.lost.pop(ino, None)
                self._owed.discard(ino)
        self._settle(lambda: self.tree.released(ino))

    def open_writers(self) -> list[tuple[int, int]]:
        """Files open for writing, with their sizes here; one that is mapped stays open until the last mapping goes."""
        return [(ino, self.tree.getattr(ino).size) for ino in self.writers]

    def queues(self) -> dict[str, int]:
        """How many requests wait, by what for."""
        return {
            "gate": self.gate.waiting + self.names.waiting,
            "read": self._read_limit.statistics().tasks_waiting,
            "fsync": self._sync_limit.statistics().borrowed_tokens
            + self._sync_limit.statistics().tasks_waiting,
            "room": self._room_limit.statistics().borrowed_tokens
            + self._room_limit.statistics().tasks_waiting,
        }

    # --- changing -----------------------------------------------------------------------------------

    async def _admitted(self) -> None:
        """Wait for room, then for the gate; raises what keeps room from coming. No await follows before the change."""
        self.gate.check()
        while self.tree.over_limit():
            await trio.to_thread.run_sync(self.tree.wait_room, limiter=self._room_limit)
        if self.gate.closed:
            await self.gate.passed()

    async def _name_admitted(self) -> None:
        """As ``_admitted``, for a change of names."""
        if self.names.closed and self.names.waiting < NAMES_WAITING_MAX:
            await self.names.passed()
        await self._admitted()

    async def setattr(self, ino: int, change: Change) -> Attr:
        if self.gate.closed or self.tree.over_limit():
            if self.gate.fenced and ino in self._owed and change.keys() <= WRITTEN:
                await self.gate.opened()
            else:
                await self._admitted()
        now = time.time_ns()
        if "size" in change:
            self._kill.written(ino, now)
            if self._late_writes and len(change) == 1:
                # The kernel keeps the times and would have sent them if it had moved them: the size is as it was.
                attr = self.tree.getattr(ino)
                if attr.size == change["size"]:
                    return attr
        if "uid" in change or "gid" in change:
            self._kill.drop_capability(ino)  # set-uid and set-gid are the tree's business here
        if "mode" in change:
            self._kill.forget(ino)
        if "mtime_ns" in change and self._late_writes:
            told = change.get("ctime_ns", now)
            if change.keys() == WRITTEN and 0 < self._timed.get(ino, 0) - told < OVERTAKEN:
                return self.tree.getattr(ino)
            self._timed[ino] = told
        return self.tree.setattr(
            ino,
            mode=change.get("mode"),
            uid=change.get("uid"),
            gid=change.get("gid"),
            size=change.get("size"),
            atime_ns=change.get("atime_ns"),
            mtime_ns=change.get("mtime_ns"),
            ctime_ns=change.get("ctime_ns"),
            now_ns=now,
        )

    async def mknod(self, parent: int, name: bytes, mode: int, rdev: int, ctx: Ctx) -> Attr:
        if self.names.closed or self.gate.closed or self.tree.over_limit():
            await self._name_admitted()
        return self.tree.mknod(parent, name, mode, rdev, ctx)

    async def create(self, parent: int, name: bytes, mode: int, writable: bool, ctx: Ctx) -> Attr:
        if self.names.closed or self.gate.closed or self.tree.over_limit():
            await self._name_admitted()
        attr = self.tree.create(parent, name, mode, ctx)
        self._open(attr.ino, writable)
        return attr

    async def mkdir(self, parent: int, name: bytes, mode: int, ctx: Ctx) -> Attr:
        if self.names.closed or self.gate.closed or self.tree.over_limit():
            await self._name_admitted()
        return self.tree.mkdir(parent, name, mode, ctx)

    async def symlink(self, parent: int, name: bytes, target: bytes, ctx: Ctx) -> Attr:
        if self.names.closed or self.gate.closed or self.tree.over_limit():
            await self._name_admitted()
        return self.tree.symlink(parent, name, target, ctx)

    async def link(self, ino: int, parent: int, name: bytes) -> Attr:
        if self.names.closed or self.gate.closed or self.tree.over_limit():
            await self._name_admitted()
        return self.tree.link(ino, parent, name)

    async def unlink(self, parent: int, name: bytes) -> None:
        if self.names.closed or self.gate.closed or self.tree.over_limit():
            await self._name_admitted()
        self.tree.unlink(parent, name)

    async def rmdir(self, parent: int, name: bytes) -> None:
        if self.names.closed or self.gate.closed or self.tree.over_limit():
            await self._name_admitted()
        self.tree.rmdir(parent, name)

    async def rename(
        self, parent: int, name: bytes, new_parent: int, new_name: bytes, flags: int
    ) -> None:
        if self.names.closed or self.gate.closed or self.tree.over_limit():
            await self._name_admitted()
        self.tree.rename(parent, name, new_parent, new_name, flags)

    async def write(self, ino: int, offset: int, data: bytes) -> int:
        try:
            if self.gate.closed or self.tree.over_limit():
                await self._admitted()
            now = time.time_ns()
            self._kill.written(ino, now)
            touch = not self._timed or now - self._timed.get(ino, 0) > TIMED
            return self.tree.write(ino, offset, data, touch)
        except ReadOnly:
            self.refused.add(ino)  # nothing is lost that was let in
            raise
        except HoldfastError as error:
            self.lost[ino] = error  # the kernel may have answered the caller long ago
            raise

    async def setxattr(self, ino: int, name: bytes, value: bytes, ctx: Ctx) -> None:
        admit(name)
        if name == CAPABILITY:
            # Pages written before must arrive before: they would drop what is being set.
            await trio.to_thread.run_sync(self._launder, ino, limiter=self._sync_limit)
        if self.gate.closed or self.tree.over_limit():
            await self._admitted()
        if name == CAPABILITY:
            self._kill.forget(ino)
        self.tree.setxattr(ino, name, value, 0)
        if name == ACCESS:
            self._kill.list_set(ino, ctx)

    async def removexattr(self, ino: int, name: bytes) -> None:
        admit(name)
        if self.gate.closed or self.tree.over_limit():
            await self._admitted()
        self.tree.removexattr(ino, name)

    # --- durability -----------------------------------------------------------------------------------

    async def fsync(self, ino: int, datasync: bool) -> None:
        self.lost.pop(ino, None)  # what was lost before is told to the caller by the kernel now
        await trio.to_thread.run_sync(self.tree.fsync, ino, datasync, limiter=self._sync_limit)

    async def fsyncdir(self, ino: int) -> None:
        await trio.to_thread.run_sync(self.tree.fsyncdir, ino, limiter=self._sync_limit)
