"""The mounter with a real kernel: what it does, what it refuses, and that workers live without it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import fsmount
from daemon.mounter.client import Mounter
from engine.errors import (
    Busy,
    InvalidRequest,
    LocationUnavailable,
    NotFound,
    PermissionDenied,
)
from fsmount import mountpoint
from tests.daemon.mounter.conftest import OTHER, ROOT, USER, Service
from tests.fsmount.conftest import until

pytestmark = pytest.mark.needs_fuse


def test_a_mount_has_the_flags_it_must_have(service: Service) -> None:
    where = str(service.where)
    fd = service.mounter.mount(where, "a,b c#d", ["ro", "max_read=65536"])
    with open("/proc/self/mountinfo", encoding="utf-8") as table:
        line = next(one for one in table if where in one)
    for word in ("nosuid", "nodev", "ro", "default_permissions", "allow_other", f"user_id={USER}",
                 "fuse.holdfast", "max_read=65536"):  # fmt: skip
        assert word in line, line
    there = mountpoint.at(where)
    assert there is not None and there.source == "a,b c#d"
    with pytest.raises(Busy):
        service.mounter.mount(where, "again")
    os.close(fd)
    assert mountpoint.is_stale(where)
    with pytest.raises(Busy):  # dead, and still there
        service.mounter.mount(where, "again")
    assert service.mounter.unmount(where, lazy=True) == ""
    os.close(service.mounter.mount(where, "again"))
    assert service.mounter.unmount(where, lazy=False) == ""
    with pytest.raises(NotFound):
        service.mounter.unmount(where, lazy=False)


def test_only_what_is_allowed_is_touched(service: Service, open_path: Path) -> None:
    inside, outside = service.where.parent, open_path / "elsewhere"
    outside.mkdir()
    (inside / "link").symlink_to(outside)
    (inside / "through").symlink_to(inside)
    (inside / "full").mkdir()
    (inside / "full" / "f").touch()
    for path, error in (
        (outside, PermissionDenied),
        (inside, PermissionDenied),
        (Path(f"{inside}/../elsewhere"), InvalidRequest),
        (Path("/"), InvalidRequest),
        (Path(f"{inside}2/x"), PermissionDenied),
        (inside / "link", InvalidRequest),
        (inside / "through" / "data", InvalidRequest),
        (inside / "full", InvalidRequest),
        (inside / "full" / "f", InvalidRequest),
        (inside / "nothing", NotFound),
        (inside / ("x" * 3000), InvalidRequest),
    ):
        with pytest.raises(error):
            service.mounter.mount(str(path), "s")
    for option in ("suid", "dev", "fd=0", "ro,suid", "user_id=0"):
        with pytest.raises(InvalidRequest):
            service.mounter.mount(str(service.where), "s", [option])
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", service.where], check=True)
    try:
        for action in (
            lambda: service.mounter.unmount(str(service.where), lazy=True),
            lambda: service.mounter.readahead(str(service.where), 1 << 20),
        ):
            with pytest.raises(NotFound):
                action()
        with pytest.raises(Busy):
            service.mounter.mount(str(service.where), "s")
    finally:
        subprocess.run(["umount", service.where], check=True)


def test_nonsense_ends_nothing(service: Service) -> None:
    connection = service.child.socket
    for data, count in ((b"{", 0), (b"[" * 4000, 1), (b"x", 3), (b"x" * 9000, 1)):
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ours:
            with theirs:
                socket.send_fds(connection, [data], [theirs.fileno()] * count)
            ours.settimeout(10)
            said = ours.recv(8192)
            assert not said or json.loads(said)["ok"] is False
    with open("/dev/null", "rb") as file:
        socket.send_fds(connection, [b"{}"], [file.fileno()])
    with pytest.raises(NotFound):
        service.mounter.unmount(str(service.where), lazy=True)


# --- the worker ---------------------------------------------------------------------------------------------


def status_of(pid: int) -> dict[str, str]:
    text = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    return dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)


def test_a_worker_has_no_privilege_and_serves_everybody(service: Service) -> None:
    pid = service.start()
    service.mounter.readahead(str(service.where), 2 << 20)
    there = mountpoint.at(str(service.where))
    assert there is not None
    major, minor = there.device
    assert Path(f"/sys/class/bdi/{major}:{minor}/read_ahead_kb").read_text() == "2048\n"
    status = status_of(pid)
    for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert int(status[name], 16) == 0, name
    assert status["NoNewPrivs"] == "1" and status["Groups"].strip() == ""
    assert status["Uid"].split() == status["Gid"].split() == [str(USER)] * 4
    assert (service.store / "run" / "data.log").stat().st_uid == USER

    where, data = service.where, os.urandom(3_000_000)
    os.chmod(where, 0o1777)
    (where / "of-root").write_bytes(data)
    os.chmod(where / "of-root", 0o600)
    os.setxattr(where / "of-root", "trusted.t", b"1")
    said = service.run(
        "import os, sys; os.chdir(sys.argv[1]); open('mine', 'w').write('written'); os.link('mine', 'hard')\n"
        "os.setxattr('mine', 'user.a', b'1')\n"
        "try: open('of-root')\n"
        "except PermissionError: print(os.stat('mine').st_uid, os.listxattr('of-root'))",
        str(where), user=OTHER,
    )  # fmt: skip
    assert said == f"{OTHER} []\n"
    assert os.listxattr(where / "of-root") == ["trusted.t"]
    subprocess.run(["setfacl", "-m", f"u:{OTHER}:r", where / "of-root"], check=True)
    read = "import sys; print(len(open(sys.argv[1], 'rb').read()))"
    assert service.run(read, str(where / "of-root"), user=OTHER) == "3000000\n"

    with (where / "open").open("wb", buffering=0) as file:
        os.chmod(where, 0o700)  # the service user may not even look into the mount
        file.write(data)
        point = service.run(
            "import sys, fsmount; from engine import Store; p = sys.argv[1]\n"
            "with Store.open(p) as s, fsmount.client(p, 'data') as c:\n"
            "    c.request('freeze'); print(s.snapshot('data', thaw=lambda: c.request('thaw')).id)",
            str(service.store), user=USER,
        ).strip()  # fmt: skip
        assert (where / ".snapshots" / point / "open").read_bytes() == data
    os.unlink(where / "of-root")
    target = service.base / "restored"
    target.mkdir()
    os.chown(target, USER, USER)
    service.run(
        "import sys; from engine import Store\n"
        "with Store.open(sys.argv[1]) as s: s.restore(sys.argv[2], b'of-root', sys.argv[3].encode())",
        str(service.store), point, str(target / "here"), user=USER,
    )  # fmt: skip
    found = target / "here"
    assert (found if found.is_file() else found / "of-root").read_bytes() == data
    assert service.mounter.unmount(str(where), lazy=False) == ""
    until(service.ended, "the worker's end")
    service.start()
    assert (where / "open").read_bytes() == data and (where / "mine").read_text() == "written"


def test_a_squashed_root_without_privilege(service: Service) -> None:
    service.start(root_squash=True, squash_uid=OTHER, squash_gid=OTHER)
    os_error = None
    try:
        (service.where / "f").touch()
    except PermissionError as error:
        os_error = error
    assert os_error is not None  # the root directory is root's, and root is nobody


def test_told_to_stop_it_waits_for_who_mounted(service: Service) -> None:
    pid = service.start(drain_limit=15.0)
    file = (service.where / "f").open("wb", buffering=0)
    file.write(b"before")
    assert "Device or resource busy" in service.mounter.unmount(str(service.where), lazy=False)
    os.kill(pid, signal.SIGTERM)
    status = lambda: fsmount.request(str(service.store), "data", "status")  # noqa: E731
    until(lambda: status()["state"] == "draining", "draining")
    file.write(b" and after")
    assert service.mounter.unmount(str(service.where), lazy=True) == ""
    os.fsync(file.fileno())
    file.close()
    until(service.ended, "the worker's end")
    service.start()
    assert (service.where / "f").read_bytes() == b"before and after"


def test_told_to_stop_it_ends_though_nobody_unmounts(service: Service) -> None:
    pid = service.start(drain_limit=0.5)
    (service.where / "f").write_bytes(b"x")
    os.kill(pid, signal.SIGTERM)
    until(service.ended, "the worker's end")
    assert mountpoint.is_stale(str(service.where))
    assert service.mounter.unmount(str(service.where), lazy=True) == ""
    service.start()
    assert (service.where / "f").read_bytes() == b"x"


def test_workers_go_on_without_the_mounter(service: Service) -> None:
    service.start()
    service.child.process.kill()
    service.child.process.wait()
    (service.where / "f").write_bytes(b"x" * 100_000)
    fsmount.request(str(service.store), "data", "barrier")
    for action in (
        lambda: service.mounter.unmount(str(service.where), lazy=True),
        lambda: service.mounter.mount(str(service.where), "s"),
    ):
        with pytest.raises(LocationUnavailable, match="mounter"):
            action()


# --- a unit of its own -----------------------------------------------------------------------------------------


def test_a_mounter_of_its_own(services: Callable[[], Service], open_path: Path) -> None:
    service = services()
    config = open_path / "holdfast.toml"
    config.write_text(
        f'user = "nobody"\nmount_root = "{open_path}/root"\nrun_dir = "{open_path}"\n'
        f'[mounts.a]\nstart = true\n[mounts.b]\npath = "{service.where}"\n',
        encoding="utf-8",
    )
    os.chmod(config, 0o644)
    command = [sys.executable, "-m", "daemon.mounter", "--config", str(config)]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        try:
            path = open_path / "mounter.sock"
            until(path.exists, "its socket")
            mounter = _connected(str(path))
            os.close(mounter.mount(str(service.where), "s"))
            assert mounter.unmount(str(service.where), lazy=True) == ""
            with pytest.raises(PermissionDenied):
                mounter.mount(str(service.where.parent / "x"), "s")
            mounter.close()
            script = (
                "import sys; from daemon.mounter.client import Mounter\n"
                "try: Mounter.connect(sys.argv[1]).unmount('/x', lazy=True)\n"
                "except Exception as e: print(type(e).__name__)"
            )
            assert service.run(script, str(path), user=OTHER) == "LocationUnavailable\n"
            assert service.run(script, str(path), user=65534) == "PermissionDenied\n"
            os.chmod(config, 0o666)
            mounter = Mounter.connect(str(path))
            with pytest.raises(LocationUnavailable):
                mounter.unmount(str(service.where), lazy=True)
            mounter.close()
        finally:
            process.kill()
    with pytest.raises(LocationUnavailable, match="systemctl start"):
        Mounter.connect(str(open_path / "mounter.sock"))


def _connected(path: str) -> Mounter:
    found: list[Mounter] = []

    def tried() -> bool:
        with contextlib.suppress(LocationUnavailable):
            found.append(Mounter.connect(path))
        return bool(found)

    until(tried, "a listening mounter")
    return found[0]


@pytest.mark.parametrize("words", [[], ["--root", "/mnt/x"], ["--config", "/nonexistent"]])
def test_it_does_not_start_without_knowing_for_whom(words: list[str]) -> None:
    command = [sys.executable, "-m", "daemon.mounter", *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=20)
    assert (
        done.returncode == 1
        and done.stderr.startswith("mounter: ")
        and "Traceback" not in done.stderr
    )


def test_nothing_is_written_beneath_a_mount_that_died(service: Service) -> None:
    """Not by root either: it would lie beside the store, and its writer would believe it kept."""
    pid = service.start()
    os.kill(pid, signal.SIGKILL)
    assert service.mounter.unmount(str(service.where), lazy=True) == ""
    with pytest.raises(PermissionError):
        (service.where / "file").write_bytes(b"lost")
    service.start()
    (service.where / "file").write_bytes(b"kept")
    assert service.mounter.unmount(str(service.where), lazy=False) == ""
    (service.where / "mine").touch()  # unmounted in good order, it is a directory like any other
