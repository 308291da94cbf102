"""Commands about recovery points: points, diff, restore, rm."""

from __future__ import annotations

import dataclasses
import os

import click

from daemon.cli.common import open_store
from daemon.cli.output import as_json, counted, moment, progress, say, shown, size, table
from engine.errors import Corrupt, InvalidRequest


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")


@click.command()
@click.argument("name", required=False)
@click.option("--json", "json_", is_flag=True)
@click.pass_context
def points(ctx: click.Context, name: str | None, json_: bool) -> None:
    """List recovery points, oldest first.

    \b
      holdfast points oracle --json
    """
    with open_store(ctx) as store:
        found = store.points(name)
    if json_:
        as_json([point._asdict() for point in found])
        return
    rows = [
        [p.id, shown(p.mount), str(p.seq), moment(p.time_ns), size(p.logical_bytes), shown(p.label)]
        for p in found
    ]
    table(rows, ["POINT", "MOUNT", "NO", "TIME", "SIZE", "LABEL"])


@click.command()
@click.argument("old")
@click.argument("new")
@click.option("--json", "json_", is_flag=True)
@click.pass_context
def diff(ctx: click.Context, old: str, new: str, json_: bool) -> None:
    """Show what differs between two points.

    \b
      holdfast diff 01jd 01jf
    """
    marks = {"added": "+", "removed": "-", "changed": "M"}
    with open_store(ctx) as store:
        changes = store.diff(old, new)
        if json_:
            as_json([{"kind": c.kind, "path": _text(c.path), "detail": c.detail} for c in changes])
            return
        for change in changes:
            say(f"{marks[change.kind]} {shown(change.path)}  ({change.detail})")


@click.command()
@click.argument("point")
@click.argument("paths", metavar="[SUBPATH] TARGET", nargs=-1, required=True)
@click.option("--force", is_flag=True, help="Write over what is at the target.")
@click.option("--json", "json_", is_flag=True)
@click.pass_context
def restore(
    ctx: click.Context, point: str, paths: tuple[str, ...], force: bool, json_: bool
) -> None:
    """Restore a point, or one path of it, into TARGET.

    \b
      holdfast restore oracle@latest /u01/restored
      holdfast restore 01jd users01.dbf /u01/oradata
    """
    if len(paths) > 2:
        raise click.UsageError("restore takes POINT [SUBPATH] TARGET")
    if not paths[-1]:
        raise InvalidRequest("target ''", expected="a path", found="none")
    subpath = os.fsencode(paths[0]) if len(paths) == 2 else b""
    with open_store(ctx) as store, progress() as report:
        result = store.restore(point, subpath, os.fsencode(paths[-1]), force=force, report=report)
    if json_:
        as_json(
            {
                "files": result.files,
                "bytes": result.bytes,
                "damaged": [{"path": _text(d.path), "text": d.text} for d in result.damaged],
                "skipped": [{"path": _text(s.path), "text": s.text} for s in result.skipped],
            }
        )
    else:
        for one in (*result.skipped, *result.damaged):
            click.echo(f"{shown(one.path)}: {shown(one.text)}", err=True)
        say(f"{result.files} files, {size(result.bytes)} restored to {shown(paths[-1])}")
    if result.damaged:
        count = len({one.path for one in result.damaged})
        raise Corrupt(f"restore of {point}", expected="every file whole", found=f"{count} damaged",
                      do="restore them from another point")  # fmt: skip


@click.command()
@click.argument("points", metavar="POINT...", nargs=-1, required=True)
@click.option("--dry-run", is_flag=True, help="Only say what would be freed.")
@click.option("--json", "json_", is_flag=True)
@click.pass_context
def rm(ctx: click.Context, points: tuple[str, ...], dry_run: bool, json_: bool) -> None:
    """Delete points, all of them or none; 'holdfast gc' then frees their space.

    \b
      holdfast rm 01jdq3
      holdfast rm --dry-run 01jdq3 01jdq7
    """
    if dry_run:
        _would_free(ctx, points, json_)
        return
    with open_store(ctx) as store:
        gone = store.remove_points(points)
    if json_:
        as_json({"points": [point.id for point in gone]})
        return
    for point in gone:
        say(f"point {point.id} deleted")


def _would_free(ctx: click.Context, points: tuple[str, ...], json_: bool) -> None:
    with open_store(ctx) as store, progress() as report:
        told = store.would_free(points, report=report)
    if json_:
        as_json(dataclasses.asdict(told))
        return
    whose = "this point needs" if len(told.points) == 1 else "these points need"
    chunks = counted(told.chunks, "chunk")
    say(f"{size(told.freed_bytes)} would be freed: {chunks} that only {whose}")
    if told.waiting_chunks:
        chunks = counted(told.waiting_chunks, "chunk")
        say(f"{size(told.waiting_bytes)} wait to be freed: {chunks} that nothing needs")
    say(f"{size(told.returned_bytes)} would go back to the file system with the next gc")


COMMANDS = (points, diff, restore, rm)
