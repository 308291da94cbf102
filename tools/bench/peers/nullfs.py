"""The ceiling: a pyfuse3 file system that does nothing.

It keeps names, attributes and sizes in memory, throws written bytes away and reads zeros. Replies
carry complete attributes with long timeouts, and extended attributes are supported (there are
none), as in a real store: a file system that refuses them is asked less and would be no ceiling.

    python -m tools.bench.peers.nullfs PATH [--writeback]
"""

import argparse
import errno
import os
import stat
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import pyfuse3
import trio

TIMEOUT: Final = 3600.0  # seconds the kernel may keep names and attributes


class Node:
    """An inode: its attributes, and its names when it is a directory."""

    __slots__ = ("attr", "names", "target")

    def __init__(self, inode: int, mode: int, ctx: pyfuse3.RequestContext | None) -> None:
        now = time.time_ns()
        self.attr = pyfuse3.EntryAttributes()
        self.attr.st_ino = pyfuse3.InodeT(inode)
        self.attr.st_mode = pyfuse3.ModeT(mode)
        self.attr.st_nlink = 1
        self.attr.st_uid = ctx.uid if ctx else os.getuid()
        self.attr.st_gid = ctx.gid if ctx else os.getgid()
        self.attr.st_blksize = 4096
        self.attr.st_atime_ns = self.attr.st_mtime_ns = self.attr.st_ctime_ns = now
        self.attr.entry_timeout = self.attr.attr_timeout = TIMEOUT
        self.names: dict[bytes, int] = {}
        self.target = b""


