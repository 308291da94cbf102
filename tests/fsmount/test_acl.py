"""Access control lists on a real mount: as on the file system below the tests, and the kernel enforces them."""

from __future__ import annotations

import os
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import fsmount
from engine import Store
from tests.fsmount.conftest import stale

pytestmark = [
    pytest.mark.needs_fuse,
    pytest.mark.skipif(os.geteuid() != 0, reason="acting as several users needs root"),
]
ALICE, BOB = 40_001, 40_002


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Path]:
    store = tmp_path / "store"
    Store.init(str(store))
    with Store.open(str(store)) as opened:
        opened.create_mount("data")
    where = tmp_path / "m"
    where.mkdir()
    fsmount.start_background(str(store), "data", None, str(where))
    yield where
    while os.path.ismount(where) or stale(where):
        subprocess.run(["fusermount3", "-uz", where], check=True)


def setfacl(path: Path, *words: str) -> None:
    subprocess.run(["setfacl", *words, path], check=True)


def as_user(uid: int, script: str, path: Path, *, groups: tuple[int, ...] = ()) -> int:
    """Run a script with the path's name as $1, in its directory: others may not come through from above."""
    return subprocess.run(
        ["sh", "-c", script, "sh", path.name], cwd=path.parent, user=uid, group=uid,
        extra_groups=groups, capture_output=True,
    ).returncode  # fmt: skip


def test_the_kernel_enforces_lists(mounted: Path) -> None:
    path = mounted / "f"
    path.write_text("secret")
    path.chmod(0o600)
    assert as_user(ALICE, 'cat "$1"', path)
    setfacl(path, "-m", f"u:{ALICE}:r")
    assert not as_user(ALICE, 'cat "$1"', path)
    assert as_user(ALICE, 'echo x >> "$1"', path)
    assert as_user(BOB, 'cat "$1"', path)
    path.chmod(0o614)  # the group's bits are the mask now: Alice's entry counts for nothing
    assert as_user(ALICE, 'cat "$1"', path)
    assert not as_user(BOB, 'cat "$1"', path)
    setfacl(path, "-m", f"u:{BOB}:-,m::r")
    assert as_user(BOB, 'cat "$1"', path), "an entry that denies"
    setfacl(path, "-b")
    assert os.listxattr(path) == [] and path.stat().st_mode & 0o777 == 0o604


def test_a_shared_directory_stays_shared(mounted: Path) -> None:
    """The everyday use: two users, a default list, nobody thinks of the umask."""
    shared = mounted / "shared"
    shared.mkdir(0o700)
    setfacl(shared, "-m", f"u:{ALICE}:rwx,u:{BOB}:rwx,d:u:{ALICE}:rwx,d:u:{BOB}:rwx")
    assert not as_user(ALICE, 'umask 077; mkdir "$1/a"; echo x > "$1/a/f"', shared)
    assert not as_user(BOB, 'echo y >> "$1/a/f"; cat "$1/a/f"', shared)
    assert as_user(ALICE + 7, 'cat "$1/a/f"', shared)


def test_lists_hold_in_recovery_points_and_after_a_remount(mounted: Path, tmp_path: Path) -> None:
    path = mounted / "f"
    path.write_text("secret")
    path.chmod(0o600)
    setfacl(path, "-m", f"u:{ALICE}:r")
    store = str(tmp_path / "store")
    with Store.open(store) as opened, fsmount.client(store, "data") as client:
        client.request("freeze")
        point = opened.snapshot("data", thaw=lambda: client.request("thaw")).id
    setfacl(path, "-b")
    old = mounted / ".snapshots" / point / "f"
    assert as_user(ALICE, 'cat "$1"', path)
    assert not as_user(ALICE, 'cat "$1"', old)
    assert as_user(BOB, 'cat "$1"', old)
    setfacl(path, "-m", f"u:{BOB}:r")
    fsmount.unmount(str(mounted))
    fsmount.start_background(store, "data", None, str(mounted))
    assert as_user(ALICE, 'cat "$1"', path)
    assert not as_user(BOB, 'cat "$1"', path)


def test_lists_hold_where_root_is_nobody(mounted: Path, tmp_path: Path) -> None:
    path = mounted / "f"
    path.write_text("secret")
    os.chown(path, ALICE, 65534)
    path.chmod(0o640)
    setfacl(
        path, "-m", f"u:{BOB}:r,g::-"
    )  # the mode's group bits are BOB's: the group itself has none
    mounted.chmod(0o755)
    fsmount.unmount(str(mounted))
    options = fsmount.Options(root_squash=True)
    fsmount.start_background(str(tmp_path / "store"), "data", None, str(mounted), options)
    assert not as_user(ALICE, 'cat "$1" && echo more >> "$1"', path)
    assert not as_user(BOB, 'cat "$1"', path)
    assert as_user(BOB, 'echo x >> "$1"', path)
    assert as_user(0, 'cat "$1"', path), "root, who is of the group here, and of nothing else"
    for uid in (0, BOB):
        assert as_user(uid, 'setfacl -m o::r "$1"', path)
    assert not as_user(ALICE, 'setfacl -m o::r "$1"', path)
    assert not as_user(ALICE + 7, 'cat "$1"', path)


def test_set_gid_goes_when_one_outside_the_group_sets_a_list(mounted: Path) -> None:
    for groups, expected in (((), 0o755), ((77,), 0o2755)):
        path = mounted / f"f{len(groups)}"
        path.write_bytes(b"#!")
        os.chown(path, ALICE, 77)
        path.chmod(0o2755)
        assert not as_user(ALICE, 'setfacl -m u:1:rx "$1"', path, groups=groups)
        assert path.stat().st_mode & 0o7777 == expected


def made(root: Path, kind: str, name: str, mode: int, umask: int) -> None:
    old = os.umask(umask)
    try:
        if kind == "mkdir":
            os.mkdir(root / name, mode)
        else:
            os.close(os.open(root / name, os.O_CREAT | os.O_WRONLY, mode))
    finally:
        os.umask(old)


@pytest.mark.parametrize("seed", range(3))
def test_lists_are_as_on_another_file_system(mounted: Path, tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    roots = [tmp_path / "plain", mounted / "tree"]
    for root in roots:
        (root / "d").mkdir(parents=True)
    try:
        setfacl(roots[0], "-m", "u:1:r")
    except subprocess.CalledProcessError:
        pytest.skip("the file system of the temporary directory has no access control lists")
    folders, names = ["d"], ["d"]
    for number in range(60):
        name, parent = rng.choice(names), rng.choice(folders)
        rights = "".join(letter if rng.random() < 0.5 else "-" for letter in "rwx")
        who = rng.choice(["u:7:", "g:8:", "u::", "g::", "o::", "m::"])
        mode, umask = rng.randrange(0o1000), rng.choice((0, 0o22, 0o77))
        kind = rng.choice(("set", "default", "chmod", "mkdir", "file", "clear"))
        if kind in ("mkdir", "file"):
            name = f"{parent}/{number}"
            names.append(name)
            folders += [name] if kind == "mkdir" else []
        for root in roots:
            if kind == "set":
                setfacl(root / name, "-m", who + rights)
            elif kind == "default":
                setfacl(root / parent, "-m", f"d:{who}{rights}")
            elif kind == "chmod":
                (root / name).chmod(mode)
            elif kind == "clear":
                setfacl(root / name, "-b")
            else:
                made(root, kind, name, mode, umask)
        plain, ours = (
            subprocess.run(["getfacl", "-n", name, parent], cwd=root, check=True,
                           capture_output=True, text=True).stdout for root in roots
        )  # fmt: skip
        assert plain == ours, (kind, name)
