"""Fixtures: a fresh store in a temporary directory, opened as often as a test likes."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from engine import store
from engine.seam import REAL, Os

Opener = Callable[..., store.OpenStore]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    store.init(str(tmp_path / "store"))
    return tmp_path / "store"


@pytest.fixture
def opener(home: Path) -> Iterator[Opener]:
    opened: list[store.OpenStore] = []

    def open_store(system: Os = REAL) -> store.OpenStore:
        one = store.OpenStore(str(home), system=system)
        opened.append(one)
        return one

    yield open_store
    for one in opened:
        if one._lock_fd >= 0:
            one.close()
            one._lock_fd = -1


@pytest.fixture
def opened(home: Path) -> Iterator[store.OpenStore]:
    with store.opened(str(home)) as one:
        yield one
