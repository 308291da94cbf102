"""``holdfast serve`` as a real process: everything together, killed in between, and nothing lost."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from daemon.contract import PointQuery, RestoreSpec
from engine import Store
from engine.errors import Busy, HoldfastError, InvalidRequest, NotFound
from fsmount import mounted_at
from tests.daemon.supervise.daemons import LIMIT, Daemon, ended, until

pytestmark = pytest.mark.needs_fuse


SLOW = 5  # other tests may run beside this one: alone it takes about a second


def serves(path: Path) -> bool:
    return mounted_at(str(path)) is not None


def test_begin_write_commit_restore_with_the_daemon_killed_in_between(
    make: Callable[..., Daemon],
) -> None:
    daemon = make()
    daemon.start()
    before = daemon.pids()
    assert all(before.values())
    with daemon.remote() as api:
        session = api.begin("a", holder="test", label="first")
    (daemon.mount("a") / "one").write_bytes(b"1" * 100_000)
    daemon.kill()
    (daemon.mount("a") / "two").write_bytes(b"2" * 100_000)  # workers serve on
    daemon.start()
    assert daemon.pids() == before
    with daemon.remote() as api:
        assert api.session(session.id).state == "open"
        done = api.commit(session.id)
        assert {one.path: one.size for one in done.manifest} == {"one": 100_000, "two": 100_000}
        points = api.points(PointQuery(mount="a")).items
        assert [one.id for one in points] == [done.detail.point.id]
        (daemon.mount("a") / "one").unlink()
        filled = ended(api, api.restore(RestoreSpec(points[0].id, place="out")))
        assert filled.state == "done", filled.error
        shown = api.restore(RestoreSpec(points[0].id))
        assert shown.state == "done", shown.error
    target = daemon.root / "out" / str(filled.id)
    assert (target / "one").read_bytes() == b"1" * 100_000
    assert (target / "two").read_bytes() == b"2" * 100_000
    daemon.kill()
    os.kill(before["a"], signal.SIGKILL)  # both at once: what was shown is shown again
    daemon.start()
    assert (daemon.mount("a") / "restores" / str(shown.id) / "one").read_bytes() == b"1" * 100_000
    assert daemon.pids()["b"] == before["b"] != daemon.pids()["a"]
    assert daemon.stop() < 30
    assert daemon.told("STOPPING=1") or "STOPPING=1" in daemon.said
    assert not any(serves(daemon.mount(name)) for name in "ab")
    with Store.open(str(daemon.store)) as store:
        assert store.check(read_data=True).problems == []


def test_two_daemons_on_one_store(make: Callable[..., Daemon]) -> None:
    daemon = make()
    daemon.start()
    assert daemon.process is not None
    code, said = daemon.refused()
    assert code == 12
    assert f"process {daemon.process.pid}" in said
    assert "Traceback" not in said
    assert all(daemon.pids().values())  # the first has not noticed


def test_a_port_in_use_leaves_nothing_half_started(make: Callable[..., Daemon]) -> None:
    daemon = make()
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        daemon.write("[mounts.a]\n", instead={"127.0.0.1:0": f"127.0.0.1:{port}"})
        code, said = daemon.refused()
    assert code == 12
    assert "step 'listeners'" in said
    assert str(port) in said
    assert not serves(daemon.mount("a"))
    assert not (daemon.root / "run" / "api.sock").exists()
    assert not (daemon.store / "daemon" / "endpoint").exists()
    daemon.write("[mounts.a]\n")
    daemon.start()


def test_no_store_and_no_configuration(make: Callable[..., Daemon]) -> None:
    daemon = make()
    shutil.rmtree(daemon.store)
    code, said = daemon.refused()
    assert (code, "holdfast init" in said) == (10, True)
    daemon.config.write_text("stroe = 1\n")
    code, said = daemon.refused()
    assert code == 2
    assert ":1" in said
    daemon.config.unlink()
    code, said = daemon.refused()
    assert code in (2, 10)
    assert "Traceback" not in said


def test_a_bad_mount_holds_up_no_good_one(make: Callable[..., Daemon]) -> None:
    daemon = make()
    bad = daemon.root / "missing"
    file = daemon.root / "file"
    file.touch()
    daemon.write(f'[mounts.a]\n[mounts.b]\npath = "{bad}"\n[mounts.c]\npath = "{file}"\n')
    daemon.start()
    (daemon.mount("a") / "x").write_bytes(b"x")
    with daemon.remote() as api:
        states = {one.name: one.state for one in api.mounts()}
        assert states["a"] == "serving"
        assert {states["b"], states["c"]} <= {"failed", "starting"}
        until(lambda: any("missing" in str(one["text"]) for one in api.incidents()))
        with pytest.raises(NotFound, match="missing"):
            api.start_mount("b")
        bad.mkdir()
        assert api.start_mount("b").state == "serving"
        assert api.stop_mount("b").state == "stopped"
        assert not serves(bad)


def test_leaving_the_mounts_and_serving_them_otherwise(make: Callable[..., Daemon]) -> None:
    daemon = make("[mounts.a]\n[mounts.b]\n")
    daemon.start("--leave-mounts")
    before = daemon.pids()
    daemon.stop()
    (daemon.mount("a") / "x").write_bytes(b"x")
    daemon.write("[mounts.a]\nwrite_through = true\n[mounts.b]\n")
    daemon.start()
    after = daemon.pids()
    assert after["b"] == before["b"]
    assert after["a"] != before["a"]
    assert (daemon.mount("a") / "x").read_bytes() == b"x"
    daemon.stop()
    assert not serves(daemon.mount("a"))


def test_stop_with_a_file_that_is_open(make: Callable[..., Daemon]) -> None:
    daemon = make("[mounts.a]\n")
    daemon.start()
    with open(daemon.mount("a") / "held", "wb") as held:
        held.write(b"before")
        held.flush()
        with daemon.remote() as api:
            with pytest.raises(Busy):
                api.stop_mount("a")
            assert api.mount("a").state == "serving"
        stopping = threading.Thread(target=daemon.stop)
        stopping.start()
        until(lambda: not serves(daemon.mount("a")))
        held.write(b" and after")
    stopping.join()
    daemon.start()
    assert (daemon.mount("a") / "held").read_bytes() == b"before and after"


def test_told_to_stop_while_it_starts(make: Callable[..., Daemon]) -> None:
    daemon = make("".join(f"[mounts.m{n}]\n" for n in range(4)))
    daemon.process = daemon.run()
    assert daemon.told("STATUS=starting: mounts", LIMIT)
    daemon.stop()
    assert "READY=1" not in daemon.said
    assert not any(serves(daemon.mount(f"m{n}")) for n in range(4))


def test_reload(make: Callable[..., Daemon]) -> None:
    daemon = make("[mounts.a]\n")
    daemon.write("[mounts.a]\n", instead={"[api]\n": "[api]\nmax_upload = 1000\n"})
    daemon.start()
    assert daemon.process is not None
    daemon.write("[mounts.a]\nquota = 65536\n[mounts.new]\n", instead={"/mnt": "/elsewhere"})
    with daemon.remote() as api:
        session = api.begin("a").id
        with pytest.raises(InvalidRequest, match="at most 1000 bytes"):
            api.attach_log(session, "log", [bytes(100_000)])
        told = api.reload_config()
        assert api.attach_log(session, "log", [bytes(100_000)]).size == 100_000
        api.abandon(session)
        assert "api.max_upload: taken" in told
        assert "mount_root: needs a restart of the daemon" in told
        assert "mounts.a.quota: taken" in told
        assert api.mount("a").quota == 65536
        until(lambda: api.mount("new").state == "serving")
        assert serves(daemon.mount("new"))
        daemon.config.write_text("nonsense")
        with pytest.raises(HoldfastError):
            api.reload_config()
        daemon.process.send_signal(signal.SIGHUP)
        until(lambda: "stays as it was" in daemon.log())
        daemon.write("[mounts.a]\nquota = 0\n[mounts.new]\nstart = false\n")
        daemon.process.send_signal(signal.SIGHUP)
        until(lambda: api.mount("a").quota == 0)
        until(lambda: api.mount("new").state == "stopped")


def test_schedules_and_retention(make: Callable[..., Daemon]) -> None:
    daemon = make('[mounts.a]\nsnapshots = "every 1s"\nkeep = {last = 2}\n')
    daemon.start()
    (daemon.mount("a") / "x").write_bytes(b"x")
    with daemon.remote() as api:

        def numbers() -> list[int]:
            return [one.seq for one in api.points(PointQuery(mount="a", label="scheduled")).items]

        until(lambda: bool(numbers()) and min(numbers()) > 2)
        assert 1 <= len(numbers()) <= 3
        acts = {one.act for one in api.audit()}
        assert {"take snapshot", "delete points"} <= acts
        session = api.begin("a")
        latest = max(numbers())
        until(lambda: "left out" in daemon.log())
        assert max(numbers()) <= latest + 1  # one that had begun
        api.abandon(session.id)


def _stored(path: Path, content: bytes) -> None:
    """Write and sync a file, as root, wherever that path leads at the moment. Raises OSError."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT)
    try:
        os.write(fd, content)
        os.fsync(fd)
    finally:
        os.close(fd)


