"""What each kind of job does with a store, and what is told of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, fields
from typing import Any

from daemon.contract import JobInfo
from daemon.service.notices import bounded
from engine import Store
from engine.errors import Corrupt, HoldfastError, LocationUnavailable, NotFound
from engine.maintain.asked import only_away
from engine.maintain.check import Problem
from engine.progress import Report

STOPS = frozenset({"upload", "reclaim"})  # kinds of jobs that ask whether to stop


class FoundDamaged(Corrupt):
    """A store was found damaged. ``result``: what a sound one would have had, and the problems."""

    def __init__(self, who: str, found: list[Problem], result: dict[str, Any]) -> None:
        super().__init__(
            who, expected="no damage", found=_first(found),
            do="run 'holdfast check --read-data', which names what needs it, then 'holdfast repair'",
        )  # fmt: skip
        self.result = _told(found, result)


class NotAllSeen(LocationUnavailable):
    """Nothing was found damaged, and not all could be looked at. ``result``: as of ``FoundDamaged``."""

    def __init__(self, who: str, found: list[Problem], result: dict[str, Any]) -> None:
        super().__init__(
            who, expected="every location to answer", found=_first(found), do="try again when they do"
        )  # fmt: skip
        self.result = _told(found, result)


def _first(found: list[Problem]) -> str:
    count = f"{len(found)} problem" + ("s" if len(found) > 1 else "")
    return f"{count}, first {found[0].thing}: {found[0].text}"


def _told(found: list[Problem], result: dict[str, Any]) -> dict[str, Any]:
    told = bounded([asdict(one) for one in found])
    return {**result, "problems": told, "problems_left_out": len(found) - len(told)}


def _refuse(who: str, found: list[Problem], result: dict[str, Any]) -> None:
    """Raises FoundDamaged, or NotAllSeen, where there is a problem."""
    if found:
        away = only_away(one.code for one in found)
        raise (NotAllSeen if away else FoundDamaged)(who, found, result)


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
        case "reclaim":
            return _reclaim(store, dict(options), report, stop)
        case "drill":
            from daemon.service.drilling import drill

            return drill(store, job, report)


def _reclaim(
    store: Store, options: dict[str, Any], report: Report, stop: Callable[[], bool]
) -> dict[str, Any]:
    from engine.maintain.costs import Prices
    from engine.maintain.planning import Terms

    location, dry_run = str(options.pop("location")), bool(options.pop("dry_run", False))
    names = [one.name for one in fields(Prices)]
    given = {name: float(options.pop(name)) for name in names if name in options}
    terms = Terms(**options, prices=Prices(**given) if given else None)
    return asdict(store.copies.reclaim(location, terms, dry_run=dry_run, report=report, stop=stop))


def _scrub(store: Store, options: dict[str, Any], report: Report) -> dict[str, Any]:
    found = store.scrub(report=report, **options)
    result = asdict(found)
    _refuse("scrub", found.problems, result)
    return result


def _check(store: Store, options: dict[str, Any], report: Report) -> dict[str, Any]:
    found = store.check(report=report, **options)
    result = {"problems": [], "counts": found.counts}
    _refuse("check", found.problems, result)
    return result


def _delete_mount(store: Store, mount: str, report: Report) -> dict[str, Any]:
    """One that is gone already was deleted by this job before it was started again."""
    try:
        return {"points": store.remove_mount(mount, report=report)}
    except NotFound:
        return {"points": 0}
