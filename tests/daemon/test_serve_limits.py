"""What the daemon takes, and what nobody waits for: memory, descriptors, threads; maintenance; privilege."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.errors import PermissionDenied
from tests.daemon.mounter.conftest import environment, interpreter
from tests.daemon.supervise.daemons import Daemon, until

pytestmark = pytest.mark.needs_fuse
MIB = 1 << 20


def memory(pid: int) -> int:
    """Resident bytes, as the kernel counts them now."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Rss:"):
            return int(line.split()[1]) * 1024
    raise AssertionError(pid)


def descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def threads(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/task"))


def test_idle_with_ten_mounts(make: Callable[..., Daemon]) -> None:
    daemon = make("".join(f"[mounts.m{n}]\n" for n in range(10)), command=(sys.executable,))
    daemon.start()
    assert daemon.process is not None
    pids = daemon.pids()
    assert len(pids) == 10
    assert memory(daemon.process.pid) <= 120 * MIB
    assert max(map(memory, pids.values())) <= 60 * MIB


def test_sessions_in_a_row_leave_nothing(make: Callable[..., Daemon]) -> None:
    """A twentieth of a thousand; the benchmark does all of them."""
    daemon = make("[mounts.a]\n", command=(sys.executable,))
    daemon.start()
    assert daemon.process is not None
    both = [daemon.process.pid, daemon.pids()["a"]]

    def sessions(count: int) -> None:
        with daemon.remote() as api:
            for number in range(count):
                session = api.begin("a")
                (daemon.mount("a") / "file").write_bytes(b"%d" % number * 1000)
                api.commit(session.id)

    sessions(15)
    before = [(descriptors(pid), threads(pid), memory(pid)) for pid in both]
    sessions(50)
    until(lambda: all(descriptors(pid) <= b[0] + 2 for pid, b in zip(both, before, strict=True)))
    for pid, (_, tasks, size) in zip(both, before, strict=True):
        assert threads(pid) <= tasks + 4
        assert memory(pid) - size <= 8 * MIB


def test_a_write_never_waits_for_maintenance(make: Callable[..., Daemon]) -> None:
    """Scrub and check are at work all the time, as slow as can be: writes, syncs and commits come and go."""
    daemon = make("[mounts.a]\n")
    daemon.start()
    with daemon.remote() as api:
        for number in range(4):
            (daemon.mount("a") / f"f{number}").write_bytes(os.urandom(2 * MIB))
        api.snapshot("a")
        job = api.start_job("scrub", {"rate": 1000})
        until(lambda: api.job(job.id).state == "running")
        begin = time.monotonic()
        for number in range(20):
            session = api.begin("a")
            fd = os.open(daemon.mount("a") / f"g{number}", os.O_WRONLY | os.O_CREAT)
            os.write(fd, os.urandom(10_000))
            os.fsync(fd)
            os.close(fd)
            api.commit(session.id)
        took = time.monotonic() - begin
        assert api.job(job.id).state == "running"
        assert took < 20
        api.cancel_job(job.id)
        until(lambda: api.job(job.id).state == "cancelled")


def test_as_a_user_without_privilege(make: Callable[..., Daemon]) -> None:
    """Started by root it becomes the service's user; what stays root only mounts."""
    if os.geteuid():
        pytest.skip("only root has privileges to give up")
    python = interpreter()
    if not python:
        pytest.skip("no Python that another user can run")
    daemon = make("[mounts.a]\n", user="nobody", command=python, environment=environment())
    daemon.mount("a").mkdir()
    os.chown(daemon.root / "mnt", 0, 0)  # so that the service cannot make the other mount point
    daemon.write("[mounts.a]\n[mounts.b]\n")
    daemon.start()
    with daemon.remote() as api, pytest.raises(PermissionDenied, match="mnt/b: expected a dir"):
        api.start_mount("b")
    assert daemon.process is not None
    for pid in (daemon.process.pid, daemon.pids()["a"]):
        status = dict(
            line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines()
        )
        assert int(status["CapEff"], 16) == 0
        assert int(status["CapPrm"], 16) == 0
        assert "0" not in status["Uid"].split()
    before = daemon.pids()["a"]
    assert before
    os.kill(before, signal.SIGKILL)
    until(lambda: daemon.pids()["a"] not in (0, before) and daemon.mount("a").is_mount())
    (daemon.mount("a") / "x").write_bytes(b"x")
    with daemon.remote() as api:
        session = api.begin("a")
        assert [one.path for one in api.commit(session.id).manifest] == ["x"]
    assert daemon.stop() < 30
    assert not daemon.mount("a").is_mount()
