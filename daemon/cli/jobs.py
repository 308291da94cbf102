"""Commands about work in the background of a service: jobs, job, cancel, restores."""

from __future__ import annotations

import click

from daemon.cli import following
from daemon.cli.common import backend
from daemon.cli.output import as_json, every, lasting, say, shown, table, when
from daemon.contract import JobInfo

_KINDS = ["", "collect", "scrub", "check", "restore", "delete-mount", "upload", "drill"]
_STATES = ["", "queued", "running", "done", "failed", "cancelled"]


@click.command()
@click.option("--kind", default="", type=click.Choice(_KINDS), help="Only those of this kind.")
@click.option("--state", default="", type=click.Choice(_STATES), help="Only those in this state.")
@click.option("--json", "json_", is_flag=True)
@click.pass_context
def jobs(ctx: click.Context, kind: str, state: str, json_: bool) -> None:
    """List the service's jobs: collections, scrubs, checks, restores, uploads, drills, deletions of
    mounts.

    \b
      holdfast jobs --state running
    """
    with backend(ctx) as asked:
        found = list(every(lambda cursor: asked.jobs(kind=kind, state=state, cursor=cursor)))
    if json_:
        as_json(found)
    else:
        _list(found)


def _list(found: list[JobInfo]) -> None:
    rows = [
        [str(one.id), one.kind, one.state, shown(one.mount) or "-", when(one.started_ns, "-"),
         when(one.ended_ns, "-"), _told(one)]
        for one in found
    ]  # fmt: skip
    table(rows, ["JOB", "KIND", "STATE", "MOUNT", "STARTED", "ENDED", "PROGRESS"])


def _told(job: JobInfo) -> str:
    if job.error:
        return shown(job.error.get("message", ""))
    told = job.progress
    if not told or job.state != "running":
        return ""
    of = f" of {told['total']}" if told.get("total") is not None else ""
    text = f"{told.get('stage', '')}: {told.get('done', 0)}{of} {told.get('unit', '')}".strip()
    if told.get("rate"):
        text += f", {told['rate']:,.0f} a second"
    if told.get("eta_s") is not None:
        text += f", {lasting(told['eta_s'])} left"
    return shown(text)


@click.command()
@click.argument("number", metavar="ID", type=int)
@click.option("--follow", is_flag=True, help="Wait until it is over, showing how far it is.")
@click.option("--json", "json_", is_flag=True)
@click.pass_context
def job(ctx: click.Context, number: int, follow: bool, json_: bool) -> None:
    """Tell of a job; with --follow, wait for it, and fail as it fails.

    \b
      holdfast job 12 --follow
    """
    with backend(ctx) as asked:
        found = asked.job(number)
        if follow:
            found = following.follow(asked, found)
    if json_:
        as_json(found)
    else:
        _list([found])
        for key, value in found.result.items():
            say(f"{shown(str(key))}: {shown(str(value))}")
    if follow:
        following.result(found)


@click.command()
@click.argument("number", metavar="ID", type=int)
@click.pass_context
def cancel(ctx: click.Context, number: int) -> None:
    """Stop a job; what it has done so far stays done.

    \b
      holdfast cancel 12
    """
    with backend(ctx) as asked:
        found = asked.cancel_job(number)
    say(f"job {found.id}: {found.state if found.state in following.OVER else 'told to stop'}")


@click.command()
@click.option(
    "--remove", type=int, metavar="ID", help="Take this one away: it is no longer needed."
)
@click.option("--json", "json_", is_flag=True)
@click.pass_context
def restores(ctx: click.Context, remove: int | None, json_: bool) -> None:
    """List the restores the service has made, or take one away.

    \b
      holdfast restores
      holdfast restores --remove 12
    """
    with backend(ctx) as asked:
        if remove is not None:
            asked.delete_restore(asked.job(remove).mount, remove)
            say(f"restore {remove} removed")
            return
        found = list(every(lambda cursor: asked.jobs(kind="restore", cursor=cursor)))
    if json_:
        as_json(found)
        return
    rows = [
        [str(one.id), one.state, shown(one.mount) or "-", shown(str(one.options.get("point", "-"))),
         shown(str(one.options.get("path", ""))) or "/", shown(str(one.options.get("place", "-"))), _told(one)]
        for one in found
    ]  # fmt: skip
    table(rows, ["JOB", "STATE", "MOUNT", "POINT", "PATH", "PLACE", "PROGRESS"])


COMMANDS = (jobs, job, cancel, restores)
