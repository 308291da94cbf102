"""``.snapshots``: the recovery points of a mount as directories in its root, not listed there, read-only.

The directory itself is inode ``VIRTUAL``; the inodes of a point are ``VIRTUAL | number << 40 | inode``, where the
number is the point's in its mount: no other ever gets it, so a handle that an NFS client kept over a restart of this
worker means the same point, or nothing; the generation of a point's root is made from its name, should the mount itself
be another one.  Points come and go by other processes' doing, so the kernel may remember their names for a moment
only; what is in a point never changes.  ``restores`` is made of the same parts (``restores.py``).
"""

from __future__ import annotations

import errno
import stat
import zlib
from collections.abc import AsyncGenerator
from typing import NamedTuple, Protocol

import trio

from engine.errors import NotFound, PosixError
from fsmount.contract import ROOT, Attr, StatFs
from fsmount.files import BRIEF, FOREVER, VIRTUAL, Files
from fsmount.lookups import Lookups
from fsmount.pointfs import Entry, PointAttr, PointFiles, View

NAME = b".snapshots"
INODE_BITS = 40  # of the engine's inode numbers
POINTS_MAX = 1 << 20  # numbers of points that fit between the inode and the VIRTUAL bit


class Named(NamedTuple):
    """A point in a listing: its name, its number (for ever), time of creation (ns), and its root directory, which tells
    who may enter."""

    name: bytes
    number: int
    time_ns: int
    root: Entry


class Points(Protocol):
    """Where the recovery points of the mount come from. Both methods may block [T]."""

    def names(self) -> list[Named]:
        """Every point, oldest first."""

    def view(self, name: bytes, location: str = "", /) -> View:
        """The point of that name, read from a storage location where one is named. Raises NotFound."""


class FolderAttr:
    """Attributes of ``.snapshots`` itself: whoever may enter the mount's root may list it."""

    generation = 1
    mode = stat.S_IFDIR | 0o555
    nlink = 2
    uid = gid = rdev = size = blocks = 0
    blksize = 4096
    atime_ns = btime_ns = 0

    def __init__(self, ino: int, changed_ns: int) -> None:
        self.ino = ino
        self.mtime_ns = self.ctime_ns = changed_ns


class SnapDir(Files):
    """The virtual tree. Runs on the loop's thread."""

    def __init__(self, points: Points, base: int = VIRTUAL) -> None:
        """``base``: the inode of the directory itself."""
        self._points = points
        self._base = base
        self._names: dict[int, bytes] = {}  # by number, of those seen
        self._open: dict[int, PointFiles] = {}
        self._roots = Lookups()  # by number: how often the kernel was told of a point's root
        self._limit = trio.CapacityLimiter(2)

    def timeout(self, ino: int) -> float:
        """What is in a point never changes; points come and go."""
        return BRIEF if is_root(ino) else FOREVER

    async def _of(self, ino: int) -> PointFiles:
        """The point of an inode; opened when only its root was known."""
        number = number_of(ino)
        if number not in self._open:
            if number not in self._names:
                await (
                    self._listed()
                )  # the kernel, or its NFS server, may know it from before this worker
            if not is_root(ino) or number not in self._names:
                raise PosixError(errno.ESTALE)
            view = await trio.to_thread.run_sync(
                self._points.view, self._names[number], limiter=self._limit
            )
            self._open.setdefault(number, PointFiles(view, self._inode(number) - ROOT, self._base))
        return self._open[number]

    def _inode(self, number: int) -> int:
        """Of a point's root."""
        return self._base | number << INODE_BITS | ROOT

    async def _listed(self) -> list[Named]:
        found = await trio.to_thread.run_sync(self._points.names, limiter=self._limit)
        found = [one for one in found if one.number < POINTS_MAX]
        self._names.update((one.number, one.name) for one in found)
        return found

    async def lookup(self, parent: int, name: bytes) -> Attr:
        """``..`` of the directory itself is its caller's business: the live tree's root."""
        if parent != self._base:
            if name == b".." and is_root(parent):
                return await self.getattr(self._base)
            return self._marked(await (await self._of(parent)).lookup(parent, name))
        if name == b".":
            return await self.getattr(self._base)
        for known in await self._listed():
            if name == known.name:
                return self._marked(await self.getattr(self._inode(known.number)))
        raise NotFound(f"recovery point {name!r}")

    def _marked(self, attr: Attr) -> Attr:
        """Attributes for an entry reply: the kernel puts the generation into handles, and compares it."""
        if is_root(attr.ino) and attr.ino != self._base:
            attr.generation = zlib.crc32(self._names[number_of(attr.ino)])
        return attr

    async def parent(self, ino: int) -> int:
        return ROOT if ino == self._base else await (await self._of(ino)).parent(ino)

    async def getattr(self, ino: int) -> Attr:
        if ino != self._base:
            return await (await self._of(ino)).getattr(ino)
        listed = await self._listed()
        return FolderAttr(self._base, listed[-1].time_ns if listed else 0)

    async def readdir(self, ino: int, cookie: int) -> AsyncGenerator[tuple[bytes, Attr, int], None]:
        """In ``.snapshots`` a cookie is the number of the point: going on survives their coming and going.

        A listing tells the kernel attributes, and the kernel decides by them: they are those of the point's root.
        """
        if ino != self._base:
            async for entry in (await self._of(ino)).readdir(ino, cookie):
                yield entry
            return
        for point in sorted(await self._listed(), key=lambda one: one.number):
            if point.number > cookie:
                attr = self._marked(PointAttr(self._inode(point.number), point.root))
                yield point.name, attr, point.number

    async def readlink(self, ino: int) -> bytes:
        return await (await self._of(ino)).readlink(ino)

    async def read(self, ino: int, offset: int, size: int) -> bytes:
        return await (await self._of(ino)).read(ino, offset, size)

    async def getxattr(self, ino: int, name: bytes) -> bytes:
        if ino == self._base:
            raise PosixError(errno.ENODATA)
        return await (await self._of(ino)).getxattr(ino, name)

    async def listxattr(self, ino: int) -> list[bytes]:
        return [] if ino == self._base else await (await self._of(ino)).listxattr(ino)

    async def statfs(self) -> StatFs:
        return StatFs(4096, 0, 0, 0, 0, 0, 255)

    def known(self, ino: int) -> None:
        number = number_of(ino)
        if is_root(ino):
            self._roots.add(number)
        else:
            self._open[number].known(ino)

    def forget(self, ino: int, count: int) -> None:
        number = number_of(ino)
        files = self._open.get(number)
        if is_root(ino):
            self._roots.drop(number, count)
        elif files is not None:
            files.forget(ino, count)
        if files is not None and files.idle and not self._roots.count(number):
            del self._open[number]


def number_of(ino: int) -> int:
    """Which point an inode belongs to; 0 for ``.snapshots`` itself."""
    return (ino & (VIRTUAL - 1)) >> INODE_BITS


def is_root(ino: int) -> bool:
    """Whether it is ``.snapshots`` or the root directory of a point."""
    return ino & ((1 << INODE_BITS) - 1) <= ROOT
