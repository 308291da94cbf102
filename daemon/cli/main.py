"""The command ``holdfast``: its group, its options, and the one boundary where errors become exit codes."""

from __future__ import annotations

import logging
import os
import sys
import traceback
from collections.abc import Mapping

import click
from click.core import ParameterSource
from click.shell_completion import get_completion_class

from daemon.cli import fatal
from daemon.cli.common import Where, ask_for_key
from daemon.cli.lazy import LazyGroup
from daemon.cli.output import shown
from engine import HoldfastError, supply
from engine.seam import keep_memory

COMMANDLINE = ParameterSource.COMMANDLINE

HELP = """Keep what backup tools write as small, verified recovery points.

\b
  export HOLDFAST_STORE=/srv/holdfast
  holdfast init
  holdfast create db
  holdfast mount db /mnt/db --background
  cp -a /var/lib/db /mnt/db/
  holdfast snapshot db
  holdfast points
  holdfast restore db@latest /tmp/restored

Another machine's store is asked through its service, with the same commands:

\b
  export HOLDFAST_API=https://store.example:9091 HOLDFAST_TOKEN_FILE=~/.holdfast-token
  holdfast points db
"""

_MODULES = {
    "daemon.cli.making": "init",
    "daemon.cli.stores": "create gc check scrub stats repair incidents history",
    "daemon.cli.adopting": "adopt",
    "daemon.cli.mounts": "mount umount snapshot mounts start stop delete",
    "daemon.cli.points": "points diff restore rm keep lock",
    "daemon.cli.browse": "ls cat tar manifest show attachment databases",
    "daemon.cli.sessions": "begin commit abandon renew sessions log",
    "daemon.cli.jobs": "jobs job cancel restores",
    "daemon.cli.copies": "location",
    "daemon.cli.uploads": "uploads upload",
    "daemon.cli.keys": "key",
    "daemon.cli.retention": "retention",
    "daemon.cli.drills": "drill drills",
    "daemon.cli.exports": "export unexport exports",
    "daemon.cli.service": "status token audit",
    "daemon.cli.configs": "config",
    "daemon.cli.serve": "serve",
    "daemon.cli.install": "install-files",
}


class _Commands(LazyGroup):
    modules: Mapping[str, str] = {
        name: module for module, names in _MODULES.items() for name in names.split()
    }


@click.group(
    cls=_Commands,
    help=HELP,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(package_name="holdfast", prog_name="holdfast")
@click.option(
    "--store",
    metavar="DIR",
    envvar="HOLDFAST_STORE",
    help="The store's directory (or HOLDFAST_STORE).",
)
@click.option(
    "--api",
    metavar="URL",
    envvar="HOLDFAST_API",
    help="Ask the service at this address instead, https://HOST:PORT or unix:PATH (or HOLDFAST_API).",
)
@click.option(
    "--token-file",
    metavar="FILE",
    envvar="HOLDFAST_TOKEN_FILE",
    help="A file that holds the token to ask with (or HOLDFAST_TOKEN_FILE).",
)
@click.option(
    "--ca",
    metavar="FILE",
    envvar="HOLDFAST_CA",
    help="Certificates to trust instead of the system's (or HOLDFAST_CA).",
)
@click.option(
    "--cert",
    metavar="FILE",
    envvar="HOLDFAST_CERT",
    help="A certificate to show with its key, where the service asks for one (or HOLDFAST_CERT).",
)
@click.pass_context
def cli(
    ctx: click.Context, store: str | None, api: str | None, token_file: str | None, ca: str | None,
    cert: str | None,
) -> None:  # fmt: skip
    named = {key for key in ("store", "api") if ctx.get_parameter_source(key) is COMMANDLINE}
    if named == {"store"}:
        api = None  # what is named here goes before what the environment names
    ctx.obj = Where(store, api, token_file, ca, cert)


@cli.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print a script that completes holdfast's commands.

    \b
      holdfast completion bash > /etc/bash_completion.d/holdfast
    """
    found = get_completion_class(shell)
    assert found is not None, "click completes all three"
    click.echo(found(cli, {}, "holdfast", "_HOLDFAST_COMPLETE").source())


def main() -> None:
    """Run, and end with an exit code of the error table."""
    logging.basicConfig(format="holdfast: %(message)s", level=logging.WARNING)
    keep_memory()
    fatal.install()
    supply.asking(ask_for_key)
    try:
        code = cli.main(prog_name="holdfast", standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except click.exceptions.Abort:
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except HoldfastError as error:
        click.echo(f"holdfast: {shown(str(error))}", err=True)
        sys.exit(error.kind.exit)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:  # noqa: BLE001  the boundary: no traceback reaches a user
        if os.environ.get("HOLDFAST_DEBUG"):
            traceback.print_exc()
        text = shown(f"{type(error).__name__}: {error}")
        click.echo(
            f"holdfast: this is a bug ({text}); run with HOLDFAST_DEBUG=1 and report it", err=True
        )
        sys.exit(1)
