"""How a secret comes in and goes out: a passphrase from a file, standard input or a terminal, never from an argument;
keys in files of their own. A passphrase is read in one way wherever one is given, or what is sealed with it stays shut.
"""

from __future__ import annotations

import os
import sys

import click

from engine import supply
from engine.errors import AlreadyExists, InvalidRequest, from_os


def passphrase_of(path: str) -> str:
    """The one line of a file that nobody else can read, "-" for standard input; ends of lines after it do not count.

    Raises NotFound, PermissionDenied, InvalidRequest.
    """
    if path == "-":
        raw = sys.stdin.buffer.read(supply.PASSPHRASE_MAX + 1)
        return supply.passphrase_line(raw, "passphrase on standard input")
    return supply.passphrase_in(path, f"passphrase file {path}")


def typed(what: str, *, twice: bool) -> str:
    """A passphrase from the terminal. Raises InvalidRequest where nobody can be asked."""
    if not sys.stdin.isatty():
        raise InvalidRequest(
            what, expected="--passphrase-file, --key-file, or a terminal to ask at", found="none",
        )  # fmt: skip
    found: str = click.prompt(what, hide_input=True, confirmation_prompt=twice, err=True)
    return found


def public_of(path: str) -> str:
    """The key in a file as printed; of a private half only the public one is told."""
    from engine.keys import Identity, load

    found = load(path)
    return found.recipient.printed() if isinstance(found, Identity) else found.printed()


def write_new(path: str, text: str, what: str) -> None:
    """A line in a new file that nobody else can read, synced. Raises AlreadyExists, and what the disk raises."""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(fd, "w", encoding="ascii") as file:
            file.write(text + "\n")
            file.flush()
            os.fsync(file.fileno())
    except FileExistsError:
        raise AlreadyExists(
            f"{what} {path}", expected="a new file", found="one that is there"
        ) from None
    except OSError as error:
        raise from_os(error, f"{what} {path}") from None
