"""Carrying out the calls of the table: one function for each, on paths relative to the working directory."""

from __future__ import annotations

import ctypes
import errno
import os
import resource
import signal
import socket
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tools.torture.conform.posix.rules import Call

AT_FDCWD = -100
SET_ID = stat.S_ISUID | stat.S_ISGID  # bits that making or giving away clears
AT_SYMLINK_FOLLOW = 0x400
libc = ctypes.CDLL(None, use_errno=True)


def _libc(name: str, *arguments: Any) -> int:
    done = int(getattr(libc, name)(*arguments))
    if done < 0:
        raise OSError(ctypes.get_errno(), name)
    return done


class Timespec(ctypes.Structure):
    """``struct timespec``."""

    _fields_ = (("sec", ctypes.c_long), ("nsec", ctypes.c_long))


def make_file(path: str, mode: int, uid: int = 0, gid: int = 0, data: bytes = b"") -> None:
    """A regular file exactly so; the mask must be 0."""
    fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, mode)
    try:
        if data:
            os.write(fd, data)
        if uid or gid:
            os.fchown(fd, uid, gid)
        if mode & SET_ID:
            os.fchmod(fd, mode)
    finally:
        os.close(fd)


def make_dir(path: str, mode: int = 0o755, uid: int = 0, gid: int = 0) -> None:
    """A directory exactly so; the mask must be 0."""
    os.mkdir(path, mode)
    if uid or gid:
        os.chown(path, uid, gid)
    if mode & SET_ID:
        os.chmod(path, mode)


def make_fifo(path: str, mode: int = 0o644, uid: int = 0, gid: int = 0) -> None:
    """A fifo exactly so."""
    os.mkfifo(path)
    os.chown(path, uid, gid)
    os.chmod(path, mode)


def make_socket(path: str) -> None:
    """A socket bound to a name; short names only."""
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(path)


def rename2(old: str, new: str, flags: int) -> None:
    """renameat2(2)."""
    _libc("renameat2", AT_FDCWD, os.fsencode(old), AT_FDCWD, os.fsencode(new), flags)


def utimens(path: str, atime: tuple[int, int] | None, mtime: tuple[int, int] | None) -> None:
    """utimensat(2) with (seconds, nanoseconds) as they are; no times at all means now."""
    times = None
    if atime is not None and mtime is not None:
        times = (Timespec * 2)(Timespec(*atime), Timespec(*mtime))
    _libc("utimensat", AT_FDCWD, os.fsencode(path), times, 0)


def limited_write(fd: int, offset: int, size: int, limit: int) -> int:
    """A write under a limit on the size of files."""
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, old[1]))
    try:
        return os.pwrite(fd, b"x" * size, offset)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
        signal.signal(signal.SIGXFSZ, before)


def sparse(path: str, offset: int, data: bytes) -> tuple[int, bytes, bytes]:
    """Write far out, through the descriptor's offset; the size, the bytes before, the bytes themselves."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        os.lseek(fd, offset, os.SEEK_SET)
        os.write(fd, data)
        os.fsync(fd)
        size = os.fstat(fd).st_size
        return size, os.pread(fd, 4, offset - 4), os.pread(fd, len(data) + 9, offset)
    finally:
        os.close(fd)


def listed(path: str) -> list[str]:
    """Names of a directory, sorted."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        return sorted(os.listdir(fd))
    finally:
        os.close(fd)


def _mode(path: str) -> int:
    return stat.S_IMODE(os.lstat(path).st_mode)


def _read(fd: int, size: int, offset: int) -> bytes:
    return os.pread(fd, size, offset)


