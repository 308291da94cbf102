"""What a restore is of: all of a point, a path, several, or the files of a database; and filling a target with it."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from daemon.contract import JobInfo, RestoreSpec
from daemon.service import logs
from daemon.service.core import LOCKS, alone
from daemon.service.notices import notices
from daemon.service.walking import below, found, raw_path, text_path
from daemon.state import State
from daemon.state.database import FOLDER
from engine import PointView, Store
from engine.errors import InvalidRequest, NotFound, from_os
from engine.progress import Report

WAIT_S = 60.0  # s for an earlier process of the same job to end
PATHS_MAX = 100_000  # of one restore
COUNTED_MAX = (
    100_000  # entries that are looked at before a part of a point is restored, for its bytes
)
SHOWN_MAX = 1 << 20  # bytes of paths of a restore that is shown: a worker is told of all at once


def check(spec: RestoreSpec) -> None:
    """Raises InvalidRequest for a wish that contradicts itself."""
    given = [name for name in ("path", "paths", "database") if getattr(spec, name)]
    if len(given) > 1:
        raise InvalidRequest(
            "restore", expected="one of path, paths and database", found=" and ".join(given)
        )
    if len(spec.paths) > PATHS_MAX:
        raise InvalidRequest(
            "paths", expected=f"at most {PATHS_MAX}", found=str(len(spec.paths)),
            do="name the directories they are in",
        )  # fmt: skip
    for one in spec.paths:
        if not _plain(one):
            raise InvalidRequest("paths", expected="paths in the point", found=repr(one))


def options_of(spec: RestoreSpec, point: str, target: str) -> dict[str, Any]:
    """What a job is told of it: of what is not asked for nothing."""
    options: dict[str, Any] = {
        "point": point, "path": spec.path.strip("/"), "place": spec.place, "target": target,
    }  # fmt: skip
    if spec.paths:
        options["paths"] = [_plain(one) for one in spec.paths]
    if spec.database:
        options["database"] = spec.database
    if spec.location:
        options["from"] = spec.location
    return options


def _plain(path: str) -> str:
    """A path as the point has it, so that the same path is the same text."""
    return text_path(b"/".join(one for one in raw_path(path).split(b"/") if one not in (b"", b".")))


def view_of(store: Store, point: str, location: str) -> PointView:
    """The point's tree as it is read for a restore. Raises NotFound when the location has it not."""
    return store.copies.glance(point, location) if location else store.glance(point)


def paths_of(view: PointView, state: State, options: Mapping[str, Any]) -> list[str]:
    """What of the point is wanted; empty for all that is at ``path``. Raises NotFound."""
    if database := str(options.get("database", "")):
        point = str(options["point"])
        return files_of(view, state.attachments.files(point), point, database)
    paths = list(options.get("paths", []))
    for one in paths:
        found(view, one)
    return paths


def files_of(
    view: PointView, known: Mapping[str, list[str]], point: str, database: str
) -> list[str]:
    """Files of a point that belong to a database. ``known``: what the logs say. Raises NotFound."""
    if database not in known:
        told = ", ".join(sorted(known)) or "none"
        raise NotFound(
            f"database {database!r} in the logs of point {point}", found=f"databases: {told}"
        )
    there = (
        text_path(path) for path, entry in below(view, view.root_entry) if stat.S_ISREG(entry.mode)
    )
    return logs.in_point(known[database], there)


def fill(store: Store, job: JobInfo, report: Report) -> dict[str, Any]:
    """Fill the job's own directory below its target; what was restored. What an earlier run of the job has put there
    is verified and kept."""
    point, path, target = (str(job.options[name]) for name in ("point", "path", "target"))
    if not os.path.isdir(target):
        raise InvalidRequest(f"restore target {target}", expected="a directory", found="none",
                             do="make it, or change the configuration")  # fmt: skip
    where = os.path.join(target, str(job.id))
    with _alone(store, job), _source(store, job, report) as source:
        _make(where)
        view = source.glance(point)
        paths: list[str] = []
        if "paths" in job.options or "database" in job.options:
            with State.open(store.path) as state:
                paths = paths_of(view, state, job.options)
            if not paths:
                raise NotFound(
                    f"files of database {job.options['database']!r} in point {point}",
                    expected="some that its log names", found="none",
                )  # fmt: skip
        total = _total(view, paths or [path]) if paths or path else None
        done = source.restore(
            point, [raw_path(one) for one in paths] or raw_path(path), os.fsencode(where), resume=True,
            report=_with(total, report),
        )  # fmt: skip
    return {
        "path": where, "files": done.files, "bytes": done.bytes, "kept": done.kept, "disowned": done.disowned,
        "damaged": notices(done.damaged), "damaged_files": len({one.path for one in done.damaged}),
        "skipped": notices(done.skipped),
    }  # fmt: skip


@contextmanager
def _alone(store: Store, job: JobInfo) -> Iterator[None]:
    """Its process from before a crash may not have noticed yet that nobody listens to it."""
    name = f".restore-{job.id}"
    with alone(store.path, name, f"restore {job.id}", WAIT_S):
        yield
        with suppress(OSError):
            os.unlink(os.path.join(store.path, FOLDER, LOCKS, name))


def _make(where: str) -> None:
    try:
        os.mkdir(where, 0o700)
    except FileExistsError:
        return  # by an earlier run
    except OSError as error:
        raise from_os(error, f"restore at {where}") from None


def _total(view: PointView, paths: list[str]) -> int | None:
    """Bytes of what is at these paths; None where finding out would take long."""
    total = count = 0
    for path in paths:
        top = found(view, path)
        inside = below(view, top) if stat.S_ISDIR(top.mode) else [(b"", top)]
        for _, entry in inside:
            count += 1
            if count > COUNTED_MAX:
                return None
            if stat.S_ISREG(entry.mode):
                total += min(entry.size, entry.allocated)
    return total


def _with(total: int | None, report: Report) -> Report:
    """A report of parts of a point, of which the engine does not know how large they are."""
    return lambda told: report(told if told.total is not None else told._replace(total=total))


@contextmanager
def _source(store: Store, job: JobInfo, report: Report) -> Iterator[Store]:
    """The store itself, or one borrowed from a location alone: of what is here nothing is believed then.

    It is made in the store's directory: a service may be let write to no other.
    """
    location = str(job.options.get("from", ""))
    if not location:
        yield store
        return
    store.view(str(job.options["point"]))  # nobody deletes it meanwhile, and frees it there
    scratch = os.path.join(store.path, FOLDER)
    with store.copies.borrow(location, scratch=scratch, report=report) as borrowed:
        yield borrowed
