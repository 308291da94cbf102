"""Memory that a restore shares with its helping processes: trays of records that were fetched and opened.

The memory has no name: helpers inherit its descriptor, and map it to read only.  A tray is of one batch of work, from
before it is fetched until the last of it is written.  Pages are used again for the next; what no tray ever held takes
none.
"""

from __future__ import annotations

import mmap
import os
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from threading import BoundedSemaphore

from engine import limits
from engine.chunks import Place
from engine.errors import from_os

_SIZE = limits.RESTORE_TRAYS * limits.RESTORE_TRAY


class Shared:
    """The memory as who reads it sees it. ``fd``: stays the caller's."""

    def __init__(self, fd: int, access: int = mmap.PROT_READ) -> None:
        self._memory = mmap.mmap(fd, _SIZE, mmap.MAP_SHARED, access)
        self._map = memoryview(self._memory)

    def parts(self, places: Iterable[Place]) -> list[memoryview]:
        """What lies at these places."""
        return [self._map[start : start + length] for start, length in places]

    def close(self) -> None:
        """Let go of it, which has a descriptor of its own; where somebody still has a part, with that."""
        self._map.release()
        with suppress(BufferError):
            self._memory.close()

    def part(self, start: int, length: int) -> memoryview:
        """What lies there; to be written to where that was asked for."""
        return self._map[start : start + length]


class Trays:
    """All of it, for who fills it. Thread-safe."""

    def __init__(self) -> None:
        """Raises HoldfastError where there is no such memory."""
        self.fd = -1
        try:
            self.fd = os.memfd_create("holdfast-restore", os.MFD_CLOEXEC)
            os.truncate(self.fd, _SIZE)
            self.shared = Shared(self.fd, mmap.PROT_READ | mmap.PROT_WRITE)
        except OSError as error:
            if self.fd >= 0:
                os.close(self.fd)
            raise from_os(error, "shared memory for a restore") from None
        self._free = deque(range(0, _SIZE, limits.RESTORE_TRAY))
        self._room = BoundedSemaphore(limits.RESTORE_TRAYS)

    def take(self) -> int:
        """Where a tray begins that nobody else has; waits for one."""
        self._room.acquire()
        return self._free.popleft()

    def give(self, start: int) -> None:
        """Nobody reads what is in it any more."""
        self._free.appendleft(start)  # its pages are there
        self._room.release()

    def room(self, start: int) -> memoryview:
        """A tray, to be filled."""
        return self.shared.part(start, limits.RESTORE_TRAY)

    def close(self) -> None:
        """The memory goes when nothing refers to it, here and in helpers."""
        self.shared.close()
        os.close(self.fd)
