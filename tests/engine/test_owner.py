"""A store belongs to one user: what root does on it leaves nothing that this user cannot go on with."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from engine import Store
from engine.errors import PermissionDenied
from engine.keys import Key
from engine.seam import REAL, hand_over
from tests.maintain.support import noise, put

SERVICE = 4711

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")


def owners(home: Path) -> dict[str, int]:
    return {str(path): path.lstat().st_uid for path in [home, *home.rglob("*")]}


def test_everything_root_makes_in_a_store_is_the_owners(tmp_path: Path) -> None:
    home = tmp_path / "store"
    home.mkdir()
    os.chown(home, SERVICE, SERVICE)
    Store.init(str(home))
    with Store.open(str(home)) as store:
        store.create_mount("m")
        tree = store.open_live("m")
        put(tree, b"f", noise(200_000, 1))
        tree.close()
        store.snapshot("m")
        store.incidents.note("corrupt", "x", "for a file of its own")
        store.collect()
    Store.rebuild_index(str(home))
    Store.open(str(home)).close()

    assert set(owners(home).values()) == {SERVICE}


def test_root_sends_the_points_of_another_users_store(tmp_path: Path) -> None:
    """The key to the location is the owner's, as everything there; nobody else's is taken."""
    home, there = tmp_path / "store", tmp_path / "there"
    home.mkdir()
    there.mkdir()
    os.chown(home, SERVICE, SERVICE)
    Store.init(str(home))
    with Store.open(str(home)) as store:
        store.create_mount("m")
        store.snapshot("m")
        store.copies.add("far", f"file://{there}", secrets=[Key.new()])
        assert len(store.copies.send("far")) == 1
        assert set(owners(home).values()) == {SERVICE}
        os.chown(home / "locations" / "far.key", SERVICE + 1, SERVICE)
        with pytest.raises(PermissionDenied, match="only its owner"):
            store.copies.send("far")


def test_what_has_another_name_is_not_given_away(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_bytes(b"of root")
    home = tmp_path / "home"
    home.mkdir()
    os.chown(home, SERVICE, SERVICE)
    os.link(other, home / "hard")
    os.symlink(other, home / "soft")

    os.close(REAL.open(str(home / "hard"), os.O_RDWR | os.O_CREAT))
    with pytest.raises(OSError, match="symbolic"):
        REAL.open(str(home / "soft"), os.O_RDWR | os.O_CREAT)

    assert other.stat().st_uid == 0


def test_what_is_somebody_elses_stays_so(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    os.chown(home, SERVICE, SERVICE)
    (home / "file").write_bytes(b"")
    os.chown(home / "file", 12, 12)
    fd = os.open(home / "file", os.O_RDONLY)
    hand_over(fd, str(home))
    os.close(fd)

    assert (home / "file").stat().st_uid == 12
