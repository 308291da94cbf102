"""Walking a point and making its tree beneath a directory descriptor.

Nothing is made outside the target: every name is checked again, every open is relative to a descriptor of a directory
this restore made or was given, and none follows a symbolic link.  Content is written by threads; attributes of a file
are set when its last byte is written, those of directories at the end.  Holes stay holes.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
from collections.abc import Callable
from threading import Lock

from engine import limits
from engine.errors import AlreadyExists, Corrupt, InvalidRequest, from_os
from engine.nodes import Entry, Extent
from engine.points.view import PointView
from engine.progress import Report, silent
from engine.restore.job import HELP_FROM, Job, RestoreReport

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_libc = ctypes.CDLL(None, use_errno=True)


def restore(
    view: PointView,
    subpath: bytes,
    target: bytes,
    *,
    force: bool = False,
    progress: Report = silent,
    store_path: str = "",
    expected: int = 0,
) -> RestoreReport:
    """Restore ``subpath`` (b"" for all) of a point at ``target``.

    A directory's members go into ``target``, which is made, or must be empty unless ``force``; a single file becomes
    ``target``, or goes into it when that is a directory.  ``expected``: bytes of the whole point; when there is much
    to do, processes help, which open the store at ``store_path``.  Raises NotFound, AlreadyExists, StoreFull …; what
    cannot be read whole is listed in the report, and everything else is restored.
    """
    entry = view.find(subpath)
    much = entry.size if stat.S_ISREG(entry.mode) else expected
    job = Job(progress, None if subpath else expected, store_path if much >= HELP_FROM else "")
    try:
        if stat.S_ISDIR(entry.mode):
            fd = _open_target(target, force)
            try:
                Restorer(view, job, fd, force).directory(fd, b"", entry)
                job.finish()
                Restorer.directories(job, fd)
                _sync(fd)
            finally:
                os.close(fd)
        else:
            _one(view, job, entry, target, force)
    except OSError as error:
        job.abandon()
        raise from_os(error, f"restore to {os.fsdecode(target)!r}") from None
    except BaseException:
        job.abandon()
        raise
    finally:
        job.close()
    return job.result


def _open_target(target: bytes, force: bool) -> int:
    try:
        os.mkdir(target)
    except FileExistsError:
        if not os.path.isdir(target):
            raise AlreadyExists(f"target {os.fsdecode(target)!r}", expected="a new or empty directory", found="a file",
                                do="choose another target") from None  # fmt: skip
        if os.listdir(target) and not force:
            raise AlreadyExists(f"target {os.fsdecode(target)!r}", expected="a new or empty directory",
                                found="entries in it", do="choose another target, or --force") from None  # fmt: skip
    return os.open(target, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def _one(view: PointView, job: Job, entry: Entry, target: bytes, force: bool) -> None:
    if os.path.isdir(target):
        folder, name = target, entry.name
    else:
        folder, name = os.path.split(target)
    fd = os.open(folder or b".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        maker = Restorer(view, job, fd, force)
        maker.member(fd, b"", entry._replace(name=name))
        job.finish()
        _sync(fd)
    finally:
        os.close(fd)


class Restorer:
    """One walk. Used by one thread; content goes to the job's threads."""

    def __init__(self, view: PointView, job: Job, root: int, force: bool) -> None:
        self._view = view
        self._job = job
        self._root = root
        self._force = force
        self._links: dict[int, bytes] = {}
        self._depth = 0

    def directory(self, fd: int, path: bytes, entry: Entry) -> None:
        """Everything in a directory; its own attributes are left for ``directories``."""
        self._job.directories.append((path, entry, self._view.xattrs(entry)))
        self._depth += 1
        if self._depth > limits.RESTORE_DEPTH_MAX:
            raise Corrupt(
                "point",
                expected=f"at most {limits.RESTORE_DEPTH_MAX} directories deep",
                found="more",
            )
        for child in self._view.scan(entry):
            self.member(fd, path, child)
        self._depth -= 1

    def member(self, fd: int, path: bytes, entry: Entry) -> None:
        """One entry of a directory, and all below it."""
        name = entry.name
        if not name or b"/" in name or b"\0" in name or name in (b".", b".."):
            raise Corrupt(f"name {name!r}", expected="a plain file name", found="another")
        here = path + b"/" + name if path else name
        self._job.result.files += 1
        if stat.S_ISDIR(entry.mode):
            inner = self._make_directory(fd, name)
            try:
                self.directory(inner, here, entry)
            finally:
                os.close(inner)
            return
        if entry.nlink > 1 and self._linked(fd, name, here, entry):
            return
        self._clear(fd, name, here)
        if stat.S_ISREG(entry.mode):
            self._file(fd, name, here, entry)
        elif stat.S_ISLNK(entry.mode):
            os.symlink(entry.target, name, dir_fd=fd)
            self._attributes(fd, name, here, entry)
        else:
            self._special(fd, name, here, entry)

    def _make_directory(self, fd: int, name: bytes) -> int:
        try:
            os.mkdir(name, 0o700, dir_fd=fd)
        except FileExistsError:
            if not self._force:
                raise
        return os.open(name, _DIRECTORY, dir_fd=fd)

    def _clear(self, fd: int, name: bytes, path: bytes) -> None:
        """Take what is at the name away, if that was asked for."""
        try:
            os.stat(name, dir_fd=fd, follow_symlinks=False)
        except FileNotFoundError:
            return
        if not self._force:
            raise AlreadyExists(f"file {os.fsdecode(path)!r}", expected="no file of that name", found="one",
                                do="choose another target, or --force")  # fmt: skip
        os.unlink(name, dir_fd=fd)

    def _linked(self, fd: int, name: bytes, path: bytes, entry: Entry) -> bool:
        first = self._links.setdefault(entry.ino, path)
        if first == path:
            return False
        self._clear(fd, name, path)
        os.link(first, name, src_dir_fd=self._root, dst_dir_fd=fd, follow_symlinks=False)
        return True

    def _special(self, fd: int, name: bytes, path: bytes, entry: Entry) -> None:
        try:
            os.mknod(name, stat.S_IFMT(entry.mode) | 0o600, entry.rdev, dir_fd=fd)
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.EACCES):
                raise
            self._links.pop(entry.ino, None)
            self._job.skipped(path, "special files need root")
            return
        self._attributes(fd, name, path, entry)

    def _attributes(self, fd: int, name: bytes, path: bytes, entry: Entry) -> None:
        """Attributes of a symbolic link or special file, by name."""
        if os.geteuid() == 0:
            os.chown(name, entry.uid, entry.gid, dir_fd=fd, follow_symlinks=False)
        if not stat.S_ISLNK(entry.mode):
            os.chmod(name, stat.S_IMODE(entry.mode), dir_fd=fd)
        os.utime(name, ns=(entry.atime_ns, entry.mtime_ns), dir_fd=fd, follow_symlinks=False)

    def _file(self, fd: int, name: bytes, path: bytes, entry: Entry) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        out = os.open(name, flags, 0o600, dir_fd=fd)
        file = _File(self._view, self._job, out, path, entry)
        if entry.size <= limits.SPAN:
            self._job.submit(file.whole)
            return
        os.ftruncate(out, entry.size)
        for number, extents in self._view.spans(entry):
            file.expect()
            self._job.submit(file.part(number, extents))
        file.all_queued()

    @staticmethod
    def directories(job: Job, root: int) -> None:
        """Attributes of directories, deepest first, when nothing changes them any more."""
        for path, entry, xattrs in reversed(job.directories):
            fd = os.open(path or b".", _DIRECTORY, dir_fd=root)
            try:
                _finish(job, fd, path, entry, xattrs)
            finally:
                os.close(fd)


