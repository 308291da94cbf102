"""What each kind of job does with a store, and what is told of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from daemon.contract import JobInfo
from daemon.service.notices import bounded
from engine import Store
from engine.errors import Corrupt, HoldfastError, NotFound
from engine.maintain.check import Problem
from engine.progress import Report

STOPS = frozenset({"upload"})  # kinds of jobs that ask whether to stop


class FoundDamaged(Corrupt):
    """A store was found damaged. ``result``: what a sound one would have had, and the problems."""

    def __init__(self, who: str, found: list[Problem], result: dict[str, Any]) -> None:
        first = f"{found[0].thing}: {found[0].text}"
        count = f"{len(found)} problem" + ("s" if len(found) > 1 else "")
        super().__init__(
            who, expected="no damage", found=f"{count}, first {first}",
            do="run 'holdfast check --read-data', which names what needs it, then 'holdfast repair'",
        )  # fmt: skip
        told = bounded([asdict(one) for one in found])
        self.result = {**result, "problems": told, "problems_left_out": len(found) - len(told)}


def result_of(error: HoldfastError) -> dict[str, Any]:
    """What a job that failed has to tell all the same."""
    found = getattr(error, "result", {})
    return found if isinstance(found, dict) else {}


def run(
    store: Store, job: JobInfo, report: Report, stop: Callable[[], bool] = lambda: False
) -> dict[str, Any]:
    """Run a job to its end; its result. Raises the errors of the table: a store found damaged is Corrupt.

    ``stop``: asked by what can leave off in order (``STOPS``): it then raises ShuttingDown, or ends early.
    """
    options = job.options
    match job.kind:
        case "collect":
            return asdict(store.collect(report=report, **options))
        case "scrub":
            return _scrub(store, options, report)
        case "check":
            return _check(store, options, report)
        case "restore":
            from daemon.service.restoring import fill

            return fill(store, job, report)
        case "delete-mount":
            return _delete_mount(store, job.mount, report)
        case "upload":
            from daemon.service.sending import upload

            return upload(store, str(job.options["location"]), report, stop)
        case "drill":
            from daemon.service.drilling import drill

            return drill(store, job, report)


def _scrub(store: Store, options: dict[str, Any], report: Report) -> dict[str, Any]:
    found = store.scrub(report=report, **options)
    result = asdict(found)
    if found.problems:
        raise FoundDamaged("scrub", found.problems, result)
    return result


def _check(store: Store, options: dict[str, Any], report: Report) -> dict[str, Any]:
    found = store.check(report=report, **options)
    result = {"problems": [], "counts": found.counts}
    if found.problems:
        raise FoundDamaged("check", found.problems, result)
    return result


def _delete_mount(store: Store, mount: str, report: Report) -> dict[str, Any]:
    """One that is gone already was deleted by this job before it was started again."""
    try:
        return {"points": store.remove_mount(mount, report=report)}
    except NotFound:
        return {"points": 0}
