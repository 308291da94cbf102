"""The command ``holdfast``: its group, its options, and the one boundary where errors become exit codes."""

from __future__ import annotations

import logging
import os
import sys
import traceback

import click
from click.shell_completion import get_completion_class

from daemon.cli import configs, fatal, mounts, points, stores
from daemon.cli.output import shown
from engine import HoldfastError
from engine.seam import keep_memory

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
"""


@click.group(
    help=HELP, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(package_name="holdfast", prog_name="holdfast")
@click.option(
    "--store",
    metavar="DIR",
    envvar="HOLDFAST_STORE",
    help="The store's directory (or HOLDFAST_STORE).",
)
@click.pass_context
def cli(ctx: click.Context, store: str | None) -> None:
    ctx.obj = store


for command in (*stores.COMMANDS, *mounts.COMMANDS, *points.COMMANDS, *configs.COMMANDS):
    cli.add_command(command)


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
