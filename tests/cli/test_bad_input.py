"""The command line's answers to what is wrong: one line on standard error, the exit code of the table, no traceback."""

import json
from pathlib import Path

import pytest

from daemon.cli import output
from tests.cli.support import holdfast


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["init"], 11, "store"),
        (["create", "m"], 11, "mount"),
        (["create", "../m"], 2, "mount name"),
        (["create", "n", "--chunking", "sliding"], 2, "chunking"),
        (["points", "nope"], 10, "mounts: m"),
        (["rm", "0000"], 10, "point"),
        (["restore", "m@latest", "/nowhere/at/all"], 10, "point"),
        (["mount", "m", "/nowhere/at/all"], 10, "/nowhere/at/all"),
        (["frobnicate"], 2, "No such command"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_wrong_requests(empty: Path, arguments: list[str], code: int, said: str) -> None:
    done = holdfast(empty, *arguments)
    assert done.returncode == code, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_path_that_is_no_store(tmp_path: Path) -> None:
    done = holdfast(tmp_path, "points")
    assert done.returncode == 10
    assert "holdfast init" in done.stderr


def test_a_store_of_a_newer_format(empty: Path) -> None:
    data = json.loads((empty / "format.json").read_text())
    (empty / "format.json").write_text(json.dumps({**data, "format": 99}))
    done = holdfast(empty, "points")
    assert done.returncode == 21
    assert "newer Holdfast" in done.stderr


def test_restore_over_what_is_there_needs_force(empty: Path, tmp_path: Path) -> None:
    assert holdfast(empty, "snapshot", "m").returncode == 0
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("kept")
    assert holdfast(empty, "restore", "m@latest", str(tmp_path / "out")).returncode == 11
    assert (tmp_path / "out" / "mine").read_text() == "kept"
    assert holdfast(empty, "restore", "m@latest", str(tmp_path / "out"), "--force").returncode == 0


def test_names_are_escaped() -> None:
    assert output.shown(b"a\nb\x1b[31m\xff") == "a\\nb\\x1b[31m\\xff"
