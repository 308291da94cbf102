"""Places that commands are pointed at: where to restore, where to mount, what to unmount."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine import Store
from engine.live import ROOT
from tests.cli.support import (
    CTX,
    files,
    good,
    holdfast,
    mounted,
    new_store,
    noise,
    put,
    refused,
    restored,
    snapshot,
    unmounted,
)

CONTENT = {
    b"small": b"small",
    b"large": noise(300_000, 1),
    b"folder": b"/",
    b"folder/inner": b"/",
    b"folder/inner/leaf": b"leaf",
}
ELSEWHERE = "look at the disk"  # what is said of the store's own disk, and wrong about a target


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A store and its point of CONTENT; tests of restoring change nothing in it."""
    store = new_store(tmp_path_factory.mktemp("made") / "store")
    with Store.open(str(store)) as opened:
        tree = opened.open_live("m")
        folder = tree.mkdir(ROOT, b"folder", 0o755, CTX).ino
        inner = tree.mkdir(folder, b"inner", 0o755, CTX).ino
        for path, data in CONTENT.items():
            if data != b"/":
                put(tree, os.path.basename(path), data, inner if b"/" in path else ROOT)
        tree.close()
    return store, snapshot(store)


# --- restore --------------------------------------------------------------------------------------------------


def test_an_existing_file_is_replaced_only_by_force(made: tuple[Path, str], tmp_path: Path) -> None:
    store, point = made
    target = tmp_path / "mine"
    target.write_bytes(b"mine, and longer than what would replace it")
    kept = target.read_bytes()
    refused(holdfast(store, "restore", point, "small", str(target)), 11, "mine", "--force")
    assert target.read_bytes() == kept
    good(holdfast(store, "restore", point, "small", str(target), "--force"))
    assert target.read_bytes() == CONTENT[b"small"]
    assert os.listdir(tmp_path) == ["mine"]


def test_a_file_goes_into_an_existing_directory(made: tuple[Path, str], tmp_path: Path) -> None:
    store, point = made
    (tmp_path / "other").write_bytes(b"kept")
    good(holdfast(store, "restore", point, "large", str(tmp_path)))
    assert files(tmp_path) == {b"other": b"kept", b"large": CONTENT[b"large"]}
    refused(holdfast(store, "restore", point, "large", str(tmp_path)), 11, "large", "--force")


def test_a_link_at_the_target_is_replaced_and_never_written_through(
    made: tuple[Path, str], tmp_path: Path
) -> None:
    store, point = made
    (tmp_path / "far").write_bytes(b"kept")
    (tmp_path / "link").symlink_to("far")
    refused(holdfast(store, "restore", point, "small", str(tmp_path / "link")), 11, "--force")
    good(holdfast(store, "restore", point, "small", str(tmp_path / "link"), "--force"))
    assert not (tmp_path / "link").is_symlink()
    assert files(tmp_path) == {b"far": b"kept", b"link": b"small"}


@pytest.mark.parametrize("what", [[], ["folder"]], ids=["the point", "a directory of it"])
def test_a_directory_with_entries_is_written_into_only_by_force(
    made: tuple[Path, str], tmp_path: Path, what: list[str]
) -> None:
    store, point = made
    inner = tmp_path / "out" / ("inner" if what else "folder/inner")
    inner.mkdir(parents=True)
    (inner / "leaf").write_bytes(b"older")
    (tmp_path / "out" / "mine").write_bytes(b"kept")
    before = files(tmp_path)
    command = ["restore", point, *what, str(tmp_path / "out")]
    refused(holdfast(store, *command), 11, str(tmp_path / "out"), "entries in it", "--force")
    assert files(tmp_path) == before
    good(holdfast(store, *command, "--force"))
    below = b"folder/" if what else b""
    wanted = {path.removeprefix(below): data for path, data in CONTENT.items()
              if path.startswith(below)}  # fmt: skip
    assert files(tmp_path / "out") == {**wanted, b"mine": b"kept"}


