"""What the demonstration notes of a tree: equal copies are equal, and every kind of change shows."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tools.demolib import sourcetree
from tools.demolib.witness import below, compare, content_bytes, note


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    """A tree with everything awkward in it, and a copy of it by cp."""
    sourcetree.make_awkward(tmp_path / "one")
    subprocess.run(["cp", "-a", tmp_path / "one", tmp_path / "two"], check=True)
    return tmp_path / "one", tmp_path / "two"


def keep_time(change: Callable[[Path], object]) -> Callable[[Path], None]:
    """The same change, with the modification time put back: only the change itself may show."""

    def changed(path: Path) -> None:
        before = path.lstat()
        change(path)
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns), follow_symlinks=False)

    return changed


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[0] ^= 1
    path.write_bytes(content)


def fill(path: Path) -> None:
    path.write_bytes(path.read_bytes())


def separate(path: Path) -> None:
    content, mode = path.read_bytes(), path.stat().st_mode
    path.unlink()
    path.write_bytes(content)
    path.chmod(mode)


def retarget(path: Path) -> None:
    path.unlink()
    path.symlink_to("elsewhere")


CHANGES = {
    "a bit": ("deep/level-00/level-01", keep_time(lambda p: flip(next(p.rglob("bottom"))))),
    "a mode": ("modes/0644", lambda p: p.chmod(0o664)),
    "setuid": ("modes/4755", lambda p: p.chmod(0o755)),
    "a time by a nanosecond": (
        "modes/0755",
        lambda p: os.utime(p, ns=(0, p.stat().st_mtime_ns + 1)),
    ),
    "a directory's time": ("empty directory", lambda p: os.utime(p, ns=(0, 0))),
    "an xattr": ("xattrs/file", lambda p: os.setxattr(p, "user.text", b"other")),
    "an xattr gone": ("xattrs/file", lambda p: os.removexattr(p, "user.empty")),
    "a directory's xattr": ("xattrs", lambda p: os.removexattr(p, "user.directory")),
    "a link broken": ("links/one of four, too", keep_time(separate)),
    "a target": ("links/dangling", keep_time(retarget)),
    "a file gone": ("empty", Path.unlink),
    "a file more": ("empty", lambda p: p.with_name("more").touch()),
    "a hole filled": ("sparse", keep_time(fill)),
    "truncated": ("sparse", keep_time(lambda p: os.truncate(p, 5))),
    "another kind": ("fifo", lambda p: (p.unlink(), p.touch(0o640))),
}


def test_a_copy_is_equal(pair: tuple[Path, Path]) -> None:
    one, two = map(note, pair)
    assert compare(one, two) == []
    assert len(one) > 60
    assert {entry.kind for entry in one.values()} >= {"file", "directory", "symlink", "fifo"}
    for name in sourcetree.ODD_NAMES:
        assert one[b"names/" + name].kind == "file"


@pytest.mark.parametrize("what", CHANGES)
def test_a_change_shows(pair: tuple[Path, Path], what: str) -> None:
    one, two = pair
    path, change = CHANGES[what]
    expected = note(one)
    change(two / path)
    assert compare(expected, note(two)) != []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_an_owner_shows(pair: tuple[Path, Path]) -> None:
    one, two = pair
    os.lchown(two / "links" / "dangling", 4321, 8765)
    lines = compare(note(one), note(two))
    assert sorted(line.split(" is ")[0] for line in lines) == [
        "links/dangling: gid",
        "links/dangling: uid",
    ]


def test_a_difference_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    (tmp_path / "one" / "new\nline").touch()
    assert compare(note(tmp_path / "one"), note(tmp_path / "two")) == ["new\\nline: missing"]


def test_skips_only_at_the_top(tmp_path: Path) -> None:
    (tmp_path / "way").mkdir()
    (tmp_path / "other" / "way").mkdir(parents=True)
    assert set(note(tmp_path, skip=frozenset({b"way"}))) == {b"other", b"other/way"}


def test_below_is_as_if_it_were_the_root(pair: tuple[Path, Path]) -> None:
    one, _ = pair
    assert below(note(one), b"links") == note(one / "links")


def test_content_counts_files_once_and_no_holes(tmp_path: Path) -> None:
    (tmp_path / "first").write_bytes(b"x" * 5000)
    (tmp_path / "second").hardlink_to(tmp_path / "first")
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(1 << 20)
    assert content_bytes(note(tmp_path)) == 5000
