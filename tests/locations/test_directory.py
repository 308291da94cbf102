"""``file://``: what is on the disk, in which order it gets there, and what is not followed."""

from __future__ import annotations

import errno
import os
import stat
import threading
import time
from pathlib import Path

import pytest

from engine.errors import (
    Corrupt,
    LocationDenied,
    LocationUnavailable,
    NotFound,
    StoreFull,
    Unsupported,
)
from engine.locations import open_location
from engine.locations.contract import Location
from engine.seam import Os


class Recording(Os):
    """Notes every change, with names relative to the directory; fails where it is told to."""

    def __init__(self, root: Path) -> None:
        self.root = str(root)
        self.steps: list[str] = []
        self.fail: dict[str, int] = {}
        self.paths: dict[int, str] = {}

    def _step(self, what: str, path: str) -> None:
        name = os.path.relpath(path, self.root)
        if name.startswith(".tmp/"):
            name = ".tmp/*"
        self.steps.append(f"{what} {name}")
        if what in self.fail:
            raise OSError(self.fail[what], os.strerror(self.fail[what]))

    def open(self, path: str, flags: int, mode: int = 0o600) -> int:
        if flags & os.O_CREAT:
            self._step("create", path)
        fd = super().open(path, flags, mode)
        self.paths[fd] = path
        return fd

    def pwritev(self, fd, parts, offset):  # type: ignore[no-untyped-def]
        self._step("write", self.paths[fd])
        return super().pwritev(fd, parts, offset)

    def fsync(self, fd: int) -> None:
        self._step("fsync", self.paths[fd])
        super().fsync(fd)

    def fsync_dir(self, path: str) -> None:
        self._step("fsync_dir", path)
        super().fsync_dir(path)

    def rename(self, old: str, new: str) -> None:
        self._step("rename", new)
        super().rename(old, new)

    def rename_new(self, old: str, new: str) -> None:
        self._step("rename_new", new)
        super().rename_new(old, new)

    def mkdir(self, path: str, mode: int = 0o700) -> None:
        self._step("mkdir", path)
        super().mkdir(path, mode)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    place = tmp_path / "place"
    place.mkdir()
    return place


@pytest.fixture
def system(root: Path) -> Recording:
    return Recording(root)


@pytest.fixture
def location(root: Path, system: Recording) -> Location:
    return open_location(f"file://{root}", system=system)


@pytest.mark.parametrize("operation", ["put", "create"])
def test_durable_step_by_step(location: Location, system: Recording, operation: str) -> None:
    named = {"put": "rename", "create": "rename_new"}[operation]
    getattr(location, operation)("packs/ab/x", b"data")
    assert system.steps == [
        "mkdir packs", "fsync_dir .", "mkdir packs/ab", "fsync_dir packs", "mkdir .tmp", "fsync_dir .",
        "create .tmp/*", "write .tmp/*", "fsync .tmp/*", f"{named} packs/ab/x", "fsync_dir packs/ab",
    ]  # fmt: skip
    system.steps.clear()
    getattr(location, operation)("packs/ab/y", b"data")
    assert system.steps[0] == "create .tmp/*" and len(system.steps) == 5


def test_modes_and_what_is_left(location: Location, root: Path) -> None:
    location.put("packs/ab/x", b"data")
    assert location.create("journal/1", b"data") and not location.create("journal/1", b"data")
    for folder in ("packs", "packs/ab", "journal", ".tmp"):
        assert stat.S_IMODE((root / folder).stat().st_mode) == 0o700
    for file in ("packs/ab/x", "journal/1"):
        state = (root / file).stat()
        assert stat.S_IMODE(state.st_mode) == 0o600 and state.st_nlink == 1
    assert not list((root / ".tmp").iterdir())


