"""Commands about NFS: export, unexport, exports."""

from __future__ import annotations

import click

from daemon.cli.common import backend
from daemon.cli.output import as_json, say, shown, table
from daemon.contract import ExportInfo
from engine.errors import HoldfastError


@click.command()
@click.argument("name")
@click.option(
    "--client", "clients", metavar="CIDR", multiple=True, required=True,
    help="An address or a network, as 192.0.2.0/24; may be given several times.",
)  # fmt: skip
@click.option("--ro", "read_only", is_flag=True, help="Let them read only.")
@click.option(
    "--squash",
    default="root",
    show_default=True,
    type=click.Choice(["root", "all", "none"]),
    help="Whose requests act as nobody: root's, everyone's, or no one's.",
)
@click.option("--json", "json_", is_flag=True)
@click.pass_context
def export(
    ctx: click.Context,
    name: str,
    clients: tuple[str, ...],
    read_only: bool,
    squash: str,
    json_: bool,
) -> None:
    """Serve a mount over NFS, or to these clients otherwise than before.

    The export stays until it is ended, over restarts. Clients mount the mount's path of this host (holdfast mounts).

    \b
      holdfast export oracle --client 192.0.2.0/24 --squash none
      mount -t nfs -o vers=4.1 store.example:/mnt/holdfast/oracle /mnt   # on a client
    """
    assert squash in ("root", "all", "none")
    with backend(ctx) as asked:
        made = [
            asked.export(ExportInfo(name, client, read_only, squash))  # type: ignore[arg-type]
            for client in clients
        ]
    if json_:
        as_json(made)
    for one in made:
        if one.state.startswith("failed"):
            raise HoldfastError(
                f"export of {name} to {one.client}", expected="that it is served", found=one.state
            )
        if not json_:
            say(f"{shown(name)} is exported to {shown(one.client)}: {shown(one.state)}")


@click.command()
@click.argument("name")
@click.option("--client", metavar="CIDR", required=True, help="As in the list of exports.")
@click.pass_context
def unexport(ctx: click.Context, name: str, client: str) -> None:
    """Serve a mount to these clients no longer.

    \b
      holdfast unexport oracle --client 192.0.2.0/24
    """
    with backend(ctx) as asked:
        asked.unexport(name, client)
    say(f"{shown(name)} is no longer exported to {shown(client)}")


@click.command()
@click.argument("name", required=False, default="")
@click.option("--json", "json_", is_flag=True)
@click.pass_context
def exports(ctx: click.Context, name: str, json_: bool) -> None:
    """List what is served over NFS, to whom, and whether it works.

    \b
      holdfast exports oracle
    """
    with backend(ctx) as asked:
        found = asked.exports(name)
    if json_:
        as_json(found)
        return
    rows = [
        [shown(one.mount), shown(one.client), "read" if one.read_only else "write", one.squash, shown(one.state)]
        for one in found
    ]  # fmt: skip
    table(rows, ["MOUNT", "CLIENT", "MAY", "SQUASH", "STATE"])


COMMANDS = (export, unexport, exports)
