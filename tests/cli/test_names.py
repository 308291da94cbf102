"""Names of every kind of byte: through a mount, in points, in what commands print, and back."""

from __future__ import annotations

import errno
import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.support import (
    LIMIT,
    files,
    good,
    holdfast,
    mounted,
    new_store,
    refused,
    restored,
    snapshot,
    write,
)

NAMES = [
    b"two\nlines",
    b"\n",
    b"tab\tand\rreturn",
    b"\xff\xfe no UTF-8 \x80",
    b"\xc3",  # the first half of a letter
    b"\xed\xb2\x80",  # a surrogate, encoded
    b"\x1b[31mred\x1b[0m",
    b"\x1b]0;a title\x07",
    "\N{RIGHT-TO-LEFT OVERRIDE}gpj.exe".encode(),
    "\N{LATIN SMALL LETTER U WITH DIAERESIS}ber".encode(),
    b"\x7f\x01",
    b"\xc2\x9b31m",  # the one-character form of an escape sequence's start
    b" leading and trailing ",
    b"--force",
    b"-",
    b"*?[a]{b}$HOME'\"\\",
    b"n" * 255,
    "\N{SNOWMAN}".encode() * 85,
]
CONTENT = {name: b"content of %d" % number for number, name in enumerate(NAMES)}
LATER = {name: b"later: " + data for name, data in CONTENT.items()}


