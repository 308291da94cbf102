"""Stores and mounts of the command line's tests; what is mounted is always unmounted."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.support import new_store, unmounted


@pytest.fixture(scope="session")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty store with the mount ``m``, to copy."""
    return new_store(tmp_path_factory.mktemp("fresh") / "store")


@pytest.fixture
def empty(fresh: Path, tmp_path: Path) -> Path:
    """A store of the test's own, with the empty mount ``m``."""
    return shutil.copytree(fresh, tmp_path / "store")


@pytest.fixture
def live(tmp_path: Path) -> Iterator[Path]:
    """An empty directory to mount at."""
    where = tmp_path / "live"
    where.mkdir()
    yield where
    unmounted(where)
