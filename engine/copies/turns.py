"""Turns at a storage location: who changes what is there, or relies on it staying, is alone; in the order of asking."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from engine.chunks import Context
from engine.copies.rows import FOLDER, LocationRow
from engine.errors import Busy, ShuttingDown, from_os

_POLL = 0.02  # s between two looks whether it is one's turn


@contextmanager
def alone(
    context: Context, name: str, row: LocationRow, wait_s: float = 0.0,
    stop: Callable[[], bool] = lambda: False,
) -> Iterator[None]:  # fmt: skip
    """Be the only process that changes what is at a location, or relies on it staying, for as long as the block runs.

    Whoever waits, up to ``wait_s``, comes before those that ask after him: work that is done in parts, again and again,
    keeps nobody out. Raises Busy, and ShuttingDown when it is to ``stop`` while it waits.
    """
    system = context.system
    folder = os.path.join(context.root, FOLDER)
    path = os.path.join(folder, f"{row.id}.lock")
    end = system.monotonic() + wait_s
    try:
        if not system.exists(folder):
            system.mkdir(folder)
        fd = system.open(path, os.O_RDWR | os.O_CREAT)
        try:
            turn = system.open(os.path.join(folder, f"{row.id}.next"), os.O_RDWR | os.O_CREAT)
        except OSError:
            system.close(fd)
            raise
    except OSError as error:
        raise from_os(error, path) from None
    try:
        try:
            for one in (turn, fd):
                while not system.try_lock(one):
                    if stop():
                        raise ShuttingDown(
                            f"location {name!r}", expected="its turn", found="a request to stop"
                        )
                    if system.monotonic() >= end:
                        raise Busy(
                            f"location {name!r}", expected="nobody else at work on it",
                            found="another process of this store", do="wait for it to end",
                        )  # fmt: skip
                    time.sleep(_POLL)
        finally:
            system.close(turn)
        yield
    finally:
        system.close(fd)
