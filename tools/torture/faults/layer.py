"""A storage seam that fails: one call of one kind, or all from it on, until the fault is over.

A sync that fails has lost what it was to make durable: the bytes written since the last good sync of that file are
put back to what they were, although every later sync says "ok" (so a kernel does: it marks the pages clean).
"""

from __future__ import annotations

import errno
import os
import random
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

from engine import seam

KINDS = {
    "open": ("EIO", "EMFILE"), "pwritev": ("EIO", "ENOSPC", "EDQUOT", "EROFS", "short"),
    "pread": ("EIO",), "fdatasync": ("EIO", "ENOSPC", "EDQUOT"), "fsync": ("EIO", "ENOSPC"),
    "fsync_dir": ("EIO", "EMFILE"), "truncate": ("EIO",), "rename": ("EIO", "ENOSPC"),
    "unlink": ("EIO", "EROFS"), "mkdir": ("EIO", "ENOSPC"), "listdir": ("EIO", "EMFILE"),
    "space": ("EIO",), "size": ("EIO",), "write_behind": ("EIO",),
}  # fmt: skip
"""Calls of the seam that can fail, and how: an errno, or "short" for a write of which the kernel takes a part."""


class Fault(NamedTuple):
    """The ``number``-th call of a kind fails; ``lasting``: and every one after it until the fault is over."""

    kind: str
    number: int
    how: str
    lasting: bool = False

    def __str__(self) -> str:
        return f"{self.kind}-{self.number}-{self.how}{'-lasting' if self.lasting else ''}"


def parse(text: str) -> Fault:
    """The inverse of ``str``."""
    parts = text.split("-")
    return Fault(parts[0], int(parts[1]), parts[2], len(parts) > 3)


class SteadyOs(seam.Os):
    """The same each time: chance from a seed (ids of chunks decide what shares a pack), a clock that counts."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._time = 1_800_000_000 * 10**9

    def random(self, count: int) -> bytes:
        return self._random.randbytes(count)

    def time_ns(self) -> int:
        self._time += 1_000_000
        return self._time


class FaultyOs(SteadyOs):
    """Counts calls, and fails at those the fault names. ``fault`` None: counts only."""

    def __init__(self, seed: int, fault: Fault | None = None) -> None:
        super().__init__(seed)
        self.fault = fault
        self.calls: Counter[str] = Counter()
        self.fired: list[str] = []
        self.over = False
        self._unsynced: dict[int, list[tuple[int, bytes, int]]] = {}  # fd -> (offset, old, size)

    def _step(self, kind: str, thing: str) -> bool:
        """True when this call is to be short."""
        self.calls[kind] += 1
        fault, number = self.fault, self.calls[kind]
        if fault is None or self.over or fault.kind != kind or number < fault.number:
            return False
        if number > fault.number and not fault.lasting:
            return False
        self.fired.append(f"{kind} {os.path.basename(thing)}")
        if fault.how == "short":
            return True
        code = getattr(errno, fault.how)
        raise OSError(code, os.strerror(code), thing or None)

    def open(self, path: str, flags: int, mode: int = 0o600) -> int:
        self._step("open", path)
        return super().open(path, flags, mode)

    def close(self, fd: int) -> None:
        self._unsynced.pop(fd, None)
        super().close(fd)

    def pwritev(self, fd: int, parts: Sequence[bytes | bytearray | memoryview], offset: int) -> int:
        size = os.fstat(fd).st_size
        total = sum(len(part) for part in parts)
        self._unsynced.setdefault(fd, []).append((offset, _before(fd, total, offset), size))
        short = self._step("pwritev", _name(fd))
        if not short:
            return super().pwritev(fd, parts, offset)
        vars(seam)["os"] = _ShortOs()
        try:
            return super().pwritev(fd, parts, offset)
        finally:
            vars(seam)["os"] = os

    def pread(self, fd: int, size: int, offset: int) -> bytes:
        self._step("pread", _name(fd))
        return super().pread(fd, size, offset)

    def write_behind(self, fd: int, offset: int, size: int) -> None:
        self._step("write_behind", _name(fd))
        super().write_behind(fd, offset, size)

    def _synced(self, kind: str, fd: int) -> None:
        try:
            self._step(kind, _name(fd))
        except OSError:
            self._lose(fd)
            raise
        self._unsynced.pop(fd, None)

    def _lose(self, fd: int) -> None:
        for offset, old, size in reversed(self._unsynced.pop(fd, [])):
            if old:
                os.pwrite(fd, old, offset)
            # The size may have reached the disk: what was never written there reads as zeros.
            end = os.fstat(fd).st_size
            if end > size:
                os.ftruncate(fd, size)
                os.ftruncate(fd, end)

    def fdatasync(self, fd: int) -> None:
        self._synced("fdatasync", fd)

    def fsync(self, fd: int) -> None:
        self._synced("fsync", fd)

    def fsync_dir(self, path: str) -> None:
        self._step("fsync_dir", path)

    def truncate(self, fd: int, size: int) -> None:
        self._step("truncate", _name(fd))
        super().truncate(fd, size)

    def size(self, fd: int) -> int:
        self._step("size", _name(fd))
        return super().size(fd)

    def rename(self, old: str, new: str) -> None:
        self._step("rename", new)
        super().rename(old, new)

    def unlink(self, path: str) -> None:
        self._step("unlink", path)
        super().unlink(path)

    def mkdir(self, path: str, mode: int = 0o700) -> None:
        self._step("mkdir", path)
        super().mkdir(path, mode)

    def listdir(self, path: str) -> list[str]:
        self._step("listdir", path)
        return super().listdir(path)

    def space(self, path: str) -> tuple[int, int]:
        self._step("space", path)
        return super().space(path)


class _ShortOs:
    """The module ``os``, with a kernel that takes half of the next write."""

    def __init__(self) -> None:
        self._short = True

    def _part(self, size: int) -> int:
        part = size // 2 if self._short and size > 1 else size
        self._short = False
        return part

    def pwritev(self, fd: int, parts: Sequence[bytes], offset: int) -> int:
        data = b"".join(parts)
        return os.pwrite(fd, data[: self._part(len(data))], offset)

    def pwrite(self, fd: int, data: bytes, offset: int) -> int:
        return os.pwrite(fd, data[: self._part(len(data))], offset)

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)


def _name(fd: int) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{fd}")
    except OSError:
        return str(fd)


def _before(fd: int, size: int, offset: int) -> bytes:
    """What is in the file where a write will go; the descriptor itself may be for writing only."""
    with open(f"/proc/self/fd/{fd}", "rb") as file:
        return os.pread(file.fileno(), size, offset)
