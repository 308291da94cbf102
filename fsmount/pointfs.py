"""Serving one recovery point read-only: for ``mount NAME@POINT``, and for each directory in ``.snapshots``.

The engine finds an entry by its directory and name only, so the entries that the kernel knows are remembered by
inode until it forgets them.  Every look into the point may read packs and runs in a thread.
"""

from __future__ import annotations

import errno
import stat
from collections import OrderedDict
from collections.abc import AsyncGenerator, Iterator
from itertools import islice
from typing import Any, Protocol

import trio

from engine.errors import NotFound, PosixError
from fsmount.contract import ROOT, Attr, StatFs
from fsmount.files import Files
from fsmount.lookups import Lookups

BATCH = 256  # entries of a directory fetched in one go: about four of the kernel's 64 KiB listings
PLACES = 1024  # positions in directories remembered, so that listing on needs no counting
THREADS = 8  # looks into recovery points at once
BLKSIZE = 64 * 1024


Entry = Any
"""An entry of a recovery point as the engine made it, opaque but for its attributes: name, mode, uid, gid, nlink,
generation, rdev, ino, size, allocated (bytes), the four times in ns, target."""


class View(Protocol):
    """A recovery point as the engine shows it. Thread-safe; everything may read packs [T]."""

    @property
    def root_entry(self) -> Entry: ...
    def get(self, directory: Entry, name: bytes, /) -> Entry | None: ...
    def scan(self, directory: Entry, after: bytes, /) -> Iterator[Entry]: ...
    def read(self, entry: Entry, offset: int, size: int, /) -> bytes: ...
    def xattrs(self, entry: Entry, /) -> dict[bytes, bytes]: ...


class PointAttr:
    """Attributes of an entry under the inode number it is served as."""

    __slots__ = (
        "atime_ns", "blksize", "blocks", "btime_ns", "ctime_ns", "generation", "gid", "ino", "mode",
        "mtime_ns", "nlink", "rdev", "size", "uid",
    )  # fmt: skip

    def __init__(self, ino: int, entry: Entry) -> None:
        self.ino = ino
        self.generation = entry.generation
        self.mode = entry.mode
        self.nlink = entry.nlink
        self.uid = entry.uid
        self.gid = entry.gid
        self.rdev = entry.rdev
        self.size = len(entry.target) if stat.S_ISLNK(entry.mode) else entry.size
        self.blocks = (entry.allocated + 511) // 512
        self.blksize = BLKSIZE
        self.atime_ns = entry.atime_ns
        self.mtime_ns = entry.mtime_ns
        self.ctime_ns = entry.ctime_ns
        self.btime_ns = entry.btime_ns


class PointFiles(Files):
    """One recovery point. Runs on the loop's thread."""

    def __init__(self, view: View, base: int = 0, above: int = ROOT) -> None:
        """Inodes are served as ``base | ino``; ``above`` is the parent of the point's root."""
        self.view = view
        self.base = base
        self.root = base | ROOT
        self._nodes: dict[int, tuple[Entry, int]] = {self.root: (view.root_entry, above)}
        self._lookups = Lookups()
        self._places: OrderedDict[tuple[int, int], bytes] = OrderedDict()
        self._limit = trio.CapacityLimiter(THREADS)

    @property
    def idle(self) -> bool:
        """Whether the kernel knows nothing of this point but perhaps its root."""
        return len(self._nodes) == 1

    def _node(self, ino: int) -> tuple[Entry, int]:
        try:
            return self._nodes[ino]
        except KeyError:
            raise PosixError(errno.ESTALE) from None

    def _found(self, entry: Entry, parent: int) -> Attr:
        ino = self.root if entry.ino == ROOT else self.base | entry.ino
        if ino != self.root:
            self._nodes[ino] = (entry, parent)
        return PointAttr(ino, entry)

    async def lookup(self, parent: int, name: bytes) -> Attr:
        entry, above = self._node(parent)
        if name == b".":
            return PointAttr(parent, entry)
        if name == b"..":
            return await self.getattr(above)
        if not stat.S_ISDIR(entry.mode):
            raise PosixError(errno.ENOTDIR)
        found = await trio.to_thread.run_sync(self.view.get, entry, name, limiter=self._limit)
        if found is None:
            raise NotFound(f"name {name!r} in a recovery point")
        return self._found(found, parent)

    async def parent(self, ino: int) -> int:
        return self._node(ino)[1]

    async def getattr(self, ino: int) -> Attr:
        return PointAttr(ino, self._node(ino)[0])

    async def readlink(self, ino: int) -> bytes:
        target: bytes = self._node(ino)[0].target
        return target

    async def read(self, ino: int, offset: int, size: int) -> bytes:
        entry = self._node(ino)[0]
        data: bytes = await trio.to_thread.run_sync(
            self.view.read, entry, offset, size, limiter=self._limit
        )
        return data

    async def readdir(self, ino: int, cookie: int) -> AsyncGenerator[tuple[bytes, Attr, int], None]:
        """Cookies count entries: a point never changes."""
        directory = self._node(ino)[0]
        after = self._places.pop((ino, cookie), None)
        skip = cookie if after is None else 0
        last = after or b""
        while True:
            batch = await trio.to_thread.run_sync(
                self._fetch, directory, last, skip, limiter=self._limit
            )
            for entry in batch:
                cookie += 1
                last = entry.name
                self._places[ino, cookie] = last
                yield entry.name, self._found(entry, ino), cookie
            while len(self._places) > PLACES:
                self._places.popitem(last=False)
            if len(batch) < BATCH:
                return
            skip = 0

    def _fetch(self, directory: Entry, after: bytes, skip: int) -> list[Entry]:
        return list(islice(self.view.scan(directory, after), skip, skip + BATCH))

    async def getxattr(self, ino: int, name: bytes) -> bytes:
        try:
            return (await self._xattrs(ino))[name]
        except KeyError:
            raise PosixError(errno.ENODATA) from None

    async def listxattr(self, ino: int) -> list[bytes]:
        return list(await self._xattrs(ino))

    async def _xattrs(self, ino: int) -> dict[bytes, bytes]:
        entry = self._node(ino)[0]
        return await trio.to_thread.run_sync(self.view.xattrs, entry, limiter=self._limit)

    async def statfs(self) -> StatFs:
        return StatFs(4096, 0, 0, 0, 0, 0, 255)

    def known(self, ino: int) -> None:
        if ino != self.root:
            self._lookups.add(ino & ~self.base)

    def forget(self, ino: int, count: int) -> None:
        if ino != self.root and self._lookups.drop(ino & ~self.base, count):
            self._nodes.pop(ino, None)
