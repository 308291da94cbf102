"""Commands about drills: drill, drills."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from daemon.cli import following
from daemon.cli.common import alone, backend
from daemon.cli.output import as_json, counted, moment, say, shown, size, table
from daemon.contract import DrillSpec
from engine.errors import InvalidRequest

if TYPE_CHECKING:
    from daemon.contract import Backend, JobInfo


@click.command()
@click.argument("what", metavar="[MOUNT|POINT]", default="")
@click.option(
    "--from",
    "source",
    metavar="LOCATION",
    default="local",
    help="Restore from this storage location alone, as if this store were gone.",
)
@click.option(
    "--into",
    metavar="PLACE",
    default="",
    help="Where the scratch directory is made: a restore target's name, or, where no service is asked, a directory.",
)
@click.option(
    "--keep",
    is_flag=True,
    help="Leave there what was restored, also when it is found wanting; removing it is then yours.",
)
@click.option("--json", "json_", is_flag=True)
@click.pass_context
def drill(ctx: click.Context, what: str, source: str, into: str, keep: bool, json_: bool) -> None:
    """Restore a point into a scratch directory, verify it, and take the time.

    Of a mount a point is drawn, new ones more often than old; without a name the mount is taken that
    was drilled longest ago. The mount's hook 'verify' then starts what is in it (see tools/hooks).

    \b
      holdfast drill oracle
      holdfast drill 01jdq3 --from offsite
    """
    if "/" in into:
        if not alone(ctx):
            raise InvalidRequest(f"--into {into}", expected="the name of a restore target of the service",
                                 found="a path", do="name one, or leave it out")  # fmt: skip
        into = os.path.abspath(into)
    with backend(ctx) as asked:
        job = _followed(asked, asked.drill(_spec(asked, what, source, into, keep)))
        found = next((one for one in asked.drills(job.mount) if one.job == job.id), None)
    if json_:
        as_json(found if found is not None else job)
    elif found is not None and found.path:
        click.echo(f"kept in {shown(found.path)}", err=True)
    following.result(job)
    if found is None or json_:
        return
    verified = f", verified in {found.verify_s:.1f} s by its hook" if found.hook else ""
    say(
        f"drill {found.job}: point {found.point} of {shown(found.mount)} from {shown(found.source)}:"
        f" {counted(found.files, 'file')}, {size(found.bytes)} restored in {found.restore_s:.1f} s{verified}"
    )


def _spec(asked: Backend, what: str, source: str, into: str, keep: bool) -> DrillSpec:
    mount = what if what and what in {one.name for one in asked.mounts()} else ""
    return DrillSpec(mount, "" if mount else what, source, into, keep)


def _followed(asked: Backend, started: JobInfo) -> JobInfo:
    """The job when it is over; whoever interrupts the command cancels it."""
    try:
        return following.follow(asked, started)
    except KeyboardInterrupt:
        asked.cancel_job(started.id)
        raise


@click.command()
@click.argument("mount", default="")
@click.option("--json", "json_", is_flag=True)
@click.pass_context
def drills(ctx: click.Context, mount: str, json_: bool) -> None:
    """List drills, the newest first, with the recovery time that each has measured.

    \b
      holdfast drills oracle
    """
    with backend(ctx) as asked:
        found = asked.drills(mount)
    if json_:
        as_json(found)
        return
    rows = [
        [str(one.job), shown(one.mount), one.point, shown(one.source), moment(one.begun_ns), size(one.bytes),
         f"{one.restore_s:.1f} s", f"{one.verify_s:.1f} s" if one.hook else "-", str(one.output or "-"),
         shown(one.error) or "ok"]
        for one in found
    ]  # fmt: skip
    table(rows, ["DRILL", "MOUNT", "POINT", "FROM", "BEGUN", "SIZE", "RESTORED IN", "VERIFIED IN", "ATTACHMENT",
                 "RESULT"])  # fmt: skip


COMMANDS = (drill, drills)