@pytest.mark.parametrize("force", [[], ["--force"]], ids=["plain", "force"])
def test_a_directory_never_takes_the_place_of_a_file(
    made: tuple[Path, str], tmp_path: Path, force: list[str]
) -> None:
    store, point = made
    (tmp_path / "file").write_bytes(b"kept")
    done = holdfast(store, "restore", point, str(tmp_path / "file"), *force)
    refused(done, 11, "file", "directory")
    assert files(tmp_path) == {b"file": b"kept"}


def test_force_does_not_take_away_a_file_where_a_directory_must_be(
    made: tuple[Path, str], tmp_path: Path
) -> None:
    store, point = made
    (tmp_path / "folder").write_bytes(b"kept")
    line = refused(holdfast(store, "restore", point, str(tmp_path), "--force"), 11, "folder")
    assert ELSEWHERE not in line
    assert (tmp_path / "folder").read_bytes() == b"kept"


@pytest.mark.parametrize("what", [[], ["small"]], ids=["the point", "a file of it"])
def test_force_does_not_take_away_a_directory_where_a_file_must_be(
    made: tuple[Path, str], tmp_path: Path, what: list[str]
) -> None:
    store, point = made
    (tmp_path / "small").mkdir()
    (tmp_path / "small" / "mine").write_bytes(b"kept")
    line = refused(holdfast(store, "restore", point, *what, str(tmp_path), "--force"), 11, "small")
    assert ELSEWHERE not in line
    assert (tmp_path / "small" / "mine").read_bytes() == b"kept"


def test_force_follows_no_link_where_a_directory_must_be(
    made: tuple[Path, str], tmp_path: Path
) -> None:
    store, point = made
    (tmp_path / "out").mkdir()
    (tmp_path / "far").mkdir()
    (tmp_path / "out" / "folder").symlink_to("../far")
    line = refused(
        holdfast(store, "restore", point, str(tmp_path / "out"), "--force"), 11, "folder"
    )
    assert ELSEWHERE not in line
    assert list((tmp_path / "far").iterdir()) == []


@pytest.mark.parametrize("what", [[], ["small"]], ids=["the point", "a file of it"])
def test_a_target_below_nothing_is_not_found(
    made: tuple[Path, str], tmp_path: Path, what: list[str]
) -> None:
    store, point = made
    target = str(tmp_path / "no" / "such")
    refused(holdfast(store, "restore", point, *what, target), 10, target)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("what", "bad"),
    [([], "file/below"), (["small"], "n" * 256), (["small"], "loop/below")],
    ids=["below a file", "too long", "a loop"],
)
def test_a_target_that_cannot_be_is_the_request_at_fault(
    made: tuple[Path, str], tmp_path: Path, what: list[str], bad: str
) -> None:
    store, point = made
    (tmp_path / "file").write_bytes(b"kept")
    (tmp_path / "loop").symlink_to("loop")
    line = refused(holdfast(store, "restore", point, *what, str(tmp_path / bad)), 2, bad)
    assert ELSEWHERE not in line
    assert sorted(os.listdir(tmp_path)) == ["file", "loop"]


