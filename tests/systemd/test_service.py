"""The service as installed, under a systemd that was booted for it: the units, the mounter, the sandbox, the watchdog.

One machine for all; the tests use it one after the other, in this order. That a worker starts at all in the service's
sandbox is proved nowhere else: the unit refuses ``capset``, which a worker may only ask for where it has capabilities
to give up (fsmount/unprivileged.py).
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.systemd import machine as rig
from tests.systemd.machine import Machine, groups, living, status, wait_until
from tools import install

pytestmark = [pytest.mark.needs_fuse, pytest.mark.needs_boot, pytest.mark.alone]

MOUNT = "/mnt/holdfast/oracle"
WORKER = "-m fsmount"
USER = ("setpriv", "--reuid=1000", "--regid=1000", "--clear-groups", "--")
WATCHDOG = 3  # s, less than the unit says


@pytest.fixture(scope="module")
def staged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("staged")
    try:
        rig.stage(folder)
    except install.Refused as reason:
        pytest.skip(f"no Python to install with: {reason}")
    return folder


@pytest.fixture(scope="module")
def machine(staged: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """One on which was done what the README says."""
    booted = Machine(tmp_path_factory.mktemp("machine"), staged)
    try:
        for line in (
            "systemd-sysusers; systemd-tmpfiles --create holdfast.conf; systemctl daemon-reload",
            "sed 's/^# scratch/scratch/' /usr/local/share/holdfast/holdfast.toml > /etc/holdfast/holdfast.toml",
            "install -d -o holdfast -g holdfast /var/lib/holdfast/restored",
            "holdfast config check && runuser -u holdfast -- holdfast init",
            "systemctl enable --now holdfast",
            f"holdfast create oracle && holdfast start oracle && chmod 1777 {MOUNT}",
        ):
            booted.run("sh", "-euc", line)
        booted.run(*USER, "sh", "-c", f"echo hello > {MOUNT}/file")
        yield booted
    finally:
        booted.stop()


def mounted(machine: Machine) -> bool:
    """Whether something is mounted there; a look at the mount itself could hang."""
    return f" {MOUNT} " in machine.run("cat", "/proc/1/mountinfo")


def usable(machine: Machine) -> bool:
    return machine.run("cat", f"{MOUNT}/file", check=False) == "hello\n"


def worker(machine: Machine) -> int:
    (found,) = machine.processes(WORKER)
    return found


def test_the_service_is_ready_and_its_worker_serves_through_the_mounter(machine: Machine) -> None:
    assert machine.property("holdfast", "Type") == "notify"
    assert machine.property("holdfast", "SubState") == "running"
    wait_until(
        lambda: machine.property("holdfast", "StatusText") == "mounts: 1 serving", "the status"
    )
    assert machine.property("holdfast-mounter.socket", "SubState") == "running"
    assert machine.property("holdfast-mounter", "ActiveState") == "active"
    assert mounted(machine)
    assert r"fuse.holdfast /srv/holdfast\043oracle" in machine.run("cat", "/proc/1/mountinfo")
    assert machine.run("systemctl", "--failed", "--plain", "--no-legend") == ""


def test_what_serves_has_no_privilege(machine: Machine) -> None:
    user = machine.run("id", "-u", "holdfast").strip()
    for process in (machine.main("holdfast"), worker(machine)):
        assert process
        assert status(process, "Uid").split() == [user] * 4
        for sets in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
            assert int(status(process, sets), 16) == 0, sets
        assert status(process, "NoNewPrivs") == "1"
        assert status(process, "Seccomp") == "2"
    # root, and of its capabilities four
    mounter = machine.main("holdfast-mounter")
    assert status(mounter, "Uid").split() == ["0"] * 4
    assert int(status(mounter, "CapEff"), 16).bit_count() == 4


def test_an_ordinary_user_writes_and_a_point_is_restored_where_it_may_be(machine: Machine) -> None:
    assert machine.run("stat", "-c", "%u:%g", f"{MOUNT}/file") == "1000:1000\n"
    machine.run("holdfast", "snapshot", "oracle")
    asked = {"point": "oracle@latest", "place": "scratch"}
    job = api(machine, "restores", "--json", json.dumps(asked))
    wait_until(
        lambda: api(machine, f"jobs/{job['id']}")["state"] not in ("queued", "running"),
        "the restore",
    )
    done = api(machine, f"jobs/{job['id']}")
    assert done["state"] == "done", done
    found = machine.run("find", "/var/lib/holdfast/restored", "-name", "file").split()
    assert len(found) == 1
    assert machine.run("cat", found[0]) == "hello\n"


def test_a_drill_runs_in_the_sandbox_from_here_and_from_a_location(machine: Machine) -> None:
    """Scratch directory, hook, and what is borrowed from the location: all within what the unit lets it write."""
    near = "/var/lib/holdfast/near"
    hook = 'test "$(cat "$HOLDFAST_PATH/file")" = hello && test "$(id -un)" = holdfast && echo verified'
    for line in (
        'printf \'[mounts.oracle.hooks.verify]\\ncommand = ["/bin/sh", "-c", %s]\\n\' '
        f"'{json.dumps(hook)}' >> /etc/holdfast/holdfast.toml",
        "holdfast config check && holdfast config reload",
        f"install -d -o holdfast -g holdfast {near}",
        f"holdfast location add near file://{near} --recovery-key-out /root/near.key",
        "holdfast snapshot oracle --wait remote",
    ):
        machine.run("sh", "-euc", line)
    for source in ("", " --from near"):
        said = machine.run("sh", "-euc", f"holdfast drill oracle{source}")
        assert "verified in" in said, said
    drills = json.loads(machine.run("holdfast", "drills", "oracle", "--json"))
    assert [(one["source"], one["error"]) for one in drills] == [("near", ""), ("local", "")]
    assert machine.run("find", "/srv/holdfast/daemon/drills", "-mindepth", "1") == ""
    assert machine.run("systemctl", "--failed", "--plain", "--no-legend") == ""


def api(machine: Machine, path: str, *options: str) -> dict[str, object]:
    """What the API answers at its socket, where root needs no token."""
    said = machine.run(
        "curl", "-sS", "--unix-socket", "/run/holdfast/api.sock", f"http://localhost/v1/{path}", *options
    )  # fmt: skip
    answer = json.loads(said)
    assert isinstance(answer, dict) and "kind" in answer, said
    return answer


def test_a_worker_that_is_killed_comes_back(machine: Machine) -> None:
    machine.run("sync", f"{MOUNT}/file")
    old = worker(machine)
    os.kill(old, signal.SIGKILL)
    wait_until(lambda: old not in machine.processes(WORKER) and usable(machine), "the next worker")
    assert worker(machine) != old
    machine.run(*USER, "sh", "-c", f"echo more > {MOUNT}/more")


def test_a_restart_brings_the_mount_back(machine: Machine) -> None:
    """The watchdog's time of the tests below is taken with it."""
    place = "/run/systemd/system/holdfast.service.d"
    machine.run(
        "sh", "-euc", f"mkdir -p {place}; printf '[Service]\\nWatchdogSec={WATCHDOG}\\n' > {place}/rig.conf;"
        "systemctl daemon-reload; systemctl restart holdfast",
    )  # fmt: skip
    assert machine.property("holdfast", "WatchdogUSec") == f"{WATCHDOG}s"
    wait_until(lambda: usable(machine), "the mount to be usable")


