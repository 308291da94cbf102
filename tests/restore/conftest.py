"""Fixtures of the tests of restoring: a store with one mount, its live tree, a place to restore to."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from engine import Store
from tests.restore.support import Maker


@pytest.fixture
def home(tmp_path: Path) -> Path:
    Store.init(str(tmp_path / "store"))
    return tmp_path / "store"


@pytest.fixture
def engine(home: Path) -> Iterator[Store]:
    with Store.open(str(home)) as one:
        one.create_mount("m")
        yield one


@pytest.fixture
def make(engine: Store) -> Iterator[Maker]:
    tree = engine.open_live("m")
    yield Maker(tree)
    tree.close()


@pytest.fixture
def out(tmp_path: Path) -> bytes:
    return bytes(tmp_path / "out")
