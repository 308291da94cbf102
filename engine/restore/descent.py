"""The way down into the target: directories within each other, of which only the innermost are kept open.

A tree may be deeper than a process may have descriptors, and a path in it longer than the kernel takes at once.
"""

from __future__ import annotations

import os

from engine.errors import LocationUnavailable

_OPEN = (
    64  # descriptors kept: trees of people are not deeper, so that nothing is opened twice in them
)

DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Descent:
    """A stack of open directories above one that stays open and is not ours. Used by one thread."""

    def __init__(self, root: int) -> None:
        self._fds = [root]  # -1 for one that is closed
        self._names: list[tuple[int, int]] = []  # device and inode of those below the root
        self._closed = 1  # index of the outermost that may be open

    @property
    def fd(self) -> int:
        """The innermost directory."""
        return self._fds[-1]

    def down(self, name: bytes) -> None:
        """Into a directory that exists, not through a symbolic link. Raises OSError."""
        fd = os.open(name, DIRECTORY, dir_fd=self.fd)
        self._fds.append(fd)
        seen = os.fstat(fd)
        self._names.append((seen.st_dev, seen.st_ino))
        if len(self._fds) - self._closed > _OPEN:
            os.close(self._fds[self._closed])
            self._fds[self._closed] = -1
            self._closed += 1

    def up(self) -> None:
        """Out of the innermost directory. Raises OSError; LocationUnavailable when it was moved meanwhile."""
        if self._fds[-2] < 0:
            fd = os.open(b"..", DIRECTORY, dir_fd=self.fd)
            self._fds[-2] = fd
            self._closed -= 1
            seen = os.fstat(fd)
            if (seen.st_dev, seen.st_ino) != self._names[-2]:
                raise LocationUnavailable(
                    "restore target",
                    expected="directories that stay where they were made",
                    found="one that was moved meanwhile",
                    do="restore again, to a directory nobody else changes",
                )
        os.close(self._fds.pop())
        self._names.pop()

    def close(self) -> None:
        """Close what is open, but not the root."""
        for fd in self._fds[1:]:
            if fd >= 0:
                os.close(fd)
        del self._fds[1:], self._names[:]
        self._closed = 1


def open_below(root: int, path: bytes) -> int:
    """A new descriptor of the directory at ``path`` below ``root``, however long the path is. Raises OSError."""
    fd = os.open(b".", DIRECTORY, dir_fd=root)
    try:
        for name in (
            path.split(b"/") if path else ()
        ):  # one by one: links on the way are not followed either
            inner = os.open(name, DIRECTORY, dir_fd=fd)
            os.close(fd)
            fd = inner
    except BaseException:
        os.close(fd)
        raise
    return fd
