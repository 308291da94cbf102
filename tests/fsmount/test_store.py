"""Mounts of a real store: through the engine and back, recovery points, death of a worker."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import fsmount
from engine import Store
from engine.errors import Busy, NotFound
from tests.fsmount.conftest import ROOT, stale

pytestmark = pytest.mark.needs_fuse


@pytest.fixture
def store(tmp_path: Path) -> Path:
    path = tmp_path / "store"
    Store.init(str(path))
    with Store.open(str(path)) as opened:
        opened.create_mount("data")
    return path


@pytest.fixture
def where(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "m"
    path.mkdir()
    yield path
    while os.path.ismount(path) or stale(path):
        subprocess.run(["fusermount3", "-uz", path], check=True)


def mount(store: Path, where: Path, point: str | None = None) -> int:
    return fsmount.start_background(str(store), "data", point, str(where))


def tree_of(path: Path) -> dict[str, tuple[object, ...]]:
    """Everything that can be seen of a tree but inode numbers."""
    found: dict[str, tuple[object, ...]] = {}
    for folder, folders, files in os.walk(path):
        for name in [*folders, *files]:
            one = Path(folder) / name
            status = one.lstat()
            content: object = b""
            if one.is_symlink():
                content = os.readlink(one)
            elif one.is_file():
                content = one.read_bytes()
            found[str(one.relative_to(path))] = (
                status.st_mode, status.st_uid, status.st_gid, status.st_mtime_ns, status.st_nlink,
                tuple(os.listxattr(one, follow_symlinks=False)), content,
            )  # fmt: skip
    return found


def test_programs_put_trees_in_and_get_them_back(store: Path, where: Path, tmp_path: Path) -> None:
    """cp, tar, and cp --sparse with what the channel lacks: their fall-backs must work."""
    mount(store, where)
    source = tmp_path / "source"
    source.mkdir()
    for number, name in enumerate(["a", "b/c", "b/d e"]):
        one = source / name
        one.parent.mkdir(exist_ok=True)
        one.write_bytes(os.urandom(1000) * (number * 300 + 1))
        os.utime(one, ns=(number, 1_600_000_000_123_456_789 + number))
    os.setxattr(source / "a", "user.k", b"v")
    os.link(source / "a", source / "hard")
    os.symlink("b/c", source / "soft")
    with (source / "sparse").open("wb") as file:
        file.truncate(50_000_000)
        file.seek(20_000_000)
        file.write(b"island")
    expected = tree_of(source)
    for command in (
        ["cp", "-a", f"{source}/.", where / "cp"],
        ["cp", "-a", "--reflink=auto", "--sparse=always", f"{source}/.", where / "sparse"],
        ["sh", "-c", 'mkdir "$2" && tar -C "$1" -cS --xattrs . | tar -C "$2" -x --xattrs', "sh",
         source, where / "tar"],
    ):  # fmt: skip
        subprocess.run(command, check=True)
    fsmount.unmount(str(where))
    mount(store, where)
    for name in ("cp", "sparse", "tar"):
        assert tree_of(where / name) == expected, name
        assert (where / name / "sparse").stat().st_blocks < 1000, name
    fsmount.unmount(str(where))


def test_a_point_has_what_returned_and_stays(store: Path, where: Path) -> None:
    mount(store, where)
    with pytest.raises(Busy):
        mount(store, where)
    (where / "d").mkdir()
    file = (where / "d" / "f").open("wb", buffering=0)
    data = os.urandom(5_000_000)
    file.write(data)
    with Store.open(str(store)) as opened, fsmount.client(str(store), "data") as client:
        client.request("freeze")
        point = opened.snapshot("data", thaw=lambda: client.request("thaw"))
    file.write(b"after")
    file.close()
    (where / "d" / "g").touch()
    old = where / ".snapshots" / point.id / "d"
    assert os.listdir(old) == ["f"] and (old / "f").read_bytes() == data
    assert (where / "d" / "f").read_bytes() == data + b"after"
    fsmount.unmount(str(where))
    mount(store, where, point.id)
    assert (where / "d" / "f").read_bytes() == data
    with pytest.raises(OSError):
        (where / "new").touch()
    fsmount.unmount(str(where))


def test_what_was_synced_survives_a_killed_worker(store: Path, where: Path) -> None:
    pid = mount(store, where)
    with (where / "f").open("wb") as file:
        file.write(b"kept" * 100_000)
        file.flush()
        os.fsync(file.fileno())
        inode = os.fstat(file.fileno()).st_ino
    os.kill(pid, signal.SIGKILL)
    while not stale(where):
        os.sched_yield()
    mount(store, where)
    assert (where / "f").read_bytes() == b"kept" * 100_000
    assert (where / "f").stat().st_ino == inode
    fsmount.unmount(str(where))


@pytest.mark.parametrize("again", ["mount", "umount"])
def test_a_mount_whose_worker_was_killed_is_taken_away_though_the_kernel_remembers_its_root(
    store: Path, where: Path, again: str
) -> None:
    pid = mount(store, where)
    where.stat()  # answered from the kernel's memory for a year from now on
    worker, used = os.pidfd_open(pid), os.open(where, os.O_RDONLY)
    os.kill(pid, signal.SIGKILL)
    select.select([worker], [], [])
    if again == "mount":
        mount(store, where)
    fsmount.unmount(str(where))
    assert not os.path.ismount(where)
    os.close(worker)
    os.close(used)


def test_unmounting(store: Path, where: Path) -> None:
    with pytest.raises(NotFound):
        fsmount.unmount(str(where))
    with pytest.raises(NotFound):
        fsmount.request(str(store), "data", "status")
    mount(store, where)
    with (where / "f").open("wb"):
        with pytest.raises(Busy, match="fuser"):
            fsmount.unmount(str(where))
        assert fsmount.request(str(store), "data", "status")["open_writers"] == 1
    fsmount.unmount(str(where))
    with Store.open(str(store)) as opened:  # nobody serves it any more
        opened.open_live("data").close()


def test_what_cannot_be_mounted_is_said_clearly(store: Path, where: Path) -> None:
    with pytest.raises(NotFound, match="no such directory"):
        fsmount.start_background(str(store / "none"), "data", None, str(where))
    with pytest.raises(NotFound, match="mount 'other'"):
        fsmount.start_background(str(store), "other", None, str(where))
    with pytest.raises(NotFound, match="point"):
        mount(store, where, "0" * 26)
    assert not os.path.ismount(where)


def test_a_foreground_worker(store: Path, where: Path) -> None:
    code = "import sys, fsmount; sys.exit(fsmount.serve(*sys.argv[1:3], None, sys.argv[3], ready=print))"
    worker = subprocess.Popen(
        [sys.executable, "-c", code, store, "data", where],
        cwd=ROOT, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert worker.stdout is not None and worker.stdout.readline() == b"\n"
    (where / "f").write_bytes(b"x")
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(30) == 0 and not os.path.ismount(where)
    worker.stdout.close()


def test_a_worker_counts_what_it_found_in_the_store_and_what_became_deltas(
    store: Path, where: Path
) -> None:
    mount(store, where)
    content = bytearray(os.urandom(1 << 20))

    def counted(name: str) -> dict[str, int]:
        with (where / name).open("wb") as file:
            file.write(content)
            os.fsync(file.fileno())
        status = fsmount.request(str(store), "data", "status")
        return {key: status[key] for key in ("dedupe_hits", "delta_hits", "appended_bytes")}

    first = counted("a")
    again = counted("b")
    assert again["dedupe_hits"] > first["dedupe_hits"]  # of chunks cut by content
    assert again["delta_hits"] == 0
    fsmount.request(str(store), "data", "barrier")
    with Store.open(str(store)) as opened, fsmount.client(str(store), "data") as client:
        client.request("freeze")
        opened.snapshot("data", thaw=lambda: client.request("thaw"))
    content[500_000:500_100] = bytes(100)
    changed = counted("a")
    assert changed["delta_hits"] >= 1
    assert changed["appended_bytes"] > first["appended_bytes"] > len(content) * 0.9
    fsmount.unmount(str(where))
