"""The scripts of tools/scripts, run as they are shipped: a real mount, a real store, the API on a real listener."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from daemon.contract import RestoreSpec
from daemon.http import native
from daemon.http.gate import Gate
from daemon.observe import Audit
from daemon.observe.metrics import Metrics
from tests.daemon.http.serving import serving
from tests.daemon.phoenix.rig import BASE
from tests.daemon.phoenix.scripts import ROOT, SCRIPTS, Rig, served, wait_for

pytestmark = pytest.mark.needs_fuse

SIMULATION = ROOT / "tests/daemon/phoenix/simulated_rman.py"
COMMANDS = """
RUN {
  ALLOCATE CHANNEL c1 DEVICE TYPE DISK FORMAT '&1/%d_%U';
  ALLOCATE CHANNEL c2 DEVICE TYPE DISK FORMAT '&1/%d_%U';   # both at once
  ALLOCATE CHANNEL c3 DEVICE TYPE DISK FORMAT '&1/%d_%U';
  BACKUP INCREMENTAL LEVEL 0 DATABASE;
  RELEASE CHANNEL c1; RELEASE CHANNEL c2; RELEASE CHANNEL c3;
}
"""


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    with served(tmp_path) as rig:
        yield rig


# --- RMAN, simulated ----------------------------------------------------------------------------


@pytest.fixture
def oracle(rig: Rig) -> Rig:
    """Data files, a command file, and the simulation as ``rman``."""
    files = [rig.place / f"{name}.dbf" for name in ("system", "sysaux", "users", "undo")]
    for number, path in enumerate(files):
        path.write_bytes(bytes([number + 1]) * (1 << 20) * 3)
    (rig.place / "all.rman").write_text(COMMANDS)
    programs = rig.place / "bin"
    programs.mkdir()
    (programs / "rman").write_text(f'#!/bin/sh\nexec {sys.executable} {SIMULATION} "$@"\n')
    (programs / "rman").chmod(0o755)
    rig.environment["PATH"] = f"{programs}:{rig.environment['PATH']}"
    rig.environment["SIM_DATAFILES"] = ":".join(map(str, files))
    return rig


def test_rman_ends_in_a_point_with_its_log(oracle: Rig) -> None:
    status, out, err = oracle.run("rman-backup", "--cmdfile", oracle.place / "all.rman")
    assert status == 0, err
    point = oracle.point_of(out)
    pieces = oracle.names(point)
    assert len(pieces) == 3 and all(name.startswith("ORCL_") for name in pieces)
    for name in pieces:
        assert oracle.content(point, name)[:8] == b"SIMULATE"
        assert oracle.content(point, name)[8] != 0  # the header was written again, at the end
    log = oracle.logs(point)["rman-backup.log"].decode()
    assert log.count("piece handle=") == 3 and log.count("input datafile") == 4
    assert json.loads(oracle.logs(point)["rman-backup.log.sent"]) == {
        "mountpoint": str(oracle.live), "platform": "linux",
    }  # fmt: skip
    assert oracle.open_session() == ""


@pytest.mark.parametrize("way", ["write", "silently"])
def test_rman_that_fails_commits_nothing_and_can_be_run_again(oracle: Rig, way: str) -> None:
    words = ("--cmdfile", oracle.place / "all.rman")
    status, out, err = oracle.run("rman-backup", *words, SIM_FAIL=way)
    assert (status, out) == (5, "") and "nothing was committed" in err
    assert oracle.points() == [] and oracle.open_session()
    assert b"RMAN-00569" in oracle.logs()["rman-backup.log"]
    session = oracle.open_session()
    status, out, err = oracle.run("rman-backup", *words)
    assert status == 0, err
    assert oracle.service.sessions("db")[0].id == session
    oracle.point_of(out)


def test_a_command_file_that_writes_elsewhere_commits_nothing(oracle: Rig) -> None:
    elsewhere = oracle.place / "elsewhere"
    elsewhere.mkdir()
    (oracle.place / "all.rman").write_text(COMMANDS.replace("&1", str(elsewhere)))
    status, _, err = oracle.run("rman-backup", "--cmdfile", oracle.place / "all.rman")
    assert status == 5 and "names no file below" in err
    assert oracle.points() == []


def test_a_signal_ends_rman_hands_the_log_in_and_leaves_the_session(oracle: Rig) -> None:
    words = ("--cmdfile", oracle.place / "all.rman")
    process = oracle.start("rman-backup", *words, SIM_PAUSE="0.3")
    wait_for(lambda: len(list(oracle.live.iterdir())) == 3)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 128 + 15 and "left open" in err
    assert b"stopped by TERM" in oracle.logs()["rman-backup.log"]
    assert oracle.points() == [] and oracle.open_session()
    assert oracle.run("rman-backup", *words)[0] == 0


def test_after_kill_9_the_writer_left_behind_keeps_a_second_run_out(oracle: Rig) -> None:
    words = ("--cmdfile", oracle.place / "all.rman")
    process = oracle.start("rman-backup", *words, SIM_PAUSE="0.5")
    wait_for(lambda: len(list(oracle.live.iterdir())) == 3)
    process.kill()
    process.communicate(timeout=60)
    status, _, err = oracle.run("rman-backup", *words)
    assert status == 8 and "in use by another run" in err
    wait_for(lambda: oracle.run("rman-backup", *words)[0] == 0, every=1)
    assert len(oracle.points()) == 1


# --- repositories of virtual machines -----------------------------------------------------------


@pytest.fixture
def repository(rig: Rig) -> Path:
    """Two guests' disks, sparse, and their configuration."""
    top = rig.place / "Repositories" / "0004fb00"
    for folder in ("VirtualDisks", "VirtualMachines/0004fb01", "ISOs"):
        (top / folder).mkdir(parents=True)
    for number in (1, 2):
        with (top / "VirtualDisks" / f"{number}.img").open("wb") as disk:
            disk.truncate(16 << 20)
            disk.seek(number << 20)
            disk.write(os.urandom(1 << 20))
    (top / "VirtualMachines/0004fb01/vm.cfg").write_text("name = 'one'\n")
    return top.parent


