"""Commands about the daemon's configuration: config check, config example, config show, config reload."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterator

import click

from daemon.cli.common import backend
from daemon.cli.output import as_json, say, shown
from engine.errors import HoldfastError

DEFAULT = "/etc/holdfast/holdfast.toml"


@click.group()
def config() -> None:
    """Look at the daemon's configuration, in its file and as it works by it.

    \b
      holdfast config check
      holdfast config reload
    """


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
        found = load(file)
    except InvalidConfig as error:
        for one in error.problems:
            click.echo(f"holdfast: {shown(str(one))}", err=True)
        ctx.exit(error.kind.exit)
    for name in _deleted(found.store, found.mounts):
        from daemon.service.mounts import stays_deleted

        say(shown(stays_deleted(name)))
    say(f"{shown(file)}: no errors")


def _deleted(store: str, named: Collection[str]) -> list[str]:
    """Mounts that were deleted from the store and are still named, as far as this user may look."""
    from daemon.state import State
    from daemon.state.database import FILE, FOLDER
    from daemon.state.records import DELETED

    if not os.path.exists(os.path.join(store, FOLDER, FILE)):
        return []
    try:
        with State.open(store) as state:
            known = state.marks.names(DELETED)
    except HoldfastError as error:
        say(f"the state of store {shown(store)} was not looked at: {shown(str(error))}")
        return []
    return [name for name in (one.removeprefix(DELETED) for one in known) if name in named]


@config.command()
def example() -> None:
    """Print a configuration with every key, its default and its reason.

    \b
      holdfast config example > /etc/holdfast/holdfast.toml
    """
    from daemon.config import example

    click.echo(example(), nl=False)


@config.command()
@click.option("--json", "json_", is_flag=True)
@click.pass_context
def show(ctx: click.Context, json_: bool) -> None:
    """Tell the configuration the service works by, its defaults included.

    \b
      holdfast config show --json
    """
    with backend(ctx) as asked:
        found = asked.config()
    if json_:
        as_json(found)
        return
    for key, value in _flat(found, ""):
        say(f"{shown(key)} = {shown(value)}")


def _flat(value: object, key: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict) and value:
        for name, inner in value.items():
            yield from _flat(inner, f"{key}.{name}" if key else str(name))
    else:
        yield key, json.dumps(value)


@config.command()
@click.option("--json", "json_", is_flag=True)
@click.pass_context
def reload(ctx: click.Context, json_: bool) -> None:
    """Have the service read its configuration again; what is wrong in it changes nothing.

    \b
      holdfast config reload
    """
    with backend(ctx) as asked:
        changed = asked.reload_config()
    if json_:
        as_json(changed)
        return
    for line in changed:
        say(shown(line))
    if not changed:
        say("nothing changed")


COMMANDS = (config,)
