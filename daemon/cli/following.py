"""Jobs of a service, waited for: their progress is drawn, their errors are raised as what they are."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from daemon.cli.output import progress
from engine import Progress, Report
from engine.errors import HoldfastError
from fsmount.remote import revived

if TYPE_CHECKING:
    from daemon.contract import Backend, JobInfo, JobKind

_FIRST, _LONGEST = (
    0.05,
    1.0,
)  # s between two looks: short jobs are told at once, long ones ask for little
OVER = ("done", "failed", "cancelled")


def run(asked: Backend, kind: JobKind, options: dict[str, Any]) -> dict[str, Any]:
    """Have a job done; its result, also of one that failed for the problems it has found and tells. Whoever
    interrupts the command cancels the job."""
    started = asked.start_job(kind, options)
    try:
        ended = follow(asked, started)
    except KeyboardInterrupt:
        asked.cancel_job(started.id)
        raise
    return ended.result if ended.result.get("problems") else result(ended)


def follow(asked: Backend, job: JobInfo) -> JobInfo:
    """The job as it is when it is over."""
    wait = _FIRST
    with progress() as report:
        while job.state not in OVER:
            _draw(report, job)
            time.sleep(wait)
            wait = min(_LONGEST, wait * 1.5)
            job = asked.job(job.id)
        _draw(report, job)
    return job


def result(job: JobInfo) -> dict[str, Any]:
    """What a job that is over has found. Raises its error; HoldfastError of one that was cancelled."""
    if job.error:
        raise revived(job.error.get("kind", ""), job.error.get("message", ""))
    if job.state != "done":
        raise HoldfastError(f"job {job.id}", expected="its end", found=f"that it was {job.state}")
    return job.result


def _draw(report: Report, job: JobInfo) -> None:
    told = job.progress
    if told:
        total = told.get("total")
        report(Progress(str(told.get("stage", job.kind)), int(told.get("done", 0)),
                        int(total) if total is not None else None, str(told.get("unit", ""))))  # fmt: skip
