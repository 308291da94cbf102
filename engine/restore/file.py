"""One restored file: parts of it are written by several threads, its attributes are set when the last is done."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from threading import Lock

from engine import limits
from engine.errors import UNREADABLE
from engine.nodes import Entry, Extent
from engine.points.view import PointView
from engine.restore.job import Job, Piece


class RestoredFile:
    """A file being written; whoever writes the last part sets its attributes and closes it."""

    def __init__(self, view: PointView, job: Job, fd: int, path: bytes, entry: Entry) -> None:
        self._view = view
        self._job = job
        self._fd = fd
        self._path = path
        self._entry = entry
        self._lock = Lock()
        self._left = 1
        self._given_up = False

    def queue(self) -> None:
        """Queue all that is to be done. Raises the first error of an earlier piece of the job."""
        if self._entry.size <= limits.SPAN:
            self._job.submit(Piece(self._whole, self._dropped, self._all, self._entry.size))
            return
        try:
            os.ftruncate(self._fd, self._entry.size)
            for number, extents in self._view.spans(self._entry, self._lost):
                with self._lock:
                    self._left += 1
                ids = [cid for _, _, cid, _ in extents]
                size = sum(length for _, length, _, _ in extents)
                self._job.submit(
                    Piece(self._part(number, extents), self._dropped, lambda ids=ids: ids, size)  # type: ignore[misc]
                )
        finally:
            self._less()

    def _all(self) -> list[bytes]:
        return [cid for _, extents in self._view.spans(self._entry) for _, _, cid, _ in extents]

    def _whole(self) -> None:
        """A small file at once."""
        try:
            os.ftruncate(self._fd, self._entry.size)
            for number, extents in self._view.spans(self._entry, self._lost):
                self._write(number, extents)
        finally:
            self._less()

    def _part(self, number: int, extents: list[Extent]) -> Callable[[], None]:
        def work() -> None:
            try:
                self._write(number, extents)
            finally:
                self._less()

        return work

    def _write(self, number: int, extents: list[Extent]) -> None:
        start = number * limits.SPAN
        written, damaged = self._job.write_span(self._view.reader, self._fd, start, extents)
        for text in damaged:
            self._job.damaged(self._path, text)
        self._job.wrote(written)

    def _lost(self, first: int, end: int, error: Exception) -> None:
        start, stop = first * limits.SPAN, min(end * limits.SPAN, self._entry.size)
        if start < stop:
            self._job.damaged(self._path, f"bytes {start} to {stop} cannot be read: {error}")

    def _dropped(self) -> None:
        """A part will not be written: the file is given up."""
        self._given_up = True
        self._less()

    def _less(self) -> None:
        with self._lock:
            self._left -= 1
            last = self._left == 0
        if last:
            try:
                if self._given_up:
                    return
                set_attributes(self._view, self._job, self._fd, self._path, self._entry)
            finally:
                os.close(self._fd)


def set_attributes(view: PointView, job: Job, fd: int, path: bytes, entry: Entry) -> None:
    """Owner, extended attributes, mode, times, in the order in which none undoes another. Raises OSError."""
    mode = stat.S_IMODE(entry.mode)
    if job.own(entry):
        os.fchown(fd, entry.uid, entry.gid)
    elif os.geteuid() != entry.uid:
        mode &= ~(stat.S_ISUID | stat.S_ISGID)
    _set_xattrs(view, job, fd, path, entry)
    os.fchmod(fd, mode)
    os.utime(fd, ns=(entry.atime_ns, entry.mtime_ns))


def set_named_attributes(
    view: PointView, job: Job, folder: int, name: bytes, path: bytes, entry: Entry
) -> None:
    """As ``set_attributes`` for a symbolic link or special file, by its name in an open directory. Raises OSError."""
    if job.own(entry):
        os.chown(name, entry.uid, entry.gid, dir_fd=folder, follow_symlinks=False)
    if entry.xattrs:
        _set_xattrs(view, job, b"/proc/self/fd/%d/%s" % (folder, name), path, entry)
    if not stat.S_ISLNK(entry.mode):
        os.chmod(name, stat.S_IMODE(entry.mode), dir_fd=folder)
    os.utime(name, ns=(entry.atime_ns, entry.mtime_ns), dir_fd=folder, follow_symlinks=False)


def _set_xattrs(view: PointView, job: Job, target: int | bytes, path: bytes, entry: Entry) -> None:
    try:
        xattrs = view.xattrs(entry)
    except UNREADABLE as error:
        job.damaged(path, f"extended attributes cannot be read: {error}")
        return
    for name, value in xattrs.items():
        try:
            os.setxattr(target, name, value, follow_symlinks=isinstance(target, int))
        except OSError as error:
            job.skipped(path, f"extended attribute {name!r}: {error.strerror}")
