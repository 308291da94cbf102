"""Fixtures of the tests of maintenance: a store with one mount."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from engine import Store


@pytest.fixture
def home(tmp_path: Path) -> Path:
    Store.init(str(tmp_path / "store"))
    return tmp_path / "store"


@pytest.fixture
def store(home: Path) -> Iterator[Store]:
    with Store.open(str(home)) as one:
        one.create_mount("m")
        yield one
