"""The command ``adopt``: a store made again from a storage location, on a machine that has nothing else."""

from __future__ import annotations

import dataclasses

import click

from daemon.cli.common import beside, path_of
from daemon.cli.opening import Given, opens
from daemon.cli.output import as_json, counted, progress, say, shown
from engine import Store


@click.command()
@click.argument("url")
@click.option(
    "--location", "name", default="origin", show_default=True, help="Its name from now on."
)
@opens
@click.option(
    "--take-over", is_flag=True, help="Write there from now on; whoever did before is refused."
)
@click.option(
    "--store",
    "store",
    metavar="DIR",
    help="Where to make the store, as --store before the command.",
)
@click.option("--json", "json_", is_flag=True)
@click.pass_context
def adopt(
    ctx: click.Context, url: str, name: str, credentials: str, passphrase_file: str | None, key_file: str | None,
    both: bool, unsealed: bool, take_over: bool, store: str | None, json_: bool,
) -> None:  # fmt: skip
    """Make a store again from a storage location alone: its points, mounts and their settings.

    Content is fetched when it is read. Without --take-over nothing is written there, and no new point is sent: see
    first that the points are what you expect, and that the old machine is gone.

    \b
      holdfast adopt s3://bucket/db?endpoint=https://s3.example --store /srv/holdfast
      holdfast adopt file:///mnt/disk/holdfast --key-file recovery.key --take-over
    """
    beside(ctx)
    path = store or path_of(ctx)
    secret = Given(credentials, passphrase_file, key_file, both, unsealed).secret()
    with progress() as report:
        found = Store.adopt(
            path,
            url,
            secret,
            credentials=credentials,
            name=name,
            take_over=take_over,
            report=report,
        )
    if json_:
        as_json(dataclasses.asdict(found))
        return
    for line in found.done:
        say(shown(line))
    say(
        f"store made at {shown(path)} from {shown(found.location)} (fingerprint {found.fingerprint})"
    )
    say(f"{counted(found.points, 'point')}, {counted(found.mounts, 'mount')}, "
        f"{counted(found.chunks, 'chunk')} in {counted(found.packs, 'pack')}")  # fmt: skip
    if found.left_out:
        say(
            f"{counted(found.left_out, 'thing')} could not be had, see above: run 'holdfast check --read-data'"
        )
    if not take_over:
        say("not taken over: no point is sent there")


COMMANDS = (adopt,)
