"""The kernel's server is told by a fragment and a program; here a script stands in for the program, since this kernel
may have no server."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from daemon.contract import ExportInfo
from daemon.export import KernelExports, Wanted, kernel
from daemon.export.exporter import Exporter
from daemon.export.ganesha import Settings
from daemon.mounter.places import Allowed
from engine.errors import HoldfastError, Unsupported

DEVICES = {"/mnt/holdfast/db": (0, 40)}


@pytest.fixture
def wanted(monkeypatch: pytest.MonkeyPatch) -> list[Wanted]:
    monkeypatch.setattr(kernel, "mounted_at", DEVICES.get)
    return [Wanted("db", "s/1", "/mnt/holdfast/db", (ExportInfo("db", "192.0.2.0/24"),))]


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the program was called with, a line each time."""
    program = tmp_path / "bin" / "exportfs"
    program.parent.mkdir()
    program.write_text(
        f'#!/bin/sh\necho "$@" >> {tmp_path}/told\n[ ! -e {tmp_path}/bad ] || {{ echo no such >&2; exit 1; }}\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    return tmp_path / "told"


def test_it_is_told_when_something_changes(
    wanted: list[Wanted], told: Path, tmp_path: Path
) -> None:
    exports = KernelExports(str(tmp_path / "exports.d"), lambda: wanted)
    fragment = tmp_path / "exports.d" / kernel.FRAGMENT
    assert exports.state("db", "192.0.2.0/24") == "pending"
    exports.apply()
    exports.apply()
    assert told.read_text() == "-ra\n"
    assert "/mnt/holdfast/db 192.0.2.0/24(rw," in fragment.read_text()
    assert exports.state("db", "192.0.2.0/24") == "active"
    wanted[0] = Wanted("db", "s/1", "", wanted[0].exports)
    exports.apply()
    assert exports.state("db", "192.0.2.0/24") == "pending"
    assert "/mnt" not in fragment.read_text()
    exports.close()
    assert not fragment.exists()
    assert told.read_text() == "-ra\n" * 3


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_an_exporter_tells_it_for_a_daemon_that_is_not_root(
    wanted: list[Wanted], told: Path, tmp_path: Path
) -> None:
    allowed = Allowed(65534, 65534, ("/mnt/holdfast",))
    exporter = Exporter(
        str(tmp_path / "f"), Settings(), lambda: allowed, exports_d=str(tmp_path / "d")
    )
    exports = [{"client": "192.0.2.0/24", "read_only": False, "squash": "root"}]
    one = {"mount": "db", "identity": "s/1", "path": "/mnt/holdfast/db", "exports": exports}
    assert exporter.answer(json.dumps({"op": "apply", "wanted": [one]}).encode())["ok"]
    asked = {"op": "state", "mount": "db", "client": "192.0.2.0/24"}
    assert exporter.answer(json.dumps(asked).encode())["state"] == "active"
    assert told.read_text() == "-ra\n"


def test_what_it_says_is_passed_on(wanted: list[Wanted], told: Path, tmp_path: Path) -> None:
    exports = KernelExports(str(tmp_path / "exports.d"), lambda: wanted)
    (tmp_path / "bad").touch()
    with pytest.raises(HoldfastError, match="no such"):
        exports.apply()
    assert exports.state("db", "192.0.2.0/24").startswith("failed: exportfs -ra: found no such")
    (tmp_path / "bad").unlink()
    exports.apply()
    assert exports.state("db", "192.0.2.0/24") == "active"


def test_without_the_program(
    wanted: list[Wanted], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    exports = KernelExports(str(tmp_path / "exports.d"), lambda: wanted)
    with pytest.raises(Unsupported, match="exportfs"):
        exports.apply()


def test_a_mount_that_was_made_again_is_told_anew(
    wanted: list[Wanted], told: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exports = KernelExports(str(tmp_path / "exports.d"), lambda: wanted)
    exports.apply()
    monkeypatch.setattr(kernel, "mounted_at", {"/mnt/holdfast/db": (0, 41)}.get)
    exports.apply()
    assert told.read_text() == "-ra\n" * 2
