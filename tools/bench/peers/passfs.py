"""A pyfuse3 passthrough file system: every request is the same call on a directory of the disk.

System calls are made on the loop thread, one at a time, which is how the simplest such file
systems are written and what a store behind pyfuse3 has to stand beside.

    python -m tools.bench.peers.passfs SOURCE PATH [--writeback]
"""

import argparse
import errno
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pyfuse3

from tools.bench.peers.nullfs import serve


@contextmanager
def _errors() -> Iterator[None]:
    """Turn the errors of system calls into replies."""
    try:
        yield
    except OSError as problem:
        raise pyfuse3.FUSEError(problem.errno or errno.EIO) from None


class PassOperations(pyfuse3.Operations):
    """The handlers. Inodes are those of the source, found by the path they were seen at."""

    supports_dot_lookup = False
    enable_acl = False

    def __init__(self, source: Path, writeback: bool) -> None:
        super().__init__()
        self.enable_writeback_cache = writeback
        self.paths = {1: os.fsencode(source)}

    def _below(self, parent: int, name: bytes) -> bytes:
        return self.paths[parent] + b"/" + name

    def _attr(self, facts: os.stat_result) -> pyfuse3.EntryAttributes:
        attr = pyfuse3.EntryAttributes()
        for name in ("st_ino", "st_mode", "st_nlink", "st_uid", "st_gid", "st_rdev", "st_size",
                     "st_blksize", "st_blocks", "st_atime_ns", "st_mtime_ns", "st_ctime_ns"):  # fmt: skip
            setattr(attr, name, getattr(facts, name))
        attr.entry_timeout = attr.attr_timeout = 5.0
        return attr

    def _made(self, path: bytes, make: Callable[[], object]) -> pyfuse3.EntryAttributes:
        with _errors():
            make()
            attr = self._attr(os.lstat(path))
        self.paths[attr.st_ino] = path
        return attr

    async def lookup(self, parent_inode, name, ctx):  # type: ignore[no-untyped-def]
        return self._made(self._below(parent_inode, name), lambda: None)

    def _now(self, inode: int) -> pyfuse3.EntryAttributes:
        with _errors():
            attr = self._attr(os.lstat(self.paths[inode]))
        attr.st_ino = pyfuse3.InodeT(inode)
        return attr

    async def getattr(self, inode, ctx):  # type: ignore[no-untyped-def]
        return self._now(inode)

    async def setattr(self, inode, attr, fields, fh, ctx):  # type: ignore[no-untyped-def]
        path = self.paths[inode]
        with _errors():
            if fields.update_size:
                os.truncate(path if fh is None else fh, attr.st_size)
            if fields.update_mode:
                os.chmod(path, stat.S_IMODE(attr.st_mode))
            if fields.update_uid or fields.update_gid:
                uid = attr.st_uid if fields.update_uid else -1
                os.chown(path, uid, attr.st_gid if fields.update_gid else -1, follow_symlinks=False)
            if fields.update_atime or fields.update_mtime:
                now = os.lstat(path)
                atime = attr.st_atime_ns if fields.update_atime else now.st_atime_ns
                mtime = attr.st_mtime_ns if fields.update_mtime else now.st_mtime_ns
                os.utime(path, ns=(atime, mtime), follow_symlinks=False)
        return self._now(inode)

    def _flags(self, flags: int) -> int:
        """With the write cache the kernel reads what it needs itself, and appends by offset."""
        if self.enable_writeback_cache:
            if flags & os.O_ACCMODE == os.O_WRONLY:
                flags = flags & ~os.O_ACCMODE | os.O_RDWR
            flags &= ~os.O_APPEND
        return flags & ~os.O_DIRECT

    async def create(self, parent_inode, name, mode, flags, ctx):  # type: ignore[no-untyped-def]
        path = self._below(parent_inode, name)
        with _errors():
            handle = os.open(path, self._flags(flags) | os.O_CREAT, mode)
        return pyfuse3.FileInfo(fh=handle), self._made(path, lambda: None)

    async def open(self, inode, flags, ctx):  # type: ignore[no-untyped-def]
        with _errors():
            handle = os.open(self.paths[inode], self._flags(flags) & ~os.O_CREAT)
        return pyfuse3.FileInfo(fh=handle)

    async def read(self, fh, off, size):  # type: ignore[no-untyped-def]
        with _errors():
            return os.pread(fh, size, off)

    async def write(self, fh, off, buf):  # type: ignore[no-untyped-def]
        with _errors():
            return os.pwrite(fh, buf, off)

    async def fsync(self, fh, datasync):  # type: ignore[no-untyped-def]
        with _errors():
            (os.fdatasync if datasync else os.fsync)(fh)

    async def fsyncdir(self, fh, datasync):  # type: ignore[no-untyped-def]
        return None

    async def flush(self, fh):  # type: ignore[no-untyped-def]
        return None

    async def release(self, fh):  # type: ignore[no-untyped-def]
        os.close(fh)

    async def mkdir(self, parent_inode, name, mode, ctx):  # type: ignore[no-untyped-def]
        path = self._below(parent_inode, name)
        return self._made(path, lambda: os.mkdir(path, mode))

    async def symlink(self, parent_inode, name, target, ctx):  # type: ignore[no-untyped-def]
        path = self._below(parent_inode, name)
        return self._made(path, lambda: os.symlink(target, path))

    async def link(self, inode, new_parent_inode, new_name, ctx):  # type: ignore[no-untyped-def]
        path = self._below(new_parent_inode, new_name)
        return self._made(path, lambda: os.link(self.paths[inode], path, follow_symlinks=False))

    async def readlink(self, inode, ctx):  # type: ignore[no-untyped-def]
        with _errors():
            return os.readlink(self.paths[inode])

    async def unlink(self, parent_inode, name, ctx):  # type: ignore[no-untyped-def]
        with _errors():
            os.unlink(self._below(parent_inode, name))

    async def rmdir(self, parent_inode, name, ctx):  # type: ignore[no-untyped-def]
        with _errors():
            os.rmdir(self._below(parent_inode, name))

    async def rename(  # type: ignore[no-untyped-def]
        self, parent_inode_old, name_old, parent_inode_new, name_new, flags, ctx
    ):
        if flags:
            raise pyfuse3.FUSEError(errno.EINVAL)
        old = self._below(parent_inode_old, name_old)
        new = self._below(parent_inode_new, name_new)
        with _errors():
            os.rename(old, new)
        for inode, path in self.paths.items():
            if path == old or path.startswith(old + b"/"):
                self.paths[inode] = new + path[len(old) :]

    async def opendir(self, inode, ctx):  # type: ignore[no-untyped-def]
        return inode

    async def readdir(self, fh, start_id, token):  # type: ignore[no-untyped-def]
        with _errors():
            names = sorted(os.listdir(self.paths[fh]))
        for place in range(start_id, len(names)):
            attr = self._made(self._below(fh, names[place]), lambda: None)
            if not pyfuse3.readdir_reply(token, names[place], attr, place + 1):
                break

    async def releasedir(self, fh):  # type: ignore[no-untyped-def]
        return None

    async def forget(self, inode_list: Sequence[tuple[int, int]]) -> None:
        """Paths are kept: the trees of the benchmark are small."""


def main() -> None:
    """Mount a directory through FUSE in the foreground."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("source", type=Path)
    parser.add_argument("path", type=Path)
    parser.add_argument("--writeback", action="store_true", help="with the kernel's write cache")
    given = parser.parse_args()
    serve(PassOperations(given.source, given.writeback), given.path, "bench-pass")


if __name__ == "__main__":
    main()
