"""Fixtures: a fresh store in a temporary directory, opened as often as a test likes."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from engine import home as homes
from engine.index import Index
from engine.seam import REAL, Os

Opener = Callable[..., homes.OpenStore]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    homes.init(str(tmp_path / "store"))
    return tmp_path / "store"


@pytest.fixture
def opener(home: Path) -> Iterator[Opener]:
    opened: list[homes.OpenStore] = []

    def open_store(system: Os = REAL) -> homes.OpenStore:
        one = homes.OpenStore(str(home), system=system)
        opened.append(one)
        return one

    yield open_store
    for one in opened:
        if one._lock_fd >= 0:
            one.close()
            one._lock_fd = -1


@pytest.fixture
def opened(home: Path) -> Iterator[homes.OpenStore]:
    with homes.opened(str(home)) as one:
        yield one


@pytest.fixture
def path(tmp_path: Path) -> str:
    (tmp_path / "index").mkdir()
    return str(tmp_path / "index")


@pytest.fixture
def index(path: str) -> Iterator[Index]:
    one = Index(path, create=True)
    yield one
    one.close()
