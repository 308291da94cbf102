"""The unit files: systemd takes them, and they start commands that exist."""

import shutil
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from daemon.cli.main import cli
from engine import Store

UNITS = Path(__file__).parents[2] / "systemd"


def lines(unit: Path) -> list[str]:
    return [line for line in unit.read_text().splitlines() if line and not line.startswith("#")]


def started(unit: str) -> list[str]:
    """Command and arguments of a unit."""
    found = [x.partition("=")[2] for x in lines(UNITS / unit) if x.startswith("ExecStart=")]
    (program, *words) = found[0].split()
    assert len(found) == 1 and program.endswith("/.venv/bin/holdfast")
    return words


def test_what_is_started_is_a_command_with_these_arguments() -> None:
    command, *arguments = started("holdfast-mount@.service")
    assert arguments == ["%i", "${HOLDFAST_PATH}"]
    shown = CliRunner().invoke(cli, [command, "--help"])
    assert "NAME[@POINT] PATH" in shown.output


def test_the_scrub_that_is_started_each_day_is_one(tmp_path: Path) -> None:
    Store.init(str(tmp_path / "store"))
    done = CliRunner().invoke(
        cli, ["--store", str(tmp_path / "store"), *started("holdfast-scrub@.service")]
    )
    assert done.exit_code == 0, done.output
    assert "all of it" in done.output
    assert "OnCalendar=daily" in lines(UNITS / "holdfast-scrub@.timer")


def test_no_unit_of_a_mount_hides_it() -> None:
    for unit in UNITS.glob("holdfast-mount*.service"):
        names = {line.partition("=")[0] for line in lines(unit)}
        hiding = {"ProtectSystem", "ProtectHome", "PrivateTmp", "PrivateDevices", "PrivateMounts"}
        assert not names & (hiding | {"NoNewPrivileges", "ReadWritePaths"}), unit


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="needs systemd-analyze")
def test_systemd_takes_the_units(tmp_path: Path) -> None:
    units = [*UNITS.glob("*.service"), *UNITS.glob("*.timer")]
    for unit in units:  # all of them first: a timer looks for its service
        text = unit.read_text().replace("/opt/holdfast/.venv/bin/holdfast", "/bin/true")
        (tmp_path / unit.name.replace("@", "@one")).write_text(text)
    for unit in units:
        copy = tmp_path / unit.name.replace("@", "@one")
        done = subprocess.run(
            ["systemd-analyze", "verify", "--man=no", copy],
            capture_output=True,
            text=True,
            check=False,
        )
        assert unit.name.split("@")[0] not in done.stderr, done.stderr
        assert done.returncode == 0, done.stderr
