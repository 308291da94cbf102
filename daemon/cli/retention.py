"""Commands about retention that waits: retention show, retention release."""

from __future__ import annotations

import click

from daemon.cli.common import backend
from daemon.cli.output import as_json, moment, say, shown, table
from daemon.contract import RetentionInfo


@click.group()
def retention() -> None:
    """Retention: what it deletes by itself, and why it waits.

    A recovery point that is not like those before it (far smaller, far fewer files, content that no
    longer compresses) freezes the retention of its mount: the good points stay until somebody looked.

    \b
      holdfast retention show
      holdfast retention release oracle
    """


@retention.command()
@click.option("--json", "json_", is_flag=True)
@click.pass_context
def show(ctx: click.Context, json_: bool) -> None:
    """List mounts, which of their points retention keeps, and whether it waits.

    \b
      holdfast retention show --json
    """
    with backend(ctx) as asked:
        found = asked.retention()
    if json_:
        as_json(found)
        return
    rows = [
        [shown(one.mount), _kept(one), moment(one.since_ns) if one.frozen else "-", one.point or "-",
         shown(one.frozen) or "-"]
        for one in found
    ]  # fmt: skip
    table(rows, ["MOUNT", "KEEPS", "FROZEN SINCE", "BECAUSE OF POINT", "WHY"])


def _kept(one: RetentionInfo) -> str:
    parts = [f"the last {one.last}"] if one.last else []
    parts += [f"those of the last {one.within_s / 86400:g} d"] if one.within_s else []
    return " and ".join(parts) or "all"


@retention.command()
@click.argument("mount")
@click.option("--json", "json_", is_flag=True)
@click.pass_context
def release(ctx: click.Context, mount: str, json_: bool) -> None:
    """Let retention of a mount go on: its newest point is what is usual from now on.

    Look first at what writes there, and at the points: what they lost may be in older ones only.

    \b
      holdfast diff 01jd 01jf
      holdfast retention release oracle
    """
    with backend(ctx) as asked:
        found = asked.release_retention(mount)
    if json_:
        as_json(found)
    else:
        say(f"retention of {shown(found.mount)} goes on: it keeps {_kept(found)}")


COMMANDS = (retention,)
