"""Daemons as processes, for tests of the whole."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.daemon.supervise.daemons import Daemon


@contextmanager
def _daemons() -> Iterator[Callable[..., Daemon]]:
    place = Path(tempfile.mkdtemp(prefix="hfd-", dir="/tmp"))
    made: list[Daemon] = []

    def one(tables: str = "[mounts.a]\n[mounts.b]\n", **options: object) -> Daemon:
        made.append(Daemon(place, tables, **options))  # type: ignore[arg-type]
        return made[-1]

    yield one
    for each in made:
        each.end()
    shutil.rmtree(place, ignore_errors=True)


@pytest.fixture
def make() -> Iterator[Callable[..., Daemon]]:
    """Makes a daemon that is not started; one for each test. Its paths are short: sockets are in it."""
    with _daemons() as one:
        yield one


@pytest.fixture(scope="module")
def make_once() -> Iterator[Callable[..., Daemon]]:
    """As ``make``, one for all tests of a module."""
    with _daemons() as one:
        yield one
