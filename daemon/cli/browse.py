"""Commands that look into recovery points: ls, cat, tar, manifest, show, attachment, databases."""

from __future__ import annotations

import stat
import sys
from collections.abc import Iterable

import click

from daemon.cli.common import backend
from daemon.cli.output import as_json, counted, every, moment, say, shown, size, table
from daemon.contract import EntryInfo, PointDetail

_KINDS = {
    "file": stat.S_IFREG, "directory": stat.S_IFDIR, "link": stat.S_IFLNK, "fifo": stat.S_IFIFO,
    "socket": stat.S_IFSOCK, "block": stat.S_IFBLK, "char": stat.S_IFCHR,
}  # fmt: skip


@click.command()
@click.argument("point")
@click.argument("path", default="")
@click.option("--json", "json_", is_flag=True)
@click.pass_context
def ls(ctx: click.Context, point: str, path: str, json_: bool) -> None:
    """List a directory of a recovery point.

    \b
      holdfast ls oracle@latest
      holdfast ls 01jdq3 datafiles --json
    """
    with backend(ctx) as asked:
        found = list(every(lambda cursor: asked.entries(point, path, cursor=cursor)))
    if json_:
        as_json(found)
        return
    rows = [
        [_mode(one), str(one.uid), str(one.gid), str(one.size), moment(one.mtime_ns), _named(one)]
        for one in found
    ]
    table(rows, ["MODE", "UID", "GID", "SIZE", "CHANGED", "NAME"])


def _mode(entry: EntryInfo) -> str:
    return stat.filemode(_KINDS.get(entry.type, 0) | stat.S_IMODE(entry.mode))


def _named(entry: EntryInfo) -> str:
    return f"{shown(entry.name)} -> {shown(entry.target)}" if entry.target else shown(entry.name)


@click.command()
@click.argument("point")
@click.argument("path")
@click.option("--offset", type=click.IntRange(0), default=0, help="Begin at this byte.")
@click.option("--length", type=click.IntRange(0), help="So many bytes; all unless given.")
@click.pass_context
def cat(ctx: click.Context, point: str, path: str, offset: int, length: int | None) -> None:
    """Write a file of a recovery point to standard output, verified.

    \b
      holdfast cat oracle@latest pfile.ora
      holdfast cat 01jdq3 disk.raw --offset 1048576 --length 512 | xxd
    """
    with backend(ctx) as asked:
        _, content = asked.file(point, path, offset=offset, length=-1 if length is None else length)
        _out(content)


@click.command()
@click.argument("point")
@click.argument("path", default="")
@click.pass_context
def tar(ctx: click.Context, point: str, path: str) -> None:
    """Write a recovery point, or one path of it, to standard output as a tar stream.

    Extended attributes and access control lists are in it; 'tar --xattrs --acls -x' gives them back.

    \b
      holdfast tar oracle@latest | ssh other 'tar -x --xattrs --acls -C /u01/restored'
    """
    if sys.stdout.isatty():
        raise click.UsageError("a tar stream is not for a terminal: write it to a file or a pipe")
    with backend(ctx) as asked:
        _out(asked.tar(point, path))


def _out(content: Iterable[bytes]) -> None:
    out = sys.stdout.buffer
    for part in content:
        out.write(part)
    out.flush()


@click.command()
@click.argument("point")
@click.option("--json", "json_", is_flag=True)
@click.pass_context
def manifest(ctx: click.Context, point: str, json_: bool) -> None:
    """List every regular file of a recovery point with its size and the BLAKE3 id of its content's root.

    \b
      holdfast manifest 01jdq3 --json
    """
    with backend(ctx) as asked:
        files = every(lambda cursor: asked.manifest(point, cursor=cursor))
        if json_:
            as_json(list(files))
            return
        for one in files:
            say(f"{one.root}  {one.size:>14}  {shown(one.path)}")


@click.command()
@click.argument("point")
@click.option("--json", "json_", is_flag=True)
@click.pass_context
def show(ctx: click.Context, point: str, json_: bool) -> None:
    """Tell all that is known of a recovery point: its session, its logs, what was open for writing.

    \b
      holdfast show oracle@latest
    """
    with backend(ctx) as asked:
        found = asked.point(point)
    if json_:
        as_json(found)
    else:
        _detail(found)


def _detail(found: PointDetail) -> None:
    point = found.point
    rows = [
        ("point", point.id),
        ("mount", shown(point.mount)),
        ("number", str(point.seq)),
        ("time", moment(point.time_ns)),
        ("label", shown(point.label) or "-"),
        ("size", f"{size(point.logical_bytes)} in {counted(point.files, 'file')}"),
        ("session", found.session or "-"),
        ("consistency", found.consistency),
        ("kept", "yes" if found.kept else "no"),
        ("locked", f"until {moment(point.locked_ns)}" if point.locked_ns else "no"),
        *(("copy", f"{name}: {state}") for name, state in sorted(found.copies.items())),
        *(("open", shown(path)) for path in found.open_files),
        *(("attachment", f"{one.id}  {one.kind}  {size(one.size)}  {shown(one.name)}")
          for one in found.attachments),
    ]  # fmt: skip
    for key, value in rows:
        say(f"{key:12} {value}")


@click.command()
@click.argument("number", metavar="ID", type=int)
@click.pass_context
def attachment(ctx: click.Context, number: int) -> None:
    """Write a log that is kept with a session or a point to standard output.

    On a terminal, control characters are shown, not obeyed. 'holdfast show POINT' lists the ids.

    \b
      holdfast attachment 12
    """
    with backend(ctx) as asked:
        _, content = asked.attachment(number)
        if not sys.stdout.isatty():
            _out(content)
            return
        for line in b"".join(content).splitlines():
            say(shown(line.replace(b"\t", b"    ")))


@click.command()
@click.argument("point")
@click.argument("database", default="")
@click.option("--json", "json_", is_flag=True)
@click.pass_context
def databases(ctx: click.Context, point: str, database: str, json_: bool) -> None:
    """List the databases that the logs of a recovery point speak of; with DATABASE, its files in the point.

    Understood are logs of RMAN and PostgreSQL's backup_manifest, sent with 'holdfast log'.

    \b
      holdfast databases oracle@latest
      holdfast databases oracle@latest ORCL
    """
    with backend(ctx) as asked:
        if database:
            files = asked.files_of(point, database)
            if json_:
                as_json(files)
            for path in [] if json_ else files:
                say(shown(path))
            return
        found = asked.databases(point)
    if json_:
        as_json(found)
    else:
        table([[shown(name), str(count)] for name, count in found.items()], ["DATABASE", "FILES"])


COMMANDS = (ls, cat, tar, manifest, show, attachment, databases)
