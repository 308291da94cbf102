"""Whom a command asks: the service at ``--api``, the daemon that serves the store, or this process.

Everything a command does not need stays out: no HTTP client is imported before a service is to be asked.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, NamedTuple

import click

from daemon.cli.output import progress, shown
from engine import Progress, Report, Store
from engine.errors import InvalidRequest, NotFound, PermissionDenied, Unsupported

if TYPE_CHECKING:
    from daemon.contract import Backend
    from engine.keys import Opener

ENDPOINT = os.path.join("daemon", "endpoint")  # in the store: the path of the daemon's socket
STATE = os.path.join("daemon", "state.db")  # in the store: sessions, tokens and their like
CONFIG = "/etc/holdfast/holdfast.toml"  # or HOLDFAST_CONFIG
TOKEN_MAX = 4096  # bytes of a file that holds a token
_LOOK = 5.0  # s: a daemon that does not take a connection in this time is no help


waits = click.option(
    "--wait",
    "durability",
    type=click.Choice(["local", "remote"]),
    default="local",
    help="remote: wait until every storage location has the point, verified.",
)
"""Of commands that make points."""


class Where(NamedTuple):
    """What the command line and the environment name."""

    store: str | None = None
    api: str | None = None
    token_file: str | None = None
    ca: str | None = None
    cert: str | None = None


def _where(ctx: click.Context) -> Where:
    where = ctx.find_root().obj
    return where if isinstance(where, Where) else Where()


def beside(ctx: click.Context) -> None:
    """Raises Unsupported with ``--api``: for commands that work on the store's own machine only."""
    where = _where(ctx)
    if where.api:
        raise Unsupported(
            ctx.command_path, expected="to run beside the store's files (--store DIR)",
            found=f"--api {where.api}", do="run it on the store's own machine",
        )  # fmt: skip


def path_of(ctx: click.Context) -> str:
    """The store's path, from ``--store`` or the environment. Raises InvalidRequest; Unsupported with ``--api``."""
    beside(ctx)
    where = _where(ctx)
    if not where.store:
        raise InvalidRequest(
            "store", expected="--store DIR or HOLDFAST_STORE, or --api URL", found="neither", do="name a store"
        )  # fmt: skip
    return where.store


def place_of(ctx: click.Context) -> str:
    """Where the store is, for a message: its path, or who serves it."""
    where = _where(ctx)
    return where.api or where.store or ""


def open_store(ctx: click.Context) -> Store:
    """The open store; use it as a context manager."""
    return Store.open(path_of(ctx))


def ask_for_key(store_path: str) -> Opener | None:
    """What opens a sealed store when nothing else tells: what its configuration names, or who is at the terminal."""
    from engine import supply

    path = _described(store_path)
    if path:
        from daemon.config import load

        config = load(path)
        found = supply.named(config.store_key, config.store_passphrase)
        if found is not None:
            return found
    if not sys.stdin.isatty():
        return None
    from engine.keys import Passphrase

    text: str = click.prompt(f"Passphrase of store {shown(store_path)}", hide_input=True, err=True)
    return Passphrase(text)


def is_far(ctx: click.Context) -> bool:
    """Whether a service is named to be asked: the store's files are not at hand."""
    return bool(_where(ctx).api)


def alone(ctx: click.Context) -> bool:
    """Whether this process works on the store's files itself: no service is named, and no daemon lets us in."""
    return not _where(ctx).api and not _endpoint(path_of(ctx))


def plain(ctx: click.Context) -> bool:
    """Whether there is nothing but the engine's files: no service, no state of one, no configuration for it."""
    if not alone(ctx):
        return False
    path = path_of(ctx)
    return not os.path.exists(os.path.join(path, STATE)) and not _described(path)


def _described(store_path: str) -> str:
    """The configuration file that speaks of this store; "" when there is none that we may read."""
    path = os.environ.get("HOLDFAST_CONFIG", CONFIG)
    try:
        with open(path, "rb") as file:
            import tomllib

            named = tomllib.load(file).get("store")
    except (OSError, ValueError):
        return ""
    same = isinstance(named, str) and os.path.realpath(named) == os.path.realpath(store_path)
    return path if same else ""


@contextmanager
def backend(ctx: click.Context) -> Iterator[Backend]:
    """Whoever answers: a service, a daemon, or this process."""
    where = _where(ctx)
    if where.api:
        yield from _remote(where)
    elif path := _endpoint(path_of(ctx)):
        yield from _remote(Where(api=f"unix:{path}"))
    else:
        from daemon.cli import recorded

        path = path_of(ctx)
        with ExitStack() as stack:
            yield stack.enter_context(recorded.service(path, _described(path), _late(stack)))


def _late(stack: ExitStack) -> Report:
    """Progress that is drawn from the first word on: most calls have none to tell."""
    drawn: list[Report] = []

    def report(state: Progress) -> None:
        if not drawn:
            drawn.append(stack.enter_context(progress()))
        drawn[0](state)

    return report


def _remote(where: Where) -> Iterator[Backend]:
    from daemon.client import Remote

    token = _token(where.token_file) if where.token_file else ""
    with Remote(where.api or "", token=token, ca=where.ca or "", cert=where.cert or "") as far:
        yield far


def _endpoint(store_path: str) -> str:
    """The socket of the daemon that serves the store and takes our connection; "" when there is none."""
    try:
        with open(os.path.join(store_path, ENDPOINT), encoding="utf-8") as file:
            path = file.read(TOKEN_MAX).strip()
        import socket

        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as probe:
            probe.settimeout(_LOOK)
            probe.connect(path)
    except (OSError, ValueError):
        return ""  # it has ended, or is not for us: the store's own permissions decide what we may
    return path


def _token(path: str) -> str:
    """The token in a file that nobody else may read. Raises NotFound, PermissionDenied, InvalidRequest."""
    try:
        with open(path, "rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            content = file.read(TOKEN_MAX + 1)
    except PermissionError:
        raise PermissionDenied(f"token file {path}", expected="a file we may read") from None
    except OSError as error:
        raise NotFound(f"token file {path}", found=error.strerror or "an error") from None
    if mode & (stat.S_IRWXO | stat.S_IWGRP):
        raise PermissionDenied(
            f"token file {path}", expected="a file that others cannot read",
            found=f"mode {stat.S_IMODE(mode):04o}", do=f"run 'chmod 600 {path}'",
        )  # fmt: skip
    token = content.strip()
    if not token or len(content) > TOKEN_MAX or not token.isascii() or len(token.split()) != 1:
        raise InvalidRequest(f"token file {path}", expected="one token", found="something else")
    return token.decode("ascii")
