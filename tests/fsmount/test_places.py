"""Where and how a worker mounts, in the background too; recovery points below the root and alone."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine.errors import Busy, InvalidRequest, NotFound
from fsmount import background, mountpoint
from fsmount.channel import kernel
from tests.fsmount.conftest import ROOT, Host, client_of, until

pytestmark = pytest.mark.needs_fuse


def detach(path: str) -> str:
    return kernel.detach(path, lazy=True)


# --- where to mount --------------------------------------------------------------------------------------


def test_a_second_mount_at_the_same_place_is_refused(host: Host) -> None:
    with pytest.raises(Busy, match="mounted there"):
        mountpoint.prepare(str(host.path), detach)


def test_bad_mount_points(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        mountpoint.prepare(str(tmp_path / "none"), detach)
    (tmp_path / "file").touch()
    with pytest.raises(InvalidRequest, match="directory"):
        mountpoint.prepare(str(tmp_path / "file"), detach)
    with pytest.raises(InvalidRequest, match="empty"):
        mountpoint.prepare(str(tmp_path), detach)
    (tmp_path / "d").mkdir()
    (tmp_path / "link").symlink_to("d")
    assert mountpoint.prepare(str(tmp_path / "link"), detach) == str(tmp_path / "d")


def test_mount_points_with_odd_names(tmp_path: Path) -> None:
    odd = tmp_path / "a b\tc\\d"
    odd.mkdir()
    host = Host(odd)
    try:
        assert host.ready, host.said()
        there = mountpoint.at(str(host.path))
        assert there is not None and there.type == mountpoint.TYPE and there.source == "mem#mem"
        (host.path / "f").touch()
    finally:
        host.end()


# --- in the background -----------------------------------------------------------------------------------


def request(base: Path, **more: Any) -> dict[str, object]:
    return {"where": str(base / "m"), "folder": str(base), "deaf": True, **more}


def test_a_background_mount_can_be_used_at_once(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    pid = background.start(request(tmp_path), str(tmp_path / "log"), module="tests.fsmount.host")
    try:
        (tmp_path / "m" / "f").write_bytes(b"x")
        assert os.getsid(pid) == pid
    finally:
        assert kernel.detach(str(tmp_path / "m"), lazy=False) == ""
    until((tmp_path / "closed").exists, "ended by itself")


def test_a_failing_background_mount_says_why(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="create it first"):
        background.start(request(tmp_path), str(tmp_path / "log"), module="tests.fsmount.host")


def test_a_background_mount_that_dies_is_noticed(tmp_path: Path) -> None:
    with pytest.raises(Exception, match="an end with status 1"):
        background.start({}, str(tmp_path / "log"), module="tests.fsmount.host")
    assert "KeyError" in (tmp_path / "log").read_text()


# --- recovery points ---------------------------------------------------------------------------------------


def fill(path: Path) -> None:
    (path / "d").mkdir()
    (path / "d" / "f").write_bytes(b"as it was" * 1000)
    os.setxattr(path / "d" / "f", "user.k", b"v")
    os.link(path / "d" / "f", path / "d" / "g")
    os.symlink("f", path / "d" / "s")
    (path / "many").mkdir()
    for number in range(1000):
        (path / "many" / str(number)).touch()


def test_recovery_points_below_the_root(host: Host) -> None:
    fill(host.path)
    with client_of(host) as client:
        client.request("barrier")
    host.tell("point", b"p1")
    (host.path / "d" / "f").write_bytes(b"changed")
    assert ".snapshots" not in os.listdir(host.path)
    assert os.listdir(host.path / ".snapshots") == ["p1"]
    old = host.path / ".snapshots" / "p1" / "d"
    assert (old / "f").read_bytes() == b"as it was" * 1000
    assert os.getxattr(old / "f", "user.k") == b"v"
    assert (old / "f").stat().st_ino == (old / "g").stat().st_ino
    assert (old / "s").read_bytes() == (old / "g").read_bytes()
    assert len(set(os.listdir(host.path / ".snapshots" / "p1" / "many"))) == 1000
    assert os.path.samefile(old / ".." / ".." / "..", host.path)
    with pytest.raises(FileNotFoundError):
        os.stat(host.path / ".snapshots" / "p2")
    host.tell("point", b"p2")
    until((host.path / ".snapshots" / "p2").is_dir, "a new point")
    assert sorted(os.listdir(host.path / ".snapshots")) == ["p1", "p2"]
    host.tell("unpoint", b"p1")
    until(lambda: not (host.path / ".snapshots" / "p1").exists(), "a removed point")


def refused(action: Callable[[], object]) -> None:
    with pytest.raises(OSError) as caught:
        action()
    assert caught.value.errno in (errno.EROFS, errno.EACCES)


def test_recovery_points_cannot_be_changed(host: Host) -> None:
    fill(host.path)
    with client_of(host) as client:
        client.request("barrier")
    host.tell("point", b"p1")
    point = host.path / ".snapshots" / "p1"
    refused((point / "new").touch)
    refused((point / "new").mkdir)
    refused(lambda: (point / "d" / "f").open("r+b"))
    refused(lambda: (point / "d" / "f").open("wb"))
    refused(lambda: os.chmod(point / "d" / "f", 0o777))
    refused(lambda: os.truncate(point / "d" / "f", 0))
    refused(lambda: os.utime(point / "d" / "f"))
    refused(lambda: os.unlink(point / "d" / "f"))
    refused(lambda: os.rmdir(host.path / ".snapshots"))
    refused(lambda: os.rename(point / "d" / "f", host.path / "f"))
    refused(lambda: os.rename(host.path / "many", point / "many2"))
    refused(lambda: os.rename(host.path / ".snapshots", host.path / "mine"))
    refused(lambda: os.link(point / "d" / "f", host.path / "f"))
    refused(lambda: os.symlink("x", point / "x"))
    refused(lambda: os.setxattr(point / "d" / "f", "user.k", b"w"))
    refused(lambda: os.removexattr(point / "d" / "f", "user.k"))
    with pytest.raises(FileExistsError):
        os.mkdir(host.path / ".snapshots")
    assert (point / "d" / "f").read_bytes() == b"as it was" * 1000


def test_a_recovery_point_mounted_alone(hosts: Callable[..., Host]) -> None:
    host = hosts(point=True)
    assert host.ready, host.said()
    assert os.listdir(host.path) == []
    refused((host.path / "new").touch)
    assert "ro," in next(
        line for line in Path("/proc/mounts").read_text().splitlines() if str(host.path) in line
    )
    assert host.unmount() == 0


def test_the_request_of_the_real_entry_point_is_checked(tmp_path: Path) -> None:
    """``python -m fsmount`` on something that is no store: the error comes back, by kind and message."""
    ours, theirs = os.pipe()
    request = {
        "store": str(tmp_path), "name": "m", "point": None, "where": str(tmp_path / "m"),
        "options": "{}", "ready_fd": theirs,
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "fsmount", json.dumps(request)],
        pass_fds=[theirs], cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    os.close(theirs)
    said = json.loads(os.read(ours, 10_000))
    os.close(ours)
    assert done.returncode == 10 and said["kind"] == "not_found", done.stderr
