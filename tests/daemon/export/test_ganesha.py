"""Mounts exported by a real NFS-Ganesha, used by real clients, with everything that may die dying."""

from __future__ import annotations

import errno
import hashlib
import os
import subprocess
import threading
import time
from pathlib import Path

import pytest

import fsmount
from daemon.contract import ExportInfo
from daemon.export import GaneshaExports, Settings
from engine.errors import Busy
from tests.daemon.export.conftest import Site, eventually, killed
from tests.daemon.export.support import SCALE

pytestmark = pytest.mark.needs_fuse
MIB = 1 << 20


def noise(size: int, seed: int = 1) -> bytes:
    """Bytes that nothing compresses."""
    return hashlib.shake_256(seed.to_bytes(4)).digest(size)


def test_tools_copy_in_and_out(site: Site) -> None:
    source, back = site.base / "source", site.base / "back"
    source.write_bytes(noise(MIB) * 64 * SCALE)
    subprocess.run(
        ["nfs-cp", source, site.url("db", "in")], check=True, capture_output=True, timeout=600
    )
    assert (site.path("db") / "in").stat().st_size == source.stat().st_size
    subprocess.run(
        ["nfs-cp", site.url("db", "in"), back], check=True, capture_output=True, timeout=600
    )
    subprocess.run(["cmp", source, back], check=True)
    subprocess.run(["cmp", source, site.path("db") / "in"], check=True)
    for version in (3, 4):
        listed = subprocess.run(
            ["nfs-ls", site.url("db", "", version)], check=True, capture_output=True, timeout=60
        )
        assert b" in\n" in listed.stdout


@pytest.mark.parametrize("version", [3, 4])
def test_files_and_names(site: Site, version: int) -> None:
    top = f"/v{version}"
    with site.nfs("db", version) as nfs:
        nfs.mkdir(top)
        data = noise(5 * MIB + 17, version)
        file = nfs.create(f"{top}/a")
        nfs.write(file, 0, data)
        nfs.fsync(file)
        nfs.shut(file)
        nfs.rename(f"{top}/a", f"{top}/b")
        assert nfs.names(top) == ["b"]
        assert (site.path("db") / top[1:] / "b").read_bytes() == data
        (site.path("db") / top[1:] / "local").write_bytes(b"from this side")
        assert nfs.names(top) == ["b", "local"]
        file = nfs.open(f"{top}/local")
        assert nfs.read(file, 0, 100) == b"from this side"
        with (site.path("db") / top[1:] / "local").open("ab") as local:
            local.write(b", longer")
        assert nfs.read(file, 0, 100) == b"from this side, longer"
        nfs.shut(file)
        nfs.unlink(f"{top}/b")
        assert nfs.names(top) == ["local"]
        with pytest.raises(OSError) as caught:
            nfs.open(f"{top}/b")
        assert caught.value.errno == errno.ENOENT


def test_reading_asks_for_no_attributes(site: Site) -> None:
    """The kernel takes a time of access for unknown after each read; who copies out must not wait for it."""
    count = 32
    path = site.path("db") / "disk"
    with path.open("wb") as file:
        file.write(noise(MIB) * count)
        file.flush()
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    with site.nfs("db") as nfs:
        opened = nfs.open("/disk")
        nfs.read(opened, 0, 1)
        before = fsmount.request(site.store, "db", "status")["requests"]
        for number in range(count):
            nfs.read(opened, number * MIB, MIB)
        asked = fsmount.request(site.store, "db", "status")["requests"] - before
        assert asked < 1.5 * count
        os.utime(path, (1_000_000_000, 1_100_000_000))
        assert nfs.stat("/disk").atime == 1_000_000_000, "what is set is told"
        nfs.shut(opened)
    path.unlink()


def test_a_file_unlinked_while_it_is_open(site: Site) -> None:
    """With version 4 the server knows that it is open; with version 3 clients rename it instead."""
    with site.nfs("db", 4) as nfs:
        file = nfs.create("/going")
        nfs.write(file, 0, b"still here")
        nfs.unlink("/going")
        assert nfs.read(file, 0, 100) == b"still here"
        nfs.write(file, 5, b"THERE")
        assert nfs.read(file, 0, 100) == b"stillTHERE"
        nfs.shut(file)
    assert not (site.path("db") / "going").exists()


