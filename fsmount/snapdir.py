"""``.snapshots``: the recovery points of a mount as directories in its root, not listed there, read-only.

The directory itself is inode ``VIRTUAL``; the inodes of a point are ``VIRTUAL | number << 40 | inode`` with a number
given when the point is first looked at, kept while this worker runs.  Points come and go by other
processes' doing, so the kernel may remember their names for a moment only; what is in a point never changes.
"""

from __future__ import annotations

import errno
import stat
from collections.abc import AsyncIterator
from typing import Protocol

import trio

from engine.errors import NotFound, PosixError
from fsmount.contract import ROOT, Attr, StatFs
from fsmount.files import BRIEF, FOREVER, VIRTUAL, Files
from fsmount.pointfs import PointAttr, PointFiles, View

NAME = b".snapshots"
INODE_BITS = 40  # of the engine's inode numbers
POINTS_MAX = 1 << 20  # numbers of points that fit between the inode and the VIRTUAL bit


class Points(Protocol):
    """Where the recovery points of the mount come from. Both methods may block [T]."""

    def names(self) -> list[tuple[bytes, int]]:
        """Name and time of creation (ns) of every point, oldest first."""

    def view(self, name: bytes, /) -> View:
        """The point of that name. Raises NotFound."""


class SnapAttr:
    """Attributes of the directory ``.snapshots`` itself."""

    ino = VIRTUAL
    generation = 1
    mode = stat.S_IFDIR | 0o555
    nlink = 2
    uid = gid = rdev = size = blocks = 0
    blksize = 4096
    atime_ns = btime_ns = 0

    def __init__(self, changed_ns: int) -> None:
        self.mtime_ns = self.ctime_ns = changed_ns


class SnapDir(Files):
    """The virtual tree. Runs on the loop's thread."""

    def __init__(self, points: Points) -> None:
        self._points = points
        self._numbers: dict[bytes, int] = {}
        self._open: dict[int, PointFiles] = {}
        self._limit = trio.CapacityLimiter(2)

    def timeout(self, ino: int) -> float:
        return BRIEF if ino & ((1 << INODE_BITS) - 1) <= ROOT else FOREVER

    def _of(self, ino: int) -> PointFiles:
        files = self._open.get((ino & ~VIRTUAL) >> INODE_BITS)
        if files is None:
            raise PosixError(errno.ESTALE)
        return files

    async def _point(self, name: bytes) -> PointFiles:
        number = self._numbers.get(name)
        if number is None or number not in self._open:
            view = await trio.to_thread.run_sync(self._points.view, name, limiter=self._limit)
            number = self._numbers.setdefault(name, len(self._numbers) + 1)
            if number >= POINTS_MAX:
                raise PosixError(errno.ENFILE)
            base = VIRTUAL | number << INODE_BITS
            self._open.setdefault(number, PointFiles(view, base, VIRTUAL))
        return self._open[number]

    async def lookup(self, parent: int, name: bytes) -> Attr:
        if parent != VIRTUAL:
            if name == b".." and parent == self._of(parent).root:
                return await self.getattr(VIRTUAL)
            return await self._of(parent).lookup(parent, name)
        if name == b".":
            return await self.getattr(VIRTUAL)
        if name not in [known for known, _ in await self._names()]:
            raise NotFound(f"recovery point {name!r}")
        files = await self._point(name)
        return await files.getattr(files.root)

    async def _names(self) -> list[tuple[bytes, int]]:
        return await trio.to_thread.run_sync(self._points.names, limiter=self._limit)

    async def parent(self, ino: int) -> int:
        return ROOT if ino == VIRTUAL else await self._of(ino).parent(ino)

    async def getattr(self, ino: int) -> Attr:
        if ino != VIRTUAL:
            return await self._of(ino).getattr(ino)
        names = await self._names()
        return SnapAttr(names[-1][1] if names else 0)

    async def readdir(self, ino: int, cookie: int) -> AsyncIterator[tuple[bytes, Attr, int]]:
        """In ``.snapshots`` a cookie is the number of the point: going on survives their coming and going."""
        if ino != VIRTUAL:
            async for entry in self._of(ino).readdir(ino, cookie):
                yield entry
            return
        for name, _ in await self._names():
            try:
                files = await self._point(name)
            except NotFound:
                continue  # removed since it was listed
            number = self._numbers[name]
            if number > cookie:
                yield name, PointAttr(files.root, files.view.root_entry), number

    async def readlink(self, ino: int) -> bytes:
        return await self._of(ino).readlink(ino)

    async def read(self, ino: int, offset: int, size: int) -> bytes:
        return await self._of(ino).read(ino, offset, size)

    async def getxattr(self, ino: int, name: bytes) -> bytes:
        if ino == VIRTUAL:
            raise PosixError(errno.ENODATA)
        return await self._of(ino).getxattr(ino, name)

    async def listxattr(self, ino: int) -> list[bytes]:
        return [] if ino == VIRTUAL else await self._of(ino).listxattr(ino)

    async def statfs(self) -> StatFs:
        return StatFs(4096, 0, 0, 0, 0, 0, 255)

    def known(self, ino: int) -> None:
        if ino != VIRTUAL:
            self._of(ino).known(ino)

    def forget(self, ino: int, count: int) -> None:
        if ino == VIRTUAL:
            return
        number = (ino & ~VIRTUAL) >> INODE_BITS
        files = self._open.get(number)
        if files is not None:
            files.forget(ino, count)
            if files.idle:
                del self._open[number]
