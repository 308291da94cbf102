"""One writer at a time, in all processes: what happens when the one that writes is stopped.

A process that ends inside a write transaction gives it back: LMDB's lock is robust.  One that is stopped there
(SIGSTOP, Ctrl-Z at a terminal) would hold up every writer of the store for as long as it is; so whoever has waited for
``STALL_AFTER`` lets the stopped processes that have this index open run on, and the log says so.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from engine import limits

log = logging.getLogger("holdfast.engine.index")


class Watch:
    """Watches over one process's waiting for the write transaction; one thread waits at a time."""

    def __init__(self, lock_file: str) -> None:
        self._lock_file = lock_file
        self._since = 0.0  # monotonic; 0 while nobody waits
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Around what may wait."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._look, name="index-watch", daemon=True)
            self._thread.start()
        self._since = time.monotonic()
        try:
            yield
        finally:
            self._since = 0.0

    def _look(self) -> None:
        while not self._closed.wait(limits.TICK):  # rarely enough to cost nothing
            since = self._since
            if since and time.monotonic() - since > limits.STALL_AFTER:
                for pid in stopped_users(self._lock_file):
                    log.error(
                        "process %d was stopped while others wait to write: it is let run on", pid
                    )
                    _go_on(pid)

    def close(self) -> None:
        """Nobody will wait any more."""
        self._closed.set()


def _go_on(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGCONT)
    except OSError as error:
        log.error("process %d cannot be let run on: %s", pid, os.strerror(error.errno or 0))


def stopped_users(path: str) -> Iterator[int]:
    """Processes that are stopped and have this file mapped, as far as this user may look."""
    wanted = str(os.stat(path).st_ino)
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            with open(f"/proc/{name}/stat", "rb") as file:
                state = file.read().rpartition(b")")[2].split()[0]
            if state == b"T" and _maps(name, wanted, os.path.basename(path)):
                yield int(name)
        except (OSError, IndexError):
            continue  # gone meanwhile, or not ours to look at


def _maps(pid: str, inode: str, name: str) -> bool:
    """By inode and name: the device shown there is not everywhere that of stat(2)."""
    with open(f"/proc/{pid}/maps", encoding="utf-8", errors="replace") as file:
        for line in file:
            fields = line.split(maxsplit=5)
            if len(fields) == 6 and fields[4] == inode and fields[5].rstrip().endswith(f"/{name}"):
                return True
    return False
