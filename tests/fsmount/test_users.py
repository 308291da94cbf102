"""Several users on one mount of a real store: what one may not see, another's listing does not open."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import fsmount
from engine import Store
from tests.fsmount.conftest import stale
from tools.torture.users.agents import Who, act

pytestmark = [
    pytest.mark.needs_fuse,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs other users"),
]
OTHER = Who(65534, 65534)

Mount = Callable[..., Path]


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Mount]:
    """Mounts the store's one tree, with options; unmounted at the end."""
    store, where = tmp_path / "store", tmp_path / "m"
    Store.init(str(store))
    with Store.open(str(store)) as opened:
        opened.create_mount("data")
    where.mkdir()
    for folder in (tmp_path, *tmp_path.parents[:2]):
        os.chmod(folder, 0o755)  # the others must get as far as the mount

    def start(**options: object) -> Path:
        fsmount.start_background(str(store), "data", None, str(where), fsmount.Options(**options))  # type: ignore[arg-type]
        return where

    yield start
    while os.path.ismount(where) or stale(where):
        subprocess.run(["fusermount3", "-uz", where], check=True)


def point_of(where: Path) -> Path:
    """A new point, as a directory of the mount."""
    with (
        Store.open(str(where.parent / "store")) as store,
        fsmount.client(str(where.parent / "store"), "data") as client,
    ):
        client.request("freeze")
        return where / ".snapshots" / store.snapshot("data", thaw=lambda: client.request("thaw")).id  # type: ignore[arg-type,return-value]


def attempt(action: Callable[[], object]) -> object:
    """What the action returns as the other user, or the name of its error."""

    def tried() -> object:
        try:
            return action()
        except OSError as error:
            return type(error).__name__

    return act(OTHER, tried)


def test_a_listing_of_points_opens_none(mount: Mount) -> None:
    where = mount()
    (where / "secret").write_bytes(b"of the owner")
    os.chmod(where, 0o700)
    point = point_of(where)
    os.chmod(where, 0o755)
    assert (point / "secret").read_bytes() == b"of the owner"  # the worker has the point open now
    assert attempt(lambda: (os.listdir(point.parent), os.listdir(point))) == "PermissionError"