def same(expected: Path, found: Path) -> bool:
    command = ["diff", "-r", "--no-dereference", expected, found]
    return subprocess.run(command, stdout=subprocess.DEVNULL, timeout=60).returncode == 0


def test_a_repository_by_rsync_twice(rig: Rig, repository: Path) -> None:
    words = ("--source", repository, "--into", "vms")
    first = rig.run("vm-repository-rsync", *words)
    assert first[0] == 0, first[2]
    (repository / "0004fb00/VirtualDisks/2.img").unlink()
    changed = repository / "0004fb00/VirtualDisks/1.img"
    times = changed.stat()
    with changed.open("r+b") as disk:
        disk.write(b"changed")
    # in the same second, as a disk of a busy machine
    other_ns = times.st_mtime_ns // 10**9 * 10**9 + (times.st_mtime_ns + 1) % 10**9
    os.utime(changed, ns=(times.st_atime_ns, other_ns))
    second = rig.run("vm-repository-rsync", *words)
    assert second[0] == 0, second[2]
    assert same(repository, rig.live / "vms")
    old, new = sorted(rig.points(), key=lambda one: one.seq)
    disks = "vms/0004fb00/VirtualDisks"
    assert (rig.names(old.id, disks), rig.names(new.id, disks)) == (["1.img", "2.img"], ["1.img"])
    assert rig.content(new.id, f"{disks}/1.img")[:7] == b"changed"
    assert b"Number of files" in rig.logs(new.id)["vm-repository-rsync.log"]


def test_a_source_that_is_gone_commits_nothing(rig: Rig, repository: Path) -> None:
    status, _, err = rig.run(
        "vm-repository-rsync", "--source", repository, "--", "--files-from=/no/such"
    )
    assert status == 5 and "nothing was committed" in err
    assert rig.points() == [] and rig.open_session()


def test_a_repository_by_tar(rig: Rig, repository: Path) -> None:
    status, out, err = rig.run("vm-repository-tar", "--source", repository)
    assert status == 0, err
    point = rig.point_of(out)
    assert rig.names(point) == ["repository.tar"]
    back = rig.place / "back"
    back.mkdir()
    content = rig.content(point, "repository.tar")
    subprocess.run(["tar", "--extract", "--directory", back], input=content, check=True, timeout=60)
    assert same(repository, back)


# --- the way back -------------------------------------------------------------------------------


def test_a_restore_that_was_made_is_copied_and_given_up(rig: Rig, repository: Path) -> None:
    assert rig.run("vm-repository-rsync", "--source", repository)[0] == 0
    job = rig.service.restore(RestoreSpec(rig.points()[0].id)).id
    shown = rig.live / "restores" / str(job)
    assert same(repository, shown / "repository")
    back = rig.place / "back"
    words = ("--job", job, "--mount-point", rig.live, "--to", back)
    status, _, err = rig.run("restore", *words, "--path", "no/such")
    assert status == 8 and "is not there" in err
    status, _, err = rig.run("restore", *words, "--path", "repository")
    assert status == 0, err
    assert same(repository, back) and not shown.exists()
    assert rig.run("restore", *words)[0] == 2  # never over something
    status, _, err = rig.run(
        "restore", "--job", job, "--mount-point", rig.live, "--to", rig.place / "x"
    )
    assert status == 8