@pytest.mark.slow
def test_killed_at_random_under_load(make: Callable[..., Daemon]) -> None:
    """Daemon and workers, in turns, while somebody writes and syncs: all that was acknowledged is there."""
    daemon = make("[mounts.a]\n")
    daemon.start()
    acknowledged: dict[str, bytes] = {}
    committed: dict[
        str, str
    ] = {}  # point -> newest file that had been acknowledged when it was asked for
    over = threading.Event()

    def write() -> None:
        number = 0
        while not over.is_set():
            number += 1
            name, content = f"f{number}", os.urandom(3000 + number)
            try:
                _stored(daemon.mount("a") / name, content)
                acknowledged[name] = content
            except OSError:
                over.wait(0.05)  # no worker now
            over.wait(0.002)

    writer = threading.Thread(target=write)
    writer.start()
    slowest = 0.0
    try:
        for turn in range(4):
            enough = len(acknowledged) + 20
            until(lambda enough=enough: len(acknowledged) > enough)
            with daemon.remote() as api:
                session = api.begin("a")
                newest = list(acknowledged)[-1]
                committed[api.commit(session.id).detail.point.id] = newest
                until(lambda: api.mount("a").pid != 0)
                pid = api.mount("a").pid
            if turn % 2:
                daemon.kill()
                daemon.start()
            else:
                count = len(acknowledged)
                os.kill(pid, signal.SIGKILL)
                slowest = max(slowest, until(lambda count=count: len(acknowledged) > count + 1))
    finally:
        over.set()
        writer.join()
    daemon.stop()
    daemon.start()
    for name, content in acknowledged.items():
        assert (daemon.mount("a") / name).read_bytes() == content, name
    with daemon.remote() as api:
        for point, newest in committed.items():
            _, pieces = api.file(point, newest)
            assert b"".join(pieces) == acknowledged[newest]
    daemon.stop()
    assert not list(daemon.mount("a").iterdir())
    daemon.mount("a").rmdir()
    assert slowest < 2 * SLOW, f"the mount came back after {slowest:.2f} s"


