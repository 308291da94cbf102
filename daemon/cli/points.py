"""Commands about recovery points: points, diff, restore, rm, keep."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from daemon.cli.common import alone, backend, is_far, open_store, plain
from daemon.cli.output import as_json, counted, every, moment, progress, say, shown, size, table
from engine.errors import Corrupt, InvalidRequest

if TYPE_CHECKING:
    from daemon.contract import Backend


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
    if alone(ctx):
        with open_store(ctx) as store:
            found = store.points(name)
    else:
        from daemon.contract import PointQuery

        with backend(ctx) as asked:
            found = list(every(lambda c: asked.points(PointQuery(mount=name or "", cursor=c))))
    if json_:
        as_json(found)
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
    if alone(ctx):
        with open_store(ctx) as store:
            found = ((c.kind, _text(c.path), c.detail) for c in store.diff(old, new))
            _differences(found, json_)
    else:
        with backend(ctx) as asked:
            changes = every(lambda cursor: asked.diff(old, new, cursor=cursor))
            _differences(((c.kind, c.path, c.detail) for c in changes), json_)


def _differences(changes: Iterator[tuple[str, str, str]], json_: bool) -> None:
    """Of (kind, path, what changed)."""
    if json_:
        as_json([{"kind": kind, "path": path, "detail": detail} for kind, path, detail in changes])
        return
    marks = {"added": "+", "removed": "-", "changed": "M"}
    for kind, path, detail in changes:
        say(f"{marks[kind]} {shown(path)}  ({detail})")


@click.command()
@click.argument("point")
@click.argument("paths", metavar="[SUBPATH] TARGET", nargs=-1)
@click.option("--force", is_flag=True, help="Write over what is at the target.")
@click.option(
    "--place",
    default="",
    metavar="NAME",
    help="Have the service restore it instead: below its restore target of that name, or, as 'mount',"
    " to be seen in the mount under restores/.",
)
@click.option("--json", "json_", is_flag=True)
@click.pass_context
def restore(
    ctx: click.Context, point: str, paths: tuple[str, ...], force: bool, place: str, json_: bool
) -> None:
    """Restore a point, or one path of it, into TARGET.

    From another machine, TARGET is a new file or directory here, unpacked by tar; one that cannot be
    given back whole is not there at all. With --place there is no TARGET.

    \b
      holdfast restore oracle@latest /u01/restored
      holdfast restore 01jd users01.dbf /u01/oradata
      holdfast restore oracle@latest --place mount
    """
    inner, target = _from_and_to(paths, place)
    if place:
        from daemon.cli import restoring

        restoring.placed(ctx, point, inner, place, json_)
    elif is_far(ctx):
        from daemon.cli import restoring

        if force:
            raise click.UsageError(
                "--force writes over files beside the store only, not with --api"
            )
        restoring.fetched(ctx, point, inner, target, json_)
    else:
        _here(ctx, point, os.fsencode(inner), target, force, json_)


def _from_and_to(paths: tuple[str, ...], place: str) -> tuple[str, str]:
    """(path in the point, target) of the arguments."""
    if place:
        if len(paths) > 1:
            raise click.UsageError("restore --place takes POINT [SUBPATH]")
        return (paths[0] if paths else ""), ""
    if not 1 <= len(paths) <= 2:
        raise click.UsageError("restore takes POINT [SUBPATH] TARGET")
    if not paths[-1]:
        raise InvalidRequest("target ''", expected="a path", found="none")
    return (paths[0] if len(paths) == 2 else ""), paths[-1]


def _here(
    ctx: click.Context, point: str, inner: bytes, target: str, force: bool, json_: bool
) -> None:
    """By this process, beside a daemon too: what is damaged does not keep the rest from being restored."""
    with open_store(ctx) as store, progress() as report:
        result = store.restore(point, inner, os.fsencode(target), force=force, report=report)
    if json_:
        as_json(
            {
                "files": result.files,
                "bytes": result.bytes,
                "disowned": result.disowned,
                "damaged": [{"path": _text(d.path), "text": d.text} for d in result.damaged],
                "skipped": [{"path": _text(s.path), "text": s.text} for s in result.skipped],
            }
        )
    else:
        for one in (*result.skipped, *result.damaged):
            click.echo(f"{shown(one.path)}: {shown(one.text)}", err=True)
        if result.disowned:
            click.echo(
                f"{counted(result.disowned, 'entry', 'entries')} without their owner of old: only root can change that",
                err=True,
            )
        say(f"{counted(result.files, 'file')}, {size(result.bytes)} restored to {shown(target)}")
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
    if plain(ctx):
        with open_store(ctx) as store:
            gone = store.remove_points(points)
    else:
        with backend(ctx) as asked:
            _warn(asked, points)
            gone = asked.remove_points(list(points))
    if json_:
        as_json({"points": [point.id for point in gone]})
        return
    for point in gone:
        say(f"point {point.id} deleted")


def _warn(asked: Backend, points: tuple[str, ...]) -> None:
    """Where retention deletes nothing because something is wrong, who deletes by hand should know."""
    frozen = {one.name: one.frozen for one in asked.mounts() if one.frozen}
    if not frozen:
        return
    for mount in sorted({asked.point(one).point.mount for one in points} & frozen.keys()):
        click.echo(
            f"retention of {shown(mount)} waits, for its points may be all there is: {shown(frozen[mount])}",
            err=True,
        )


def _would_free(ctx: click.Context, points: tuple[str, ...], json_: bool) -> None:
    if alone(ctx):
        with open_store(ctx) as store, progress() as report:
            told = dataclasses.asdict(store.would_free(points, report=report))
    else:
        with backend(ctx) as asked:
            ids = [asked.point(one).point.id for one in points]
            told = {**asked.forecast(ids), "points": ids}
    if json_:
        as_json(told)
        return
    whose = "this point needs" if len(told["points"]) == 1 else "these points need"
    chunks = counted(told["chunks"], "chunk")
    say(f"{size(told['freed_bytes'])} would be freed: {chunks} that only {whose}")
    if told["waiting_chunks"]:
        chunks = counted(told["waiting_chunks"], "chunk")
        say(f"{size(told['waiting_bytes'])} wait to be freed: {chunks} that nothing needs")
    say(f"{size(told['returned_bytes'])} would go back to the file system with the next gc")


@click.command()
@click.argument("point")
@click.option("--no", is_flag=True, help="Let retention delete it again when it is due.")
@click.option("--json", "json_", is_flag=True)
@click.pass_context
def keep(ctx: click.Context, point: str, no: bool, json_: bool) -> None:
    """Have retention leave a point alone; 'holdfast rm' deletes it all the same.

    \b
      holdfast keep oracle@latest
      holdfast keep 01jdq3 --no
    """
    with backend(ctx) as asked:
        found = asked.keep(point, kept=not no)
    if json_:
        as_json(found)
    else:
        say(f"point {found.point.id} " + ("kept" if found.kept else "no longer kept"))


COMMANDS = (points, diff, restore, rm, keep)
