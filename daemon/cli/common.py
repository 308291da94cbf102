"""Opening the store a command works on."""

from __future__ import annotations

import click

from engine import Store
from engine.errors import InvalidRequest


def path_of(ctx: click.Context) -> str:
    """The store's path, from ``--store`` or the environment. Raises InvalidRequest."""
    path = ctx.find_root().obj
    if not path:
        raise InvalidRequest(
            "store", expected="--store DIR or HOLDFAST_STORE", found="neither", do="name a store"
        )
    return str(path)


def open_store(ctx: click.Context) -> Store:
    """The open store; use it as a context manager."""
    return Store.open(path_of(ctx))
