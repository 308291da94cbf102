"""The command ``adopt``: a store made again from a storage location, on a machine that has nothing else."""

from __future__ import annotations

import dataclasses

import click

from daemon.cli.common import beside, path_of
from daemon.cli.output import as_json, counted, progress, say, shown
from daemon.cli.passphrases import passphrase_of, typed
from engine import Store
from engine.errors import InvalidRequest
from engine.keys import Both, Identity, Key, Opener, Passphrase, load


@click.command()
@click.argument("url")
@click.option(
    "--location", "name", default="origin", show_default=True, help="Its name from now on."
)
@click.option(
    "--credentials",
    default="environment",
    show_default=True,
    help="Where the server's are: environment, file:/PATH or credential:NAME.",
)
@click.option(
    "--passphrase-file",
    metavar="FILE",
    help="A file with the passphrase, - for standard input; else it is asked for.",
)
@click.option(
    "--key-file", metavar="FILE", help="A key file, or a recovery key or identity as printed."
)
@click.option(
    "--both", is_flag=True, help="The location wants the passphrase and the key, not one of them."
)
@click.option("--unsealed", is_flag=True, help="The location is a directory that never was sealed.")
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
    secret = None if unsealed else _secret(passphrase_file, key_file, both)
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


def _secret(passphrase_file: str | None, key_file: str | None, both: bool) -> Opener:
    """What opens the location's key ring. Raises InvalidRequest."""
    key = load(key_file) if key_file else None
    if key is not None and not isinstance(key, Key | Identity):
        raise InvalidRequest("key file", expected="a key, or the private key of a recipient",
                             found="a public key", do="give the one beginning with identity:")  # fmt: skip
    if key is not None and not both:
        if passphrase_file:
            raise InvalidRequest(
                "--passphrase-file",
                expected="one of it and --key-file, or --both",
                found="both files",
            )
        return key
    if both and not isinstance(key, Key):
        raise InvalidRequest("--both", expected="a --key-file with a key", found="none")
    words = passphrase_of(passphrase_file) if passphrase_file else typed("Passphrase", twice=False)
    passphrase = Passphrase(words)
    return Both(passphrase, key) if isinstance(key, Key) else passphrase


COMMANDS = (adopt,)
