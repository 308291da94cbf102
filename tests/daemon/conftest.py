"""Daemons as processes, for tests of the whole."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.daemon.supervise.daemons import Daemon, daemons


@pytest.fixture
def make() -> Iterator[Callable[..., Daemon]]:
    """Makes a daemon that is not started; one for each test. Its paths are short: sockets are in it."""
    with daemons() as one:
        yield one
