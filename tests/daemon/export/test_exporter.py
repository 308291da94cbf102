"""The exporter: what a daemon that is not root asks, and what it may not ask."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from daemon.contract import ExportInfo
from daemon.export import AskedExports, Wanted, spawn
from daemon.export.__main__ import SOCKET, main
from daemon.export.exporter import Exporter
from daemon.export.ganesha import Settings
from daemon.mounter.places import Allowed
from engine.errors import InvalidRequest, NotFound, PermissionDenied
from tests.daemon.export.client import Nfs
from tests.daemon.export.conftest import Site, free_ports

root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@pytest.fixture
def exporter(tmp_path: Path) -> Exporter:
    return Exporter(
        str(tmp_path / "f"), Settings(), lambda: Allowed(65534, 65534, ("/mnt/holdfast",))
    )


BAD = [
    b"", b"\xff", b"[]", b"{}", b'{"op":"apply"}', b'{"op":"apply","wanted":[1]}', b"[" * 100_000,
    b'{"op":"apply","wanted":[{"mount":"m","identity":"a\\nb","path":"","exports":[]}]}',
    b'{"op":"apply","wanted":[{"mount":"m","identity":"a","path":"","exports":[{"client":"::1"}]}]}',
]  # fmt: skip


@root
@pytest.mark.parametrize("data", BAD, ids=range(len(BAD)))
def test_nonsense_is_refused(exporter: Exporter, data: bytes) -> None:
    assert exporter.answer(data)["kind"] == InvalidRequest.kind.slug


@root
@pytest.mark.parametrize("path", ["/etc", "/mnt/holdfast", "/mnt/holdfastx", "/"])
def test_other_paths_are_refused(exporter: Exporter, path: str) -> None:
    one = {
        "mount": "m",
        "identity": "a",
        "path": path,
        "exports": [{"client": "::1", "read_only": True, "squash": "all"}],
    }
    reply = exporter.answer(json.dumps({"op": "apply", "wanted": [one]}).encode())
    assert reply["kind"] == PermissionDenied.kind.slug


@root
def test_a_folder_that_others_may_change_is_refused(tmp_path: Path) -> None:
    (tmp_path / "f").mkdir()
    (tmp_path / "f").chmod(0o777)
    with pytest.raises(PermissionDenied):
        Exporter(str(tmp_path / "f"), Settings(), lambda: Allowed(65534, 65534))


def test_the_unit_starts_it_as_it_wants_to_be(capsys: pytest.CaptureFixture[str]) -> None:
    unit = Path(__file__).parents[3] / "systemd" / "holdfast-exporter.service"
    (line,) = (one for one in unit.read_text().splitlines() if one.startswith("ExecStart="))
    _, _, m, module, *words = line.split()
    assert (m, module) == ("-m", "daemon.export")
    with pytest.raises(SystemExit):
        main(["--help"])
    helped = capsys.readouterr().out
    assert all(word in helped for word in words if word.startswith("--"))
    socket_unit = unit.with_suffix(".socket").read_text()
    assert f"ListenSequentialPacket=/run/holdfast/{SOCKET}\n" in socket_unit


def test_an_exporter_that_was_started_again_is_asked() -> None:
    there: list[socket.socket] = []

    def connect() -> socket.socket:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        theirs.send(b'{"ok": true, "state": "active"}')
        there.append(theirs)
        return ours

    asked = AskedExports(connect, list)
    assert asked.state("m", "::1") == "active"
    there[0].close()
    assert asked.state("m", "::1") == "active"
    there[1].send(b'{"ok": true, "state": ""}')
    asked.close()
    assert len(there) == 2
    there[1].close()


def test_an_exporter_that_has_ended_is_told() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    theirs.close()
    asked = AskedExports(lambda: ours, list)
    with pytest.raises(NotFound):
        asked.apply()
    assert asked.state("m", "::1").startswith("failed: exporter")
    with pytest.raises(NotFound):
        asked.close()


@pytest.fixture
def asked(site: Site, tmp_path: Path) -> Iterator[tuple[AskedExports, int, list[Wanted]]]:
    port = free_ports()
    config = tmp_path / "holdfast.toml"
    config.write_text(
        f'store = "/s"\nuser = "nobody"\nmount_root = "{site.base}"\n[nfs]\nserver = "ganesha"\nport = {port}\n'
    )
    connection = spawn(str(config), str(tmp_path / "files"))
    wanted = [
        Wanted("db", "x/1", str(site.path("db")), (ExportInfo("db", "127.0.0.1", squash="none"),))
    ]
    one = AskedExports(lambda: connection, lambda: wanted)
    yield one, port, wanted
    one.close()
    assert os.wait3(0)[1] == 0


@pytest.mark.needs_fuse
def test_a_daemon_that_is_not_root_exports(
    asked: tuple[AskedExports, int, list[Wanted]], site: Site
) -> None:
    one, port, wanted = asked
    assert one.state("db", "127.0.0.1") == "pending"
    one.apply()
    assert one.state("db", "127.0.0.1") == "active"
    (site.path("db") / "seen").write_bytes(b"x")
    with Nfs(port, port + 1, str(site.path("db"))) as nfs:
        assert "seen" in nfs.names("/")
    wanted.append(Wanted("etc", "x/2", "/etc", (ExportInfo("etc", "127.0.0.1"),)))
    with pytest.raises(PermissionDenied):
        one.apply()
    wanted.pop()
    one.apply()
    assert one.state("db", "127.0.0.1") == "active"