class NullOperations(pyfuse3.Operations):
    """The handlers; none of them does more than it must."""

    supports_dot_lookup = True
    enable_acl = False

    def __init__(self, writeback: bool) -> None:
        super().__init__()
        self.enable_writeback_cache = writeback
        self.nodes = {1: Node(1, stat.S_IFDIR | 0o755, None)}
        self.next = 2

    def _find(self, parent: int, name: bytes) -> int:
        inode = self.nodes[parent].names.get(name)
        if inode is None:
            raise pyfuse3.FUSEError(errno.ENOENT)
        return inode

    def _add(self, parent: int, name: bytes, mode: int, ctx: pyfuse3.RequestContext) -> Node:
        if name in self.nodes[parent].names:
            raise pyfuse3.FUSEError(errno.EEXIST)
        inode = self.next
        self.next += 1
        node = self.nodes[inode] = Node(inode, mode, ctx)
        self.nodes[parent].names[name] = inode
        return node

    async def lookup(self, parent_inode, name, ctx):  # type: ignore[no-untyped-def]
        if name == b".":
            return self.nodes[parent_inode].attr
        inode = self.nodes[parent_inode].names.get(name)
        if inode is None:  # a negative entry the kernel may keep
            absent = pyfuse3.EntryAttributes()
            absent.st_ino = pyfuse3.InodeT(0)
            absent.entry_timeout = TIMEOUT
            return absent
        return self.nodes[inode].attr

    async def getattr(self, inode, ctx):  # type: ignore[no-untyped-def]
        return self.nodes[inode].attr

    async def setattr(self, inode, attr, fields, fh, ctx):  # type: ignore[no-untyped-def]
        own = self.nodes[inode].attr
        if fields.update_size:
            own.st_size = attr.st_size
        if fields.update_mode:
            own.st_mode = attr.st_mode
        if fields.update_uid:
            own.st_uid = attr.st_uid
        if fields.update_gid:
            own.st_gid = attr.st_gid
        if fields.update_atime:
            own.st_atime_ns = attr.st_atime_ns
        if fields.update_mtime:
            own.st_mtime_ns = attr.st_mtime_ns
        return own

    async def create(self, parent_inode, name, mode, flags, ctx):  # type: ignore[no-untyped-def]
        node = self._add(parent_inode, name, mode, ctx)
        return pyfuse3.FileInfo(fh=node.attr.st_ino), node.attr

    async def mknod(self, parent_inode, name, mode, rdev, ctx):  # type: ignore[no-untyped-def]
        return self._add(parent_inode, name, mode, ctx).attr

    async def mkdir(self, parent_inode, name, mode, ctx):  # type: ignore[no-untyped-def]
        return self._add(parent_inode, name, mode | stat.S_IFDIR, ctx).attr

    async def symlink(self, parent_inode, name, target, ctx):  # type: ignore[no-untyped-def]
        node = self._add(parent_inode, name, stat.S_IFLNK | 0o777, ctx)
        node.target = target
        node.attr.st_size = len(target)
        return node.attr

    async def readlink(self, inode, ctx):  # type: ignore[no-untyped-def]
        return self.nodes[inode].target

    async def link(self, inode, new_parent_inode, new_name, ctx):  # type: ignore[no-untyped-def]
        self.nodes[new_parent_inode].names[new_name] = inode
        self.nodes[inode].attr.st_nlink += 1
        return self.nodes[inode].attr

    async def unlink(self, parent_inode, name, ctx):  # type: ignore[no-untyped-def]
        self._find(parent_inode, name)
        del self.nodes[parent_inode].names[name]

    async def rmdir(self, parent_inode, name, ctx):  # type: ignore[no-untyped-def]
        if self.nodes[self._find(parent_inode, name)].names:
            raise pyfuse3.FUSEError(errno.ENOTEMPTY)
        del self.nodes[parent_inode].names[name]

    async def rename(  # type: ignore[no-untyped-def]
        self, parent_inode_old, name_old, parent_inode_new, name_new, flags, ctx
    ):
        if flags:
            raise pyfuse3.FUSEError(errno.EINVAL)
        inode = self._find(parent_inode_old, name_old)
        del self.nodes[parent_inode_old].names[name_old]
        self.nodes[parent_inode_new].names[name_new] = inode

    async def open(self, inode, flags, ctx):  # type: ignore[no-untyped-def]
        return pyfuse3.FileInfo(fh=inode, keep_cache=True)

    async def write(self, fh, off, buf):  # type: ignore[no-untyped-def]
        attr = self.nodes[fh].attr
        attr.st_size = max(attr.st_size, off + len(buf))
        return len(buf)

    async def read(self, fh, off, size):  # type: ignore[no-untyped-def]
        return bytes(max(0, min(size, self.nodes[fh].attr.st_size - off)))

    async def opendir(self, inode, ctx):  # type: ignore[no-untyped-def]
        return inode

    async def readdir(self, fh, start_id, token):  # type: ignore[no-untyped-def]
        for place, (name, inode) in enumerate(list(self.nodes[fh].names.items())[start_id:]):
            attr = self.nodes[inode].attr
            if not pyfuse3.readdir_reply(token, name, attr, start_id + place + 1):
                break

    async def getxattr(self, inode, name, ctx):  # type: ignore[no-untyped-def]
        raise pyfuse3.FUSEError(errno.ENODATA)

    async def setxattr(self, inode, name, value, ctx):  # type: ignore[no-untyped-def]
        return None

    async def removexattr(self, inode, name, ctx):  # type: ignore[no-untyped-def]
        raise pyfuse3.FUSEError(errno.ENODATA)

    async def listxattr(self, inode, ctx):  # type: ignore[no-untyped-def]
        return ()

    async def statfs(self, ctx):  # type: ignore[no-untyped-def]
        facts = pyfuse3.StatvfsData()
        facts.f_bsize = facts.f_frsize = 4096
        facts.f_blocks = facts.f_bfree = facts.f_bavail = 1 << 32
        facts.f_files = facts.f_ffree = facts.f_favail = 1 << 32
        facts.f_namemax = 255
        return facts

    async def flush(self, fh):  # type: ignore[no-untyped-def]
        return None

    async def fsync(self, fh, datasync):  # type: ignore[no-untyped-def]
        return None

    async def fsyncdir(self, fh, datasync):  # type: ignore[no-untyped-def]
        return None

    async def release(self, fh):  # type: ignore[no-untyped-def]
        return None

    async def releasedir(self, fh):  # type: ignore[no-untyped-def]
        return None

    async def forget(self, inode_list: Sequence[tuple[int, int]]) -> None:
        """Nothing is forgotten: the tree is the only copy."""


def serve(operations: pyfuse3.Operations, mountpoint: Path, name: str) -> None:
    """Mount and serve until unmounted."""
    options = {*pyfuse3.default_options, f"fsname={name}"}
    if os.geteuid() == 0:
        options.add("allow_other")
    pyfuse3.init(operations, str(mountpoint), options)
    try:
        trio.run(pyfuse3.main)
    finally:
        pyfuse3.close(unmount=True)


def main() -> None:
    """Mount the do-nothing file system in the foreground."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("path", type=Path)
    parser.add_argument("--writeback", action="store_true", help="with the kernel's write cache")
    given = parser.parse_args()
    serve(NullOperations(given.writeback), given.path, "bench-null")


if __name__ == "__main__":
    main()
