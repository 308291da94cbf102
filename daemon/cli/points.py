"""Commands about recovery points: points, diff, restore, rm, keep, lock."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING

import click

from daemon.cli.common import alone, backend, is_far, open_store, plain
from daemon.cli.opening import Given, lent, opens
from daemon.cli.output import (
    Until,
    as_json,
    counted,
    every,
    moment,
    progress,
    say,
    shown,
    size,
    table,
)
from daemon.cli.wishes import Wish
from engine import Report, Store
from engine.errors import Corrupt, HoldfastError, InvalidRequest, PermissionDenied

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
    uploads: list[tuple[str, str, str]] = []
    if alone(ctx):
        with open_store(ctx) as store:
            found = store.points(name)
            uploads = [(one.point, one.location, one.state) for one in store.copies.uploads()]
    else:
        from daemon.contract import PointQuery

        with backend(ctx) as asked:
            found = list(every(lambda c: asked.points(PointQuery(mount=name or "", cursor=c))))
            with suppress(PermissionDenied):  # a restorer's token browses points only
                uploads = [(one.point, one.location, one.state) for one in asked.uploads()]
    copies: dict[str, dict[str, str]] = {}
    for point, location, state in uploads:
        copies.setdefault(point, {})[location] = state
    if json_:
        as_json([{**one._asdict(), "copies": copies.get(one.id, {})} for one in found])
        return
    heads = [
        "POINT",
        "MOUNT",
        "NO",
        "TIME",
        "SIZE",
        "LOCKED",
        *(["COPIES"] if copies else []),
        "LABEL",
    ]
    rows = [
        [p.id, shown(p.mount), str(p.seq), moment(p.time_ns), size(p.logical_bytes),
         moment(p.locked_ns) if p.locked_ns else "-",
         *([_told(copies.get(p.id, {}))] if copies else []), shown(p.label)]
        for p in found
    ]  # fmt: skip
    table(rows, heads)


def _told(copies: dict[str, str]) -> str:
    """How far a point's copies are, in few words."""
    waiting = [f"{name}: {state}" for name, state in sorted(copies.items()) if state != "verified"]
    return ", ".join(waiting) or f"{len(copies)} verified" if copies else "-"


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
@click.argument("paths", metavar="[SUBPATH]... TARGET", nargs=-1)
@click.option("--force", is_flag=True, help="Write over what is at the target.")
@click.option(
    "--resume",
    is_flag=True,
    help="Go on with a restore that was cut off: what is right at the target, by its content, stays.",
)
@click.option(
    "--place",
    default="",
    metavar="NAME",
    help="Have the service restore it instead: below its restore target of that name, or, as 'mount',"
    " to be seen in the mount under restores/.",
)
@click.option(
    "--database",
    default="",
    metavar="NAME",
    help="The files of this database, as its log names them.",
)
@click.option(
    "--from",
    "place_from",
    default="",
    metavar="LOCATION",
    help="Read it from a storage location: its name in the store, or, without --place, its URL, which needs no store.",
)
@opens
@click.option(
    "--scratch", metavar="DIR", help="With --from: where to keep what was fetched meanwhile."
)
@click.option("--json", "json_", is_flag=True)
@click.pass_context
def restore(
    ctx: click.Context, point: str, paths: tuple[str, ...], force: bool, resume: bool, place: str, database: str,
    place_from: str, credentials: str, passphrase_file: str | None, key_file: str | None, both: bool, unsealed: bool,
    scratch: str | None, json_: bool,
) -> None:  # fmt: skip
    """Restore a point, or paths of it, into TARGET: of several each to its own place below it.

    From another machine, TARGET is a new file or directory here, unpacked by tar; one that cannot be
    given back whole is not there at all. With --place there is no TARGET.

    With --from, only what is needed is fetched from the location, and verified; nothing is written there.

    \b
      holdfast restore oracle@latest /u01/restored
      holdfast restore 01jd users01.dbf /u01/oradata
      holdfast restore oracle@latest --database ORCL /u01/restored
      holdfast restore oracle@latest --place mount
      holdfast restore oracle@latest --place mount --database ORCL --from offsite
      holdfast restore oracle@latest /u01/restored --from s3://bucket/db?endpoint=https://s3.example
      holdfast restore oracle@latest /u01/restored --from offsite --resume
    """
    inner, target = _from_and_to(paths, place)
    wish = Wish(point, inner, database, target, force, resume)
    if place_from and not place:
        given = Given(credentials, passphrase_file, key_file, both, unsealed)
        with progress() as report, lent(ctx, place_from, given, scratch, report) as store:
            _here(store, wish, report, json_)
    elif place or is_far(ctx):
        _by_service(ctx, wish, place, place_from, json_)
    else:
        wish = wish.of_files(ctx)
        with open_store(ctx) as store, progress() as report:
            _here(store, wish, report, json_)


