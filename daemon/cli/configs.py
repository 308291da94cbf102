"""Commands about the daemon's configuration: config check, config example."""

from __future__ import annotations

import click

from daemon.cli.output import say, shown

DEFAULT = "/etc/holdfast/holdfast.toml"


@click.group()
def config() -> None:
    """Look at the daemon's configuration file."""


@config.command()
@click.argument("file", default=DEFAULT)
@click.pass_context
def check(ctx: click.Context, file: str) -> None:
    """Name every error in FILE, /etc/holdfast/holdfast.toml unless given; exit 2 when there is one.

    \b
      holdfast config check
      holdfast config check ./holdfast.toml
    """
    # Only here: the library that reads it takes longer to import than most commands run.
    from daemon.config import InvalidConfig, load

    try:
        load(file)
    except InvalidConfig as error:
        for one in error.problems:
            click.echo(f"holdfast: {shown(str(one))}", err=True)
        ctx.exit(error.kind.exit)
    say(f"{shown(file)}: no errors")


@config.command()
def example() -> None:
    """Print a configuration with every key, its default and its reason.

    \b
      holdfast config example > /etc/holdfast/holdfast.toml
    """
    from daemon.config import example

    click.echo(example(), nl=False)


COMMANDS = (config,)