@pytest.fixture(scope="module")
def named(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A store with a point of nothing, one of CONTENT and one of LATER."""
    store = new_store(tmp_path_factory.mktemp("named") / "store")
    points = [snapshot(store)]
    for content in (CONTENT, LATER):
        write(store, content)
        points.append(snapshot(store))
    return store, points


def by_name(name: bytes) -> str:
    return ascii(name[:12])


def raw(text: str) -> set[str]:
    """Characters of a command's output, line ends apart, that a terminal might obey or that are no UTF-8."""
    return {char for char in text.replace("\n", "") if not char.isprintable()}


@pytest.mark.needs_fuse
def test_every_name_goes_through_a_mount_and_back(empty: Path, live: Path, tmp_path: Path) -> None:
    mounted(empty, "m", live)
    for name, data in CONTENT.items():
        with open(os.path.join(os.fsencode(live), name), "xb") as file:
            file.write(data)
    assert set(os.listdir(os.fsencode(live))) == set(NAMES)
    assert files(live) == CONTENT
    point = snapshot(empty)
    assert files(live / ".snapshots" / point) == CONTENT
    assert restored(empty, point, tmp_path / "out") == CONTENT


@pytest.mark.needs_fuse
def test_a_name_of_256_bytes_is_refused_by_the_mount(empty: Path, live: Path) -> None:
    mounted(empty, "m", live)
    (live / "short").touch()
    long = live / ("n" * 256)
    for attempt in (
        long.touch,
        long.mkdir,
        long.stat,
        lambda: long.symlink_to("x"),
        lambda: os.link(live / "short", long),
        lambda: os.rename(live / "short", long),
    ):
        with pytest.raises(OSError) as caught:
            attempt()
        assert caught.value.errno == errno.ENAMETOOLONG
    assert os.listdir(live) == ["short"]
    assert os.statvfs(live).f_namemax == 255


def test_restore_of_the_whole_gives_every_name(
    named: tuple[Path, list[str]], tmp_path: Path
) -> None:
    store, points = named
    assert restored(store, points[1], tmp_path / "one") == CONTENT
    assert restored(store, points[2], tmp_path / "two") == LATER


@pytest.mark.parametrize("name", [*NAMES[:8], b"--force", b"n" * 255], ids=by_name)
def test_restore_of_one_such_path(
    named: tuple[Path, list[str]], tmp_path: Path, name: bytes
) -> None:
    store, points = named
    (tmp_path / "into").mkdir()
    said = good(holdfast(store, "restore", "--", points[1], name, str(tmp_path / "into")))
    assert files(tmp_path / "into") == {name: CONTENT[name]}
    assert not raw(said)


@pytest.mark.parametrize("name", [b"new\nfile", b"\xff", b"\x1b[31m"], ids=by_name)
def test_restore_to_such_a_target_and_refusal_of_it(
    named: tuple[Path, list[str]], tmp_path: Path, name: bytes
) -> None:
    store, points = named
    target = os.path.join(os.fsencode(tmp_path), name)
    said = good(holdfast(store, "restore", points[1], target))
    assert not raw(said)
    assert files(tmp_path) == {
        name: b"/", **{name + b"/" + one: data for one, data in CONTENT.items()},
    }  # fmt: skip
    line = refused(holdfast(store, "restore", points[1], target), 11, "empty directory")
    assert not raw(line)


@pytest.mark.parametrize("name", [b"no\nsuch", b"\xff", b"\x1b[31m"], ids=by_name)
def test_such_a_path_that_is_not_there_is_refused_in_one_line(
    named: tuple[Path, list[str]], tmp_path: Path, name: bytes
) -> None:
    store, points = named
    line = refused(holdfast(store, "restore", points[1], name, str(tmp_path / "out")), 10, "path")
    assert not raw(line)
    assert not (tmp_path / "out").exists()


def test_diff_has_one_line_for_each_name_without_control_characters(
    named: tuple[Path, list[str]],
) -> None:
    store, points = named
    for old, new, mark, count in [(0, 1, "+", len(NAMES)), (1, 2, "M", len(NAMES))]:
        said = good(holdfast(store, "diff", points[old], points[new]))
        lines = [line for line in said.splitlines() if line.startswith(mark + " ")]
        assert len(lines) == len(said.splitlines()) == count
        assert not raw(said)
        assert f"{mark} two\\nlines  (" in said
        assert f"{mark} \\x1b[31mred\\x1b[0m  (" in said
        assert f"{mark} \\xff\\xfe no UTF-8 \\x80  (" in said
        assert f"{mark} \\u202egpj.exe  (" in said
        assert f"{mark} \N{LATIN SMALL LETTER U WITH DIAERESIS}ber  (" in said


def test_diff_in_json_keeps_every_byte_of_a_name(named: tuple[Path, list[str]]) -> None:
    store, points = named
    said = good(holdfast(store, "diff", points[1], points[2], "--json"))
    assert said.isascii() and not raw(said)
    assert {os.fsencode(one["path"]) for one in json.loads(said)} == set(NAMES)


def test_a_terminal_gets_no_control_character_of_a_name(named: tuple[Path, list[str]]) -> None:
    store, points = named
    ours, theirs = pty.openpty()
    command = [sys.executable, "-c", "from daemon.cli.main import main; main()", "--store", store]
    with subprocess.Popen(
        [*command, "diff", points[1], points[2]], stdout=theirs, stderr=theirs
    ) as run:
        os.close(theirs)
        said = b""
        while True:
            try:
                more = os.read(ours, 1 << 16)
            except OSError:  # EIO: the other end is closed
                break
            said += more
        assert run.wait(LIMIT) == 0
    os.close(ours)
    text = said.decode().replace("\r\n", "\n")
    assert not raw(text)
    assert "\\x1b]0;a title\\x07" in text


def test_labels_are_escaped_as_names_are(empty: Path) -> None:
    label = "two\nlines \x1b[31m"
    good(holdfast(empty, "snapshot", "m", "--label", label))
    listed = good(holdfast(empty, "points"))
    assert len(listed.splitlines()) == 2
    assert not raw(listed)
    assert json.loads(good(holdfast(empty, "points", "--json")))[0]["label"] == label


def test_a_label_that_is_no_utf8_is_refused_and_makes_no_point(empty: Path) -> None:
    assert not raw(refused(holdfast(empty, "snapshot", "m", "--label", b"\xff\xfe"), 2, "label"))
    assert json.loads(good(holdfast(empty, "points", "--json"))) == []


@pytest.mark.parametrize("name", ["two\nlines", "\x1b[31m", "a/b", "", "..", "\xff" * 200])
def test_no_mount_is_created_with_a_name_it_cannot_have(empty: Path, name: str) -> None:
    assert not raw(refused(holdfast(empty, "create", "--", name), 2, "mount name"))


def test_a_store_may_have_such_a_name(tmp_path: Path) -> None:
    store = tmp_path / "sto\nre \x1b[31m ü"
    said = good(holdfast(store, "init"))
    assert not raw(said)
    good(holdfast(store, "create", "m"))
    write(store, CONTENT)
    assert restored(store, snapshot(store), tmp_path / "out") == CONTENT


def test_a_store_whose_name_is_no_utf8_is_refused(tmp_path: Path) -> None:
    """LMDB opens no such path."""
    store = tmp_path / os.fsdecode(b"store \xff")
    assert not raw(refused(holdfast(store, "init"), 2, "UTF-8"))
    assert not store.exists()
