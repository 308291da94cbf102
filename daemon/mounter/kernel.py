"""The system calls that Python has no function for, and the kernel's table of mounts. Standard library only."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import re
import struct
from typing import NamedTuple

FUSE = "/dev/fuse"
TYPE = "fuse.holdfast"

_MS_RDONLY, _MS_NOSUID, _MS_NODEV = 1, 2, 4
_MNT_DETACH, _UMOUNT_NOFOLLOW = 2, 8
_RESOLVE_NO_MAGICLINKS, _RESOLVE_NO_SYMLINKS = 0x02, 0x04
_SYS_OPENAT2 = 437  # on every architecture
_GETFLAGS, _SETFLAGS, _IMMUTABLE = 0x80086601, 0x40086602, 0x10
_OCTAL = re.compile(r"\\([0-7]{3})")
_libc = ctypes.CDLL(None, use_errno=True)


def _checked(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)
    return result


def open_plain(path: str, flags: int, folder: int = -100) -> int:
    """Open without following a symbolic link in any part of the path; ``folder``: what it is relative to."""
    how = struct.pack(
        "=QQQ", flags | os.O_CLOEXEC, 0, _RESOLVE_NO_SYMLINKS | _RESOLVE_NO_MAGICLINKS
    )
    raw = path.encode("utf-8", "surrogateescape")
    arguments = ctypes.c_long(folder), ctypes.c_char_p(raw), ctypes.c_char_p(how)
    return _checked(
        _libc.syscall(ctypes.c_long(_SYS_OPENAT2), *arguments, ctypes.c_size_t(len(how))), path
    )


def mount_fuse(fd: int, target: str, source: str, data: str, *, read_only: bool) -> None:
    """Mount the connection there; set-user-id bits and devices in it have no effect."""
    flags = _MS_NOSUID | _MS_NODEV | (_MS_RDONLY if read_only else 0)
    text = [one.encode("utf-8", "surrogateescape") for one in (source, target, TYPE)]
    _checked(_libc.mount(*text, ctypes.c_ulong(flags), f"fd={fd},{data}".encode("ascii")), "mount")


def unmount(target: str, *, lazy: bool) -> None:
    """Take away what is mounted there; the last part of the path is not followed."""
    raw = target.encode("utf-8", "surrogateescape")
    _checked(_libc.umount2(raw, _UMOUNT_NOFOLLOW | (_MNT_DETACH if lazy else 0)), "umount")


def seal(path: str, *, sealed: bool) -> None:
    """Let nobody, not even root, put anything into a directory (``chattr +i``), or let them again.

    Done to mount points: what is written while nothing is mounted there would lie beside the store, hidden by the next
    mount, and its writer would believe it kept.  Where a file system has no such flag it is left as it is.
    """
    with contextlib.suppress(OSError):
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            flags = bytearray(8)
            fcntl.ioctl(fd, _GETFLAGS, flags)
            (now,) = struct.unpack_from("=I", flags)
            wanted = now | _IMMUTABLE if sealed else now & ~_IMMUTABLE
            if wanted != now:
                fcntl.ioctl(fd, _SETFLAGS, struct.pack("=II", wanted, 0))
        finally:
            os.close(fd)


class Mounted(NamedTuple):
    """One line of the table of mounts."""

    number: int
    device: str
    path: str
    type: str


def table() -> list[Mounted]:
    """Everything mounted, in the order of mounting."""
    found = []
    with open("/proc/self/mountinfo", encoding="latin-1") as file:
        for line in file:
            fields = line.rstrip("\n").split(" ")
            path = _OCTAL.sub(lambda match: chr(int(match[1], 8)), fields[4])
            path = path.encode("latin-1").decode("utf-8", "surrogateescape")
            kind = fields[fields.index("-") + 1]
            found.append(Mounted(int(fields[0]), fields[2], path, kind))
    return found


def mount_of(fd: int) -> Mounted:
    """The mount an open descriptor is in; nothing of that file system is asked. Raises OSError."""
    with open(f"/proc/self/fdinfo/{fd}", encoding="ascii") as file:
        number = next(int(line.split()[1]) for line in file if line.startswith("mnt_id:"))
    for one in table():
        if one.number == number:
            return one
    raise FileNotFoundError(f"mount {number}")  # unmounted meanwhile


def set_readahead(device: str, size: int) -> None:
    """What the kernel reads ahead of a file system, bytes."""
    with open(f"/sys/class/bdi/{device}/read_ahead_kb", "w", encoding="ascii") as file:
        file.write(str(size // 1024))
