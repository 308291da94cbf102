"""The scripts of tools/scripts are sound as text, and say what they do without doing it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

PLACE = Path(__file__).resolve().parents[2] / "tools" / "scripts"
SCRIPTS = sorted(path for path in PLACE.iterdir() if path.is_file())


def test_shellcheck_has_nothing_to_say() -> None:
    files = [*SCRIPTS, PLACE / "lib" / "session.sh"]
    done = subprocess.run(
        ["shellcheck", "--external-sources", "--source-path=SCRIPTDIR", "--severity=style", *files],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_help_names_the_options_and_the_exit_status(script: Path) -> None:
    done = subprocess.run([script, "--help"], capture_output=True, text=True, timeout=20)
    assert done.returncode == 0 and done.stderr == ""
    assert f"usage: {script.name} " in done.stdout
    for word in (
        "--mount NAME",
        "--api URL",
        "--token-file FILE",
        "--dry-run",
        "--nfs SERVER",
        "Exit status",
    ):
        assert word in done.stdout


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_every_option_in_the_help_is_taken(script: Path) -> None:
    text = script.read_text() + (PLACE / "lib" / "session.sh").read_text()
    help_text = subprocess.run(
        [script, "--help"], capture_output=True, text=True, timeout=20
    ).stdout
    own = [line.split()[0] for line in help_text.splitlines() if line.startswith("  --")]
    assert own
    for option in own:
        assert f"\n\t{option.rstrip(',')})" in text or f"\n\t{option.rstrip(',')} |" in text, option
