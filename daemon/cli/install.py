"""The command install-files: units, manual pages, completion and the example configuration, where a system looks."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from importlib import metadata, resources

import click

from daemon.cli.lazy import LazyGroup
from daemon.cli.output import counted, say, shown
from engine.errors import from_os

PROGRAM = "/usr/local/bin/holdfast"  # as the units in the source have it
PYTHON = "/usr/local/lib/holdfast/bin/python"
_FOLDERS = {
    "service": "lib/systemd/system",
    "socket": "lib/systemd/system",
    "timer": "lib/systemd/system",
    "sysusers": "lib/sysusers.d",
    "tmpfiles": "lib/tmpfiles.d",
}  # by how the name in units/ ends
_COMPLETION = {
    "bash": "share/bash-completion/completions/holdfast",
    "zsh": "share/zsh/site-functions/_holdfast",
    "fish": "share/fish/vendor_completions.d/holdfast.fish",
}


def units(program: str, python: str) -> Iterator[tuple[str, str]]:
    """(path below the prefix, text) of what systemd reads, with this program and this interpreter in it."""
    for file in sorted(
        (resources.files("daemon.cli") / "units").iterdir(), key=lambda one: one.name
    ):
        stem, _, kind = file.name.rpartition(".")
        if kind in _FOLDERS:
            name = file.name if kind in ("service", "socket", "timer") else f"{stem}.conf"
            text = file.read_text(encoding="utf-8")
            yield f"{_FOLDERS[kind]}/{name}", text.replace(PYTHON, python).replace(PROGRAM, program)


def manuals(top: click.Group) -> Iterator[tuple[str, str]]:
    """(path below the prefix, text) of the manual pages."""
    from daemon.cli import manual
    from daemon.config import example

    version = metadata.version("holdfast")
    every = top.every() if isinstance(top, LazyGroup) else dict(top.commands)
    for name, text in manual.pages(top, every, version).items():
        yield f"share/man/man1/{name}", text
    yield "share/man/man5/holdfast.toml.5", manual.configuration(example(), version)


def configuration() -> Iterator[tuple[str, str]]:
    """(path below the prefix, text) of the example, for the user that the units know."""
    from daemon.config import example

    yield (
        "share/holdfast/holdfast.toml",
        example().replace('\nuser = ""\n', '\nuser = "holdfast"\n'),
    )


def completions(top: click.Group) -> Iterator[tuple[str, str]]:
    """(path below the prefix, text) of the scripts that complete commands."""
    from click.shell_completion import get_completion_class

    for shell, path in _COMPLETION.items():
        found = get_completion_class(shell)
        assert found is not None, "click completes all three"
        yield path, found(top, {}, "holdfast", "_HOLDFAST_COMPLETE").source()


@click.command("install-files")
@click.option(
    "--prefix",
    default="/usr/local",
    show_default=True,
    type=click.Path(file_okay=False),
    help="Below which lib/systemd, share/man and their like are.",
)
@click.option(
    "--destdir", default="", help="A directory to write below instead of /, for packages."
)
@click.option(
    "--program",
    default="",
    metavar="PATH",
    help="The command that units start; this one unless given.",
)
@click.option(
    "--python", default="", metavar="PATH", help="Its interpreter; that of this one unless given."
)
@click.pass_context
def install_files(ctx: click.Context, prefix: str, destdir: str, program: str, python: str) -> None:
    """Write units, manual pages, completion and an example configuration for this holdfast.

    'make install' does this too. After an installation with pip, it is what is left to do.

    \b
      holdfast install-files
      holdfast install-files --prefix /usr --destdir ./package
    """
    top = ctx.find_root().command
    assert isinstance(top, click.Group)
    program = program or os.path.abspath(sys.argv[0])
    below = destdir + os.path.abspath(prefix)
    count = 0
    found = [
        *units(program, python or sys.executable),
        *manuals(top),
        *completions(top),
        *configuration(),
    ]
    for path, text in found:
        _write(os.path.join(below, path), text)
        count += 1
    say(f"{counted(count, 'file')} below {shown(below)}")


def _write(path: str, text: str) -> None:
    """One file that all may read, whole or not at all."""
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        part = f"{path}.part"
        with open(part, "w", encoding="utf-8") as file:
            os.fchmod(file.fileno(), 0o644)
            file.write(text)
        os.replace(part, path)
    except OSError as error:
        raise from_os(error, f"file {path}") from None


COMMANDS = (install_files,)
