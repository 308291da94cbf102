"""The state of one restore: threads that write content, what went wrong, progress."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

from engine.errors import HoldfastError, from_os
from engine.nodes import Entry
from engine.progress import Progress, Report

_IN_FLIGHT = 32  # pieces of work queued: bounds open files and memory (a piece is one span at most)


@dataclass(frozen=True)
class Notice:
    """Something about one path that the user should know."""

    path: bytes
    text: str


@dataclass
class RestoreReport:
    """``files``: entries of every type restored; ``damaged``: files whose content could not be read whole."""

    files: int = 0
    bytes: int = 0
    damaged: list[Notice] = field(default_factory=list)
    skipped: list[Notice] = field(default_factory=list)


class Job:
    """Runs pieces of work in a few threads; the first error that is not about one file ends the restore."""

    def __init__(self, report: Report, total: int | None, threads: int) -> None:
        self.result = RestoreReport()
        self._report = report
        self._total = total
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="restore")
        self._room = threading.Semaphore(_IN_FLIGHT)
        self._lock = threading.Lock()
        self._error: BaseException | None = None
        self.directories: list[
            tuple[bytes, Entry, dict[bytes, bytes]]
        ] = []  # their attributes are set at the end

    def submit(self, work: Callable[[], None]) -> None:
        """Queue a piece of work; waits for room. Raises the first error of an earlier piece."""
        self._room.acquire()
        if self._error is not None:
            self._room.release()
            raise self._error
        self._pool.submit(work).add_done_callback(self._done)

    def _done(self, future: Future[None]) -> None:
        self._room.release()
        error = future.exception()
        if error is not None:
            with self._lock:
                self._error = self._error or error

    def wrote(self, count: int) -> None:
        """Count restored bytes."""
        with self._lock:
            self.result.bytes += count
            done = self.result.bytes
        self._report(Progress("restore", done, self._total, "bytes"))

    def damaged(self, path: bytes, text: str) -> None:
        with self._lock:
            self.result.damaged.append(Notice(path, text))

    def skipped(self, path: bytes, text: str) -> None:
        with self._lock:
            self.result.skipped.append(Notice(path, text))

    def finish(self) -> None:
        """Wait for everything queued. Raises the first error."""
        self._pool.shutdown(wait=True, cancel_futures=self._error is not None)
        if isinstance(self._error, OSError):
            raise from_os(self._error, "restore target")
        if self._error is not None:
            raise self._error

    def abandon(self) -> None:
        """End without regard for what is queued."""
        self._error = self._error or HoldfastError("restore abandoned")
        self._pool.shutdown(wait=True, cancel_futures=True)
