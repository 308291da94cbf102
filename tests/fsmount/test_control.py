"""What the daemon asks a worker beside the snapshot: who writes, the fence, restores, counters."""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import fsmount
from engine import Store
from engine.errors import AlreadyExists, InvalidRequest, NotFound
from fsmount.files import RESTORES
from tests.fsmount.conftest import Host, client_of, stale, until

pytestmark = pytest.mark.needs_fuse


def refused(action: Callable[[], object]) -> int | None:
    try:
        action()
    except OSError as error:
        return error.errno
    return 0


# --- writers and counters ----------------------------------------------------------------------------


def test_who_writes_is_told_by_path(host: Host) -> None:
    (host.path / "a" / "b").mkdir(parents=True)
    with client_of(host) as client:
        assert client.request("writers") == {"writers": [], "unlinked": 0, "more": False}
        with (
            (host.path / "a" / "b" / "\u00e4\udcff").open("wb"),
            (host.path / "gone").open("wb"),
            (host.path / "moved").open("wb"),
        ):
            os.unlink(host.path / "gone")
            os.rename(host.path / "moved", host.path / "here")
            found = client.request("writers")
        assert sorted(found["writers"]) == ["a/b/\u00e4\udcff", "here"]
        assert found["unlinked"] == 1 and not found["more"]


def test_a_thousand_writers_are_told_and_no_more(host: Host) -> None:
    with contextlib.ExitStack() as stack, client_of(host) as client:
        for number in range(1010):
            stack.callback(os.close, os.open(host.path / f"f{number}", os.O_CREAT | os.O_WRONLY))
        found = client.request("writers")
        assert len(found["writers"]) == 1000 and found["more"]


def test_counters(host: Host) -> None:
    with client_of(host) as client:
        with (host.path / "f").open("wb", buffering=0) as file:
            file.write(b"x" * 300_000)
            os.fsync(file.fileno())
        fd = os.open(host.path / "f", os.O_RDONLY | os.O_DIRECT)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(fd)
        status = client.request("status")
        assert status["bytes_written"] == 300_000 and status["fsyncs"] == 1
        assert 0 < status["fsync_seconds"] < 30
        assert status["queues"] == {"gate": 0, "read": 0, "fsync": 0, "room": 0}
        host.tell("hold", "fsync")
        with (host.path / "f").open("ab") as file:
            thread = threading.Thread(target=os.fsync, args=(file.fileno(),))
            thread.start()
            until(lambda: client.request("status")["queues"]["fsync"] == 1, "an fsync")
            host.tell("let", "fsync")
            thread.join()


# --- the fence -----------------------------------------------------------------------------------------


def changes(path: Path) -> list[Callable[[], object]]:
    return [
        (path / "new").touch,
        (path / "newdir").mkdir,
        lambda: (path / "f").open("r+b"),
        lambda: os.truncate(path / "f", 1),
        lambda: os.chmod(path / "f", 0o600),
        lambda: os.utime(path / "f", (1, 1)),
        lambda: os.unlink(path / "f"),
        lambda: os.rename(path / "f", path / "g"),
        lambda: os.link(path / "f", path / "g"),
        lambda: os.symlink("f", path / "g"),
        lambda: os.mkfifo(path / "g"),
        lambda: os.rmdir(path / "d"),
        lambda: os.setxattr(path / "f", "user.a", b"1"),
        lambda: os.removexattr(path / "f", "user.kept"),
    ]


def test_a_fence_refuses_every_change_and_loses_none(host: Host) -> None:
    (host.path / "d").mkdir()
    file = (host.path / "f").open("wb", buffering=0)
    os.setxattr(host.path / "f", "user.kept", b"1")
    data = os.urandom(20_000_000)
    file.write(data)
    with client_of(host) as client:
        for wrong in ({}, {"writable": 0}, {"writable": None}):
            with pytest.raises(InvalidRequest):
                client.request("fence", **wrong)
        client.request("fence", writable=False)
        assert host.tell("content", b"f") == data
        status = client.request("status")
        assert not status["writable"] and not status["frozen"]
        assert {refused(change) for change in changes(host.path)} == {errno.EROFS}
        assert sorted(os.listdir(host.path)) == ["d", "f"]
        assert (host.path / "f").read_bytes() == data
        file.write(b"late")  # into the kernel's cache
        assert refused(lambda: os.fsync(file.fileno())) == errno.EROFS
        client.request("barrier")  # what was refused stands in nobody's way
        client.request("freeze")
        client.request("thaw")
        until(lambda: host.tell("content", b"f") == data, "only what was let in")
        assert refused(lambda: os.pwrite(file.fileno(), b"x" * 4096, 0)) in (0, errno.EROFS)
        with contextlib.suppress(OSError):
            os.fsync(file.fileno())
        time.sleep(1.5)  # until the kernel was told to forget it
        assert (host.path / "f").read_bytes()[: len(data)] == data
        client.request("fence", writable=False)
        client.request("fence", writable=True)
        assert client.request("status")["writable"]
        assert {refused(change) for change in changes(host.path)[:2]} == {0}
    file.close()


def test_a_file_closed_behind_the_fence_keeps_its_times(host: Host) -> None:
    file = (host.path / "f").open("wb", buffering=0)
    file.write(b"x" * 100_000)
    before = os.stat(host.path / "f").st_mtime_ns
    with client_of(host) as client:
        client.request("fence", writable=False)
        file.close()
        assert os.stat(host.path / "f").st_mtime_ns == before
        assert refused(lambda: os.utime(host.path / "f")) == errno.EROFS


