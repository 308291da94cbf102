"""One daemon per store: ``STORE/daemon/lock``, locked for its life by the kernel, so that nothing stale can be left."""

from __future__ import annotations

import contextlib
import fcntl
import os

from engine.errors import Busy, NotFound, from_os
from engine.seam import REAL

FOLDER = "daemon"
NAME = "lock"


class StoreLock:
    """The lock of a store, taken. ``release`` gives it back; so does the end of the process, whatever that is."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    @classmethod
    def take(cls, store: str) -> StoreLock:
        """Raises Busy with the process that has it, NotFound for no store, PermissionDenied."""
        if not os.path.isfile(os.path.join(store, "format.json")):
            raise NotFound(f"store {store}", expected="a store", found="none",
                           do="run 'holdfast init', or correct 'store' in the configuration")  # fmt: skip
        folder = os.path.join(store, FOLDER)
        path = os.path.join(folder, NAME)
        fd = -1
        try:
            with contextlib.suppress(FileExistsError):
                REAL.mkdir(folder)
            fd = REAL.open(path, os.O_RDWR | os.O_CREAT)
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(fd, 32).decode("ascii", "replace").strip() or "unknown"
            os.close(fd)
            raise Busy(f"store {store}", expected="no daemon at work on it", found=f"process {holder}",
                       do=f"stop that one, or look at it: ps -p {holder}") from None  # fmt: skip
        except OSError as error:
            if fd >= 0:
                os.close(fd)
            raise from_os(error, path) from None
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        return cls(fd)

    def release(self) -> None:
        """Harmless when it was."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
