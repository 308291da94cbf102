"""A store with mounts that are exported by a Ganesha of their own, and what it takes to have one."""

from __future__ import annotations

import ctypes
import os
import select
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import fsmount
from daemon.contract import ExportInfo
from daemon.export import GaneshaExports, Settings, Wanted
from engine import Store
from tests.daemon.export.client import LIBRARY, Nfs

GRACE = 3  # s: tests start the server often


def why_no_ganesha() -> str:
    """The reason why nothing can be exported on this machine; empty when it can."""
    if os.geteuid() != 0:
        return "needs ganesha: not root"
    for program in ("ganesha.nfsd", "cc"):
        if shutil.which(program) is None:
            return f"needs ganesha: there is no {program}"
    try:
        ctypes.CDLL(LIBRARY)
    except OSError:
        return f"needs ganesha: there is no {LIBRARY}"
    return ""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    reason = why_no_ganesha()
    for item in items:
        if reason and "site" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.skip(reason=reason))


def free_ports() -> int:
    """A port that is free, and the next one too."""
    while True:
        with socket.socket() as one, socket.socket() as two:
            one.bind(("127.0.0.1", 0))
            port: int = one.getsockname()[1]
            try:
                two.bind(("127.0.0.1", port + 1))
            except (OSError, OverflowError):
                continue
            return port


def killed(pid: int) -> None:
    """It has ended when this returns; whoever started it may still have to wait for it."""
    watch = os.pidfd_open(pid)
    os.kill(pid, signal.SIGKILL)
    assert select.select([watch], [], [], 10)[0]
    os.close(watch)


class Site:
    """Mounts of one store, and their exports. ``exports``: what is wanted, by mount."""

    def __init__(self, base: Path, bind: str = "127.0.0.1") -> None:
        self.base = base
        self.store = str(base / "store")
        Store.init(self.store)
        self.settings = Settings(port=free_ports(), bind=bind, grace_s=GRACE)
        self.exports: dict[str, list[ExportInfo]] = {}
        self.down: set[str] = set()
        self._identities: dict[str, str] = {}
        self.port = GaneshaExports(str(base / "nfs"), self.settings, self.wanted)

    def wanted(self) -> list[Wanted]:
        return [
            Wanted(
                name,
                self._identities[name],
                "" if name in self.down else str(self.path(name)),
                tuple(exports),
            )
            for name, exports in self.exports.items()
        ]

    def path(self, name: str) -> Path:
        return self.base / name

    def add(self, name: str, *exports: ExportInfo) -> Path:
        """A new mount, served; exported to this machine with root as root, unless said otherwise."""
        with Store.open(self.store) as store:
            store.create_mount(name)
            self._identities[name] = f"store/{store.mount(name).id}"
        self.path(name).mkdir()
        self.serve(name)
        self.exports[name] = list(exports) or [ExportInfo(name, "127.0.0.1", squash="none")]
        return self.path(name)

    def serve(self, name: str) -> None:
        fsmount.start_background(self.store, name, None, str(self.path(name)))

    def kill(self, name: str) -> None:
        """The worker, as a crash does."""
        killed(int(fsmount.request(self.store, name, "status")["pid"]))

    def server_pid(self) -> int:
        return int((self.base / "nfs" / "pid").read_text())

    def nfs(self, name: str, version: int = 3, **more: object) -> Nfs:
        return Nfs(
            self.settings.port, self.settings.mount_port, str(self.path(name)), version, **more  # type: ignore[arg-type]
        )  # fmt: skip

    def url(self, name: str, path: str, version: int = 3) -> str:
        where = f"nfsport={self.settings.port}&mountport={self.settings.mount_port}"
        return f"nfs://127.0.0.1{self.path(name)}/{path}?{where}&version={version}"

    def close(self) -> None:
        self.port.close()
        for name in self.exports:
            subprocess.run(["fusermount3", "-u", str(self.path(name))], capture_output=True)
            for _ in range(100):
                if not fsmount.mounted_at(str(self.path(name))):
                    break
                subprocess.run(["fusermount3", "-uz", str(self.path(name))], capture_output=True)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    one = Site(tmp_path_factory.mktemp("nfs"))
    one.add("db")
    try:
        one.port.apply()
        yield one
    finally:
        one.close()


def eventually(act: Callable[[], object], *, limit: float = 30.0) -> object:
    """What a client does that waits for a server: try until it works."""
    end = time.monotonic() + limit
    while True:
        try:
            return act()
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.1)