@pytest.mark.parametrize("what", [[], ["small"]], ids=["the point", "a file of it"])
def test_an_empty_target_is_no_damage(made: tuple[Path, str], what: list[str]) -> None:
    store, point = made
    done = holdfast(store, "restore", point, *what, "")
    assert done.returncode in (2, 10), done.stderr
    refused(done, done.returncode, "''")


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Path]:
    """A file system that may not be written to."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount a read-only tmpfs")
    where = tmp_path / "read-only"
    where.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "ro,size=1m", "none", where], check=True)
    yield where
    unmounted(where)


@pytest.mark.parametrize("what", [[], ["small"]], ids=["the point", "a file of it"])
def test_a_read_only_target_is_said_to_be_the_target(
    made: tuple[Path, str], read_only: Path, what: list[str]
) -> None:
    store, point = made
    for target in (read_only, read_only / "below"):
        line = refused(holdfast(store, "restore", point, *what, str(target)), 13, str(target))
        assert "store's file system" not in line
    assert os.listdir(read_only) == []


def test_a_target_that_may_not_be_written_is_said(made: tuple[Path, str], tmp_path: Path) -> None:
    """As a user without rights: root may write anywhere."""
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    store = shutil.copytree(made[0], tmp_path / "store")
    (tmp_path / "closed").mkdir()
    tmp_path.chmod(0o755)
    for path in [store, *store.rglob("*")]:
        os.chown(path, 65534, 65534)
    code = (
        "import os, engine.restore, concurrent.futures.thread; from daemon.cli.main import main; "
        "os.setgroups([]); os.setgid(65534); os.setuid(65534); main()"
    )
    target = str(tmp_path / "closed" / "out")
    above = [path for path in tmp_path.parents if not path.stat().st_mode & 0o001]
    try:
        for path in above:
            path.chmod(path.stat().st_mode | 0o011)
        done = subprocess.run(
            [sys.executable, "-c", code, "--store", store, "restore", made[1], target],
            capture_output=True, text=True, timeout=60,
        )  # fmt: skip
    finally:
        for path in above:
            path.chmod(0o700)
    line = refused(done, 14, target)
    assert "store's owner" not in line
    assert os.listdir(tmp_path / "closed") == []


@pytest.mark.parametrize(
    ("point", "path", "code", "said"),
    [
        (None, "nope", 10, "path"),
        (None, "small/below", 10, "path"),
        (None, "folder/../small", 10, "path"),
        (None, "..", 10, "path"),
        ("zzzz", "small", 10, "holdfast points"),
        ("", "small", 10, "point"),
        ("m@7", "small", 10, "point"),
        ("nope@latest", "small", 10, "mount"),
    ],
)
def test_what_is_not_in_the_store_is_not_found_and_makes_no_target(
    made: tuple[Path, str], tmp_path: Path, point: str | None, path: str, code: int, said: str
) -> None:
    store, only = made
    done = holdfast(store, "restore", only if point is None else point, path, str(tmp_path / "out"))
    refused(done, code, said)
    assert not (tmp_path / "out").exists()


def test_words_that_make_no_restore(made: tuple[Path, str], tmp_path: Path) -> None:
    named = ["small", "--database", "d"]
    for words in ([], ["--place", "mount", *named], ["x", *named]):
        done = holdfast(made[0], "restore", made[1], *words)
        assert done.returncode == 2 and "restore" in done.stderr
    refused(
        holdfast(made[0], "restore", made[1], "small", "none", str(tmp_path / "out")), 10, "none"
    )
    assert not (tmp_path / "out").exists()


# --- mount and umount -----------------------------------------------------------------------------------------

NEEDS_FUSE = pytest.mark.needs_fuse
HOW = pytest.mark.parametrize("how", [["--background"], []], ids=["background", "foreground"])


@NEEDS_FUSE
@HOW
def test_a_bad_mount_point_is_refused_and_left_alone(
    empty: Path, live: Path, tmp_path: Path, how: list[str]
) -> None:
    (live / "mine").write_bytes(b"kept")
    (tmp_path / "file").write_bytes(b"kept")
    for where, code, said in [
        (tmp_path / "none", 10, "create it first"),
        (tmp_path / "file", 2, "directory"),
        (tmp_path / "file" / "below", 2, "directory"),
        (live, 2, "empty"),
    ]:
        refused(holdfast(empty, "mount", "m", str(where), *how), code, str(where), said)
    assert (live / "mine").read_bytes() == (tmp_path / "file").read_bytes() == b"kept"
    assert not (tmp_path / "none").exists()
    refused(holdfast(empty, "umount", str(live)), 10, "none")
    (live / "mine").unlink()
    mounted(empty, "m", live)  # nobody was left serving it
    good(holdfast(empty, "umount", str(live)))


@NEEDS_FUSE
def test_names_and_points_that_are_not_there_are_not_mounted(empty: Path, live: Path) -> None:
    for name, said in [("n", "mounts: m"), ("m@zzzz", "point"), ("m@latest", "point")]:
        refused(holdfast(empty, "mount", name, str(live), "--background"), 10, said)
    assert not os.path.ismount(live)


@NEEDS_FUSE
def test_what_is_mounted_is_not_mounted_again(empty: Path, live: Path, tmp_path: Path) -> None:
    good(holdfast(empty, "create", "n"))
    mounted(empty, "m", live)
    (live / "file").write_bytes(b"kept")
    other = tmp_path / "other"
    other.mkdir()
    try:
        for how in (["--background"], []):
            refused(holdfast(empty, "mount", "m", str(other), *how), 12, "'m'", "unmount it")
            refused(holdfast(empty, "mount", "n", str(live), *how), 12, str(live), "unmount it")
        assert not os.path.ismount(other)
    finally:
        unmounted(other)
    assert (live / "file").read_bytes() == b"kept"
    (live / "more").write_bytes(b"still served")
    good(holdfast(empty, "umount", str(live)))


@NEEDS_FUSE
def test_umount_of_something_else_touches_nothing(empty: Path, live: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for where in (live, tmp_path / "none", tmp_path / "file", Path("/proc"), Path("/")):
        refused(holdfast(empty, "umount", str(where)), 10, "Holdfast mount", f"'{where}'")
    mounted(empty, "m", live)
    (live / "folder").mkdir()
    refused(holdfast(empty, "umount", str(live / "folder")), 10, "Holdfast mount")
    assert os.path.ismount(live)
    good(holdfast(empty, "umount", str(live) + "/"))
    refused(holdfast(empty, "umount", str(live)), 10, "Holdfast mount")


@NEEDS_FUSE
def test_a_mount_made_by_way_of_a_link_is_unmounted_by_it(
    empty: Path, live: Path, tmp_path: Path
) -> None:
    link = tmp_path / "link"
    link.symlink_to(live)
    good(holdfast(empty, "mount", "m", str(link), "--background"))
    assert os.path.ismount(live)
    good(holdfast(empty, "umount", str(link)))
    assert not os.path.ismount(live) and link.is_symlink()


@NEEDS_FUSE
def test_a_mount_in_use_stays_and_loses_nothing(empty: Path, live: Path, tmp_path: Path) -> None:
    mounted(empty, "m", live)
    with (live / "file").open("wb", buffering=0) as file:
        file.write(b"before ")
        refused(holdfast(empty, "umount", str(live)), 12, str(live), "fuser")
        file.write(b"after")
    good(holdfast(empty, "umount", str(live)))
    assert restored(empty, snapshot(empty), tmp_path / "out") == {b"file": b"before after"}


@NEEDS_FUSE
def test_a_store_in_use_is_not_rebuilt_and_works_on(
    empty: Path, live: Path, tmp_path: Path
) -> None:
    mounted(empty, "m", live)
    (live / "file").write_bytes(b"content")
    refused(holdfast(empty, "repair", "--rebuild-index"), 12, str(empty), "unmount")
    (live / "more").write_bytes(b"more")
    point = snapshot(empty)
    good(holdfast(empty, "gc"))
    assert "no problems found" in good(holdfast(empty, "check", "--read-data"))
    assert restored(empty, point, tmp_path / "out") == {b"file": b"content", b"more": b"more"}
    good(holdfast(empty, "umount", str(live)))
    good(holdfast(empty, "repair", "--rebuild-index"))
    assert restored(empty, point, tmp_path / "again") == {b"file": b"content", b"more": b"more"}


@NEEDS_FUSE
def test_a_mounted_point_is_kept_and_read_only(empty: Path, live: Path) -> None:
    mounted(empty, "m", live)
    (live / "file").write_bytes(b"content")
    point = snapshot(empty)
    good(holdfast(empty, "umount", str(live)))
    mounted(empty, f"m@{point[:20]}", live)
    assert files(live) == {b"file": b"content"}
    with pytest.raises(OSError, match="Read-only"):
        (live / "new").touch()
    refused(holdfast(empty, "rm", point), 12, point)
    assert (live / "file").read_bytes() == b"content"
    good(holdfast(empty, "umount", str(live)))
    good(holdfast(empty, "rm", point))
