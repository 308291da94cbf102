"""What the mount worker needs from the engine, as types: the live tree, the view of a point, their attributes.

The engine's classes fit these protocols structurally; so does the in-memory tree of the tests.  Times are
integer nanoseconds since the epoch, names and targets are bytes, sizes and offsets are bytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

ROOT = 1  # inode of every tree's root, as the kernel wants it


class Ctx(NamedTuple):
    """Who asks: the caller's identity as the kernel reports it."""

    uid: int
    gid: int
    pid: int
    umask: int


class Attr(Protocol):
    """Attributes of one inode. ``blocks`` counts 512 bytes; holes are not in it."""

    ino: int
    generation: int
    mode: int
    nlink: int
    uid: int
    gid: int
    rdev: int
    size: int
    blocks: int
    blksize: int
    atime_ns: int
    mtime_ns: int
    ctime_ns: int
    btime_ns: int


class StatFs(NamedTuple):
    """Space of a tree: block size in bytes, then counts of blocks and inodes, then the longest name."""

    bsize: int
    blocks: int
    bfree: int
    bavail: int
    files: int
    ffree: int
    namemax: int


class Tree(Protocol):
    """The mutable tree of a mount. Raises only the engine's error family.

    Methods marked [T] may block and are called in threads; every other one is short and called on the loop.
    ``ctx`` is any object with the fields of ``Ctx``.
    """

    def lookup(self, parent: int, name: bytes, /) -> Attr: ...
    def getattr(self, ino: int, /) -> Attr: ...
    def path(self, ino: int, /) -> bytes | None: ...
    def setattr(
        self,
        ino: int,
        /,
        *,
        mode: int | None = None,
        uid: int | None = None,
        gid: int | None = None,
        size: int | None = None,
        atime_ns: int | None = None,
        mtime_ns: int | None = None,
        ctime_ns: int | None = None,
        now_ns: int,
    ) -> Attr: ...
    def readlink(self, ino: int, /) -> bytes: ...
    def mknod(self, parent: int, name: bytes, mode: int, rdev: int, ctx: Any, /) -> Attr: ...
    def create(self, parent: int, name: bytes, mode: int, ctx: Any, /) -> Attr: ...
    def mkdir(self, parent: int, name: bytes, mode: int, ctx: Any, /) -> Attr: ...
    def symlink(self, parent: int, name: bytes, target: bytes, ctx: Any, /) -> Attr: ...
    def link(self, ino: int, parent: int, name: bytes, /) -> Attr: ...
    def unlink(self, parent: int, name: bytes, /) -> None: ...
    def rmdir(self, parent: int, name: bytes, /) -> None: ...
    def rename(
        self, parent: int, name: bytes, new_parent: int, new_name: bytes, flags: int, /
    ) -> None: ...
    def readdir(self, ino: int, cookie: int, /) -> Iterator[tuple[bytes, Attr, int]]: ...
    def opened(self, ino: int, flags: int, /) -> None: ...
    def released(self, ino: int, /) -> None: ...
    def forgotten(self, ino: int, /) -> None: ...
    def read_now(self, ino: int, offset: int, size: int, /) -> bytes | None: ...
    def read(self, ino: int, offset: int, size: int, /) -> bytes: ...  # [T]
    def write(self, ino: int, offset: int, data: bytes, touch: bool = True, /) -> int: ...
    def over_limit(self) -> bool: ...
    def wait_room(self) -> None: ...  # [T]
    def fsync(self, ino: int, datasync: bool, /) -> None: ...  # [T]
    def fsyncdir(self, ino: int, /) -> None: ...  # [T]
    def barrier(self) -> None: ...  # [T]
    def freeze(self) -> None: ...
    def thaw(self) -> None: ...
    def getxattr(self, ino: int, name: bytes, /) -> bytes: ...
    def setxattr(self, ino: int, name: bytes, value: bytes, flags: int, /) -> None: ...
    def listxattr(self, ino: int, /) -> list[bytes]: ...
    def removexattr(self, ino: int, name: bytes, /) -> None: ...
    def statfs(self) -> tuple[int, int, int, int, int, int, int]: ...
    def tick(self) -> None: ...  # [T]
    def close(self) -> None: ...  # [T]


Change = dict[str, int]
"""New attribute values of a setattr by their names in ``Tree.setattr``; what is absent stays."""
