"""Commands about sessions, the write windows of mounts: begin, commit, abandon, renew, sessions, log."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

import click

from daemon.cli.common import backend, waits
from daemon.cli.output import Duration, as_json, counted, moment, say, shown, table
from daemon.contract import Durability, SessionInfo
from engine.errors import from_os

_PART = 1 << 18  # bytes of a log sent at a time
_NAMED = 20  # open files named on a terminal; --json has all that are known


@click.command()
@click.argument("name")
@click.option("--holder", default="", help="Who holds it, for whoever looks; any text.")
@click.option("--label", default="", help="A text for the recovery point to come.")
@click.option("--lease", type=Duration(), help="Call it stale after this time, as 24h.")
@click.option("--json", "json_", is_flag=True)
@click.pass_context
def begin(
    ctx: click.Context, name: str, holder: str, label: str, lease: float | None, json_: bool
) -> None:
    """Begin a session of a mount; its id is the last word printed.

    Write into the mount, then 'holdfast commit': that makes the recovery point. A mount has one session at a time.

    \b
      session=$(holdfast begin oracle --holder rman | awk '{print $NF}')
      holdfast begin oracle --lease 6h --label nightly
    """
    with backend(ctx) as asked:
        made = asked.begin(name, holder=holder, label=label, lease_s=lease or 0)
    if json_:
        as_json(made)
    else:
        say(f"session of {shown(made.mount)} until {moment(made.expires_ns)}: {made.id}")


@click.command()
@click.argument("session")
@click.option("--label", default="", help="A text to find the point by.")
@waits
@click.option("--json", "json_", is_flag=True)
@click.pass_context
def commit(
    ctx: click.Context, session: str, label: str, durability: Durability, json_: bool
) -> None:
    """End a session with a recovery point; the point's id is the last word printed.

    Asked again after an answer that never came, the same session gives the same point.

    \b
      holdfast commit 01jdq3 --label nightly
    """
    with backend(ctx) as asked:
        made = asked.commit(session, label=label, durability=durability)
    if json_:
        as_json(made)
        return
    detail = made.detail
    if detail.consistency != "consistent":
        count = counted(len(detail.open_files), "file")
        click.echo(f"{shown(detail.consistency)}: {count} open for writing", err=True)
        for path in detail.open_files[:_NAMED]:
            click.echo(f"  {shown(path)}", err=True)
    point = detail.point
    say(f"point {point.seq} of {shown(point.mount)}: {point.id}")


@click.command()
@click.argument("session")
@click.option("--json", "json_", is_flag=True)
@click.pass_context
def abandon(ctx: click.Context, session: str, json_: bool) -> None:
    """End a session without a recovery point; what was written stays in the mount.

    \b
      holdfast abandon 01jdq3
    """
    with backend(ctx) as asked:
        ended = asked.abandon(session)
    if json_:
        as_json(ended)
    else:
        say(f"session {ended.id} of {shown(ended.mount)} abandoned")


@click.command()
@click.argument("session")
@click.option("--lease", type=Duration(), help="Call it stale after this time from now, as 24h.")
@click.option("--json", "json_", is_flag=True)
@click.pass_context
def renew(ctx: click.Context, session: str, lease: float | None, json_: bool) -> None:
    """Give a session more time before it is called stale.

    \b
      holdfast renew 01jdq3 --lease 12h
    """
    with backend(ctx) as asked:
        renewed = asked.renew(session, lease or 0)
    if json_:
        as_json(renewed)
    else:
        say(f"session {renewed.id} of {shown(renewed.mount)} until {moment(renewed.expires_ns)}")


@click.command()
@click.argument("name", required=False)
@click.option(
    "--state",
    default="",
    type=click.Choice(["", "open", "committing", "committed", "abandoned"]),
    help="Only those in this state.",
)
@click.option("--json", "json_", is_flag=True)
@click.pass_context
def sessions(ctx: click.Context, name: str | None, state: str, json_: bool) -> None:
    """List sessions, of one mount or of all.

    \b
      holdfast sessions --state open
      holdfast sessions oracle --json
    """
    with backend(ctx) as asked:
        found = asked.sessions(name or "", state)
    if json_:
        as_json(found)
        return
    rows = [
        [one.id, shown(one.mount), _state(one), moment(one.begun_ns), moment(one.expires_ns), one.point or "-",
         shown(one.holder) or "-", shown(one.label)]
        for one in found
    ]  # fmt: skip
    table(rows, ["SESSION", "MOUNT", "STATE", "BEGUN", "LEASE ENDS", "POINT", "HOLDER", "LABEL"])


def _state(session: SessionInfo) -> str:
    return f"{session.state}, stale" if session.stale else session.state


@click.command()
@click.argument("session")
@click.argument("file")
@click.option("--name", default="", help="What to call it; the file's own name unless given.")
@click.option("--json", "json_", is_flag=True)
@click.pass_context
def log(ctx: click.Context, session: str, file: str, name: str, json_: bool) -> None:
    """Keep a log with a session and its recovery point; - reads standard input.

    \b
      holdfast log 01jdq3 rman.log
      holdfast log 01jdq3 - --name pg_basebackup.log
    """
    with _opened(file) as content, backend(ctx) as asked:
        own = "log" if file == "-" else os.path.basename(file)
        kept = asked.attach_log(session, name or own, _parts(content))
    if json_:
        as_json(kept)
    else:
        say(f"log {kept.id}: {shown(kept.name)}, {counted(kept.size, 'byte')}")


@contextmanager
def _opened(path: str) -> Iterator[BinaryIO]:
    if path == "-":
        yield sys.stdin.buffer
        return
    try:
        file = open(path, "rb")  # noqa: SIM115  an error here is of the file, later of others
    except OSError as error:
        raise from_os(error, f"log {path}") from None
    with file:
        yield file


def _parts(file: BinaryIO) -> Iterator[bytes]:
    while part := file.read(_PART):
        yield part


COMMANDS = (begin, commit, abandon, renew, sessions, log)
