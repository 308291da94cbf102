"""A point, or part of it, at a target."""

from __future__ import annotations

import ctypes
import os
import stat
from collections.abc import Sequence

from engine.errors import AlreadyExists, InvalidRequest
from engine.nodes import Entry
from engine.points.view import PointView
from engine.progress import Report, silent
from engine.restore.job import HELP_FROM, Job, RestoreReport, on_target
from engine.restore.walk import Walk, Wanted

_libc = ctypes.CDLL(None, use_errno=True)


def restore(
    view: PointView,
    subpath: bytes | Sequence[bytes],
    target: bytes,
    *,
    force: bool = False,
    resume: bool = False,
    progress: Report = silent,
    store_path: str = "",
    expected: int = 0,
    all_far: bool = False,
) -> RestoreReport:
    """Restore ``subpath`` (b"" for all) of a point at ``target``.

    A directory's members go into ``target``, which is made, or must be empty unless ``force``; a single file becomes
    ``target``, or goes into it when that is a directory.  Of several paths each gets its own place below ``target``.
    ``resume``: an earlier try left something there; what is right of it stays, by its content, what is not is replaced.
    ``expected``: bytes of the whole point; when there is much to do, processes help, which open the store at
    ``store_path``; ``all_far``: the content is at a location, and one that is not there ends the restore.  Raises
    NotFound, AlreadyExists, StoreFull …; what cannot be read whole is listed in the report, and everything else is
    restored.
    """
    wanted: Wanted | None = None
    if isinstance(subpath, bytes):
        entry = view.find(subpath)
        total = expected if not subpath else entry.size if stat.S_ISREG(entry.mode) else None
    else:
        entry = view.root_entry
        wanted = _wanted(view, subpath)
        found = [view.find(one) for one in subpath]
        total = sum(one.size for one in found) if all(map(_is_file, found)) else None
    much = entry.size if stat.S_ISREG(entry.mode) else expected
    job = Job(
        view.reader, progress, total, store_path if much >= HELP_FROM else "", all_far=all_far
    )
    try:
        with view.reader.roomy():
            if stat.S_ISDIR(entry.mode):
                fd = _open_target(target, force or resume)
                _all(
                    Walk(view, job, fd, force=force or resume, resume=resume, wanted=wanted),
                    entry,
                    job,
                    fd,
                )
            else:
                fd, name = _place(entry, target)
                _one(
                    Walk(view, job, fd, force=force or resume, resume=resume), name, entry, job, fd
                )
    except OSError as error:
        job.abandon()
        raise on_target(error, f"restore to {os.fsdecode(target)!r}") from None
    except BaseException:
        job.abandon()
        raise
    finally:
        job.close()
    return job.result


def _is_file(entry: Entry) -> bool:
    return stat.S_ISREG(entry.mode)


def _wanted(view: PointView, paths: Sequence[bytes]) -> Wanted:
    """Paths as a tree of names. Raises NotFound for one that is not there, InvalidRequest for none."""
    found: Wanted = {}
    if not paths:
        raise InvalidRequest("paths to restore", expected="one at least", found="none")
    for path in paths:
        view.find(path)
        names = [name for name in path.split(b"/") if name not in (b"", b".")]
        if not names:
            raise InvalidRequest("paths to restore", expected="paths in the point", found=f"{path!r}",
                                 do="give no path to restore all of it")  # fmt: skip
        here = found
        for name in names[:-1]:
            inner = here.setdefault(name, {})
            if inner is None:
                break  # all of it is wanted
            here = inner
        else:
            here[names[-1]] = None
    return found


def _all(walk: Walk, entry: Entry, job: Job, fd: int) -> None:
    try:
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


def _place(entry: Entry, target: bytes) -> tuple[int, bytes]:
    """Where a single file goes: an open directory, and its name in it. Raises OSError."""
    folder, name = (target, entry.name) if os.path.isdir(target) else os.path.split(target)
    return os.open(folder or b".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC), name


def _one(walk: Walk, name: bytes, entry: Entry, job: Job, fd: int) -> None:
    try:
        walk.member(name, entry._replace(name=name))
        job.finish()
        _sync(fd)
    finally:
        os.close(fd)


def _sync(fd: int) -> None:
    """Everything restored is on disk when this returns. Raises OSError."""
    if _libc.syncfs(fd) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