def test_a_fence_without_the_kernels_cache(hosts: Callable[..., Host]) -> None:
    host = hosts(options={"writeback": False})
    with (host.path / "f").open("wb", buffering=0) as file, client_of(host) as client:
        file.write(b"1")
        client.request("fence", writable=False)
        assert refused(lambda: file.write(b"2")) == errno.EROFS
        client.request("fence", writable=True)
        file.write(b"3")
    assert (host.path / "f").read_bytes() == b"13"


# --- restores ---------------------------------------------------------------------------------------------


@pytest.fixture
def store(tmp_path: Path) -> Iterator[tuple[Path, Path, str]]:
    """A mounted store with a point: d/f, d/e/g; then the live tree is emptied."""
    path, where = tmp_path / "store", tmp_path / "m"
    Store.init(str(path))
    where.mkdir()
    with Store.open(str(path)) as opened:
        opened.create_mount("data")
        fsmount.start_background(str(path), "data", None, str(where))
        (where / "d" / "e").mkdir(parents=True)
        (where / "d" / "f").write_bytes(b"content of f")
        (where / "d" / "e" / "g").write_bytes(b"content of g")
        with fsmount.client(str(path), "data") as client:
            client.request("freeze")
            point = opened.snapshot("data", thaw=lambda: client.request("thaw")).id
    subprocess.run(["rm", "-r", where / "d"], check=True)
    yield path, where, point
    while os.path.ismount(where) or stale(where):
        subprocess.run(["fusermount3", "-uz", where], check=True)


def show(path: Path, **shown: tuple[str, str]) -> None:
    wanted = {key[1:]: {"point": point, "path": sub} for key, (point, sub) in shown.items()}
    fsmount.request(str(path), "data", "restores", show=wanted)


def test_restores_are_shown_and_hidden(store: tuple[Path, Path, str]) -> None:
    path, where, point = store
    assert not (where / "restores").exists() and os.listdir(where) == []
    show(path, _7=(point, "d"), _8=(point, ""))
    assert os.listdir(where) == ["restores"]
    assert sorted(os.listdir(where / "restores")) == ["7", "8"]
    assert (where / "restores" / "7" / "f").read_bytes() == b"content of f"
    assert (where / "restores" / "8" / "d" / "e" / "g").read_bytes() == b"content of g"
    assert os.path.samefile(where / "restores" / "7" / "..", where / "restores")
    assert os.path.samefile(where / "restores" / "..", where)
    assert os.stat(where / "restores").st_ino == RESTORES
    seven = os.stat(where / "restores" / "7").st_ino
    assert {refused(change) for change in (
        (where / "restores" / "7" / "new").touch,
        (where / "restores" / "new").mkdir,
        lambda: os.unlink(where / "restores" / "7" / "f"),
        lambda: os.rmdir(where / "restores"),
        lambda: os.rename(where / "restores", where / "other"),
        lambda: os.chmod(where / "restores" / "7" / "f", 0o777),
    )} == {errno.EROFS}  # fmt: skip
    assert refused((where / "restores").mkdir) == errno.EEXIST
    with (where / "restores" / "7" / "f").open("rb") as file:
        show(path, _8=(point, ""))
        until(lambda: os.listdir(where / "restores") == ["8"], "7 is hidden")
        assert file.read() == b"content of f"
    show(path)
    assert os.listdir(where) == [] and not (where / "restores").exists()
    fsmount.unmount(str(where))
    fsmount.start_background(str(path), "data", None, str(where))
    show(path, _7=(point, "d"))
    assert os.stat(where / "restores" / "7").st_ino == seven
    with Store.open(str(path)) as opened, fsmount.client(str(path), "data") as client:
        client.request("freeze")
        second = opened.snapshot("data", thaw=lambda: client.request("thaw")).id
        assert [
            entry.name for entry in opened.view(second).scan(opened.view(second).root_entry, b"")
        ] == []


def test_what_cannot_be_shown(store: tuple[Path, Path, str]) -> None:
    path, where, point = store
    show(path, _7=(point, "d"))
    for wanted, error in (
        ({"_8": ("01nothing", "")}, NotFound),
        ({"_8": (point, "nothing")}, NotFound),
        ({"_8": (point, "d/f")}, InvalidRequest),
        ({"_8": (point, "d/f/x")}, NotFound),
        ({"_8": (point, "../d")}, NotFound),
        ({"_7": (point, "")}, InvalidRequest),
        ({"_x": (point, "")}, InvalidRequest),
        ({"_0": (point, "")}, InvalidRequest),
        ({"_01": (point, "")}, InvalidRequest),
        ({"_9999999": (point, "")}, InvalidRequest),
    ):
        with pytest.raises(error):
            show(path, **wanted)
    for nonsense in (
        None,
        [],
        {"7": point},
        {"7": {"point": point}},
        {"7": {"point": 7, "path": ""}},
    ):
        with pytest.raises(InvalidRequest):
            fsmount.request(str(path), "data", "restores", show=nonsense)
    assert os.listdir(where / "restores") == ["7"]
    show(path)
    (where / "restores").mkdir()
    with pytest.raises(AlreadyExists):
        show(path, _7=(point, "d"))
    (where / "restores" / "mine").touch()
    assert os.listdir(where / "restores") == ["mine"]
