"""One restored file: parts of it are written by several threads, its attributes are set when the last is done."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from threading import Lock

from engine import limits
from engine.chunks import Brought, Want
from engine.errors import UNREADABLE
from engine.nodes import Entry, Extent
from engine.points.view import PointView
from engine.restore import resume
from engine.restore.job import Job, Piece


class RestoredFile:
    """A file being written; whoever writes the last part sets its attributes and closes it."""

    def __init__(
        self, view: PointView, job: Job, fd: int, path: bytes, entry: Entry, *, there: bool = False
    ) -> None:  # fmt: skip
        """``there``: an earlier try left it, and what is right in it stays."""
        self._view = view
        self._job = job
        self._fd = fd
        self._path = path
        self._entry = entry
        self._there = there
        self._lock = Lock()
        self._left = 1
        self._given_up = False

    def queue(self) -> None:
        """Queue all that is to be done. Raises the first error of an earlier piece of the job."""
        if self._entry.size <= limits.SPAN:
            whole = _Small(self)
            self._job.submit(Piece(whole.work, self._dropped, whole.needs, self._entry.size))
            return
        try:
            at = 0
            os.ftruncate(self._fd, self._entry.size)
            for number, extents in self._view.spans(self._entry, self._lost):
                self._clear(at, number * limits.SPAN)
                at = (number + 1) * limits.SPAN
                with self._lock:
                    self._left += 1
                part = _Part(self, number, extents)
                size = sum(length for _, length, _, _ in extents)
                self._job.submit(Piece(part.work, self._dropped, part.needs, size))
            self._clear(at, self._entry.size)
        finally:
            self._less()

    def _clear(self, start: int, end: int) -> None:
        if self._there:
            resume.clear(self._fd, start, min(end, self._entry.size))

    def spans(self) -> list[tuple[int, list[Extent]]]:
        """All that is to be written of a small file."""
        return list(self._view.spans(self._entry, self._lost))

    def begin_small(self, end: int) -> None:
        """Give a small file its size, unless writing does; ``end``: where its last extent ends. Raises OSError."""
        if self._there or end != self._entry.size:
            os.ftruncate(self._fd, self._entry.size)
        if not end:
            self._clear(0, self._entry.size)

    def missing(self, number: int, extents: list[Extent]) -> list[Extent]:
        """What of a span must be written: in a file that is there, what is not right. Raises OSError."""
        if not self._there:
            return extents
        start = number * limits.SPAN
        left = resume.missing(self._fd, start, extents, self._view.reader.name_of)
        end = min(limits.SPAN, self._entry.size - start)
        holes = [*resume.gaps(extents, end), *((at, at + length) for at, length, _, _ in left)]
        for begin, stop in holes:
            resume.clear(self._fd, start + begin, start + stop)
        self._job.kept(
            sum(length for _, length, _, _ in extents) - sum(length for _, length, _, _ in left)
        )
        return left

    def write(self, number: int, extents: list[Extent], brought: Brought | None) -> None:
        """Write extents of a span. Raises OSError."""
        start = number * limits.SPAN
        written, damaged = self._job.write_span(
            self._view.reader, self._fd, start, extents, brought
        )
        if damaged:  # what was not written may be its end
            os.ftruncate(self._fd, self._entry.size)
        for text in damaged:
            self._job.damaged(self._path, text)
        self._job.wrote(written)

    def _lost(self, first: int, end: int, error: Exception) -> None:
        start, stop = first * limits.SPAN, min(end * limits.SPAN, self._entry.size)
        if start < stop:
            self._job.lost(self._path, f"bytes {start} to {stop}", error)

    def _dropped(self) -> None:
        """A part will not be written: the file is given up."""
        self._given_up = True
        self._less()

    def done(self) -> None:
        """A part is done, well or not: the last one ends the file."""
        self._less()

    def _less(self) -> None:
        with self._lock:
            self._left -= 1
            last = self._left == 0
        if last:
            try:
                if self._given_up:
                    return
                if self._there:
                    _drop_xattrs(self._fd)
                set_attributes(self._view, self._job, self._fd, self._path, self._entry)
            finally:
                os.close(self._fd)


class _Part:
    """One span of a file."""

    __slots__ = ("_extents", "_file", "_known", "_number")

    def __init__(self, file: RestoredFile, number: int, extents: list[Extent]) -> None:
        self._file = file
        self._number = number
        self._extents = extents
        self._known = False

    def needs(self) -> list[Want]:
        """Chunks that must be read."""
        if not self._known:
            self._extents = self._file.missing(self._number, self._extents)
            self._known = True
        return [(cid, length) for _, length, cid, _ in self._extents]

    def work(self, brought: Brought | None) -> None:
        """Read and write them."""
        try:
            self.needs()
            self._file.write(self._number, self._extents, brought)
        finally:
            self._file.done()


class _Small:
    """A small file at once."""

    __slots__ = ("_file", "_spans")

    def __init__(self, file: RestoredFile) -> None:
        self._file = file
        self._spans: list[tuple[int, list[Extent]]] | None = None

    def needs(self) -> list[Want]:
        """Chunks that must be read."""
        if self._spans is None:
            spans = self._file.spans()
            self._file.begin_small(_end(spans))
            self._spans = [(number, self._file.missing(number, one)) for number, one in spans]
        return [(cid, length) for _, extents in self._spans for _, length, cid, _ in extents]

    def work(self, brought: Brought | None) -> None:
        """Read and write them."""
        try:
            self.needs()
            for number, extents in self._spans or ():
                self._file.write(number, extents, brought)
        finally:
            self._file.done()


def _end(spans: list[tuple[int, list[Extent]]]) -> int:
    """Where the last extent of a file ends."""
    if not spans or not spans[-1][1]:
        return 0
    number, extents = spans[-1]
    return number * limits.SPAN + extents[-1][0] + extents[-1][1]


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


def _drop_xattrs(fd: int) -> None:
    """Take away what an earlier try, or somebody else, gave a file that is there."""
    for name in os.listxattr(fd):
        with suppress(OSError):  # some are the system's
            os.removexattr(fd, name)


def _set_xattrs(view: PointView, job: Job, target: int | bytes, path: bytes, entry: Entry) -> None:
    try:
        xattrs = view.xattrs(entry)
    except UNREADABLE as error:
        job.lost(path, "extended attributes", error)
        return
    for name, value in xattrs.items():
        try:
            os.setxattr(target, name, value, follow_symlinks=isinstance(target, int))
        except OSError as error:
            job.skipped(path, f"extended attribute {name!r}: {error.strerror}")
