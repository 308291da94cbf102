"""Where a restore goes: over what is there, when that is asked for; through no link; onto disks that refuse."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable

import pytest

from engine import Store
from engine.errors import (
    AlreadyExists,
    HoldfastError,
    LocationUnavailable,
    NotFound,
)
from engine.nodes import Entry
from engine.restore.walk import Walk
from tests.restore.support import Maker, seen, wanted


def put(path: bytes, data: bytes) -> None:
    with open(path, "wb") as file:
        file.write(data)


def content(path: bytes) -> bytes:
    with open(path, "rb") as file:
        return file.read()


# --- a target that is there ---------------------------------------------------------------------------------


def test_an_empty_directory_is_a_target_and_takes_the_points_attributes(
    engine: Store, make: Maker, point: str, out: bytes
) -> None:
    os.mkdir(out, 0o700)
    engine.restore(point, b"", out)
    assert seen(out) == wanted(make.tree)
    assert stat.S_IMODE(os.stat(out).st_mode) == stat.S_IMODE(make.tree.getattr(1).mode)


def test_a_directory_with_something_in_it_is_left_alone(
    engine: Store, point: str, out: bytes
) -> None:
    os.mkdir(out)
    put(out + b"/mine", b"kept")
    with pytest.raises(AlreadyExists, match="--force"):
        engine.restore(point, b"", out)
    assert os.listdir(out) == [b"mine"]


def test_a_file_is_no_target_for_a_directory(engine: Store, point: str, out: bytes) -> None:
    put(out, b"kept")
    for force in (False, True):
        with pytest.raises(AlreadyExists, match="found a file"):
            engine.restore(point, b"", out, force=force)
    assert content(out) == b"kept"


def test_a_link_to_nowhere_is_no_target(engine: Store, point: str, out: bytes) -> None:
    os.symlink(b"nowhere", out)
    with pytest.raises(AlreadyExists):
        engine.restore(point, b"", out, force=True)
    assert os.readlink(out) == b"nowhere"


def test_a_target_in_a_directory_that_is_not_there(engine: Store, point: str, out: bytes) -> None:
    for subpath in (b"", b"file"):
        with pytest.raises(NotFound):
            engine.restore(point, subpath, out + b"/a/b")
    assert not os.path.lexists(out)


def test_one_file_replaces_one_only_by_force(engine: Store, point: str, out: bytes) -> None:
    put(out, b"old")
    with pytest.raises(AlreadyExists, match="--force"):
        engine.restore(point, b"file", out)
    assert content(out) == b"old"
    engine.restore(point, b"file", out, force=True)
    assert content(out) == b"new content"


# --- over what is there -------------------------------------------------------------------------------------


def test_what_is_there_is_replaced_and_what_is_not_in_the_point_stays(
    engine: Store, make: Maker, point: str, out: bytes
) -> None:
    os.makedirs(out + b"/d/deeper")
    for name in (b"file", b"d/inside", b"fifo", b"link", b"d/mine", b"d/deeper/mine", b"mine"):
        put(out + b"/" + name, b"old and longer than what is new")
    expected = wanted(make.tree)
    engine.restore(point, b"", out, force=True)
    found = seen(out)
    mine = {b"mine", b"d/mine", b"d/deeper", b"d/deeper/mine"}
    assert found.keys() == expected.keys() | mine
    assert {path: row for path, row in found.items() if path in expected} == expected
    assert content(out + b"/d/mine") == b"old and longer than what is new"


def test_a_restore_over_itself_changes_nothing(
    engine: Store, make: Maker, point: str, out: bytes
) -> None:
    engine.restore(point, b"", out)
    engine.restore(point, b"", out, force=True)
    assert seen(out) == wanted(make.tree)
    assert os.stat(out + b"/first").st_ino == os.stat(out + b"/second").st_ino


@pytest.mark.parametrize("name", [b"file", b"link", b"fifo", b"first", b"second"])
def test_a_link_in_the_place_of_a_file_is_replaced_and_not_followed(
    engine: Store, make: Maker, point: str, out: bytes, name: bytes
) -> None:
    outside = out + b".outside"
    put(outside, b"kept")
    os.chmod(outside, 0o604)
    os.mkdir(out)
    os.symlink(outside, out + b"/" + name)
    engine.restore(point, b"", out, force=True)
    assert seen(out) == wanted(make.tree)
    assert content(outside) == b"kept"
    assert stat.S_IMODE(os.stat(outside).st_mode) == 0o604


def test_a_name_of_a_file_with_other_names_is_replaced_and_the_others_stay(
    engine: Store, make: Maker, point: str, out: bytes
) -> None:
    os.mkdir(out)
    for name in (b"first", b"second", b"file"):
        other = out + b"." + name
        put(other, b"kept")
        os.link(other, out + b"/" + name)
    engine.restore(point, b"", out, force=True)
    assert seen(out) == wanted(make.tree)
    for name in (b"first", b"second", b"file"):
        assert content(out + b"." + name) == b"kept"
        assert os.stat(out + b"." + name).st_nlink == 1


def test_a_link_in_the_place_of_a_directory_is_refused_and_not_followed(
    engine: Store, point: str, out: bytes
) -> None:
    outside = out + b".outside"
    os.mkdir(outside, 0o705)
    put(outside + b"/inside", b"kept")
    os.mkdir(out)
    os.symlink(outside, out + b"/d")
    with pytest.raises(HoldfastError):
        engine.restore(point, b"", out, force=True)
    assert os.listdir(outside) == [b"inside"]
    assert content(outside + b"/inside") == b"kept"
    assert stat.S_IMODE(os.stat(outside).st_mode) == 0o705
    assert os.readlink(out + b"/d") == outside


@pytest.mark.parametrize("name", [b"file", b"link", b"fifo", b"first", b"second"])
def test_a_directory_in_the_place_of_a_file_is_kept(
    engine: Store, point: str, out: bytes, name: bytes
) -> None:
    os.makedirs(out + b"/" + name)
    put(out + b"/" + name + b"/mine", b"kept")
    with pytest.raises(HoldfastError):
        engine.restore(point, b"", out, force=True)
    assert content(out + b"/" + name + b"/mine") == b"kept"


def test_what_is_in_the_way_is_said(engine: Store, point: str, out: bytes) -> None:
    """A link or a file where a directory goes, a directory where a file goes: which, and why not."""
    for name, make_it in (
        (b"d", lambda path: os.symlink(b"/tmp", path)),
        (b"d", lambda path: put(path, b"")),
        (b"file", os.mkdir),
        (b"second", os.mkdir),
    ):
        target = out + b"%d" % len(os.listdir(os.path.dirname(out)))
        os.mkdir(target)
        make_it(target + b"/" + name)
        with pytest.raises(AlreadyExists, match=f"'{name.decode()}'"):
            engine.restore(point, b"", target, force=True)


# --- a target that changes meanwhile ------------------------------------------------------------------------


def deep(make: Maker, levels: int) -> list[bytes]:
    """Directories within each other, a file in each; their paths."""
    paths = [b"/".join([b"%02d" % n for n in range(level + 1)]) for level in range(levels)]
    for path in paths:
        make.folder(path)
        make.file(path + b"/zz", path)  # behind the directory in it: made on the way up
    return paths


def meanwhile(monkeypatch: pytest.MonkeyPatch, path: bytes, act: Callable[[], None]) -> None:
    """``act`` happens right before the entry at ``path`` is made."""
    real = Walk.member

    def member(self: Walk, here: bytes, entry: Entry) -> None:
        if here == path:
            act()
        real(self, here, entry)

    monkeypatch.setattr(Walk, "member", member)


def test_a_directory_moved_away_deep_in_the_tree_ends_the_restore(
    engine: Store, make: Maker, out: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = deep(make, 80)  # more than are kept open
    point = make.point(engine)
    moved = out + b"/moved"
    meanwhile(monkeypatch, paths[-1] + b"/zz", lambda: os.rename(out + b"/" + paths[4], moved))
    with pytest.raises(LocationUnavailable, match="moved meanwhile"):
        engine.restore(point, b"", out)
    made = {path for path in seen(out) if path.endswith(b"/zz")}
    assert made == {p.replace(paths[4], b"moved", 1) + b"/zz" for p in paths[4:]}


def test_a_directory_moved_away_near_the_top_ends_the_restore(
    engine: Store, make: Maker, out: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = deep(make, 5)
    point = make.point(engine)
    moved = out + b"/moved"
    meanwhile(monkeypatch, paths[-1] + b"/zz", lambda: os.rename(out + b"/" + paths[2], moved))
    with pytest.raises(HoldfastError, match="No such file"):
        engine.restore(point, b"", out)
    assert content(moved + b"/zz") == paths[2]  # beneath the descriptor, wherever that is now


def test_a_link_put_in_the_place_of_a_directory_meanwhile_is_not_followed(
    engine: Store, make: Maker, out: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = deep(make, 4)
    make.file(paths[3] + b"/first", b"1")
    make.link(paths[3] + b"/first", b"zz")
    point = make.point(engine)
    outside = out + b".outside"
    os.makedirs(outside + paths[3][len(paths[1]) :], 0o705)
    put(outside + paths[3][len(paths[1]) :] + b"/first", b"of somebody else")
    before = seen(outside)

    def swap() -> None:
        os.rename(out + b"/" + paths[1], out + b"/moved")
        os.symlink(outside, out + b"/" + paths[1])

    meanwhile(monkeypatch, b"zz", swap)
    with pytest.raises(HoldfastError):
        engine.restore(point, b"", out)
    assert seen(outside) == before
