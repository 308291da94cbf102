"""What opens a storage location on the command line, and a store borrowed from one for a command."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import TYPE_CHECKING, Any, TypeVar

import click

from daemon.cli.common import open_store
from daemon.cli.output import shown
from daemon.cli.passphrases import passphrase_of, typed
from engine import Report, Store
from engine.errors import InvalidRequest

if TYPE_CHECKING:
    from engine.keys import Opener

Command = TypeVar("Command", bound=Callable[..., Any])

_OPTIONS = (
    click.option(
        "--credentials",
        default="environment",
        show_default=True,
        help="Where the server's are: environment, file:/PATH or credential:NAME.",
    ),
    click.option(
        "--passphrase-file",
        metavar="FILE",
        help="A file with the passphrase, - for standard input; else it is asked for.",
    ),
    click.option(
        "--key-file", metavar="FILE", help="A key file, or a recovery key or identity as printed."
    ),
    click.option(
        "--both",
        is_flag=True,
        help="The location wants the passphrase and the key, not one of them.",
    ),
    click.option(
        "--unsealed", is_flag=True, help="The location is a directory that never was sealed."
    ),
)


def opens(command: Command) -> Command:
    """The options that say what opens a location given by its URL."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


@dataclass(frozen=True)
class Given:
    """What those options say."""

    credentials: str = "environment"
    passphrase_file: str | None = None
    key_file: str | None = None
    both: bool = False
    unsealed: bool = False

    def secret(self) -> Opener | None:
        """What opens the location's key ring, None for one without. Raises InvalidRequest."""
        return None if self.unsealed else _secret(self)


def _secret(given: Given) -> Opener:
    from engine.keys import Both, Identity, Key, Passphrase, load  # not for every command

    key = load(given.key_file) if given.key_file else None
    if key is not None and not isinstance(key, Key | Identity):
        raise InvalidRequest("key file", expected="a key, or the private key of a recipient",
                             found="a public key", do="give the one beginning with identity:")  # fmt: skip
    if key is not None and not given.both:
        if given.passphrase_file:
            raise InvalidRequest(
                "--passphrase-file",
                expected="one of it and --key-file, or --both",
                found="both files",
            )
        return key
    if given.both and not isinstance(key, Key):
        raise InvalidRequest("--both", expected="a --key-file with a key", found="none")
    file = given.passphrase_file
    passphrase = Passphrase(passphrase_of(file) if file else typed("Passphrase", twice=False))
    return Both(passphrase, key) if isinstance(key, Key) else passphrase


def is_url(place: str) -> bool:
    """Whether a location is given by its URL, not by its name in a store."""
    return "://" in place


@contextmanager
def lent(
    ctx: click.Context, place: str, given: Given, scratch: str | None, report: Report
) -> Iterator[Store]:  # fmt: skip
    """A store borrowed from a location: of a URL, or of that name in the store. What is left out is told.

    Whoever ends the command with a signal has its scratch directory removed as well.
    """
    with _ended_gently():
        if is_url(place):
            secret = given.secret()
            lending = Store.borrow(
                place, secret, credentials=given.credentials, scratch=scratch, report=report
            )
            with lending as store:
                yield _told(store)
        else:
            if given != Given():
                raise click.UsageError(
                    "a location of the store is opened with this machine's key: give a URL to open it otherwise"
                )
            with (
                open_store(ctx) as own,
                own.copies.borrow(place, scratch=scratch, report=report) as store,
            ):
                yield _told(store)


def _told(store: Store) -> Store:
    found = store.borrowed
    if found is not None:
        for line in found.done:
            click.echo(shown(line), err=True)
        click.echo(
            f"from {shown(found.location)} (fingerprint {found.fingerprint}): {found.points} points",
            err=True,
        )
    return store


@contextmanager
def _ended_gently() -> Iterator[None]:
    def end(number: int, frame: FrameType | None) -> None:
        sys.exit(128 + number)

    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
