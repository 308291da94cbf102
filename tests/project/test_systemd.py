"""The unit files: systemd takes them, and they start commands that exist."""

import shutil
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from daemon.cli.main import cli

UNITS = Path(__file__).parents[2] / "systemd"


def lines(unit: Path) -> list[str]:
    return [line for line in unit.read_text().splitlines() if line and not line.startswith("#")]


def test_what_is_started_is_a_command_with_these_arguments() -> None:
    unit = UNITS / "holdfast-mount@.service"
    (start,) = [line.partition("=")[2] for line in lines(unit) if line.startswith("ExecStart=")]
    program, command, *arguments = start.split()
    assert program.endswith("/.venv/bin/holdfast")
    assert arguments == ["%i", "${HOLDFAST_PATH}"]
    shown = CliRunner().invoke(cli, [command, "--help"])
    assert "NAME[@POINT] PATH" in shown.output


def test_no_unit_hides_its_mounts() -> None:
    for unit in UNITS.glob("*.service"):
        names = {line.partition("=")[0] for line in lines(unit)}
        hiding = {"ProtectSystem", "ProtectHome", "PrivateTmp", "PrivateDevices", "PrivateMounts"}
        assert not names & (hiding | {"NoNewPrivileges", "ReadWritePaths"}), unit


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="needs systemd-analyze")
def test_systemd_takes_the_units(tmp_path: Path) -> None:
    for unit in UNITS.glob("*.service"):
        text = unit.read_text().replace("/opt/holdfast/.venv/bin/holdfast", "/bin/true")
        copy = tmp_path / unit.name.replace("@", "@one")
        copy.write_text(text)
        done = subprocess.run(
            ["systemd-analyze", "verify", "--man=no", copy],
            capture_output=True,
            text=True,
            check=False,
        )
        assert unit.name.split("@")[0] not in done.stderr, done.stderr
        assert done.returncode == 0, done.stderr
