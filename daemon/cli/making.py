"""The command ``init``: an empty store, sealed or not."""

from __future__ import annotations

import click

from daemon.cli.common import beside, path_of
from daemon.cli.keys import secrets_options
from daemon.cli.output import say, shown
from daemon.cli.passphrases import typed, write_new
from daemon.contract import SecretSpec
from engine import Store


@click.command()
@click.argument("path", required=False)
@click.option(
    "--seal", is_flag=True, help="Encrypt what it holds; who may open it is said by the options below, or asked for."
)  # fmt: skip
@secrets_options
@click.option("--new-key", metavar="FILE", help="Make a key that opens it, and write it to this new file.")  # fmt: skip
@click.pass_context
def init(
    ctx: click.Context, path: str | None, seal: bool, secrets: list[SecretSpec], new_key: str | None
) -> None:
    """Create an empty store.

    With --seal nobody reads a byte of content without one of its secrets; names, sizes and times stay readable, as
    engine/FORMAT.md says. Whether a store is sealed is settled here. With no secret left it cannot be read: keep two.

    \b
      holdfast --store /srv/holdfast init
      holdfast --store /srv/holdfast init --seal --new-key /etc/holdfast/store.key --recipient recipient:ABCDE-…
      HOLDFAST_KEY_FILE=/etc/holdfast/store.key holdfast --store /srv/holdfast points
    """
    beside(ctx)
    where = path or path_of(ctx)
    if not seal:
        if secrets or new_key:
            raise click.UsageError("secrets are of a sealed store: give --seal")
        Store.init(where)
        say(f"store created at {shown(where)}")
        return
    from daemon.service.keyrings import secret_of
    from engine.keys import Key

    if not secrets and not new_key:
        secrets = [SecretSpec(typed("Passphrase of the new store", twice=True))]
    wanted = [secret_of(one) for one in secrets]
    if new_key:
        made = Key.new()
        write_new(new_key, made.printed(), "key file")
        wanted.append(made)
    Store.init(where, seal=wanted)
    say(f"sealed store created at {shown(where)}")
    if new_key:
        click.echo(f"key in {shown(new_key)}: keep a copy of it elsewhere", err=True)


COMMANDS = (init,)