def test_a_restore_is_made_through_the_native_api(rig: Rig, repository: Path) -> None:
    assert rig.run("vm-repository-rsync", "--source", repository)[0] == 0
    state, back = rig.service.state, rig.place / "back"
    token = rig.place / "token"
    token.touch(0o600)
    token.write_text(state.tokens.create("restorer", ["db"])[1] + "\n")
    gate = Gate(state.tokens, Audit(str(rig.place / "audit.log")), clock=time.time_ns)
    with serving(native.app(rig.service, gate, Metrics(), state.keys)) as listener:
        words = (
            "--native",
            f"http://127.0.0.1:{listener.port}",
            "--to",
            back,
            "--path",
            "repository",
        )
        point = rig.points()[0].id
        status, _, err = rig.run("restore", "--point", point, *words)
        assert status == 4 and "401" in err
        status, _, err = rig.run("restore", "--point", "0" * 32, *words, "--token-file", token)
        assert status == 4
        status, _, err = rig.run("restore", "--point", point, *words, "--token-file", token)
        assert status == 0, err
    assert same(repository, back)
    assert not (rig.live / "restores").exists()  # shown while there is something in it


# --- what goes wrong around the writer ----------------------------------------------------------


def test_a_dry_run_prints_everything_and_changes_nothing(oracle: Rig, repository: Path) -> None:
    token = oracle.place / "token"
    token.write_text("hf_secret\n")
    runs = {
        "rman-backup": ("--cmdfile", oracle.place / "all.rman"), "pg-basebackup": (),
        "vm-repository-rsync": ("--source", repository), "vm-repository-tar": ("--source", repository),
        "restore": ("--job", 1, "--mount-point", oracle.live, "--to", oracle.place / "back"),
    }  # fmt: skip
    before = sorted(path for path in oracle.place.rglob("*") if "store" not in path.parts)
    for script, words in runs.items():
        status, out, err = oracle.run(script, *words, "--dry-run", "--token-file", token)
        assert (status, err) == (0, "")
        wanted = ["DELETE"] if script == "restore" else ["GET", "POST", "uploadlog", "PUT"]
        assert all(any(word in line for line in out.splitlines()) for word in wanted)
        assert "hf_secret" not in out
        assert subprocess.run(["sh", "-n"], input=out, text=True).returncode == 0
    assert oracle.service.sessions("db") == []
    assert sorted(path for path in oracle.place.rglob("*") if "store" not in path.parts) == before


def test_what_cannot_be_is_refused(rig: Rig) -> None:
    for words, status, said in (
        (["--mount", "DB"], 4, "4295622665"),
        (["--mount", "../db"], 2, "letters, digits"),
        (["--api", "http://127.0.0.1:1", "--tries", "2"], 3, "does not answer"),
        (["--mount-point", "/tmp"], 8, "no file system is mounted"),
        (["--source"], 2, "needs a value"),
        (["--tries", "x"], 2, "a number"),
        (["--nonsense"], 2, "unknown"),
        (["--nfs", "server"], 2, "--mount-point"),
        (["--into", "../x"], 2, "letters, digits"),
    ):
        found = rig.run("vm-repository-rsync", "--source", rig.place, *words)
        assert found[0] == status and said in found[2]
        assert found[1] == "" and rig.points() == []


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_over_nfs_it_mounts_first_and_unmounts_before_the_commit(
    rig: Rig, repository: Path
) -> None:
    """With a stand-in for mount(8) that binds the directory: this kernel may have no NFS."""
    programs, there, said = rig.place / "bin", rig.place / "there", rig.place / "said"
    programs.mkdir()
    there.mkdir()
    real = {
        name: subprocess.run(
            ["which", name], capture_output=True, text=True, check=True
        ).stdout.strip()
        for name in ("mount", "umount", "curl")
    }
    (programs / "mount").write_text(
        f'#!/bin/sh\necho "mount $*" >>{said}\nexec {real["mount"]} --bind "${{5#server:}}" "$6"\n'
    )
    for name in ("umount", "curl"):
        (programs / name).write_text(
            f'#!/bin/sh\necho "{name} $*" >>{said}\nexec {real[name]} "$@"\n'
        )
    for path in programs.iterdir():
        path.chmod(0o755)
    rig.environment["PATH"] = f"{programs}:{rig.environment['PATH']}"
    words = (
        "--source",
        repository,
        "--nfs",
        "server",
        "--mount-point",
        there,
        "--nfs-options",
        "vers=3",
    )
    status, out, err = rig.run("vm-repository-rsync", *words)
    assert status == 0, err
    assert list(there.iterdir()) == [] and rig.names(rig.point_of(out)) == ["repository"]
    lines = said.read_text().splitlines()
    assert f"mount -t nfs -o timeo=1200,retrans=5,vers=3 server:{rig.live} {there}" in lines
    [unmounted] = [number for number, line in enumerate(lines) if line.startswith("umount")]
    [committed] = [number for number, line in enumerate(lines) if "--request PUT" in line]
    assert unmounted < committed
    bad = ("--", "--files-from=/no/such")
    assert rig.run("vm-repository-rsync", *words, *bad)[0] == 5
    assert list(there.iterdir()) == []  # unmounted, whatever happened


