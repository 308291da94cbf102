"""Peers that are mounted directories: starting the process that serves one, and delivering files."""

import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Final

from tools.bench.measure import BenchError, fsync_tree, memory, plain_files, run, stopwatch
from tools.bench.peers.base import Delivery, Peer

PROJECT: Final = Path(__file__).resolve().parents[3]
START: Final = 60.0  # seconds in which a mount must become usable
STOP: Final = 120.0  # seconds in which its process must end after the unmount
POLL: Final = 0.02
SAMPLE: Final = 0.1  # seconds between two looks at the memory of a serving process
LIFE: Final = 3600.0  # seconds after which a mount is taken away, so that nothing waits for ever


def no_fuse() -> str | None:
    """Return why nothing can be mounted here, or None."""
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        return "no access to /dev/fuse"
    return None if shutil.which("fusermount3") else "not installed: fusermount3 (package fuse3)"


class Served:
    """A FUSE mount and the process that serves it, a child of this one."""

    def __init__(
        self, command: list[str], mountpoint: Path, env: dict[str, str] | None = None
    ) -> None:
        """Start `command` and wait until `mountpoint` is mounted. Raises BenchError."""
        self.mountpoint = mountpoint
        mountpoint.mkdir(parents=True, exist_ok=True)
        self.log = mountpoint.with_name(mountpoint.name + ".log")
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                command, env=env, cwd=PROJECT, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        self.limit = threading.Timer(LIFE, self.process.kill)
        self.limit.daemon = True
        self.limit.start()
        self._peak = self.peak_resident = 0
        threading.Thread(target=self._watch, daemon=True).start()
        deadline = time.monotonic() + START
        while not _is_mounted(mountpoint):
            ended = self.process.poll() is not None
            if ended or time.monotonic() > deadline:
                self.close()
                said = self.log.read_text(errors="replace").strip()[-600:]
                raise BenchError(f"{' '.join(command)}: {'ended' if ended else 'too slow'}: {said}")
            time.sleep(POLL)

    def peak(self) -> int:
        """Return the peak memory of the serving process in bytes, without files it has mapped."""
        self._look()
        return self._peak

    def _look(self) -> None:
        anonymous, resident = memory(self.process.pid)
        self._peak = max(self._peak, anonymous)
        self.peak_resident = max(self.peak_resident, resident)

    def _watch(self) -> None:
        while self.process.poll() is None:
            self._look()
            time.sleep(SAMPLE)

    def close(self) -> None:
        """Unmount and wait for the process; by force when it does not go by itself."""
        self.limit.cancel()
        if _is_mounted(self.mountpoint):
            done = subprocess.run(
                ["fusermount3", "-u", str(self.mountpoint)], capture_output=True, check=False
            )
            if done.returncode:
                _force(self.mountpoint)
        try:
            self.process.wait(STOP)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            _force(self.mountpoint)


def _is_mounted(path: Path) -> bool:
    """Look the path up in the kernel's table: touching a dead mount could block."""
    wanted = f" {path} "
    return any(wanted in line for line in Path("/proc/self/mountinfo").read_text().splitlines())


def _force(mountpoint: Path) -> None:
    """Take a mount away at once, whoever still uses it."""
    command = ["fusermount3", "-uz", str(mountpoint)]
    subprocess.run(command, capture_output=True, check=False)


def deliver(source: Path, target: Path, delivery: Delivery) -> None:
    """Bring the files of `source` to the mounted `target` and make every one of them durable.

    Files below `target` that are not in `source` are deleted once the new ones are there.
    """
    if delivery.rsync:
        # --inplace and whole-file: what local rsync does with a mounted target.
        run(["rsync", "-a", "--inplace", "--delete", f"{source}/", f"{target}/"])
        run(["sync", "-f", target])
        return
    run(["cp", "-r", "--preserve=mode,timestamps", f"{source}/.", target])
    fsync_tree(target)
    wanted = {path.relative_to(source) for path in plain_files(source)}
    for path in plain_files(target):
        if path.relative_to(target) not in wanted:
            path.unlink()


class Null(Peer):
    """The do-nothing file system: the ceiling of everything behind pyfuse3."""

    ways: tuple[str, ...] = ()
    ratio = False

    def __init__(self, writeback: bool) -> None:
        super().__init__()
        self.name = "null-writeback" if writeback else "null"
        self.options = ["--writeback"] if writeback else []
        self.served: Served | None = None

    def missing(self) -> str | None:
        return no_fuse()

    def command(self, mountpoint: Path) -> list[str]:
        """Return the command that serves the mount."""
        module = "tools.bench.peers.nullfs"
        return [sys.executable, "-m", module, str(mountpoint), *self.options]

    def prepare(self, work: Path) -> None:
        super().prepare(work)
        self.served = Served(self.command(work / "mnt"), work / "mnt")

    @property
    def mountpoint(self) -> Path:
        """Where the file system is mounted."""
        return self.work / "mnt"

    def ingest(self, source: Path, number: int, delivery: Delivery) -> float:
        with stopwatch() as seconds:
            deliver(source, self.mountpoint, delivery)
        return seconds[0]

    def stored_bytes(self) -> int:
        return 0

    def close(self) -> None:
        if self.served is not None:
            if self.served.process.poll() is None:
                self.saw(self.served.peak())
            self.served.close()
            self.served = None
        super().close()


class Passthrough(Null):
    """A directory of the local disk seen through pyfuse3."""

    ways = ("restore",)
    ratio = True

    def __init__(self, writeback: bool = True) -> None:
        super().__init__(writeback)
        self.name = "passthrough" if writeback else "passthrough-through"

    def command(self, mountpoint: Path) -> list[str]:
        store = self.work / "store"
        store.mkdir(exist_ok=True)
        module = "tools.bench.peers.passfs"
        return [sys.executable, "-m", module, str(store), str(mountpoint), *self.options]

    def stored_bytes(self) -> int:
        return Peer.stored_bytes(self)

    def restore(self, number: int, target: Path, way: str) -> float:
        return run(["cp", "-r", f"{self.mountpoint}/.", target]).seconds