def test_what_is_restored_and_who_dies_is_counted(make: Callable[..., Daemon]) -> None:
    """In the numbers for Prometheus: bytes of restores of each kind, workers that died, points that wait."""
    daemon = make("[mounts.a]\n")
    daemon.start()
    (daemon.mount("a") / "f").write_bytes(b"x" * 5000)
    with daemon.remote() as api:
        point = api.snapshot("a").point.id
        assert ended(api, api.restore(RestoreSpec(point, place="out"))).state == "done"
        assert len(b"".join(api.file(point, "f", offset=1000)[1])) == 4000
        stream = len(b"".join(api.tar(point)))
        before = daemon.pids()["a"]
        os.kill(before, signal.SIGKILL)
        until(lambda: daemon.pids()["a"] not in (0, before))
    with socket.socket(socket.AF_UNIX) as asking:
        asking.connect(f"{daemon.root}/run/api.sock")
        asking.sendall(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        told = b"".join(iter(lambda: asking.recv(1 << 16), b"")).decode().splitlines()
    numbers = dict(line.rsplit(" ", 1) for line in told if line.startswith("holdfast_"))
    assert float(numbers["holdfast_restore_bytes_total"]) == 5000 + 4000 + stream
    assert float(numbers['holdfast_worker_restarts_total{mount="a"}']) == 1
    assert float(numbers['holdfast_pending_points{mount="a"}']) == 0
