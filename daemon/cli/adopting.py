"""The command ``adopt``: a store made again from a storage location, on a machine that has nothing else."""

from __future__ import annotations

import dataclasses
import os

import click

from daemon.cli.common import beside, path_of
from daemon.cli.opening import Given, opens
from daemon.cli.output import as_json, counted, progress, say, shown
from daemon.service import adopting
from daemon.service.returning import Returned, give_back
from daemon.state import State
from engine import Store, supply
from engine.errors import HoldfastError, InvalidRequest
from engine.keys import Secret
from engine.maintain.refill import AdoptReport


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
    "--seal", is_flag=True,
    help="Encrypt the store that is made, for what HOLDFAST_KEY_FILE and HOLDFAST_PASSPHRASE_FILE name.",
)  # fmt: skip
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
    both: bool, unsealed: bool, take_over: bool, seal: bool, store: str | None, json_: bool,
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
    wanted = _wanted() if seal else []
    with progress() as report:
        found = Store.adopt(
            path,
            url,
            secret,
            credentials=credentials,
            name=name,
            take_over=take_over,
            seal=wanted,
            report=report,
            furnish=_furnish,
        )
    tables = os.path.join(path, adopting.FILE)
    tables = tables if os.path.exists(tables) else ""
    if json_:
        back = _returned(path)
        told = {**dataclasses.asdict(found), "configuration": tables}
        as_json({**told, "returned": dataclasses.asdict(back)})
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
    if tables:
        say(f"configuration of mounts to be read, and put where yours is: {shown(tables)}")
    _tell(_returned(path))


def _wanted() -> list[Secret]:
    """What is to open the store that is made. Raises InvalidRequest."""
    from engine.keys import Identity

    names = [os.environ.get(name, "") for name in (supply.KEY_FILE, supply.PASSPHRASE_FILE)]
    found = supply.named(*names)
    if found is None:
        raise InvalidRequest(
            "--seal", expected=f"{supply.KEY_FILE} or {supply.PASSPHRASE_FILE} to name what opens the new store",
            found="neither",
        )  # fmt: skip
    return [found.recipient if isinstance(found, Identity) else found]


def _furnish(path: str, found: AdoptReport) -> None:
    left_out = adopting.furnish(path, found.settings)
    found.done += left_out
    found.left_out += len(left_out)


def _returned(path: str) -> Returned:
    """What the service kept with points, in its state again. The store is there, whatever becomes of this."""
    try:
        with Store.open(path) as store:
            if not store.copies.with_extras():
                return Returned()
            with State.open(path) as state, progress() as report:
                return give_back(store, state, report=report)
    except HoldfastError as error:
        return Returned(waiting=1, why=str(error))


def _tell(back: Returned) -> None:
    for line in back.lost:
        click.echo(shown(line), err=True)
    if back.points:
        logs = counted(back.attachments, "attachment")
        say(
            f"what was kept with {counted(back.points, 'point')} is back: {logs}, {back.kept} marked to be kept"
        )
    if back.waiting:
        say(f"what was kept with {counted(back.waiting, 'point')} is not back yet, and retention leaves them alone:"
            f" {shown(back.why)}; 'holdfast serve' goes on with it")  # fmt: skip


COMMANDS = (adopt,)
