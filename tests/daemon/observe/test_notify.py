"""Words to systemd, heard by a datagram socket that stands in for it."""

from __future__ import annotations

import os
import secrets
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from daemon.observe import notify, status, watchdog_interval


@contextmanager
def listening(address: str) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(address)
        manager.settimeout(10)
        yield manager


def test_a_path_and_a_name_without_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"holdfast-{secrets.token_hex(8)}"
    for address, said in ((str(tmp_path / "n"), str(tmp_path / "n")), (f"\0{name}", f"@{name}")):
        with listening(address) as manager:
            monkeypatch.setenv("NOTIFY_SOCKET", said)
            assert notify("READY=1\nSTATUS=ready")
            assert manager.recv(4096) == b"READY=1\nSTATUS=ready"


def test_a_status_stays_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with listening(str(tmp_path / "n")) as manager:
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "n"))
        assert status("3 mounts\nSTOPPING=1\udcff" + "x" * 500)
        said = manager.recv(4096).decode()
        assert said.startswith("STATUS=3 mounts\\nSTOPPING=1\\xff") and said.isprintable()
        assert len(said) < 250


@pytest.mark.parametrize(
    "address", ["", "relative", "/missing/socket", "vsock:2:1", "@", "/" * 200]
)
def test_nobody_listens(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    assert not notify("READY=1")
    monkeypatch.delenv("NOTIFY_SOCKET")
    assert not notify("READY=1")


def test_one_that_is_stuck_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules["daemon.observe.notify"], "SEND_LIMIT", 0.01)
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "n"))
    with listening(str(tmp_path / "n")):
        assert not all(notify("WATCHDOG=1") for _ in range(5000))


@pytest.mark.parametrize(
    ("usec", "pid", "interval"),
    [
        ("30000000", None, 15.0),
        ("1", None, 0.0000005),
        ("30000000", "own", 15.0),
        ("30000000", "1", None),
        ("0", None, None),
        ("", None, None),
        ("x", None, None),
        ("-5", None, None),
        ("²", None, None),
    ],
)
def test_the_watchdog(
    usec: str, pid: str | None, interval: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    monkeypatch.setenv("WATCHDOG_USEC", usec)
    if pid:
        monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()) if pid == "own" else pid)
    assert watchdog_interval() == interval
