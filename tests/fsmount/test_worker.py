"""The worker's life: errors to errno, capture and freeze, drain, death and remount, background start."""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.errors import Busy, HoldfastError, InvalidRequest, StoreFull
from fsmount import control, mountpoint
from fsmount.remote import Client
from tests.fsmount.conftest import Host, client_of, stale, until

pytestmark = pytest.mark.needs_fuse


# --- errors -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "number", "logged"),
    [
        ("full", errno.ENOSPC, "no room"),
        ("quota", errno.EDQUOT, "no room"),
        ("corrupt", errno.EIO, "chunk ab12"),
        ("mlink", errno.EMLINK, ""),
        ("bug", errno.EIO, "ValueError"),
        ("os", errno.EIO, "internal file"),
    ],
)
def test_each_error_has_its_number_and_the_mount_lives_on(
    host: Host, error: str, number: int, logged: str
) -> None:
    host.tell("fail", "create", error)
    with pytest.raises(OSError) as caught:
        (host.path / "f").touch()
    assert caught.value.errno == number
    host.tell("mend", "create")
    (host.path / "f").touch()
    assert (logged in host.said()) if logged else ("EMLINK" not in host.said())


def test_a_failing_read_does_not_look_like_data(host: Host) -> None:
    (host.path / "f").write_bytes(b"x" * 5000)
    host.tell("fail", "read", "corrupt")
    fd = os.open(host.path / "f", os.O_RDONLY | os.O_DIRECT)
    with pytest.raises(OSError) as caught:
        os.preadv(fd, [mmap.mmap(-1, 4096)], 0)
    assert caught.value.errno == errno.EIO
    os.close(fd)


# --- nothing waits for what is slow --------------------------------------------------------------------


def test_slow_reads_and_fsyncs_hold_nobody_up(host: Host) -> None:
    (host.path / "f").write_bytes(b"x" * 4096)
    host.tell("hold", "fsync")
    host.tell("hold", "read")
    done: list[str] = []

    def sync() -> None:
        fd = os.open(host.path / "f", os.O_RDWR)
        os.fsync(fd)
        os.close(fd)
        done.append("fsync")

    def read() -> None:
        fd = os.open(host.path / "f", os.O_RDONLY | os.O_DIRECT)
        os.preadv(fd, [mmap.mmap(-1, 4096)], 0)
        os.close(fd)
        done.append("read")

    threads = [threading.Thread(target=one) for one in (sync, read)]
    for thread in threads:
        thread.start()
    until(lambda: host.tell("calls", "fsync") == 1 and host.tell("calls", "read") == 1, "started")
    for number in range(100):
        (host.path / f"g{number}").mkdir()
    assert done == []
    host.tell("let", "fsync")
    host.tell("let", "read")
    for thread in threads:
        thread.join()
    assert sorted(done) == ["fsync", "read"]


def test_writers_wait_for_room(host: Host) -> None:
    fd = os.open(host.path / "f", os.O_WRONLY | os.O_CREAT | os.O_DIRECT)
    host.tell("full", True)
    host.tell("hold", "wait_room")
    thread = threading.Thread(target=os.pwrite, args=(fd, mmap.mmap(-1, 4096), 0))
    thread.start()
    until(lambda: host.tell("calls", "wait_room") == 1, "waiting")
    assert os.listdir(host.path) == ["f"] and thread.is_alive() and host.tell("arrived") == 0
    host.tell("let", "wait_room")
    thread.join()
    assert host.tell("arrived") == 4096
    os.close(fd)


# --- capture and freeze --------------------------------------------------------------------------------