def _by_service(ctx: click.Context, wish: Wish, place: str, location: str, json_: bool) -> None:
    """``location``: the name of one of its store's, to read it from."""
    from daemon.cli import restoring

    if place:
        from daemon.contract import RestoreSpec

        paths = list(wish.inner) if len(wish.inner) > 1 else []
        path = "" if paths else "".join(wish.inner)
        spec = RestoreSpec(wish.point, path, place, paths, wish.database, location)
        restoring.placed(ctx, spec, json_)
        return
    if len(wish.inner) > 1 or wish.database:
        raise click.UsageError(
            "from another machine a point or one path of it is restored, or with --place more"
        )
    inner = "".join(wish.inner)
    if wish.force or wish.resume:
        raise click.UsageError(
            "--force and --resume write over files beside the store only, not with --api"
        )
    restoring.fetched(ctx, wish.point, inner, wish.target, json_)


def _from_and_to(paths: tuple[str, ...], place: str) -> tuple[tuple[str, ...], str]:
    """(paths in the point, target) of the arguments."""
    if place:
        return paths, ""
    if not paths:
        raise click.UsageError("restore takes POINT [SUBPATH]... TARGET")
    if not paths[-1]:
        raise InvalidRequest("target ''", expected="a path", found="none")
    return paths[:-1], paths[-1]


def _here(store: Store, wish: Wish, report: Report, json_: bool) -> None:
    """By this process, beside a daemon too: what is damaged does not keep the rest from being restored."""
    result = store.restore(
        wish.point, wish.subpath(store), os.fsencode(wish.target), force=wish.force, resume=wish.resume,
        report=report,
    )  # fmt: skip
    point, target = wish.point, wish.target
    if json_:
        as_json(
            {
                "files": result.files,
                "bytes": result.bytes,
                "kept": result.kept,
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
        there = f", {size(result.kept)} were there" if result.kept else ""
        say(
            f"{counted(result.files, 'file')}, {size(result.bytes)} restored to {shown(target)}{there}"
        )
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


@click.command()
@click.argument("point")
@click.option(
    "--until",
    type=Until(),
    required=True,
    help="A day or a time in UTC (2027-01-31, 2027-01-31T12:00), or how long from now on (30d).",
)
@click.option("--json", "json_", is_flag=True)
@click.pass_context
def lock(ctx: click.Context, point: str, until: tuple[int, float], json_: bool) -> None:
    """Have nobody delete a point before a time: nobody can take that back, or make it shorter.

    Neither by name, nor with its mount, nor by retention, whatever the clock is set to. Locations that have
    the point are told, and where they were added with --object-lock the server keeps what it needs.

    \b
      holdfast lock oracle@latest --until 30d
      holdfast lock 01jdq3 --until 2033-12-31
    """
    with backend(ctx) as asked:
        found = asked.lock(point, until_ns=until[0], for_s=until[1])
    if json_:
        as_json(found)
    else:
        say(f"point {found.point.id} locked until {moment(found.point.locked_ns)}")
    if alone(ctx):
        _tell_locations(ctx)


def _tell_locations(ctx: click.Context) -> None:
    """Where no service does it: locations that answer are told at once, the others with what is sent next."""
    with open_store(ctx) as store:
        for one in store.copies.locations():
            if not one.locking or one.paused:
                continue
            try:
                with progress() as report:
                    store.copies.bring_locks(one.name, report=report)
            except HoldfastError as error:
                click.echo(f"{one.name} will be told of it later: {shown(str(error))}", err=True)


COMMANDS = (points, diff, restore, rm, keep, lock)
