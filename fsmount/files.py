"""The interface between the kernel channel and what it serves, with the answers of a read-only tree.

One implementation serves a live tree (``live``), one recovery points (``pointfs``, ``snapdir``).
Everything raises only the engine's error family; the channel turns that into errno.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator

from engine.errors import ReadOnly
from fsmount.contract import Attr, Change, Ctx, StatFs

VIRTUAL = 1 << 60
"""Inodes with this bit are not the live tree's: ``.snapshots`` and what is in it."""

RESTORES = VIRTUAL | 1 << 61
"""Inodes with these bits are those of ``restores`` and what is in it."""

FOREVER = (
    3.15e7  # s, a year: only this worker changes the tree, so the kernel may trust what it was told
)
BRIEF = 1.0  # s: for names that others change (points are made and removed by other processes)


class Files:
    """A tree that can be looked at. Every method that would change it answers "read-only"."""

    def timeout(self, ino: int) -> float:
        """How long the kernel may remember the name and attributes of this inode, or what is not in it (s)."""
        return FOREVER

    async def lookup(self, parent: int, name: bytes) -> Attr:
        raise NotImplementedError

    async def getattr(self, ino: int) -> Attr:
        raise NotImplementedError

    async def readlink(self, ino: int) -> bytes:
        raise NotImplementedError

    async def read(self, ino: int, offset: int, size: int) -> bytes:
        raise NotImplementedError

    def readdir(self, ino: int, cookie: int) -> AsyncGenerator[tuple[bytes, Attr, int], None]:
        """Entries after ``cookie`` (0: all) without "." and "..", each with the cookie that goes on after it."""
        raise NotImplementedError

    async def parent(self, ino: int) -> int:
        """The inode of a directory's parent; of the root, itself."""
        return (await self.lookup(ino, b"..")).ino

    async def getxattr(self, ino: int, name: bytes) -> bytes:
        raise NotImplementedError

    async def listxattr(self, ino: int) -> list[bytes]:
        raise NotImplementedError

    async def statfs(self) -> StatFs:
        raise NotImplementedError

    def known(self, ino: int) -> None:
        """An entry reply named this inode to the kernel."""

    def forget(self, ino: int, count: int) -> None:
        """The kernel drops ``count`` of the times it was told of this inode."""

    async def opened(self, ino: int, writable: bool) -> None:
        if writable:
            raise _read_only()

    async def released(self, ino: int, writable: bool) -> None:
        """The last descriptor or mapping of one open went away."""

    async def fsync(self, ino: int, datasync: bool) -> None:
        """Nothing to do where nothing changes."""

    async def fsyncdir(self, ino: int) -> None:
        """Nothing to do where nothing changes."""

    async def setattr(self, ino: int, change: Change) -> Attr:
        raise _read_only()

    async def mknod(self, parent: int, name: bytes, mode: int, rdev: int, ctx: Ctx) -> Attr:
        raise _read_only()

    async def create(self, parent: int, name: bytes, mode: int, writable: bool, ctx: Ctx) -> Attr:
        raise _read_only()

    async def mkdir(self, parent: int, name: bytes, mode: int, ctx: Ctx) -> Attr:
        raise _read_only()

    async def symlink(self, parent: int, name: bytes, target: bytes, ctx: Ctx) -> Attr:
        raise _read_only()

    async def link(self, ino: int, parent: int, name: bytes) -> Attr:
        raise _read_only()

    async def unlink(self, parent: int, name: bytes) -> None:
        raise _read_only()

    async def rmdir(self, parent: int, name: bytes) -> None:
        raise _read_only()

    async def rename(
        self, parent: int, name: bytes, new_parent: int, new_name: bytes, flags: int
    ) -> None:
        raise _read_only()

    async def write(self, ino: int, offset: int, data: bytes) -> int:
        raise _read_only()

    async def setxattr(self, ino: int, name: bytes, value: bytes, ctx: Ctx) -> None:
        raise _read_only()

    async def removexattr(self, ino: int, name: bytes) -> None:
        raise _read_only()


def _read_only() -> ReadOnly:
    return ReadOnly(
        "recovery point", found="a write", do="copy it out, or restore it, to change it"
    )
