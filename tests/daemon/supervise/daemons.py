"""A daemon as a real process over a store of its own, for tests; it says by systemd's socket when it is ready."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from daemon.client import Remote
from daemon.contract import JobInfo
from daemon.mounter import kernel
from engine import Store
from tests import warm

MAIN = warm.FRESH[1:]
LIMIT = 40.0  # s for a daemon to begin or to end

CONFIG = """
store = "{root}/store"
mount_root = "{root}/mnt"
run_dir = "{root}/run"
[api]
listen = ["127.0.0.1:0"]
[phoenix]
enabled = false
[log]
format = "plain"
[maintenance]
collect = ""
scrub = ""
[restore_targets]
out = "{root}/out"
"""


class Daemon:
    """Below ``root``, a short path: sockets are in it."""

    def __init__(
        self, root: Path, tables: str = "[mounts.a]\n[mounts.b]\n", *, user: str = "",
        command: Sequence[str] = (), environment: dict[str, str] | None = None,
    ) -> None:  # fmt: skip
        """``user``: whom it becomes; then its directories are that user's.

        ``command``: what begins an interpreter; without one it is started warm, so never to be measured.
        """
        self.root = root
        self.user = user
        self.command = [*command, *MAIN] if command else []
        self.words = ["serve", "--config", str(root / "holdfast.toml")]
        self.environment = {**os.environ, **(environment or {}), "NOTIFY_SOCKET": str(root / "n")}
        self.store = root / "store"
        self.config = root / "holdfast.toml"
        self.process: warm.Started | subprocess.Popen[bytes] | None = None
        self.said: list[str] = []
        Store.init(str(self.store))
        (root / "out").mkdir()
        (root / "mnt").mkdir()
        (root / "run").mkdir()
        if user:
            root.chmod(0o755)
            subprocess.run(["chown", "-R", user, str(root)], check=True)
        self.write(tables)
        self._notified = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._notified.bind(str(root / "n"))
        (root / "n").chmod(0o777)

    def write(self, tables: str, *, instead: dict[str, str] | None = None) -> None:
        text = (f'user = "{self.user}"' if self.user else "") + CONFIG.format(root=self.root)
        for old, new in (instead or {}).items():
            assert old in text
            text = text.replace(old, new)
        self.config.write_text(text + tables)

    def run(self, *arguments: str) -> warm.Started | subprocess.Popen[bytes]:
        words = [*self.words, *arguments]
        with open(self.root / "log", "ab") as log, open(os.devnull) as null:
            if not self.command:
                return warm.start(
                    words, stdin=null.fileno(), stdout=log.fileno(), stderr=log.fileno(),
                    env=self.environment,
                )  # fmt: skip
            return subprocess.Popen(
                [*self.command, *words], stdin=null, stdout=log, stderr=log, env=self.environment
            )

    def start(self, *arguments: str) -> None:
        """Returns when it is ready."""
        self.process = self.run(*arguments)
        end = time.monotonic() + LIMIT
        while not self.told("READY=1"):
            assert self.process.poll() is None, self.log()
            assert time.monotonic() < end, self.log()

    def told(self, what: str, limit: float = 0.1) -> bool:
        """Whether it says that to systemd, within a moment."""
        end = time.monotonic() + limit
        while (left := end - time.monotonic()) > 0:
            self._notified.settimeout(left)
            try:
                self.said.append(self._notified.recv(4096).decode())
            except TimeoutError:
                break
            if self.said[-1] == what:
                return True
        return False

    def refused(self, *arguments: str) -> tuple[int, str]:
        """Start one that does not get far: its exit code and what it says."""
        words = [*self.words, *arguments]
        if not self.command:
            answer = warm.run(words, timeout=LIMIT)
        else:
            answer = subprocess.run(
                [*self.command, *words], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                timeout=LIMIT, check=False,
            )  # fmt: skip
        return answer.returncode, answer.stderr

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait(LIMIT)

    def stop(self) -> float:
        """SIGTERM; how long it took."""
        assert self.process is not None
        begin = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(LIMIT) == 0, self.log()
        return time.monotonic() - begin

    def remote(self) -> Remote:
        return Remote(f"unix:{self.root}/run/api.sock")

    def log(self) -> str:
        return (self.root / "log").read_text()

    def mount(self, name: str) -> Path:
        return self.root / "mnt" / name

    def pids(self) -> dict[str, int]:
        with self.remote() as api:
            return {one.name: one.pid for one in api.mounts()}

    def end(self) -> None:
        """Whatever happened: no process and no mount stays."""
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(LIMIT)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        for place in (self.root / "mnt").iterdir():
            subprocess.run(["umount", "-l", str(place)], check=False, capture_output=True)
            kernel.seal(str(place), sealed=False)
        self._notified.close()


@contextmanager
def daemons() -> Iterator[Callable[..., Daemon]]:
    """Makes some in a directory of their own; they end, whatever happens, with it."""
    place = Path(tempfile.mkdtemp(prefix="hfd-", dir="/tmp"))
    made: list[Daemon] = []

    def one(tables: str = "[mounts.a]\n[mounts.b]\n", **options: object) -> Daemon:
        made.append(Daemon(place, tables, **options))  # type: ignore[arg-type]
        return made[-1]

    yield one
    for each in made:
        each.end()
    shutil.rmtree(place, ignore_errors=True)


def until(what: Callable[[], bool], limit: float = 20.0) -> float:
    """Wait for it; how long that took."""
    begin = time.monotonic()
    while not what():
        assert time.monotonic() - begin < limit, "it never came"
        time.sleep(0.01)
    return time.monotonic() - begin


def ended(api: Remote, job: JobInfo) -> JobInfo:
    """Wait for a job's end."""
    found = [job]

    def over() -> bool:
        found[0] = api.job(job.id)
        return found[0].state in ("done", "failed", "cancelled")

    until(over)
    return found[0]
