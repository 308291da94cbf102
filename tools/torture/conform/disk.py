"""The operations of the model, carried out in a real directory."""

from __future__ import annotations

import mmap
import os
import stat
from contextlib import suppress

from tools.torture.conform.nodes import Refused, Stat
from tools.torture.conform.posix.calls import rename2


def shown(found: os.stat_result) -> Stat:
    """What ``Tree.shown`` shows."""
    size = 0 if stat.S_ISDIR(found.st_mode) else found.st_size
    return found.st_mode, found.st_uid, found.st_gid, found.st_nlink, size


class Disk:
    """One directory. Same names, arguments and answers as ``Model``; an error is raised as Refused."""

    def __init__(self, top: str) -> None:
        self.top = top
        self.fds: dict[int, int] = {}
        self._maps: dict[int, mmap.mmap] = {}

    def do(self, name: str, arguments: tuple[object, ...]) -> object:
        """Carry one operation out."""
        try:
            return getattr(self, name)(*arguments)
        except OSError as error:
            raise Refused(error.errno or 0) from None

    def at(self, path: str) -> str:
        """The real path."""
        return f"{self.top}/{path}"

    def end(self) -> None:
        """Close everything."""
        for fd in list(self._maps):
            self.unmap(fd)
        while self.fds:
            os.close(self.fds.popitem()[1])

    # --- names

    def mkdir(self, path: str, mode: int) -> None:
        os.mkdir(self.at(path), mode)

    def mkfifo(self, path: str) -> None:
        os.mkfifo(self.at(path), 0o600)

    def symlink(self, target: str, path: str) -> None:
        os.symlink(target, self.at(path))

    def link(self, old: str, new: str) -> None:
        os.link(self.at(old), self.at(new), follow_symlinks=False)

    def unlink(self, path: str) -> None:
        os.unlink(self.at(path))

    def rmdir(self, path: str) -> None:
        os.rmdir(self.at(path))

    def rename(self, old: str, new: str, flags: int) -> None:
        if flags:
            rename2(self.at(old), self.at(new), flags)
        else:
            os.rename(self.at(old), self.at(new))

    def readlink(self, path: str) -> str:
        return os.readlink(self.at(path))

    def names(self, path: str) -> list[str]:
        return sorted(os.listdir(self.at(path)))

    # --- attributes

    def stat(self, path: str, follow: bool) -> Stat:
        return shown(os.stat(self.at(path), follow_symlinks=follow))

    def fstat(self, fd: int) -> Stat:
        return shown(os.fstat(self.fds[fd]))

    def chmod(self, path: str, mode: int) -> None:
        os.chmod(self.at(path), mode)

    def fchmod(self, fd: int, mode: int) -> None:
        os.fchmod(self.fds[fd], mode)

    def chown(self, path: str, uid: int, gid: int, follow: bool) -> None:
        os.chown(self.at(path), uid, gid, follow_symlinks=follow)

    def utime(self, path: str, atime: int, mtime: int) -> None:
        os.utime(self.at(path), ns=(atime, mtime))
        found = os.stat(self.at(path))
        assert (found.st_atime_ns, found.st_mtime_ns) == (atime, mtime), "times are not as set"

    def setxattr(self, path: str, name: str, value: bytes, flags: int) -> None:
        os.setxattr(self.at(path), name, value, flags)

    def getxattr(self, path: str, name: str) -> bytes:
        return os.getxattr(self.at(path), name)

    def removexattr(self, path: str, name: str) -> None:
        os.removexattr(self.at(path), name)

    def listxattr(self, path: str) -> list[str]:
        return sorted(os.listxattr(self.at(path)))

    # --- open files

    def open(self, path: str, flags: int, mode: int, fd: int) -> None:
        self.fds[fd] = os.open(self.at(path), flags, mode)

    def close(self, fd: int) -> None:
        with suppress(KeyError):
            self.unmap(fd)
        os.close(self.fds.pop(fd))

    def pread(self, fd: int, size: int, offset: int) -> bytes:
        return os.pread(self.fds[fd], size, offset)

    def read(self, fd: int, size: int) -> bytes:
        return os.read(self.fds[fd], size)

    def pwrite(self, fd: int, data: bytes, offset: int) -> int:
        return os.pwrite(self.fds[fd], data, offset)

    def write(self, fd: int, data: bytes) -> int:
        return os.write(self.fds[fd], data)

    def lseek(self, fd: int, offset: int, whence: int) -> int:
        return os.lseek(self.fds[fd], offset, whence)

    def ftruncate(self, fd: int, size: int) -> None:
        os.ftruncate(self.fds[fd], size)

    def truncate(self, path: str, size: int) -> None:
        os.truncate(self.at(path), size)

    def fsync(self, fd: int) -> None:
        os.fsync(self.fds[fd])

    # --- mappings; the caller sees to it that no page behind the file's end is touched

    def map(self, fd: int, size: int) -> None:
        """Map the file's first bytes, shared, until ``unmap``."""
        with suppress(KeyError):
            self.unmap(fd)
        self._maps[fd] = mmap.mmap(self.fds[fd], size)

    def unmap(self, fd: int) -> None:
        self._maps.pop(fd).close()

    def store(self, fd: int, offset: int, data: bytes, sync: bool) -> None:
        """Write through the mapping."""
        self._maps[fd][offset : offset + len(data)] = data
        if sync:
            self._maps[fd].flush()

    def load(self, fd: int, offset: int, size: int) -> bytes:
        """Read through the mapping."""
        return self._maps[fd][offset : offset + size]