def test_a_daemon_that_is_killed_leaves_the_mount_to_the_next(machine: Machine) -> None:
    serving = worker(machine)
    old = machine.main("holdfast")
    assert old
    os.kill(old, signal.SIGKILL)
    assert usable(machine)
    wait_until(
        lambda: machine.main("holdfast") not in (0, old) and active(machine), "the next daemon"
    )
    assert worker(machine) == serving
    assert usable(machine)


def active(machine: Machine) -> bool:
    return machine.property("holdfast", "ActiveState") == "active"


def test_a_daemon_that_hangs_is_ended_and_meanwhile_the_bare_mount_point_takes_nothing(
    machine: Machine,
) -> None:
    machine.run("sync", f"{MOUNT}/file")
    sealable = seals(machine)
    started = int(machine.property("holdfast", "NRestarts"))
    hung, serving = machine.main("holdfast"), worker(machine)
    assert hung
    os.kill(hung, signal.SIGSTOP)
    os.kill(serving, signal.SIGKILL)  # which nobody notices now
    machine.run("umount", "-l", MOUNT)
    if sealable:
        assert "not permitted" in machine.run("touch", f"{MOUNT}/stray", check=False)
    wait_until(
        lambda: machine.property("holdfast", "NRestarts") == str(started + 1), "the watchdog"
    )
    assert f"Watchdog timeout (limit {WATCHDOG}s)!" in machine.journal()
    wait_until(lambda: usable(machine), "the mount to be usable")
    assert worker(machine) != serving
    if not sealable:
        pytest.skip("no chattr +i here: that a bare mount point takes nothing was not tried")