@pytest.mark.parametrize("step", ["create", "write", "fsync", "rename", "fsync_dir", "mkdir"])
@pytest.mark.parametrize(
    ("number", "error"),
    [
        (errno.ENOSPC, StoreFull), (errno.EDQUOT, StoreFull), (errno.EIO, LocationUnavailable),
        (errno.EROFS, LocationDenied), (errno.EACCES, LocationDenied), (errno.ESTALE, LocationUnavailable),
    ],
)  # fmt: skip
def test_each_step_may_fail(
    location: Location,
    system: Recording,
    root: Path,
    step: str,
    number: int,
    error: type[Exception],
) -> None:
    if step != "mkdir":
        location.put("packs/ab/first", b"1")
    system.fail = {step: number}
    with pytest.raises(error, match="packs/ab/x at file://"):
        location.put("packs/ab/x", b"data")
    system.fail = {}
    assert not (root / ".tmp").exists() or not list((root / ".tmp").iterdir())
    location.put("packs/ab/x", b"data")
    assert location.read("packs/ab/x") == b"data"


def test_a_file_system_without_links(location: Location, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", refuse)
    assert location.create("j/1", b"one") and not location.create("j/1", b"two")
    assert location.read("j/1") == b"one" and location.features().create

    made: list[bool] = []
    gate = threading.Barrier(4)

    def attempt(number: int) -> None:
        gate.wait()
        made.append(location.create("j/2", b"%d" % number))

    threads = [threading.Thread(target=attempt, args=(number,)) for number in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert made.count(True) == 1


def test_a_link_whose_answer_was_lost(
    location: Location, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file server asked twice says that the name is there: by the first time."""
    really = os.link

    def twice(old: str, new: str, **how: bool) -> None:
        really(old, new, **how)
        really(old, new, **how)

    monkeypatch.setattr(os, "link", twice)
    assert location.create("j/1", b"one")
    assert (root / "j/1").stat().st_nlink == 1


def test_links_are_not_followed(location: Location, root: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_bytes(b"secret")
    (root / "folder").symlink_to(outside)
    (root / "file").symlink_to(outside / "secret")
    (root / "real").mkdir()
    (root / "real" / "link").symlink_to(outside / "secret")
    for name in ("folder/secret", "file", "real/link"):
        with pytest.raises((LocationDenied, NotFound)):
            location.read(name)
        with pytest.raises((LocationDenied, NotFound)):
            location.ranges(name, [(0, 1)])
        with pytest.raises((LocationDenied, NotFound)):
            location.stat(name)
    for name in ("folder/new", "folder/secret", "folder/deep/new"):
        with pytest.raises(LocationDenied, match="not followed"):
            location.put(name, b"x")
        with pytest.raises(LocationDenied, match="not followed"):
            location.create(name, b"x")
    with pytest.raises(LocationDenied):
        location.remove(["folder/secret"])
    assert not location.create("file", b"x")
    assert [one.name for one in location.list("")] == []
    location.remove(["file"])  # the link, not what it leads to
    assert sorted(os.listdir(outside)) == ["secret"]
    assert (outside / "secret").read_bytes() == b"secret"


def test_a_link_as_the_place_of_unfinished_files(root: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (root / ".tmp").symlink_to(outside)
    location = open_location(f"file://{root}")
    with pytest.raises(LocationDenied):
        location.put("a", b"1")
    with pytest.raises(LocationDenied):
        location.tidy(0)
    assert not list(outside.iterdir())


def test_a_link_to_the_directory_itself(root: Path, tmp_path: Path) -> None:
    (tmp_path / "named").symlink_to(root)
    location = open_location(f"file://{tmp_path}/named")
    location.put("a", b"1")
    assert (root / "a").read_bytes() == b"1" and [one.name for one in location.list("")] == ["a"]


def test_what_is_not_ours_is_not_listed(location: Location, root: Path) -> None:
    for name in ("two words", ".hidden", "ümlaut", os.fsdecode(b"\xff")):
        (root / name).write_bytes(b"")
    (root / "lost+found").mkdir()
    (root / "lost+found" / "x").write_bytes(b"")
    os.mkfifo(root / "pipe")
    (root / "sub").mkdir()
    location.put("ours", b"")
    assert [one.name for one in location.list("")] == ["ours"]
    for name in ("pipe", "sub"):
        with pytest.raises(NotFound):
            location.read(name)


def test_unfinished_files_of_long_ago(location: Location, root: Path) -> None:
    location.put("a", b"1")
    old, young = root / ".tmp" / "0", root / ".tmp" / "1"
    for one in (old, young):
        one.write_bytes(b"torn")
    os.utime(old, (time.time() - 1000, time.time() - 1000))
    assert [one.name for one in location.list("")] == ["a"]
    assert location.tidy(500) == 1 and young.exists() and not old.exists()
    assert location.tidy(500) == 0


def test_a_disk_that_is_gone(location: Location, root: Path) -> None:
    location.put("packs/x", b"1")
    root.rename(root.parent / "unmounted")
    for ask in (
        lambda: location.list(""),
        lambda: location.put("packs/y", b"1"),
        lambda: location.create("packs/y", b"1"),
    ):
        with pytest.raises(NotFound):
            ask()
    for look in (location.read, location.stat):  # not that something is missing
        with pytest.raises(LocationUnavailable, match="mount its disk"):
            look("packs/x")
    assert not root.exists()


def test_another_directory_in_its_place(location: Location, root: Path) -> None:
    """The bare mount point of a disk that was taken away."""
    location.put("packs/x", b"1")
    root.rename(root.parent / "unmounted")
    root.mkdir()
    for change in (
        lambda: location.put("packs/y", b"1"),
        lambda: location.create("journal/y", b"1"),
        lambda: location.remove(["packs/x"]),
        lambda: location.read("packs/x"),
        lambda: location.stat("packs/x"),
        lambda: location.list(""),
    ):
        with pytest.raises(LocationUnavailable, match="mount its disk"):
            change()
    assert not any(root.iterdir())
    root.rmdir()
    (root.parent / "unmounted").rename(root)
    location.put("packs/y", b"1")


def test_the_same_disk_mounted_anew(location: Location, root: Path) -> None:
    """Another device to the kernel, and known by what names the location."""
    location.put("packs/x", b"1")
    assert location.create("holdfast.json", b"which it is")
    again = open_location(f"file://{root}")
    for name, content in (("same", b"which it is"), ("other", b"another")):
        (root.parent / name / "packs").mkdir(parents=True)
        (root.parent / name / "holdfast.json").write_bytes(content)
        root.rename(root.parent / f"before-{name}")
        (root.parent / name).rename(root)
        if name == "same":
            again.put("packs/y", b"1")
            with pytest.raises(NotFound):
                again.read("packs/x")
        else:
            with pytest.raises(LocationUnavailable, match="mount its disk"):
                again.put("packs/y", b"1")


def test_a_disk_that_is_taken_away_meanwhile(root: Path) -> None:
    """Between looking and writing: it does not count as written."""

    class Swapping(Os):
        def rename(self, old: str, new: str) -> None:
            super().rename(old, new)
            root.rename(root.parent / "unmounted")
            root.mkdir()
            (root / "packs").mkdir()

    location = open_location(f"file://{root}", system=Swapping())
    with pytest.raises(LocationUnavailable, match="mount its disk"):
        location.put("packs/x", b"1")


def test_a_file_cut_short_on_the_disk(location: Location, root: Path) -> None:
    location.put("packs/x", bytes(1000))
    os.truncate(root / "packs/x", 400)
    with pytest.raises(Corrupt, match="expected 1000 bytes from 0 on, found 400"):
        location.read("packs/x", 0, 1000)
    assert location.stat("packs/x").size == 400


def test_retention_is_for_servers(location: Location) -> None:
    location.put("a", b"")
    with pytest.raises(Unsupported, match="Object Lock"):
        location.retain("a", 1)