class _File:
    """A file being written by several threads; whoever writes the last part sets its attributes and closes it."""

    def __init__(self, view: PointView, job: Job, fd: int, path: bytes, entry: Entry) -> None:
        self._view = view
        self._job = job
        self._fd = fd
        self._path = path
        self._entry = entry
        self._lock = Lock()
        self._left = 1

    def expect(self) -> None:
        with self._lock:
            self._left += 1

    def all_queued(self) -> None:
        self._less()

    def whole(self) -> None:
        """A small file at once."""
        try:
            os.ftruncate(self._fd, self._entry.size)
            for number, extents in self._view.spans(self._entry):
                self._write(number, extents)
        finally:
            self._less()

    def part(self, number: int, extents: list[Extent]) -> Callable[[], None]:
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

    def _less(self) -> None:
        with self._lock:
            self._left -= 1
            last = self._left == 0
        if last:
            try:
                _finish(
                    self._job, self._fd, self._path, self._entry, self._view.xattrs(self._entry)
                )
            finally:
                os.close(self._fd)


def _finish(job: Job, fd: int, path: bytes, entry: Entry, xattrs: dict[bytes, bytes]) -> None:
    """Owner, extended attributes, mode, times, in the order in which none undoes another."""
    mode = stat.S_IMODE(entry.mode)
    if os.geteuid() == 0:
        os.fchown(fd, entry.uid, entry.gid)
    elif os.geteuid() != entry.uid:
        mode &= ~(stat.S_ISUID | stat.S_ISGID)
    for name, value in xattrs.items():
        try:
            os.setxattr(fd, name, value)
        except OSError as error:
            job.skipped(path, f"extended attribute {name!r}: {error.strerror}")
    os.fchmod(fd, mode)
    os.utime(fd, ns=(entry.atime_ns, entry.mtime_ns))


def _sync(fd: int) -> None:
    """Everything restored is on disk when this returns."""
    if _libc.syncfs(fd) != 0:
        raise InvalidRequest("restore target", found=os.strerror(ctypes.get_errno()))
