"""The unit files: systemd takes them, they are shut in as they say, and they start commands that exist."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from daemon.cli.main import cli
from daemon.mounter.__main__ import main as mounter
from engine import Store

UNITS = Path(__file__).parents[2] / "systemd"
PROGRAM = "/usr/local/bin/holdfast"
PYTHON = "/usr/local/lib/holdfast/bin/python"
NAMESPACE = {
    "ProtectSystem", "ProtectHome", "PrivateTmp", "PrivateDevices", "PrivateMounts", "PrivateUsers", "PrivateIPC",
    "ProtectKernelTunables", "ProtectKernelModules", "ProtectKernelLogs", "ProtectControlGroups", "ProtectProc",
    "ProcSubset", "ReadWritePaths", "ReadOnlyPaths", "InaccessiblePaths", "ExecPaths", "NoExecPaths", "BindPaths",
    "BindReadOnlyPaths", "TemporaryFileSystem", "RootDirectory", "RootImage", "MountImages", "ExtensionImages",
    "MountFlags", "DynamicUser", "LogNamespace", "PrivateNetwork",
}  # fmt: skip
"""Settings that give a unit a mount namespace of its own, or may in another version."""

analyzed = pytest.mark.skipif(
    not shutil.which("systemd-analyze"), reason="needs systemd-analyze (Debian package systemd)"
)


def lines(unit: Path) -> list[str]:
    return [line for line in unit.read_text().splitlines() if line and not line.startswith("#")]


def started(unit: str) -> list[str]:
    """Command and arguments of a unit."""
    found = [x.partition("=")[2] for x in lines(UNITS / unit) if x.startswith("ExecStart=")]
    (program, *words) = found[0].split()
    assert len(found) == 1 and program == PROGRAM
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


def test_the_collection_that_is_started_each_day_is_one(tmp_path: Path) -> None:
    Store.init(str(tmp_path / "store"))
    words = started("holdfast-gc@.service")
    done = CliRunner().invoke(cli, ["--store", str(tmp_path / "store"), *words])
    assert done.exit_code == 0, done.output
    assert "OnCalendar=daily" in lines(UNITS / "holdfast-gc@.timer")


def test_the_mounter_is_started_as_it_wants_to_be(capsys: pytest.CaptureFixture[str]) -> None:
    found = [x for x in lines(UNITS / "holdfast-mounter.service") if x.startswith("ExecStart=")]
    program, isolated, m, module, *words = found[0].partition("=")[2].split()
    assert (program, isolated, m, module) == (PYTHON, "-I", "-m", "daemon.mounter")
    with pytest.raises(SystemExit):
        mounter(["--help"])
    helped = capsys.readouterr().out
    assert all(word in helped for word in words if word.startswith("--"))


def names_of(unit: str) -> set[str]:
    return {line.partition("=")[0] for line in lines(UNITS / unit)}


def test_no_unit_of_a_mount_hides_it() -> None:
    for unit in [*UNITS.glob("holdfast-mount*.service"), UNITS / "holdfast-exporter.service"]:
        assert not names_of(unit.name) & NAMESPACE, unit
    assert "NoNewPrivileges" not in names_of("holdfast-mount@.service")


def test_the_mounter_may_do_what_it_does() -> None:
    """RestrictSUIDSGID= takes openat2 away; without the two capabilities it cannot seal another's directory."""
    assert "RestrictSUIDSGID" not in names_of("holdfast-mounter.service")
    found = [x for x in lines(UNITS / "holdfast-mounter.service") if x.startswith("CapabilityB")]
    assert {"CAP_SYS_ADMIN", "CAP_LINUX_IMMUTABLE", "CAP_FOWNER"} <= set(
        found[0].replace("=", " ").split()
    )


def test_no_unit_leaves_a_core() -> None:
    for unit in UNITS.glob("*.service"):
        assert "LimitCORE=0" in lines(unit), unit


@analyzed
@pytest.mark.parametrize(
    ("unit", "most"), [("holdfast.service", 2.0), ("holdfast-mounter.service", 4.0)]
)
def test_exposure(unit: str, most: float) -> None:
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", f"--threshold={most * 10:.0f}", "--no-pager", UNITS / unit],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    said = re.search(r"Overall exposure level for \S+: ([\d.]+)", done.stdout)
    assert said is not None and done.returncode == 0, done.stdout[-500:] + done.stderr
    assert float(said[1]) < most
    if unit == "holdfast.service":  # the score that the unit and the README tell is the one it has
        text = (UNITS / unit).read_text() + (UNITS.parent / "README.md").read_text()
        assert text.count(f"{said[1]} of 10") == 2


@analyzed
def test_systemd_takes_the_units(tmp_path: Path) -> None:
    units = [path for path in UNITS.iterdir() if path.suffix in (".service", ".timer", ".socket")]
    for unit in units:  # all of them first: a timer looks for its service
        text = unit.read_text().replace(PROGRAM, "/bin/true").replace(PYTHON, "/bin/true")
        (tmp_path / unit.name.replace("@.", "@one.")).write_text(text)
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *sorted(tmp_path.iterdir())],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert "holdfast" not in done.stderr, done.stderr
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to make directories for another user")
@pytest.mark.skipif(not shutil.which("systemd-sysusers"), reason="needs systemd-sysusers")
@pytest.mark.skipif(not shutil.which("systemd-tmpfiles"), reason="needs systemd-tmpfiles")
def test_the_user_and_the_directories_are_made(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    for command in (
        ["systemd-sysusers", f"--root={tmp_path}", UNITS / "holdfast.sysusers"],
        ["systemd-tmpfiles", f"--root={tmp_path}", "--create", UNITS / "holdfast.tmpfiles"],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 0, done.stderr
    user = (tmp_path / "etc" / "passwd").read_text().split(":")
    assert user[0] == "holdfast" and user[2] != "0"
    for path, mode in (
        ("run/holdfast", 0o755),
        ("var/lib/holdfast", 0o755),
        ("srv/holdfast", 0o700),
        ("mnt/holdfast", 0o755),
    ):
        status = (tmp_path / path).stat()
        assert (status.st_mode & 0o7777, str(status.st_uid)) == (mode, user[2])
    status = (tmp_path / "etc" / "holdfast").stat()
    assert (status.st_mode & 0o7777, status.st_uid) == (
        0o750,
        0,
    )  # the mounter obeys what root alone may change