def seals(machine: Machine) -> bool:
    """Whether a directory of this machine's file system can be made immutable."""
    said = machine.run(
        "sh", "-c", "mkdir /mnt/probe; chattr +i /mnt/probe && chattr -i /mnt/probe && echo yes; rmdir /mnt/probe",
    )  # fmt: skip
    return "yes" in said


def test_every_unit_loads(machine: Machine) -> None:
    """Timers and sockets start; what they would start is known."""
    machine.run(
        "sh", "-euc", "echo HOLDFAST_STORE=/srv/holdfast > /etc/holdfast/oracle.env;"
        "systemctl start holdfast-scrub@oracle.timer holdfast-gc@oracle.timer holdfast-exporter.socket",
    )  # fmt: skip
    for unit in ("holdfast-scrub@oracle.timer", "holdfast-gc@oracle.timer"):
        assert machine.property(unit, "SubState") == "waiting"
        assert machine.property(unit, "NextElapseUSecRealtime")
    assert machine.property("holdfast-exporter.socket", "SubState") == "listening"
    for unit in ("exporter", "mounter", "mount@oracle", "scrub@oracle", "gc@oracle"):
        assert machine.property(f"holdfast-{unit}.service", "LoadState") == "loaded"
        assert machine.property(f"holdfast-{unit}.service", "NeedDaemonReload") == "no"
    assert "holdfast" not in machine.run("systemctl", "--failed", "--plain", "--no-legend")


def test_a_stop_leaves_no_mount(machine: Machine) -> None:
    machine.run("systemctl", "stop", "holdfast")
    assert machine.property("holdfast", "Result") == "success"
    assert not mounted(machine)
    assert machine.processes(WORKER) == []
    machine.run("rmdir", MOUNT)  # no longer sealed
    machine.run("install", "-d", "-o", "holdfast", "-g", "holdfast", MOUNT)


# --- the rig leaves nothing --------------------------------------------------------------------------------


def nothing_is_left(space: str, scratch: Path) -> None:
    """No process of it, hence no namespace; no mount."""
    wait_until(lambda: not list(living(space)), "every process of the machine to be gone")
    assert str(scratch) not in Path("/proc/self/mountinfo").read_text()


def test_a_machine_that_is_stopped_is_gone(machine: Machine) -> None:
    """With its service at work and a mount in use."""
    machine.run("systemctl", "start", "holdfast")
    wait_until(lambda: usable(machine), "the mount to be usable")
    space = os.readlink(f"/proc/{machine.pid}/ns/pid")
    assert len(list(living(space))) > 3
    machine.stop()
    nothing_is_left(space, machine.scratch)
    assert groups(machine.name) == []


def test_a_machine_ends_with_who_booted_it(staged: Path, tmp_path: Path) -> None:
    booted = subprocess.Popen(
        [sys.executable, "-m", "tests.systemd.machine", tmp_path / "machine", staged],
        stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert booted.stdout is not None
    with booted, booted.stdout:
        try:
            space = os.readlink(f"/proc/{int(booted.stdout.readline())}/ns/pid")
        finally:
            booted.kill()
            booted.wait(rig.LIMIT)
    nothing_is_left(space, tmp_path / "machine")
    wait_until(
        lambda: not (rig.sweep(), groups(f"{rig.PREFIX}{booted.pid}-*"))[1],
        "its control group to go",
    )


def test_a_machine_that_cannot_boot_says_why(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"the machine did not boot: .*stage"):
        Machine(tmp_path / "machine", tmp_path / "nothing")
    assert groups(f"{rig.PREFIX}{os.getpid()}-machine") == []
