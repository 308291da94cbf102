"""A live tree in memory with the engine's interface: the do-nothing ceiling of measurements, and a test double.

With ``keep_data=False`` file content is counted and thrown away (reads give zeros), which leaves only the cost of the
channel.  ``slow`` names operations that a test holds up: each waits on its event.
"""

from __future__ import annotations

import errno
import stat
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from engine.errors import AlreadyExists, NotFound, PosixError
from fsmount.contract import ROOT, Ctx

NOREPLACE, EXCHANGE = 1, 2


@dataclass(slots=True, eq=False)
class Inode:
    """One inode with everything it has."""

    ino: int
    mode: int
    uid: int
    gid: int
    generation: int = 1
    nlink: int = 1
    rdev: int = 0
    size: int = 0
    blocks: int = 0
    blksize: int = 4096
    atime_ns: int = 0
    mtime_ns: int = 0
    ctime_ns: int = 0
    btime_ns: int = 0
    parent: int = 0
    target: bytes = b""
    data: bytearray = field(default_factory=bytearray)
    names: dict[bytes, tuple[int, int]] = field(default_factory=dict)  # name -> (ino, cookie)
    cookie: int = 0
    xattrs: dict[bytes, bytes] = field(default_factory=dict)
    opens: int = 0


class MemTree:
    """See ``fsmount.contract.Tree``."""

    def __init__(self, *, keep_data: bool = True) -> None:
        self.keep_data = keep_data
        root = Inode(ROOT, stat.S_IFDIR | 0o755, 0, 0, nlink=2, parent=ROOT)
        self.inodes = {ROOT: root}
        self.last = ROOT
        self.slow: dict[str, threading.Event] = {}
        self.calls: dict[str, int] = {}
        self.fail: dict[str, BaseException] = {}
        self.frozen = False
        self.closed = False
        self.full = False
        self.arrived = 0  # bytes written so far

    def _hook(self, operation: str) -> None:
        self.calls[operation] = self.calls.get(operation, 0) + 1
        if operation in self.slow:
            assert self.slow[operation].wait(30)
        if operation in self.fail:
            raise self.fail[operation]

    def _get(self, ino: int) -> Inode:
        try:
            return self.inodes[ino]
        except KeyError:
            raise NotFound(f"inode {ino}") from None

    def _dir(self, ino: int) -> Inode:
        node = self._get(ino)
        if not stat.S_ISDIR(node.mode):
            raise PosixError(errno.ENOTDIR)
        return node

    def _entry(self, parent: int, name: bytes) -> Inode:
        try:
            return self.inodes[self._dir(parent).names[name][0]]
        except KeyError:
            raise NotFound(f"name {name!r}") from None

    def _add(self, parent: Inode, name: bytes, node: Inode) -> None:
        parent.cookie += 1
        parent.names[name] = (node.ino, parent.cookie)
        parent.mtime_ns = parent.ctime_ns = time.time_ns()

    def _drop(self, node: Inode) -> None:
        if node.nlink == 0 and node.opens == 0:
            self.inodes.pop(node.ino, None)

    # --- looking

    def lookup(self, parent: int, name: bytes) -> Inode:
        if name == b".":
            return self._get(parent)
        if name == b"..":
            return self._get(self._dir(parent).parent)
        return self._entry(parent, name)

    def getattr(self, ino: int) -> Inode:
        self._hook("getattr")
        return self._get(ino)

    def readlink(self, ino: int) -> bytes:
        return self._get(ino).target

    def path(self, ino: int) -> bytes | None:
        parts: list[bytes] = []
        while ino != ROOT:
            for parent in self.inodes.values():
                name = next((n for n, (i, _) in parent.names.items() if i == ino), None)
                if name is not None:
                    parts.append(name)
                    ino = parent.ino
                    break
            else:
                return None
        return b"/".join(reversed(parts))

    def readdir(self, ino: int, cookie: int) -> Iterator[tuple[bytes, Inode, int]]:
        entries = sorted(
            (c, name, i) for name, (i, c) in self._dir(ino).names.items() if c > cookie
        )
        for own, name, child in entries:
            yield name, self.inodes[child], own

    def statfs(self) -> tuple[int, int, int, int, int, int, int]:
        return 4096, 1 << 28, 1 << 27, 1 << 27, 1 << 20, 1 << 19, 255

    # --- changing

    def setattr(
        self, ino: int, *, mode: int | None = None, uid: int | None = None, gid: int | None = None,
        size: int | None = None, atime_ns: int | None = None, mtime_ns: int | None = None,
        ctime_ns: int | None = None, now_ns: int,
    ) -> Inode:  # fmt: skip
        self._hook("setattr")
        node = self._get(ino)
        if mode is not None:
            node.mode = stat.S_IFMT(node.mode) | mode
        if (uid is not None or gid is not None) and mode is None and stat.S_ISREG(node.mode):
            node.mode &= ~stat.S_ISUID
            if node.mode & stat.S_IXGRP:
                node.mode &= ~stat.S_ISGID
        if uid is not None:
            node.uid = uid
        if gid is not None:
            node.gid = gid
        if size is not None:
            self._resize(node, size)
            node.mtime_ns = now_ns
        if atime_ns is not None:
            node.atime_ns = atime_ns
        if mtime_ns is not None:
            node.mtime_ns = mtime_ns
        node.ctime_ns = now_ns if ctime_ns is None else ctime_ns
        return node

    def _resize(self, node: Inode, size: int) -> None:
        if self.keep_data:
            if size < node.size:
                del node.data[size:]
            else:
                node.data.extend(bytes(size - node.size))
        node.size = size
        node.blocks = (size + 511) // 512

    def _make(self, parent: int, name: bytes, mode: int, ctx: Ctx) -> Inode:
        directory = self._dir(parent)
        if name in directory.names:
            raise AlreadyExists(f"name {name!r}")
        self.last += 1
        now = time.time_ns()
        gid = directory.gid if directory.mode & stat.S_ISGID else ctx.gid
        if stat.S_ISDIR(mode):
            mode |= directory.mode & stat.S_ISGID
        node = Inode(
            self.last, mode, ctx.uid, gid, atime_ns=now, mtime_ns=now, ctime_ns=now, btime_ns=now,
            parent=parent,
        )  # fmt: skip
        self.inodes[node.ino] = node
        self._add(directory, name, node)
        return node

    def mknod(self, parent: int, name: bytes, mode: int, rdev: int, ctx: Ctx) -> Inode:
        node = self._make(parent, name, mode & ~ctx.umask, ctx)
        node.rdev = rdev
        return node

    def create(self, parent: int, name: bytes, mode: int, ctx: Ctx) -> Inode:
        self._hook("create")
        return self._make(parent, name, stat.S_IFREG | (mode & ~ctx.umask), ctx)

    def mkdir(self, parent: int, name: bytes, mode: int, ctx: Ctx) -> Inode:
        node = self._make(parent, name, stat.S_IFDIR | (mode & ~ctx.umask), ctx)
        node.nlink = 2
        self._get(parent).nlink += 1
        return node

    def symlink(self, parent: int, name: bytes, target: bytes, ctx: Ctx) -> Inode:
        node = self._make(parent, name, stat.S_IFLNK | 0o777, ctx)
        node.target, node.size = target, len(target)
        return node

    def link(self, ino: int, parent: int, name: bytes) -> Inode:
        directory = self._dir(parent)
        if name in directory.names:
            raise AlreadyExists(f"name {name!r}")
        node = self._get(ino)
        node.nlink += 1
        node.ctime_ns = time.time_ns()
        self._add(directory, name, node)
        return node

    def unlink(self, parent: int, name: bytes) -> None:
        node = self._entry(parent, name)
        if stat.S_ISDIR(node.mode):
            raise PosixError(errno.EISDIR)
        self._remove(parent, name, node)

    def rmdir(self, parent: int, name: bytes) -> None:
        node = self._entry(parent, name)
        if not stat.S_ISDIR(node.mode):
            raise PosixError(errno.ENOTDIR)
        if node.names:
            raise PosixError(errno.ENOTEMPTY)
        self._remove(parent, name, node)

    def _remove(self, parent: int, name: bytes, node: Inode) -> None:
        directory = self._dir(parent)
        del directory.names[name]
        directory.mtime_ns = directory.ctime_ns = node.ctime_ns = time.time_ns()
        if stat.S_ISDIR(node.mode):
            node.nlink = 0
            directory.nlink -= 1
        else:
            node.nlink -= 1

    def rename(
        self, parent: int, name: bytes, new_parent: int, new_name: bytes, flags: int
    ) -> None:
        node = self._entry(parent, name)
        old, new = self._dir(parent), self._dir(new_parent)
        there = self.inodes[new.names[new_name][0]] if new_name in new.names else None
        if flags & EXCHANGE:
            if there is None:
                raise NotFound(f"name {new_name!r}")
            self._add(old, name, there)
            self._add(new, new_name, node)
            node.parent, there.parent = new_parent, parent
            return
        if there is not None:
            if flags & NOREPLACE:
                raise AlreadyExists(f"name {new_name!r}")
            if there is node:
                return
            if stat.S_ISDIR(there.mode):
                self.rmdir(new_parent, new_name)
            else:
                self.unlink(new_parent, new_name)
        del old.names[name]
        self._add(new, new_name, node)
        node.parent = new_parent
        if stat.S_ISDIR(node.mode) and old is not new:
            old.nlink -= 1
            new.nlink += 1

    # --- content

    def opened(self, ino: int, flags: int) -> None:
        self._get(ino).opens += 1

    def released(self, ino: int) -> None:
        node = self._get(ino)
        node.opens -= 1

    def forgotten(self, ino: int) -> None:
        node = self.inodes.get(ino)
        if node is not None:
            self._drop(node)

    def read_now(self, ino: int, offset: int, size: int) -> bytes | None:
        if "read" in self.slow or "read" in self.fail:
            return None
        return self.read(ino, offset, size)

    def read(self, ino: int, offset: int, size: int) -> bytes:
        self._hook("read")
        node = self._get(ino)
        if not self.keep_data:
            return bytes(max(0, min(size, node.size - offset)))
        return bytes(node.data[offset : offset + size])

    def write(self, ino: int, offset: int, data: bytes, touch: bool = True) -> int:
        self._hook("write")
        node = self._get(ino)
        end = offset + len(data)
        if end > node.size:
            self._resize(node, end)
        if self.keep_data:
            node.data[offset:end] = data
        if touch:
            node.mtime_ns = node.ctime_ns = time.time_ns()
        self.arrived += len(data)
        return len(data)

    def over_limit(self) -> bool:
        return self.full

    def wait_room(self) -> None:
        self._hook("wait_room")
        self.full = False

    def fsync(self, ino: int, datasync: bool) -> None:
        self._hook("fsync")

    def fsyncdir(self, ino: int) -> None:
        self._hook("fsyncdir")

    def barrier(self) -> None:
        self._hook("barrier")

    def freeze(self) -> None:
        self.frozen = True

    def thaw(self) -> None:
        self.frozen = False

    def tick(self) -> None:
        self._hook("tick")

    def close(self) -> None:
        self._hook("close")
        self.closed = True

    # --- extended attributes

    def getxattr(self, ino: int, name: bytes) -> bytes:
        try:
            return self._get(ino).xattrs[name]
        except KeyError:
            raise PosixError(errno.ENODATA) from None

    def setxattr(self, ino: int, name: bytes, value: bytes, flags: int) -> None:
        self._get(ino).xattrs[name] = value

    def listxattr(self, ino: int) -> list[bytes]:
        return list(self._get(ino).xattrs)

    def removexattr(self, ino: int, name: bytes) -> None:
        self.getxattr(ino, name)
        del self._get(ino).xattrs[name]