CALLS: dict[str, Callable[..., Any]] = {
    # making what a rule needs
    "file": make_file, "dir": make_dir, "symlink": os.symlink, "hardlink": os.link,
    "fifo": make_fifo,
    "socket": make_socket,
    "char": lambda path: os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 3)),
    "block": lambda path: os.mknod(path, stat.S_IFBLK | 0o600, os.makedev(7, 0)),
    "lchown": lambda path, uid, gid: os.chown(path, uid, gid, follow_symlinks=False),
    # names
    "mkdir": os.mkdir, "rmdir": os.rmdir, "unlink": os.unlink, "rename": os.rename, "rename2": rename2,
    "link": lambda old, new: os.link(old, new, follow_symlinks=False),
    "link-followed": lambda old, new: _libc(
        "linkat", AT_FDCWD, os.fsencode(old), AT_FDCWD, os.fsencode(new), AT_SYMLINK_FOLLOW
    ),
    "readlink": os.readlink, "mkfifo": os.mkfifo,
    "mknod-file": lambda path, mode=0o644: os.mknod(path, stat.S_IFREG | mode),
    "list": listed, "chdir": os.chdir, "getcwd": os.getcwd,
    # attributes
    "stat": lambda path: bool(os.stat(path)),
    "lstat": lambda path: bool(os.lstat(path)),
    "chmod": os.chmod, "fchmod": os.fchmod, "chown": os.chown, "fchown": os.fchown,
    "truncate": os.truncate, "ftruncate": os.ftruncate, "utimens": utimens,
    "touch": lambda path: utimens(path, None, None),
    "access": lambda path, mode: _libc("access", os.fsencode(path), mode),
    "statvfs": lambda path: bool(os.statvfs(path)),
    "getxattr": os.getxattr, "setxattr": os.setxattr, "removexattr": os.removexattr, "listxattr": os.listxattr,
    "lsetxattr": lambda path, name, value: os.setxattr(path, name, value, follow_symlinks=False),
    "exists": os.path.lexists,
    "type": lambda path: stat.S_IFMT(os.lstat(path).st_mode),
    "mode": _mode,
    "ids": lambda path: (os.lstat(path).st_uid, os.lstat(path).st_gid),
    "gid": lambda path: os.lstat(path).st_gid,
    "nlink": lambda path: os.lstat(path).st_nlink,
    "size": lambda path: os.lstat(path).st_size,
    "rdev": lambda path: os.lstat(path).st_rdev,
    "mtime": lambda path: os.lstat(path).st_mtime_ns,
    "atime": lambda path: os.lstat(path).st_atime_ns,
    "same": lambda one, two: os.lstat(one).st_ino == os.lstat(two).st_ino,
    "dots": lambda path: (os.stat(path + "/.").st_ino == os.stat(path).st_ino, os.stat(path + "/..").st_ino),
    # descriptors
    "open": lambda path, flags, mode=0o600: os.open(path, flags, mode),
    "openat": lambda fd, path, flags: os.open(path, flags, 0o600, dir_fd=fd),
    "mkdirat": lambda fd, path: os.mkdir(path, dir_fd=fd),
    "close": os.close, "read": os.read, "write": os.write, "pread": _read, "pwrite": os.pwrite,
    "lseek": os.lseek, "fsync": os.fsync, "fstat-nlink": lambda fd: os.fstat(fd).st_nlink,
    "flist": lambda fd: sorted(os.listdir(fd)),
    "fchdir": os.fchdir,
    "content": lambda path: Path(path).read_bytes(),
    "allocate": os.posix_fallocate,
    "sparse": sparse, "limited-write": limited_write,
    "umask": lambda mask: bool(os.umask(mask)),
}  # fmt: skip


def carry_out(calls: tuple[Call, ...]) -> Any:
    """The answer of the last call, or the name of the errno of the first that fails.

    An argument ``"@0"`` is the descriptor that the first call opened, ``"@1"`` that of the second …; all are closed
    at the end.
    """
    answers: list[Any] = []
    opened: dict[int, int] = {}  # place in the answers -> descriptor
    umask = os.umask(0)
    os.umask(umask)
    here = os.open(".", os.O_PATH)
    try:
        for name, *arguments in calls:
            given = [
                answers[int(one[1:])] if isinstance(one, str) and one[:1] == "@" else one
                for one in arguments
            ]
            if name == "close":
                del opened[int(arguments[0][1:])]
            answers.append(CALLS[name](*given))
            if name in ("open", "openat"):
                opened[len(answers) - 1] = answers[-1]
        return "descriptor" if calls[-1][0] in ("open", "openat") else answers[-1]
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, str(error))
    except ValueError as error:
        return f"ValueError: {error}"
    finally:
        for descriptor in opened.values():
            os.close(descriptor)
        os.umask(umask)
        os.fchdir(here)
        os.close(here)