def test_four_writers_at_once(site: Site) -> None:
    size = 16 * MIB * SCALE
    wrong: list[BaseException] = []

    def write(number: int) -> None:
        try:
            with site.nfs("db") as nfs:
                file = nfs.create(f"/writer{number}")
                nfs.write(file, 0, noise(MIB, number) * (size // MIB))
                nfs.fsync(file)
                nfs.shut(file)
        except BaseException as error:  # noqa: BLE001
            wrong.append(error)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    for number in range(4):
        assert (site.path("db") / f"writer{number}").read_bytes() == noise(MIB, number) * (
            size // MIB
        )


def test_idle_files_are_not_kept_open(site: Site) -> None:
    """Or each recovery point would say that they were being written."""
    with site.nfs("db") as nfs:
        file = nfs.create("/idle")
        nfs.write(file, 0, b"x")
        nfs.fsync(file)
    end = time.monotonic() + 20
    while fsmount.request(site.store, "db", "status")["open_writers"]:
        assert time.monotonic() < end
        time.sleep(0.2)


def test_commit_is_durable_and_handles_outlive_everything(site: Site) -> None:
    """The worker is killed, then the server: the client goes on with the handle it has."""
    data = noise(3 * MIB, 9)
    with site.nfs("db") as nfs:
        nfs.mkdir("/deep")
        file = nfs.create("/deep/kept")
        nfs.write(file, 0, data)
        nfs.fsync(file)
        handle = nfs.handle(file)
        site.kill("db")
        site.serve("db")
        assert (site.path("db") / "deep" / "kept").read_bytes() == data
        before = site.server_pid()
        site.port.apply()
        assert site.server_pid() != before, "it had the old file system open"
        assert eventually(lambda: nfs.read(file, 0, MIB)) == data[:MIB]
        killed(site.server_pid())
        site.port.apply()
        assert site.port.state("db", "127.0.0.1") == "active"
        assert eventually(lambda: nfs.read(file, MIB, MIB)) == data[MIB : 2 * MIB]
    with site.nfs("db") as nfs:
        assert nfs.handle(nfs.open("/deep/kept")) == handle
        nfs.unlink("/deep/kept")
        (site.path("db") / "deep" / "other").write_bytes(b"another file")
        with pytest.raises(OSError):
            nfs.read(file, 0, 10)


def test_the_worker_dies_in_the_middle_of_a_copy(site: Site) -> None:
    data = noise(MIB, 5) * 24
    with site.nfs("db") as nfs:
        file = nfs.create("/torn")
        nfs.write(file, 0, data[: 8 * MIB])
        nfs.fsync(file)
        site.kill("db")

        def rest() -> None:
            nfs.write(file, 8 * MIB, data[8 * MIB :])
            nfs.fsync(file)

        with pytest.raises(OSError):
            rest()
        site.serve("db")
        site.port.apply()
        assert eventually(lambda: nfs.read(file, 0, 100)) == data[:100]
        eventually(rest)
    assert (site.path("db") / "torn").read_bytes() == data


def test_a_mount_is_taken_out_before_it_is_unmounted(site: Site) -> None:
    site.add("second", ExportInfo("second", "127.0.0.0/8", squash="none"))
    before = site.server_pid()
    site.port.apply()
    assert site.server_pid() == before, "an export more is no reason to disturb the others"
    assert site.port.state("second", "127.0.0.0/8") == "active"
    with site.nfs("second") as nfs:
        nfs.shut(nfs.create("/x"))
    site.down.add("second")
    site.port.apply()
    assert site.port.state("second", "127.0.0.0/8") == "pending"
    fsmount.unmount(str(site.path("second")))
    with pytest.raises(OSError):
        site.nfs("second")
    site.down.discard("second")
    site.port.apply()
    with pytest.raises(OSError):  # what is there now is a directory of this host
        site.nfs("second")
    site.serve("second")
    site.port.apply()
    with site.nfs("second") as nfs:
        assert nfs.names("/") == ["x"]
    assert site.server_pid() == before


def test_who_is_no_client_gets_nothing(site: Site) -> None:
    site.add("private", ExportInfo("private", "192.0.2.0/24"))
    site.port.apply()
    (site.path("private") / "secret").write_bytes(b"x")
    for version in (3, 4):
        with pytest.raises(OSError), site.nfs("private", version) as nfs:
            nfs.names("/")
    site.exports["private"].append(ExportInfo("private", "127.0.0.1"))
    site.port.apply()
    with site.nfs("private") as nfs:
        assert nfs.names("/") == ["secret"]


def test_root_is_squashed_and_read_only_is_kept(site: Site) -> None:
    path = site.add("squashed", ExportInfo("squashed", "127.0.0.1", squash="root"))
    site.port.apply()
    (path / "mine").write_bytes(b"root's")
    (path / "mine").chmod(0o600)
    (path / "open").mkdir(mode=0o777)
    (path / "open").chmod(0o777)
    with site.nfs("squashed") as nfs:
        with pytest.raises(PermissionError):
            nfs.create("/made")
        with pytest.raises(PermissionError):
            nfs.read(nfs.open("/mine"), 0, 10)
        nfs.shut(nfs.create("/open/made"))
    assert (path / "open" / "made").stat().st_uid == 65534
    site.exports["squashed"] = [ExportInfo("squashed", "127.0.0.1", read_only=True, squash="none")]
    site.port.apply()
    with site.nfs("squashed") as nfs:
        assert nfs.read(nfs.open("/mine"), 0, 10) == b"root's"
        with pytest.raises(OSError) as caught:
            nfs.unlink("/mine")
        assert caught.value.errno == errno.EROFS
    site.exports["squashed"] = [ExportInfo("squashed", "127.0.0.1", squash="all")]
    site.port.apply()
    with site.nfs("squashed", uid=1234) as nfs:
        nfs.shut(nfs.create("/open/by"))
    assert (path / "open" / "by").stat().st_uid == 65534


def test_a_daemon_that_starts_takes_the_server_over(site: Site) -> None:
    before = site.server_pid()
    other = GaneshaExports(str(site.base / "nfs"), site.settings, site.wanted)
    other.apply()
    assert site.server_pid() == before
    assert other.state("db", "127.0.0.1") == "active"


def test_a_port_in_use_is_told(site: Site, tmp_path: Path) -> None:
    settings = Settings(port=site.settings.port, grace_s=3)
    other = GaneshaExports(str(tmp_path / "nfs"), settings, site.wanted)
    with pytest.raises(Busy, match=str(settings.port)):
        other.apply()
    assert other.state("db", "127.0.0.1").startswith("failed: ")
    other.close()
