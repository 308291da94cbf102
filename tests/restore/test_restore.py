"""Restoring: everything a tree can have comes back equal, whole or in part."""

import os
import stat

import pytest

from engine import Store, limits
from engine.errors import NotFound
from tests.restore.support import MTIME, Maker, noise, seen, wanted

AS_ROOT = os.geteuid() == 0


def test_everything_a_tree_has_comes_back(engine: Store, make: Maker, out: bytes) -> None:
    make.folder(b"d", 0o750)
    make.folder(b"d/empty", 0o1777)
    make.file(b"empty")
    make.file(b"d/small", b"a few bytes", 0o600)
    make.file(b"d/program", noise(70_000), 0o4755)
    make.file(b"spans", noise(2 * limits.SPAN + 77, 1))
    make.file(b"closed", b"secret", 0)
    make.symlink(b"d/soft", b"../spans")
    make.symlink(b"dangling", b"/no such place/\xff\n")
    make.special(b"fifo", stat.S_IFIFO | 0o640)
    make.special(b"socket", stat.S_IFSOCK | 0o600)
    tree = make.tree
    for path, name, value in (
        (b"d/small", b"user.one", b"1"),
        (b"d/small", b"user.two", b""),
        (b"d", b"user.of a directory", bytes(range(256))),
        (b"spans", b"user.large", noise(3_000, 5)),
    ):
        tree.setxattr(make.inodes[path], name, value)
    if AS_ROOT:
        make.special(b"disk", stat.S_IFBLK | 0o660, os.makedev(7, 300))
        make.special(b"null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
        for number, ino in enumerate(make.inodes.values()):
            mode = tree.getattr(ino).mode
            tree.setattr(ino, uid=1000 + number, gid=70_000 + number, mode=mode, now_ns=1)
        for path in (b"d/soft", b"dangling", b"fifo", b"null"):
            tree.setxattr(make.inodes[path], b"trusted.of " + path, b"also what has no content")
    tree.setattr(make.inodes[b"d/small"], mtime_ns=-5_000_000_001, now_ns=1)
    point = make.point(engine)
    report = engine.restore(point, b"", out)
    assert os.stat(os.path.join(out, b"spans")).st_atime_ns == MTIME - 5
    assert seen(out) == wanted(tree)
    assert report.damaged == report.skipped == []
    assert report.files == len(make.inodes) - 1
    assert report.bytes == 11 + 70_000 + 2 * limits.SPAN + 77 + 6


def test_the_attributes_of_the_top_directory(engine: Store, make: Maker, out: bytes) -> None:
    make.tree.setattr(1, mode=0o711, mtime_ns=MTIME, now_ns=1)
    make.tree.setxattr(1, b"user.top", b"x")
    engine.restore(make.point(engine), b"", out)
    assert stat.S_IMODE(os.stat(out).st_mode) == 0o711
    assert os.stat(out).st_mtime_ns == MTIME
    assert os.getxattr(out, "user.top") == b"x"


def test_hard_links_stay_links_also_between_directories(
    engine: Store, make: Maker, out: bytes
) -> None:
    for folder in (b"a", b"b", b"b/c"):
        make.folder(folder)
    make.file(b"b/c/first", noise(300_000))
    for name in (b"a/second", b"third", b"b/fourth"):
        make.link(b"b/c/first", name)
    make.special(b"fifo", stat.S_IFIFO | 0o600)
    make.link(b"fifo", b"b/fifo too")
    make.symlink(b"soft", b"third")
    make.link(b"soft", b"a/soft")
    make.file(b"alone", b"1")
    report = engine.restore(make.point(engine), b"", out)
    assert seen(out) == wanted(make.tree)

    def inode(name: bytes) -> int:
        return os.lstat(os.path.join(out, name)).st_ino

    assert len({inode(n) for n in (b"a/second", b"third", b"b/fourth", b"b/c/first")}) == 1
    assert inode(b"fifo") == inode(b"b/fifo too")
    assert inode(b"soft") == inode(b"a/soft")
    assert report.bytes == 300_000 + 1  # the links' content is written once


def test_one_name_of_several_is_a_file_of_its_own(engine: Store, make: Maker, out: bytes) -> None:
    make.folder(b"d")
    make.file(b"first", noise(100_000))
    make.link(b"first", b"d/second")
    point = make.point(engine)
    engine.restore(point, b"d", out)
    assert seen(out)[b"second"][4:6] == (1, noise(100_000))


def test_holes_stay_holes(engine: Store, make: Maker, out: bytes) -> None:
    tree = make.tree
    sizes = {b"none": 40 * limits.MIB, b"island": 40 * limits.MIB, b"slot": 5 * limits.SLOT}
    for name, size in sizes.items():
        tree.setattr(make.file(name), size=size, now_ns=1)
    tree.write(make.inodes[b"island"], 20 * limits.MIB + 5, b"island")
    tree.write(make.inodes[b"slot"], 3 * limits.SLOT, b"x" * limits.SLOT)
    engine.restore(make.point(engine), b"", out)
    assert seen(out) == wanted(tree)
    used = {name: os.stat(os.path.join(out, name)).st_blocks * 512 for name in sizes}
    assert used[b"none"] == 0
    assert 0 < used[b"island"] <= 2 * limits.SLOT
    assert 0 < used[b"slot"] <= limits.SLOT + 8192


def test_deep_trees(engine: Store, make: Maker, out: bytes) -> None:
    """Deeper than any path the kernel takes at once."""
    path = b""
    for level in range(40):
        path = (path + b"/" if path else b"") + b"%03d" % level + b"n" * 200
        make.folder(path, 0o700 + level % 8)
    make.file(path + b"/leaf", b"found")
    make.link(path + b"/leaf", path + b"/same")
    make.link(path + b"/leaf", b"top")
    report = engine.restore(make.point(engine), b"", out)
    assert report.damaged == report.skipped == []
    fd = os.open(out, os.O_RDONLY)
    for level, name in enumerate(path.split(b"/")):
        inner = os.open(name, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = inner
        assert os.fstat(fd).st_mode & 7 == level % 8
        assert os.fstat(fd).st_mtime_ns >= MTIME
    try:
        leaf, same = os.stat(b"leaf", dir_fd=fd), os.stat(b"same", dir_fd=fd)
        top = os.stat(os.path.join(out, b"top"))
        assert leaf.st_ino == same.st_ino == top.st_ino
        assert (leaf.st_size, leaf.st_nlink) == (5, 3)
    finally:
        os.close(fd)


ODD = [
    b"new\nline",
    b"\xff\xfe bytes",
    b"\x01\x1b[31m",
    b"n" * 255,
    "ü".encode() * 127,
    b"-rf",
    b" ",
]


def test_odd_names(engine: Store, make: Maker, out: bytes) -> None:
    for name in ODD:
        make.folder(name + b"d" if len(name) < 200 else name[:-1])
        make.file(name, name)
        make.symlink((b"s" + name)[:255], name)
    point = make.point(engine)
    engine.restore(point, b"", out)
    assert seen(out) == wanted(make.tree)
    for number, name in enumerate(ODD):
        engine.restore(point, name, out + b"%d" % number)
        with open(out + b"%d" % number, "rb") as file:
            assert file.read() == name


def test_a_file_of_a_point(engine: Store, make: Maker, out: bytes) -> None:
    make.folder(b"d")
    ino = make.file(b"d/f", noise(3_000_000), 0o640)
    make.symlink(b"d/l", b"f")
    point = make.point(engine)
    report = engine.restore(point, b"d/f", out)
    assert (report.files, report.bytes) == (1, 3_000_000)
    assert stat.S_IMODE(os.stat(out).st_mode) == 0o640
    assert os.stat(out).st_mtime_ns == MTIME + ino
    with open(out, "rb") as file:
        assert file.read() == noise(3_000_000)
    os.mkdir(out + b"2")
    engine.restore(point, b"/d/f", out + b"2")  # into a directory, under its own name
    engine.restore(point, b"./d/./l", out + b"2")
    assert sorted(os.listdir(out + b"2")) == [b"f", b"l"]
    assert os.readlink(os.path.join(out + b"2", b"l")) == b"f"


def test_a_directory_of_a_point(engine: Store, make: Maker, out: bytes) -> None:
    make.folder(b"a")
    make.folder(b"a/b")
    make.file(b"a/b/c", b"1")
    make.file(b"a/other", b"2")
    point = make.point(engine)
    engine.restore(point, b"a/b/", out)
    assert set(seen(out)) == {b"c"}
    assert os.stat(out).st_mtime_ns == MTIME + make.inodes[b"a/b"]


@pytest.mark.parametrize("path", [b"nope", b"a/nope", b"f/below", b"..", b"a/../f"])
def test_a_path_that_is_not_there(engine: Store, make: Maker, out: bytes, path: bytes) -> None:
    make.folder(b"a")
    make.file(b"f")
    point = make.point(engine)
    with pytest.raises(NotFound, match="in the point"):
        engine.restore(point, path, out)
    assert not os.path.lexists(out)


def test_owners_that_only_root_could_give_back_are_counted(
    engine: Store, make: Maker, out: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    make.file(b"mine", b"1")
    make.file(b"anothers", b"2")
    make.symlink(b"link", b"anothers")
    make.tree.setattr(make.inodes[b"mine"], uid=4711, gid=4711, now_ns=1)
    point = make.point(engine)
    monkeypatch.setattr(os, "geteuid", lambda: 4711)
    monkeypatch.setattr(os, "getegid", lambda: 4711)

    assert engine.restore(point, b"", out).disowned == 3  # the other file, the link, the root
    monkeypatch.undo()
    assert engine.restore(point, b"", out + b"2").disowned == 0
