"""The tar stream, extracted by GNU tar: names, owners, modes, times, attributes, links, devices, holes."""

from __future__ import annotations

import os
import stat
import subprocess
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from daemon.contract import MountSpec
from daemon.service import Service, tar
from engine.live import ROOT, LiveTree
from tests.daemon.service.support import CTX, new_store, put, served, settings

TIME = 1_600_000_000_123_456_789
ACL = bytes.fromhex(
    "02000000 01000600ffffffff 02000600e8030000 04000400ffffffff 10000600ffffffff 20000400ffffffff"
)


def grown(tree: LiveTree) -> None:
    """Everything that can be in a tree."""
    first = put(tree, "d/first", b"linked")
    folder = tree.lookup(ROOT, b"d").ino
    tree.link(first, folder, b"second")
    tree.link(first, ROOT, b"third")
    put(tree, "l" * 255, b"long name")
    put(tree, "/".join(["n" * 200] * 3) + "/deep", b"deep")
    put(tree, "\udcff\udc80\n name", b"bytes")
    put(tree, "empty", b"")
    tree.symlink(ROOT, b"link", b"d/first", CTX)
    tree.symlink(ROOT, b"longlink", b"t" * 300, CTX)
    for name, mode, rdev in (
        (b"fifo", stat.S_IFIFO, 0), (b"sock", stat.S_IFSOCK, 0), (b"null", stat.S_IFCHR, os.makedev(1, 3)),
        (b"block", stat.S_IFBLK, os.makedev(259, 70_000)),
    ):  # fmt: skip
        tree.mknod(ROOT, name, mode | 0o640, rdev, CTX)
    ino = put(tree, "owned", b"x" * 5000)
    tree.setattr(ino, mode=0o4751, uid=3_000_000, gid=4_000_000_000, mtime_ns=TIME, now_ns=TIME)
    tree.setxattr(ino, b"user.plain", b"value", 0)
    tree.setxattr(ino, b"user.a=b%c", bytes(range(256)), 0)
    tree.setxattr(ino, b"user.large", b"L" * 2_000, 0)
    tree.setxattr(put(tree, "acl", b""), b"system.posix_acl_access", ACL, 0)
    hole = put(tree, "hole", b"begin")
    tree.write(hole, 33 << 20, b"middle")
    tree.setattr(hole, size=80 << 20, now_ns=TIME)
    tree.setattr(put(tree, "nothing but hole", b""), size=50 << 20, now_ns=TIME)
    tree.setattr(put(tree, "old", b""), mtime_ns=-5_500_000_000, now_ns=TIME)


@pytest.fixture
def point(tmp_path: Path) -> Callable[[Callable[[LiveTree], None]], tuple[Any, str]]:
    path = str(tmp_path / "store")
    new_store(path)

    def make(fill: Callable[[LiveTree], None]) -> tuple[Any, str]:
        with served(path, settings(path)) as service:
            service.create_mount(MountSpec("m"))
            tree = service.store.open_live("m")
            fill(tree)
            tree.close()
            return service.snapshot("m").point.id, path

    return make


def extracted(service: Service, point: str, target: Path, path: str = "") -> int:
    """Through GNU tar; how many bytes the stream has."""
    target.mkdir()
    size = 0
    with subprocess.Popen(
        ["tar", "-x", "--xattrs", "--xattrs-include=*", "--numeric-owner", "-p", "-C", target],
        stdin=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as child:  # fmt: skip
        assert child.stdin is not None and child.stderr is not None
        for piece in service.tar(point, path):
            size += len(piece)
            child.stdin.write(piece)
        child.stdin.close()
        said = child.stderr.read().decode(errors="replace")
        lines = [line for line in said.splitlines() if "implausibly old time stamp" not in line]
        assert (child.wait(60), lines) == (0, [])
    assert size % tar.RECORD == 0
    return size


def seen(top: Path) -> dict[bytes, tuple[object, ...]]:
    """All that stat and the attributes say, by path."""
    found: dict[bytes, tuple[object, ...]] = {}
    for folder, folders, names in os.walk(os.fsencode(top)):
        for name in sorted(folders + names):
            place = os.path.join(folder, name)
            here = os.path.relpath(place, os.fsencode(top))
            told = os.lstat(place)
            content = b""
            if stat.S_ISREG(told.st_mode):
                with open(place, "rb") as file:
                    content = file.read().rstrip(b"\0")
            attributes = {
                n: os.getxattr(place, n, follow_symlinks=False)
                for n in os.listxattr(place, follow_symlinks=False)
            }
            target = os.readlink(place) if stat.S_ISLNK(told.st_mode) else b""
            size = 0 if stat.S_ISDIR(told.st_mode) else told.st_size
            time = 0 if stat.S_ISDIR(told.st_mode) else told.st_mtime_ns
            directory = stat.S_ISDIR(told.st_mode)
            found[here] = (
                told.st_mode, told.st_uid, told.st_gid, size, time, told.st_rdev,
                0 if directory else told.st_nlink, content, attributes, target,
            )  # fmt: skip
    return found


@pytest.mark.skipif(os.geteuid() != 0, reason="owners and devices need root")
def test_gnu_tar_brings_back_what_restore_brings_back(point: Any, tmp_path: Path) -> None:
    made, path = point(grown)
    with served(path, settings(path)) as service:
        size = extracted(service, made, tmp_path / "tar")
        service.store.restore(made, b"", os.fsencode(tmp_path / "restored"))
        assert size < 20 << 20, "holes are left out"
        by_tar, by_restore = seen(tmp_path / "tar"), seen(tmp_path / "restored")
        assert by_restore.pop(b"sock")
        assert by_tar == by_restore
        names = [tmp_path / "tar" / name for name in ("d/first", "d/second", "third")]
        assert len({os.stat(name).st_ino for name in names}) == 1
        assert os.stat(tmp_path / "tar" / "hole").st_blocks * 512 < 8 << 20
        assert os.stat(tmp_path / "tar" / "hole").st_size == 80 << 20
        extracted(service, made, tmp_path / "part", "d")
        assert sorted(os.listdir(tmp_path / "part" / "d")) == ["first", "second"]
        extracted(service, made, tmp_path / "one", "owned")
        assert os.listdir(tmp_path / "one") == ["owned"]


def test_a_large_stream_needs_little_memory(point: Any) -> None:
    def many(tree: LiveTree) -> None:
        for number in range(300):
            put(tree, f"d{number % 7}/f{number}", os.urandom(1000))
        tree.write(put(tree, "large", b""), 0, os.urandom(20 << 20))

    made, path = point(many)
    with served(path, settings(path)) as service:
        stream = service.tar(made)
        next(stream)
        tracemalloc.start()
        total = sum(len(piece) for piece in stream)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert total > 20 << 20
    assert peak < 60 << 20, f"{peak} bytes: the engine's cache of chunks is most of it"
