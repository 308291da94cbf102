"""``holdfast config``: what it prints, and its exit codes."""

from __future__ import annotations

from pathlib import Path

from tests.cli.support import good, holdfast, refused


def test_the_example_is_without_errors(tmp_path: Path) -> None:
    place = tmp_path / "holdfast.toml"
    place.write_text(good(holdfast(tmp_path, "config", "example")))
    assert good(holdfast(tmp_path, "config", "check", str(place))) == f"{place}: no errors\n"


def test_every_error_has_its_line(tmp_path: Path) -> None:
    place = tmp_path / "h\x1b.toml"
    place.write_text("stor = 1\n[log]\nlevel = 1\n")
    done = holdfast(tmp_path, "config", "check", str(place))
    assert done.returncode == 2
    shown = str(place).replace("\x1b", "\\x1b")
    assert done.stderr.splitlines() == [
        f"holdfast: {shown}:1: store: expected a value, found none; write it",
        f"holdfast: {shown}:1: stor: unknown key; did you mean store?",
        f"holdfast: {shown}:3: log.level: expected 'debug', 'info', 'warning' or 'error', found 1",
    ]


def test_no_file(tmp_path: Path) -> None:
    missing = str(tmp_path / "missing")
    refused(holdfast(tmp_path, "config", "check", missing), 10, missing, "config example")
    refused(holdfast(tmp_path, "config", "check", str(tmp_path)), 2, str(tmp_path), "TOML file")
