"""Several users on one mount of a real store: what one may not see, another's listing does not open."""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import fsmount
from engine import Store
from engine.errors import InvalidRequest
from tests.fsmount.conftest import stale
from tools.torture.users.agents import Who, act

pytestmark = [
    pytest.mark.needs_fuse,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs other users"),
]
OTHER = Who(65534, 65534)

Mount = Callable[..., Path]


@pytest.fixture
def mount(open_path: Path) -> Iterator[Mount]:
    """Mounts the store's one tree, with options; unmounted at the end."""
    store, where = open_path / "store", open_path / "m"
    Store.init(str(store))
    with Store.open(str(store)) as opened:
        opened.create_mount("data")
    where.mkdir()

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


def test_names_of_trusted_attributes_are_shown_to_root_alone(mount: Mount) -> None:
    where = mount()
    (where / "f").touch()
    os.setxattr(where / "f", "user.all", b"1")
    os.setxattr(where / "f", "trusted.project-x", b"1")
    assert os.listxattr(where / "f") == ["trusted.project-x", "user.all"]
    assert attempt(lambda: os.listxattr(where / "f")) == ["user.all"]
    assert os.listxattr(point_of(where) / "f") == ["trusted.project-x", "user.all"]


@pytest.mark.skipif(
    Path("/proc/sys/fs/protected_regular").read_text().strip() != "0",
    reason="fs.protected_regular: the kernel itself refuses some of this in a sticky directory",
)
def test_a_squashed_root_owns_nothing(mount: Mount) -> None:
    where = mount()
    os.chmod(where, 0o1777)
    (where / "closed").mkdir(0o700)
    (where / "closed" / "f").write_bytes(b"of root")
    (where / "open").write_bytes(b"of root")
    os.chmod(where / "open", 0o644)
    point = point_of(where).name
    fsmount.unmount(str(where))
    mount(root_squash=True, squash_uid=4242, squash_gid=4343)
    (where / "mine").write_bytes(b"1")
    there = (where / "mine").stat()
    assert (there.st_uid, there.st_gid) == (4242, 4343)
    os.chmod(where / "mine", 0o600)
    os.utime(where / "mine", (1, 1))
    assert (where / "mine").read_bytes() == b"1" and (where / "open").read_bytes() == b"of root"
    for refused in (
        lambda: os.listdir(where / "closed"),
        (where / "closed" / "f").read_bytes,
        lambda: os.stat(where / "closed" / "f"),
        (where / ".snapshots" / point / "closed" / "f").read_bytes,
        lambda: (where / "open").open("ab"),
        lambda: os.truncate(where / "open", 0),
        lambda: os.chmod(where / "open", 0o666),
        lambda: os.chown(where / "mine", 0, 0),
        lambda: os.utime(where / "open", (1, 1)),
        lambda: os.utime(where / "open"),
        lambda: os.setxattr(where / "open", "user.k", b"v"),
        lambda: os.setxattr(where / "mine", "trusted.k", b"v"),
        lambda: os.unlink(where / "open"),
        lambda: os.rename(where / "open", where / "taken"),
        lambda: os.rename(where / "mine", where / "open"),
        lambda: os.mknod(where / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3)),
    ):
        with pytest.raises(PermissionError):
            refused()
    os.setxattr(where / "mine", "user.k", b"v")
    os.rename(where / "mine", where / "mine too")
    os.unlink(where / "mine too")


def test_a_squashed_root_in_a_point_mounted_alone(mount: Mount) -> None:
    where = mount()
    for name, mode in (("closed", 0o600), ("open", 0o644)):
        (where / name).write_bytes(b"of root")
        os.chmod(where / name, mode)
    point = point_of(where).name
    fsmount.unmount(str(where))
    options = fsmount.Options(root_squash=True)
    fsmount.start_background(str(where.parent / "store"), "data", point, str(where), options)
    assert (where / "open").read_bytes() == b"of root"
    with pytest.raises(PermissionError):
        (where / "closed").read_bytes()


def test_privileges_of_others_do_not_count_on_a_squashed_mount(mount: Mount) -> None:
    """CAP_DAC_OVERRIDE without uid 0: the kernel lets it pass, so the worker must not."""
    where = mount()
    (where / "f").write_bytes(b"of root")
    os.chmod(where / "f", 0o640)
    os.chown(where / "f", 0, 4343)
    privileged = ["setpriv", "--reuid=1234", "--regid=1234", "--inh-caps=+dac_override",
                  "--ambient-caps=+dac_override", "--bounding-set=+all"]  # fmt: skip

    def read(*groups: str) -> int:
        return subprocess.run(
            [*privileged, *groups, "cat", where / "f"], capture_output=True, check=False
        ).returncode

    assert read("--clear-groups") == 0
    fsmount.unmount(str(where))
    mount(root_squash=True)
    assert read("--clear-groups") != 0
    assert read("--groups=4343") == 0


def test_root_squash_where_it_makes_no_sense(mount: Mount) -> None:
    with pytest.raises(InvalidRequest, match="owner alone"):
        mount(root_squash=True, allow_other=False)
    with pytest.raises(InvalidRequest, match="0:1"):
        mount(root_squash=True, squash_uid=0, squash_gid=1)
