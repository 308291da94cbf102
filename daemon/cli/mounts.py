"""Commands about mounts: mount, umount, snapshot, mounts, start, stop, delete."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import click

from daemon.cli.common import backend, beside, open_store, path_of, plain, waits
from daemon.cli.opening import Given, opens
from daemon.cli.output import Ids, Size, as_json, counted, progress, say, shown, size, table
from engine import PointInfo, Store
from engine.errors import NotFound

if TYPE_CHECKING:
    from daemon.contract import Durability


@click.command()
@click.argument("name", metavar="NAME[@POINT]")
@click.argument("path")
@click.option("--background", is_flag=True, help="Return once the mount can be used.")
@click.option("--write-through", is_flag=True, help="Do not let the kernel gather writes.")
@click.option(
    "--root-squash",
    is_flag=True,
    help="Let root's requests act as a user who owns nothing; no other may use its privileges either."
    " Implies --write-through.",
)
@click.option(
    "--squash-to",
    type=Ids(),
    help="Who root acts as, as UID:GID; 65534:65534 unless given.",
)
@click.option(
    "--from",
    "place",
    default="",
    metavar="LOCATION",
    help="A point from a storage location: its name in the store, or its URL, which needs no store.",
)
@opens
@click.option(
    "--cache-size",
    type=Size(),
    help="With --from: how much of the point is kept on disk, as far as there is room.",
)
@click.option("--scratch", metavar="DIR", help="With --from: where that is kept meanwhile.")
@click.pass_context
def mount(
    ctx: click.Context, name: str, path: str, background: bool, write_through: bool, root_squash: bool,
    squash_to: tuple[int, int] | None, place: str, credentials: str, passphrase_file: str | None,
    key_file: str | None, both: bool, unsealed: bool, cache_size: int | None, scratch: str | None,
) -> None:  # fmt: skip
    """Mount a live tree, or read-only one of its recovery points.

    With --from the point is read from a storage location: at once, while the rest of it is fetched.

    \b
      holdfast mount oracle /mnt/oracle --background
      holdfast mount oracle@latest /mnt/restore
      holdfast mount home /srv/home --root-squash
      holdfast mount oracle@latest /mnt/restore --from s3://bucket/db?endpoint=https://s3.example
    """
    if squash_to and not root_squash:
        raise click.UsageError("--squash-to needs --root-squash")
    import fsmount

    options = fsmount.Options(writeback=not write_through, root_squash=root_squash)
    if squash_to:
        options = replace(options, squash_uid=squash_to[0], squash_gid=squash_to[1])
    if place:
        from daemon.cli import lending

        given = Given(credentials, passphrase_file, key_file, both, unsealed)
        lending.mount(ctx, name, path, place, given, options, cache_size, scratch, background)
        return
    store_path = path_of(ctx)
    base, _, reference = name.partition("@")
    with Store.open(store_path) as store:
        store.mount(base)
        point = store.point(name if reference == "latest" else reference).id if reference else None
    if background:
        fsmount.start_background(store_path, base, point, path, options)
        say(f"{shown(name)} mounted at {shown(path)}")
    else:
        fsmount.serve(store_path, base, point, path, options)


@click.command()
@click.argument("path")
@click.pass_context
def umount(ctx: click.Context, path: str) -> None:
    """Unmount, and wait until everything written is durable.

    \b
      holdfast umount /mnt/oracle
    """
    import fsmount

    beside(ctx)
    fsmount.unmount(path)
    say(f"{shown(path)} unmounted")


@click.command()
@click.argument("name")
@click.option("--label", default="", help="A text to find the point by.")
@waits
@click.option(
    "--once", default="", metavar="KEY", help="Asked again with the same key within a day, it is the same point."
)  # fmt: skip
@click.option("--json", "json_", is_flag=True)
@click.pass_context
def snapshot(
    ctx: click.Context, name: str, label: str, durability: Durability, once: str, json_: bool
) -> None:
    """Make a recovery point; its id is the last word printed.

    Works mounted or not; what was written before the call is in it. With --once, a script that got no answer, or an
    error, may ask again.

    \b
      point=$(holdfast snapshot oracle --label nightly | awk '{print $NF}')
    """
    engine_alone = durability == "local" and not once and plain(ctx)
    made = _plainly(ctx, name, label) if engine_alone else None
    if made is None:
        with backend(ctx) as asked:
            made = asked.snapshot(name, label=label, durability=durability, once=once).point
    if json_:
        as_json(made)
    else:
        say(f"point {made.seq} of {made.mount}: {made.id}")


def _plainly(ctx: click.Context, name: str, label: str) -> PointInfo | None:
    """The point, by the engine alone; None where a file is open for writing: that has to be written down."""
    import fsmount

    with open_store(ctx) as store, progress() as report:
        store.mount(name)
        try:
            client = fsmount.client(path_of(ctx), name)
        except NotFound:  # not mounted: the tree stands still
            return store.snapshot(name, label, report=report)
        with client:
            client.request("freeze")
            if fsmount.request(path_of(ctx), name, "writers")["writers"]:
                return None

            def thaw() -> None:
                client.request("thaw")

            return store.snapshot(name, label, thaw=thaw, report=report)


@click.command()
@click.option("--json", "json_", is_flag=True)
@click.pass_context
def mounts(ctx: click.Context, json_: bool) -> None:
    """List mounts: how each is served, points that wait for their copies, how long the last good drill took.

    \b
      holdfast mounts --json
    """
    with backend(ctx) as asked:
        found = asked.mounts()
    if json_:
        as_json(found)
        return
    rows = [
        [shown(one.name), one.state, str(one.points), str(one.pending), size(one.quota) if one.quota else "-",
         one.session or "-", f"{one.recovery_s:.1f} s" if one.drilled_ns else "-", shown(one.path) or "-",
         shown(", ".join(one.exports)) or "-"]
        for one in found
    ]  # fmt: skip
    table(
        rows,
        [
            "MOUNT",
            "STATE",
            "POINTS",
            "PENDING",
            "QUOTA",
            "SESSION",
            "RECOVERY",
            "PATH",
            "EXPORTED TO",
        ],
    )
    for one in found:
        if one.frozen:
            click.echo(f"{shown(one.name)}: retention waits: {shown(one.frozen)}", err=True)


@click.command()
@click.argument("name")
@click.option("--json", "json_", is_flag=True)
@click.pass_context
def start(ctx: click.Context, name: str, json_: bool) -> None:
    """Have the service serve a mount; returns when it can be used.

    \b
      holdfast start oracle
    """
    with backend(ctx) as asked:
        found = asked.start_mount(name)
    if json_:
        as_json(found)
    else:
        say(f"{shown(name)} {found.state} at {shown(found.path)}")


@click.command()
@click.argument("name")
@click.option("--json", "json_", is_flag=True)
@click.pass_context
def stop(ctx: click.Context, name: str, json_: bool) -> None:
    """Have the service unmount a mount; returns when everything written is durable.

    \b
      holdfast stop oracle
    """
    with backend(ctx) as asked:
        found = asked.stop_mount(name)
    if json_:
        as_json(found)
    else:
        say(f"{shown(name)} {found.state}")


@click.command()
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--json", "json_", is_flag=True)
@click.pass_context
def delete(ctx: click.Context, name: str, yes: bool, json_: bool) -> None:
    """Delete a mount with all that is in it, and all of its recovery points.

    \b
      holdfast delete scratch
      holdfast delete scratch --yes
    """
    from daemon.cli.following import follow, result

    with backend(ctx) as asked:
        found = asked.mount(name)
        if not yes:
            count = counted(found.points, "recovery point")
            click.confirm(
                f"Delete mount {shown(name)} with {count}, for ever?", abort=True, err=True
            )
        done = follow(asked, asked.delete_mount(name))
    if json_:
        as_json(done)
    result(done)
    if not json_:
        say(f"mount {shown(name)} deleted; 'holdfast gc' frees its space")


COMMANDS = (mount, umount, snapshot, mounts, start, stop, delete)
