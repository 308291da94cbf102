"""``holdfast serve`` over a store of its own, from outside: started, killed, and what of it runs and is mounted."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

import fsmount
from daemon.client import Remote
from daemon.mounter import kernel
from engine import Store
from engine.errors import HoldfastError
from tools.torture.kill.commands import LONGEST, ROOT, mounts, processes
from tools.torture.kill.served import Broken, Served
from tools.torture.kill.service import VARIABLE

NAMES = ("a", "b")
USER = "nobody"
_LOOK = 0.01  # s
_CONFIG = """
store = "{home}/store"
user = "{user}"
mount_root = "{home}/mnt"
run_dir = "{home}/run"
[api]
listen = []
[phoenix]
listen = ["{address}"]
max_pending = 10000
[log]
format = "plain"
[maintenance]
collect = ""
scrub = ""
[restore_targets]
out = "{home}/out"
[mounts.a]
[mounts.b]
"""
# What a daemon may say when what it needs was killed, or when it was killed itself and tells of it as it starts.
_KNOWN = re.compile(
    r"worker of mount \w+: .*it is started again"
    r"|job \d+ \((restore|upload)\): "
    r"|mount \w+ cannot be served: mounter: "
    r"|mount \w+ cannot be served: .*(ended|killed|dead|connection)"
)


class Running:
    """The daemon of one store. ``user``: it becomes this one, and a mounter mounts for it."""

    def __init__(self, home: Path, address: str, user: str) -> None:
        self.home = home
        self.store = home / "store"
        self.user = user
        self.address = address
        self.process: subprocess.Popen[bytes] | None = None
        self._config = home / "holdfast.toml"
        self._heard = 0
        for name in ("mnt", "run", "out", "there"):
            (home / name).mkdir()
        Store.init(str(self.store))
        self._config.write_text(_CONFIG.format(home=home, user=user, address=address))
        self.served = [
            Served(home / "mnt", "a"), Served(home / "mnt", "b", ("script", "pages"))
        ]  # fmt: skip
        if user:
            for place in (home, *home.parents[: len(home.parents) - 2]):
                place.chmod(place.stat().st_mode | 0o111)
            subprocess.run(
                [
                    "chown",
                    "-R",
                    user,
                    *(str(home / one) for one in ("store", "mnt", "run", "out", "there")),
                ],
                check=True,
            )

    # --- the daemon -----------------------------------------------------------------------------------------

    @property
    def socket(self) -> str:
        """Where the native API answers."""
        return f"{self.home}/run/api.sock"

    def remote(self) -> Remote:
        """For looking: what it asks for is sent again where that does no harm."""
        return Remote(f"unix:{self.socket}")

    @property
    def place(self) -> str:
        """The storage location that all points go to."""
        return f"file://{self.home}/there"

    def begin(self, die: str = "") -> None:
        """Start the daemon; it is to die at this moment."""
        self.doom(die)
        words = ["-m", "tools.torture.kill.service", "serve", "--config", str(self._config)]
        paths = [str(ROOT), *([sysconfig.get_path("purelib")] if self.user else [])]
        with open(self.home / "log", "ab") as log:
            self.process = subprocess.Popen(
                [interpreter(self.user), *words], stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=ROOT,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), VARIABLE: str(self.home / "die")},
            )  # fmt: skip

    def doom(self, die: str) -> None:
        """From now on the daemon dies at this moment, at none for ""."""
        place = self.home / "die"
        if die:
            (self.home / "die.new").write_text(die)
            (self.home / "die.new").rename(place)
        else:
            place.unlink(missing_ok=True)

    def start(self) -> float:
        """Returns when it answers, after how many seconds. Raises Broken."""
        began = time.monotonic()
        self.begin()
        assert self.process is not None
        while not self._answers():
            if self.process.poll() is not None:
                raise Broken(f"the daemon does not start: {self.said()[-2000:]}")
            if time.monotonic() - began > LONGEST:
                raise Broken(f"the daemon has not started: {self.said()[-2000:]}")
            time.sleep(_LOOK)
        return time.monotonic() - began

    def _answers(self) -> bool:
        """It listens last. A socket that a dead one left refuses."""
        with socket.socket(socket.AF_UNIX) as asking:
            try:
                asking.connect(self.socket)
            except OSError:
                return False
        return True

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def kill(self) -> bool:
        """Kill the daemon, which may have killed itself; whether this one did it."""
        assert self.process is not None
        there = self.alive
        self.process.kill()
        self.process.wait()
        return there

    def stop(self) -> None:
        """SIGTERM, and all comes to its end. Raises Broken."""
        assert self.process is not None
        self.process.terminate()
        try:
            status = self.process.wait(LONGEST)
        except subprocess.TimeoutExpired:
            raise Broken(f"the daemon does not stop: {self.said()[-2000:]}") from None
        if status:
            raise Broken(f"the daemon ended with status {status}: {self.said()[-2000:]}")

    def said(self) -> str:
        """What all daemons have said, and their mounters."""
        return (self.home / "log").read_text(errors="replace")

    def listen(self) -> None:
        """Nothing was said that is not to be expected of one beside whom things die. Raises Broken."""
        text = self.said()[self._heard :]
        self._heard += len(text)
        for line in text.splitlines():
            bad = re.search(r" (WARNING|ERROR|CRITICAL) |Traceback|^  \| ", line)
            if bad and not _KNOWN.search(line):
                raise Broken(f"the daemon says: {line}\n{text[-3000:]}")

    # --- what it looks after --------------------------------------------------------------------------------

    def worker(self, name: str) -> int:
        """The process that serves a mount, 0 for none."""
        try:
            found = fsmount.request(str(self.store), name, "status", timeout=10)
        except HoldfastError:
            return 0
        return int(found["pid"]) if found["state"] == "serving" else 0

    def usable(self, served: Served) -> bool:
        """Whether programs find their files there, not the bare directory."""
        try:
            os.listdir(served.where)
            return os.stat(served.where).st_dev != os.stat(self.home).st_dev
        except OSError:
            return False

    def wait_usable(self, served: Served) -> None:
        """Until a worker serves it; what the daemon has put off it is asked for. Raises Broken."""
        end, soon = time.monotonic() + LONGEST, time.monotonic() + 0.5
        while not (self.worker(served.name) and self.usable(served)):
            if time.monotonic() > end:
                raise Broken(f"mount {served.name} is not there again: {self.said()[-3000:]}")
            if time.monotonic() > soon:
                soon = end
                with self.remote() as api, contextlib.suppress(HoldfastError):
                    api.start_mount(served.name)
            time.sleep(_LOOK)
        served.pid = self.worker(served.name)

    def those(self, module: str) -> list[int]:
        """Processes of this store that run a module."""
        return [pid for pid, words in processes(self.home).items() if f"-m {module} " in words]

    def clear(self) -> None:
        """Whatever happened: nothing runs, nothing is mounted, everything can be removed."""
        for served in self.served:
            for writer in served.writers:
                writer.stop()
            served.let_go()
        if self.process is not None:
            self.kill()
        for pid in processes(self.home):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for place in mounts(self.home):
            subprocess.run(["fusermount3", "-uz", place], capture_output=True, check=False)
        for served in self.served:
            kernel.seal(str(served.where), sealed=False)


def interpreter(user: str) -> str:
    """A Python that this user can run, with our libraries; "" for none."""
    if not user:
        return sys.executable
    for path in (sys.executable, "/usr/bin/python3"):
        with contextlib.suppress(OSError):
            done = subprocess.run(
                [path, "-c", f"import trio, sys; sys.exit(sys.version_info[:2] != {sys.version_info[:2]})"],
                capture_output=True, check=False, cwd="/", user=user, extra_groups=[],
                env={**os.environ, "PYTHONPATH": sysconfig.get_path("purelib")},
            )  # fmt: skip
            if done.returncode == 0:
                return path
    return ""
