"""Limits of a mount that change while it is served."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine import Store
from engine.errors import InvalidRequest, NotFound, QuotaExceeded
from engine.live import ROOT, Ctx, LiveTree

ME = Ctx(0, 0, (0,))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    Store.init(str(tmp_path / "store"))
    return Store.open(str(tmp_path / "store"))


def _file(tree: LiveTree, name: bytes, size: int) -> None:
    attr = tree.create(ROOT, name, 0o644, ME)
    tree.write(attr.ino, 0, b"x" * size)


def test_what_is_not_named_stays(store: Store) -> None:
    with store:
        store.create_mount("db", quota=1 << 20, files=10)
        assert store.change_mount("db", files=20)[3::3] == (1 << 20, 20)
        assert store.change_mount("db", quota=0).quota == 0
        found = store.mount("db")
        assert (found.quota, found.files) == (0, 20)


def test_refusals(store: Store) -> None:
    with store:
        store.create_mount("db")
        with pytest.raises(NotFound):
            store.change_mount("other", quota=1)
        for bad in (-1, 2**63):
            with pytest.raises(InvalidRequest):
                store.change_mount("db", quota=bad)
            with pytest.raises(InvalidRequest):
                store.change_mount("db", files=bad)
        assert store.mount("db").quota == 0


def test_a_tree_that_is_served_follows(store: Store) -> None:
    with store:
        store.create_mount("db", quota=1000)
        tree = store.open_live("db")
        try:
            with pytest.raises(QuotaExceeded):
                _file(tree, b"a", 2000)
            store.change_mount("db", quota=1 << 20, files=3)
            tree.tick()
            _file(tree, b"b", 2000)
            with pytest.raises(QuotaExceeded):
                _file(tree, b"c", 10)
            store.change_mount("db", files=0)
            tree.tick()
            _file(tree, b"d", 10)
            # A limit below what is there is no loss: what is there is read, and may go.
            store.change_mount("db", quota=1)
            tree.tick()
            with pytest.raises(QuotaExceeded):
                _file(tree, b"e", 10)
            tree.unlink(ROOT, b"b")
        finally:
            tree.close()


def test_a_tree_claimed_later_has_them(store: Store) -> None:
    with store:
        store.create_mount("db")
        store.change_mount("db", quota=1000)
        tree = store.open_live("db")
        try:
            with pytest.raises(QuotaExceeded):
                _file(tree, b"a", 2000)
        finally:
            tree.close()
