"""Fixtures of the tests of restoring: a store with one mount, its live tree, a place to restore to."""

import stat
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


@pytest.fixture
def point(engine: Store, make: Maker) -> str:
    """A tree with one thing of each kind that can be in another's place."""
    make.folder(b"d", 0o750)
    make.file(b"d/inside", b"new inside")
    make.file(b"file", b"new content", 0o640)
    make.symlink(b"link", b"new target")
    make.special(b"fifo", stat.S_IFIFO | 0o600)
    make.file(b"first", b"linked")
    make.link(b"first", b"second")
    return make.point(engine)
