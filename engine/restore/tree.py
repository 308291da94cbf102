"""A point, or part of it, at a target."""

from __future__ import annotations

import ctypes
import os
import stat

from engine.errors import AlreadyExists
from engine.nodes import Entry
from engine.points.view import PointView
from engine.progress import Report, silent
from engine.restore.job import HELP_FROM, Job, RestoreReport, on_target
from engine.restore.walk import Walk

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
    job = Job(
        view.reader,
        progress,
        None if subpath else expected,
        store_path if much >= HELP_FROM else "",
    )
    make = _all if stat.S_ISDIR(entry.mode) else _one
    try:
        with view.reader.roomy():
            make(view, job, entry, target, force)
    except OSError as error:
        job.abandon()
        raise on_target(error, f"restore to {os.fsdecode(target)!r}") from None
    except BaseException:
        job.abandon()
        raise
    finally:
        job.close()
    return job.result


def _all(view: PointView, job: Job, entry: Entry, target: bytes, force: bool) -> None:
    fd = _open_target(target, force)
    try:
        walk = Walk(view, job, fd, force)
        walk.directory(entry)
        job.finish()
        walk.finish()
        _sync(fd)
    finally:
        os.close(fd)


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
        Walk(view, job, fd, force).member(name, entry._replace(name=name))
        job.finish()
        _sync(fd)
    finally:
        os.close(fd)


def _sync(fd: int) -> None:
    """Everything restored is on disk when this returns. Raises OSError."""
    if _libc.syncfs(fd) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
