"""A mounter, and a service user's store with a worker on a mount that the mounter made. Needs root."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from daemon.mounter import kernel
from daemon.mounter.child import spawn
from daemon.mounter.client import Mounter
from tests.conftest import fuse_mounts

ROOT = Path(__file__).resolve().parents[3]
USER = 64_123  # of the service: any number will do
OTHER = 64_124


def interpreter() -> list[str]:
    """A Python that any user can run: this one, or the system's of the same version with our libraries."""
    for path in (sys.executable, "/usr/bin/python3"):
        with contextlib.suppress(PermissionError):
            said = subprocess.run(
                [path, "-c", f"import platform, trio, sys; print(sys.version_info[:2] == {sys.version_info[:2]})"],
                capture_output=True, text=True, cwd="/", env=environment(), user=USER, group=USER, extra_groups=[],
            )  # fmt: skip
            if said.stdout == "True\n":
                return [path]
    return []


def environment() -> dict[str, str]:
    paths = [str(ROOT), sysconfig.get_path("purelib")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


class Service:
    """A store of the service user's, mounted by a mounter and served by a worker of that user."""

    def __init__(self, base: Path, python: list[str]) -> None:
        self.base, self.python = base, python
        self.where = base / "mnt" / "data"
        self.where.mkdir(parents=True)
        self.store = base / "store"
        self.store.mkdir(mode=0o700)
        os.chown(self.store, USER, USER)
        self.child = spawn([str(base / "mnt")], USER, USER)
        self.mounter = Mounter(self.child.socket, limit=20)
        self.pid = 0
        self.run(
            "from engine import Store; import sys; p = sys.argv[1]; Store.init(p)\n"
            "with Store.open(p) as s: s.create_mount('data')",
            str(self.store), user=USER,
        )  # fmt: skip

    def run(self, script: str, *words: str, user: int = 0, fds: tuple[int, ...] = ()) -> str:
        """What a Python script of that user prints."""
        done = subprocess.run(
            [*self.python, "-c", script, *words], capture_output=True, text=True,
            cwd="/", env=environment(), pass_fds=fds, timeout=60, user=user, group=user, extra_groups=[],
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    def start(self, **options: object) -> int:
        """Mount, and start a worker on it as root does; its process id."""
        fd = self.mounter.mount(str(self.where), f"{self.store}#data")
        try:
            said = self.run(
                "import sys, fsmount, json; store, where, fd, user, options = sys.argv[1:]\n"
                "o = fsmount.Options(fuse_fd=int(fd), **json.loads(options))\n"
                "print(fsmount.start_background(store, 'data', None, where, o, user=(int(user),) * 2))",
                str(self.store), str(self.where), str(fd), str(USER), json.dumps(options), fds=(fd,),
            )  # fmt: skip
        finally:
            os.close(fd)
        self.pid = int(said)
        return self.pid

    def ended(self) -> bool:
        return not os.path.exists(f"/proc/{self.pid}")

    def end(self) -> None:
        for place in fuse_mounts(self.base):
            subprocess.run(["umount", "-l", place], check=False)
        for folder in self.base.rglob("mnt/*"):  # one that was taken away lazily is still sealed
            kernel.seal(str(folder), sealed=False)
        self.mounter.close()
        if self.child.process.poll() is None:
            self.child.process.wait(20)


@pytest.fixture(scope="session")
def python() -> list[str]:
    if os.geteuid():
        pytest.skip("only root has privileges to give up")
    found = interpreter()
    if not found:
        pytest.skip("no Python that another user can run")
    return found


@pytest.fixture
def services(open_path: Path, python: list[str]) -> Iterator[Callable[[], Service]]:
    started: list[Service] = []

    def start() -> Service:
        started.append(Service(open_path, python))
        return started[-1]

    yield start
    for one in started:
        one.end()


@pytest.fixture
def service(services: Callable[[], Service]) -> Service:
    return services()
