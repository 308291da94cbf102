"""The Phoenix-compatible API of a real daemon that is killed in the middle of a session."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from daemon.contract import PointQuery
from tests.daemon.phoenix.rig import BASE
from tests.daemon.phoenix.scripts import ROOT, SCRIPTS
from tests.daemon.supervise.daemons import Daemon, until
from tools.demolib.service import free_port

pytestmark = pytest.mark.needs_fuse

SIMULATION = ROOT / "tests/daemon/phoenix/simulated_rman.py"
COMMANDS = "RUN { ALLOCATE CHANNEL c1 DEVICE TYPE DISK FORMAT '&1/%U'; BACKUP DATABASE; }"


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def daemon(port: int) -> Iterator[Daemon]:
    """With the mount ``a``, served."""
    root = Path(tempfile.mkdtemp(prefix="hf-"))  # short: sockets are in it
    made = Daemon(root)
    made.write(
        "[mounts.a]\n",
        instead={"enabled = false": f'enabled = true\nlisten = ["127.0.0.1:{port}"]'},
    )
    try:
        made.start()
        with made.remote() as api:
            until(lambda: api.mount("a").state == "serving")
        yield made
        made.stop()
    finally:
        made.end()
        shutil.rmtree(root)


def test_a_session_survives_the_daemon_and_so_does_what_is_written_meanwhile(
    daemon: Daemon, port: int
) -> None:
    url, live = f"http://127.0.0.1:{port}{BASE}/mounts/a/backup", daemon.mount("a")
    assert httpx.post(url).json()["result"]["mount_path"] == str(live)
    (live / "before").write_text("1")
    with (live / "open").open("w") as file:
        file.write("2")
        daemon.kill()
        file.write("3")  # the worker serves on
        (live / "without").write_text("4")
    daemon.start()
    assert httpx.post(url).json()["error_code"] == 0
    made = httpx.put(url, timeout=30).json()
    assert made["error_code"] == 0
    assert httpx.put(url).json()["error_code"] == 4295622659
    with daemon.remote() as api:
        assert len(api.sessions("a")) == 1
        [point] = api.points(PointQuery("a")).items
        assert made["result"]["snap_name"] == f"{point.id}_1"
        assert [one.name for one in api.entries(point.id).items] == ["before", "open", "without"]
        assert b"".join(api.file(point.id, "open")[1]) == b"23"


def test_a_script_goes_on_when_the_daemon_is_back(daemon: Daemon, port: int) -> None:
    data, commands, rman = (daemon.root / name for name in ("data.dbf", "all.rman", "rman"))
    data.write_bytes(os.urandom(10 << 20))
    commands.write_text(COMMANDS)
    rman.write_text(f'#!/bin/sh\nexec {sys.executable} {SIMULATION} "$@"\n')
    rman.chmod(0o755)
    script = subprocess.Popen(
        [SCRIPTS / "rman-backup", "--mount", "a", "--api", f"http://127.0.0.1:{port}", "--cmdfile", commands,
         "--rman", rman, "--pause", "2", "--tries", "10"],
        env=dict(os.environ, SIM_DATAFILES=str(data), SIM_PAUSE="0.1"), text=True, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    until(lambda: bool(os.listdir(daemon.mount("a"))))
    daemon.kill()
    daemon.start()
    out, err = script.communicate(timeout=60)
    assert script.returncode == 0, err
    with daemon.remote() as api:
        [point] = api.points(PointQuery("a")).items
        assert out == f"{point.id}_1\n"
        [piece] = api.entries(point.id).items
        content = b"".join(api.file(point.id, piece.name)[1])
    assert content[:8] == b"SIMULATE" and content[8192:] == data.read_bytes()
