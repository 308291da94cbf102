"""Commands about mounts: mount, umount, snapshot."""

from __future__ import annotations

from dataclasses import replace

import click

import fsmount
from daemon.cli.common import open_store, path_of
from daemon.cli.output import Ids, as_json, progress, say, shown
from engine import PointInfo, Store
from engine.errors import NotFound


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
@click.pass_context
def mount(
    ctx: click.Context,
    name: str,
    path: str,
    background: bool,
    write_through: bool,
    root_squash: bool,
    squash_to: tuple[int, int] | None,
) -> None:
    """Mount a live tree, or read-only one of its recovery points.

    \b
      holdfast mount oracle /mnt/oracle --background
      holdfast mount oracle@latest /mnt/restore
      holdfast mount home /srv/home --root-squash
    """
    if squash_to and not root_squash:
        raise click.UsageError("--squash-to needs --root-squash")
    store_path = path_of(ctx)
    base, _, reference = name.partition("@")
    with Store.open(store_path) as store:
        store.mount(base)
        point = store.point(name if reference == "latest" else reference).id if reference else None
    options = fsmount.Options(writeback=not write_through, root_squash=root_squash)
    if squash_to:
        options = replace(options, squash_uid=squash_to[0], squash_gid=squash_to[1])
    if background:
        fsmount.start_background(store_path, base, point, path, options)
        say(f"{shown(name)} mounted at {shown(path)}")
    else:
        fsmount.serve(store_path, base, point, path, options)


@click.command()
@click.argument("path")
def umount(path: str) -> None:
    """Unmount, and wait until everything written is durable.

    \b
      holdfast umount /mnt/oracle
    """
    fsmount.unmount(path)
    say(f"{shown(path)} unmounted")


@click.command()
@click.argument("name")
@click.option("--label", default="", help="A text to find the point by.")
@click.option("--json", "json_", is_flag=True)
@click.pass_context
def snapshot(ctx: click.Context, name: str, label: str, json_: bool) -> None:
    """Make a recovery point; its id is the last word printed.

    Works mounted or not; what was written before the call is in it.

    \b
      point=$(holdfast snapshot oracle --label nightly | awk '{print $NF}')
    """
    with open_store(ctx) as store:
        made = _snapshot(store, path_of(ctx), name, label)
    if json_:
        as_json(made._asdict())
    else:
        say(f"point {made.seq} of {made.mount}: {made.id}")


def _snapshot(store: Store, store_path: str, name: str, label: str) -> PointInfo:
    store.mount(name)
    with progress() as report:
        try:
            client = fsmount.client(store_path, name)
        except NotFound:  # not mounted: the tree stands still
            return store.snapshot(name, label, report=report)
        with client:
            client.request("freeze")

            def thaw() -> None:
                client.request("thaw")

            return store.snapshot(name, label, thaw=thaw, report=report)


COMMANDS = (mount, umount, snapshot)