def test_a_barrier_has_every_write_that_returned(host: Host) -> None:
    """Files open for writing, one of them without a name; a mapping whose descriptor is closed."""
    block = os.urandom(1 << 20)
    one = os.open(host.path / "one", os.O_RDWR | os.O_CREAT)
    two = os.open(host.path / "two", os.O_RDWR | os.O_CREAT)
    os.unlink(host.path / "two")
    three = os.open(host.path / "three", os.O_RDWR | os.O_CREAT)
    os.ftruncate(three, 1 << 20)
    mapping = mmap.mmap(three, 1 << 20)
    os.close(three)
    for _ in range(40):
        os.write(one, block)
        os.write(two, block)
    mapping[:] = block
    with Client(str(host.folder), "mem") as client:
        client.request("barrier")
        assert host.tell("arrived") == 81 << 20
        assert host.tell("calls", "barrier") == 1
        mapping[5000] = mapping[5000] ^ 1
        client.request("barrier")
        assert host.tell("content", b"three") == mapping[:]
    os.close(one)
    os.close(two)


def test_a_barrier_does_not_chase_a_writer(host: Host) -> None:
    code = (
        "import os, sys\nfd = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT)\n"
        "print(flush=True)\nwhile True:\n  os.pwrite(fd, bytes(1 << 16), 0)\n  os.lseek(fd, 0, 2)\n"
        "  os.write(fd, bytes(1 << 12))"
    )
    writer = subprocess.Popen([sys.executable, "-c", code, host.path / "f"], stdout=subprocess.PIPE)
    assert writer.stdout is not None
    try:
        writer.stdout.readline()
        with Client(str(host.folder), "mem", timeout=30) as client:
            for _ in range(3):
                client.request("barrier")
    finally:
        writer.kill()
        writer.wait()
        writer.stdout.close()


def test_frozen_changes_wait_and_reads_go_on(host: Host) -> None:
    (host.path / "f").write_bytes(b"before")
    with Client(str(host.folder), "mem") as client:
        assert client.request("freeze") == {"frozen": True}
        assert frozen(host)
        maker = threading.Thread(target=(host.path / "d").mkdir)
        maker.start()
        assert (host.path / "f").read_bytes() == b"before"
        maker.join(0.2)
        assert maker.is_alive() and host.tell("inodes") == 2
        assert client.request("thaw") == {"frozen": False}
        maker.join()
    assert sorted(os.listdir(host.path)) == ["d", "f"]


def frozen(host: Host) -> bool:
    with client_of(host) as client:
        return bool(client.request("status")["frozen"])


def test_a_freeze_ends_with_its_connection(host: Host) -> None:
    client = client_of(host)
    client.request("freeze")
    maker = threading.Thread(target=(host.path / "d").mkdir)
    maker.start()
    client.close()
    maker.join(20)
    assert not maker.is_alive()


def test_a_freeze_ends_at_its_limit(hosts: Callable[..., Host]) -> None:
    host = hosts(options={"freeze_limit": 0.2})
    with client_of(host) as client:
        client.request("freeze")
        (host.path / "d").mkdir()
        assert not frozen(host)


def test_forgotten_files_are_removed_only_after_the_freeze(host: Host) -> None:
    fd = os.open(host.path / "f", os.O_RDWR | os.O_CREAT)
    os.unlink(host.path / "f")
    assert host.tell("inodes") == 2
    with client_of(host) as client:
        client.request("freeze")
        os.close(fd)
        os.listdir(host.path)
        assert host.tell("inodes") == 2
        client.request("thaw")
    until(lambda: host.tell("inodes") == 1, "the file without a name is gone")


def test_a_lost_write_refuses_the_barrier(host: Host) -> None:
    fd = os.open(host.path / "f", os.O_WRONLY | os.O_CREAT)
    host.tell("fail", "write", "full")
    os.write(fd, b"into the page cache")
    with client_of(host) as client:
        with pytest.raises(StoreFull, match="inode 2"):
            client.request("barrier")
        host.tell("mend", "write")
        with pytest.raises(OSError) as caught:
            os.fsync(fd)
        assert caught.value.errno in (errno.ENOSPC, errno.EIO)
        os.fsync(fd)
        client.request("barrier")
    os.close(fd)