def test_a_directory_that_is_not_mounted_is_not_written_to(rig: Rig, repository: Path) -> None:
    plain = rig.place / "plain"
    plain.mkdir()
    words = ("--source", repository, "--mount-point", plain)
    assert rig.run("vm-repository-rsync", *words)[0] == 8
    assert list(plain.iterdir()) == [] and rig.points() == []


@pytest.mark.parametrize("hidden", ["", "jq"])
def test_answers_are_read_in_64_bits_or_not_at_all(tmp_path: Path, hidden: str) -> None:
    """With jq, and without: then python3 reads them."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("python3", "sh", *([] if hidden else ["jq"])):
        found = subprocess.run(["which", name], capture_output=True, text=True, check=True).stdout
        (programs / name).symlink_to(found.strip())
    answers = {
        '{"error_code": 4295622659}': "4295622659\n", '{"error_code": 4900000012}': "4900000012\n",
        '{"error_code": "0"}': "", '{"error_code": 1.5}': "", '{"error_code": true}': "", "{}": "", "": "", "[]": "",
        '{"error_code": 1e400}': "", '{"error_code": 36893488147419103232}': "", "{} {}": "", "null": "",
    }  # fmt: skip
    for answer, wanted in answers.items():
        (tmp_path / "answer").write_text(answer)
        done = subprocess.run(
            ["/bin/sh", "-c", '. "$0"; WORK=$1; field error_code integer', SCRIPTS / "lib/session.sh", tmp_path],
            env={"PATH": str(programs)}, capture_output=True, text=True, timeout=20,
        )  # fmt: skip
        assert (done.stdout, done.returncode == 0) == (wanted, bool(wanted)), answer


def test_a_lost_answer_to_the_commit_is_not_called_success(rig: Rig, repository: Path) -> None:
    """A server that makes the point and dies before it answers; then it is back."""
    programs = rig.place / "bin"
    programs.mkdir()
    real = subprocess.run(
        ["which", "curl"], capture_output=True, text=True, check=True
    ).stdout.strip()
    (programs / "curl").write_text(
        f'#!/bin/sh\n{real} "$@" || exit\ncase "$*" in *"--request PUT"*)\n'
        f"[ -e {rig.place}/lost ] || {{ : >{rig.place}/lost; exit 52; }};; esac\n"
    )
    (programs / "curl").chmod(0o755)
    rig.environment["PATH"] = f"{programs}:{rig.environment['PATH']}"
    status, out, err = rig.run("vm-repository-rsync", "--source", repository)
    assert (status, out) == (7, "") and "not known whether there is a point" in err
    assert len(rig.points()) == 1


def test_the_page_s_script_order_by_hand(rig: Rig) -> None:
    """status, start, write, log, commit, as any script does it; the point has what was written, and its time."""
    url = f"{rig.url}{BASE}/mounts/db"
    with httpx.Client() as client:
        assert client.get(f"{url}/backup").json()["result"]["is_reached_max_snapshots"] is False
        assert client.post(f"{url}/backup").json()["result"]["mount_path"] == str(rig.live)
        (rig.live / "written").write_bytes(b"x" * 5_000_000)
        asked = time.time_ns()
        made = client.put(f"{url}/backup").json()
        answered = time.time_ns()
        assert made["error_code"] == 0
        assert client.put(f"{url}/backup").json()["error_code"] == 4295622659
    point = rig.points()[0]
    assert made["result"]["snap_name"] == f"{point.id}_1" and asked <= point.time_ns <= answered
    assert rig.content(point.id, "written") == b"x" * 5_000_000
