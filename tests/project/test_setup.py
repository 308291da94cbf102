"""tools/setup says what it will not do, and what it cannot do without root, before it does it."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PLAIN_TOOLS = ("sh", "dirname", "basename", "sed", "cat", "sha256sum", "flock", "env", "echo", "rm")


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """A copy of the tree's set-up, and a ``bin`` that has a bare system's programs only."""
    shutil.copytree(ROOT / "tools" / "lib", tmp_path / "tools" / "lib")
    shutil.copy(ROOT / "tools" / "setup", tmp_path / "tools")
    for path in [ROOT / "pyproject.toml", *ROOT.glob("requirements*")]:
        shutil.copy(path, tmp_path)
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in PLAIN_TOOLS:
        target = shutil.which(name)
        assert target is not None
        (programs / name).symlink_to(target)
    return tmp_path


def write_program(place: Path, text: str) -> None:
    place.write_text(f"#!/bin/sh\n{text}\n")
    place.chmod(0o755)


def setup(tree: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Run it with nothing but the bare programs, and no Python to be found."""
    return subprocess.run(
        [tree / "tools" / "setup", *options],
        env={"PATH": str(tree / "bin"), "HOLDFAST_PYTHON": str(tree / "no-python")},
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
        timeout=60,
    )


def test_unknown_option_shows_the_usage(bare: Path) -> None:
    result = setup(bare, "--everything")
    assert result.returncode == 2
    assert "usage: tools/setup [--dev] [--demo]" in result.stderr
    assert result.stdout == ""


def test_without_root_and_sudo_it_names_the_line_for_root(bare: Path) -> None:
    write_program(bare / "bin" / "id", "echo 1000")
    write_program(bare / "bin" / "apt-get", f"touch '{bare}/apt-was-called'")
    result = setup(bare, "--dev")
    assert result.returncode == 1
    (line,) = [line for line in result.stderr.splitlines() if "apt-get install" in line]
    words = line.split()
    for package in ("python3", "python3-venv", "python3-dev", "gcc", "libc6-dev", "pkg-config"):
        assert package in words
    assert {"fuse3", "libfuse3-dev"} <= set(words)
    assert not (bare / "apt-was-called").exists()
    assert not (bare / ".venv").exists()


def test_a_user_installs_through_sudo_and_a_failure_ends_it(bare: Path) -> None:
    write_program(bare / "bin" / "id", "echo 1000")
    write_program(bare / "bin" / "sudo", 'SUDO=1 exec "$@"')
    asked = bare / "asked"
    write_program(bare / "bin" / "apt-get", f'echo "$SUDO $*" >>"{asked}"; [ "$1" = update ]')
    result = setup(bare)
    assert result.returncode == 1
    assert "apt-get could not install: python3 " in result.stderr
    update, install = asked.read_text().splitlines()
    assert update == "1 update -q"
    assert install.startswith("1 install -q -y --no-install-recommends python3 ")
    assert not (bare / ".venv").exists()


def test_without_apt_it_names_what_is_missing(bare: Path) -> None:
    write_program(bare / "bin" / "id", "echo 0")
    result = setup(bare)
    assert result.returncode == 1
    assert "there is no apt-get to install them: python3 " in result.stderr


def test_scripts_are_executable_and_parse() -> None:
    scripts = [ROOT / ".ci" / "run", *(ROOT / "tools").iterdir()]
    scripts = [path for path in scripts if path.is_file() and not path.suffix]
    assert {path.name for path in scripts} >= {"run", "setup", "test", "demo"}
    for path in [*scripts, *(ROOT / "tools" / "lib").glob("*.sh")]:
        shell = "bash" if "bash" in path.read_text().partition("\n")[0] else "sh"
        assert subprocess.run([shell, "-n", path], check=False).returncode == 0
        assert path.suffix or os.access(path, os.X_OK), f"{path.name} cannot be run"