def test_the_socket_refuses_what_it_does_not_know(host: Host) -> None:
    with client_of(host) as client:
        with pytest.raises(InvalidRequest):
            client.request("format")
        with pytest.raises(Busy):
            client.request("thaw")
        assert client.request("status")["state"] == "serving"
    assert stat_mode(host.folder / "mem.sock") == 0o600
    with socket.socket(socket.AF_UNIX) as raw:
        raw.connect(str(host.folder / "mem.sock"))
        with contextlib.suppress(ConnectionResetError, BrokenPipeError):
            raw.sendall(b"x" * (control.LINE_MAX + 10_000))
            assert raw.recv(10) == b""


def stat_mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


# --- the end -------------------------------------------------------------------------------------------


def test_unmounting_ends_the_worker(host: Host) -> None:
    (host.path / "f").write_bytes(b"x" * 100_000)
    assert host.unmount() == 0
    assert host.closed() and (host.folder / "closed").read_text() == "100000"
    assert os.listdir(host.folder) == ["closed"]


def test_a_term_signal_unmounts_and_commits(host: Host) -> None:
    (host.path / "f").write_bytes(b"x" * 100_000)
    host.process.send_signal(signal.SIGTERM)
    assert host.process.wait(30) == 0
    assert not os.path.ismount(host.path) and host.closed()


def test_a_term_signal_serves_open_files_for_a_while(hosts: Callable[..., Host]) -> None:
    host = hosts(options={"drain_limit": 60})
    file = (host.path / "f").open("wb")
    file.write(b"a")
    file.flush()
    host.process.send_signal(signal.SIGTERM)
    until(lambda: not os.path.ismount(host.path), "cut off")
    file.write(b"b" * 10)
    file.close()
    assert host.process.wait(30) == 0
    assert int((host.folder / "closed").read_text()) >= 11
    assert "in use" in host.said()


def test_a_term_signal_ends_even_when_files_stay_open(hosts: Callable[..., Host]) -> None:
    host = hosts(options={"drain_limit": 0.2})
    fd = os.open(host.path / "f", os.O_WRONLY | os.O_CREAT)
    os.write(fd, b"abc")
    host.process.send_signal(signal.SIGTERM)
    assert host.process.wait(30) == 0
    assert (host.folder / "closed").read_text() == "3"
    with pytest.raises(OSError):
        os.fsync(fd)
    with contextlib.suppress(OSError):
        os.close(fd)


def test_drain_by_the_socket(host: Host) -> None:
    with client_of(host) as client:
        client.request("drain")
    assert host.process.wait(30) == 0 and host.closed()


def test_a_killed_worker_leaves_nothing_to_repair(hosts: Callable[..., Host]) -> None:
    first = hosts()
    (first.path / "f").write_bytes(b"x")
    first.process.kill()
    first.process.wait()
    assert stale(first.path)
    second = hosts()
    assert second.ready, second.said()
    assert os.listdir(second.path) == []
    assert second.tell("calls", "barrier") == 0
    with client_of(second) as client:
        assert client.request("status")["pid"] == second.process.pid


def test_an_aborted_connection_ends_the_worker(host: Host) -> None:
    there = mountpoint.at(str(host.path))
    assert there is not None
    abort = Path(f"/sys/fs/fuse/connections/{there.device[1]}/abort")
    if not os.access(abort, os.W_OK):
        pytest.skip("no fusectl here")
    abort.write_text("1")
    assert host.process.wait(30) == 0
    assert not stale(host.path)


# --- bugs ----------------------------------------------------------------------------------------------


def test_a_bug_in_a_background_turn_does_not_end_the_mount(host: Host) -> None:
    host.tell("fail", "tick", "bug")
    until(lambda: "background turn" in host.said(), "a turn")
    with client_of(host) as client:
        found = client.request("incidents")["incidents"]
    assert {(one["kind"], one["thing"]) for one in found} == {("internal", "background turn")}
    (host.path / "f").write_bytes(b"served")
    assert (host.path / "f").read_bytes() == b"served"
    host.tell("mend", "tick")


def test_a_bug_in_a_control_request_does_not_end_the_mount(host: Host) -> None:
    host.tell("fail", "barrier", "bug")
    with client_of(host) as client:
        with pytest.raises(HoldfastError, match="a bug"):
            client.request("barrier")
        host.tell("mend", "barrier")
        client.request("barrier")
