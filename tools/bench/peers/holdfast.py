"""Holdfast itself, through its command and a real mount, as a user has it.

Ingest is a copy into the mounted directory with an fsync of every file, and then a snapshot: the
time of both counts, because only the snapshot is the counterpart of what the others commit.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

from tools.bench.measure import TIMEOUT, BenchError, cpu_seconds, drop_caches, run, stopwatch
from tools.bench.peers.base import Delivery, Peer
from tools.bench.peers.mounted import PROJECT, Served, deliver, no_fuse

MOUNT: Final = "bench"
STATS: Final = (
    "chunks",
    "delta_chunks",
    "plain_bytes",
    "index_bytes",
    "stored_bytes",
    "logical_bytes",
)


def find_command() -> list[str] | None:
    """Return the holdfast command: HOLDFAST_COMMAND, the tree's own, or this interpreter's."""
    given = os.environ.get("HOLDFAST_COMMAND")
    if given:
        return given.split()
    for place in (PROJECT / ".venv/bin/holdfast", Path(sys.executable).with_name("holdfast")):
        if place.exists():
            return [str(place)]
    return None


class Holdfast(Peer):
    """A store with one mount. `options` are given to ``holdfast mount``."""

    ways = ("restore", "mount")

    def __init__(self, name: str = "holdfast", *options: str) -> None:
        super().__init__()
        self.name = name
        self.options = options
        self.command = find_command() or []
        self.served: Served | None = None
        self.points: dict[int, str] = {}
        self.numbers: dict[str, float] = {}

    def missing(self) -> str | None:
        return no_fuse() or (None if find_command() else "no holdfast command: run make setup")

    @property
    def mountpoint(self) -> Path:
        """Where the live tree is mounted."""
        return self.work / "mnt"

    def call(self, *words: str | Path) -> str:
        """Run a holdfast command and return what it printed. Raises BenchError."""
        command = [*self.command, "--store", str(self.work / "store"), *map(str, words)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT)
        except subprocess.TimeoutExpired:
            raise BenchError(f"holdfast {words[0]}: not done after {TIMEOUT:.0f} s") from None
        if done.returncode:
            raise BenchError(
                f"holdfast {words[0]}: {done.returncode}: {done.stderr[-600:].strip()}"
            )
        return done.stdout

    def prepare(self, work: Path) -> None:
        super().prepare(work)
        self.points = {}
        self.numbers = {}
        self.call("init")
        self.call("create", MOUNT)
        self.start()

    def start(self) -> None:
        """Mount the live tree; the serving process is a child of this one."""
        store = ["--store", str(self.work / "store")]
        command = [*self.command, *store, "mount", MOUNT, str(self.mountpoint), *self.options]
        self.served = Served(command, self.mountpoint)

    def stop(self) -> None:
        """Note what the worker used, unmount, wait for it."""
        if self.served is not None:
            process = self.served.process
            if process.poll() is None:
                self.saw(self.served.peak())
                highest = max(self.numbers.get("peak_rss", 0.0), self.served.peak_resident)
                self.numbers["peak_rss"] = highest
                spent = self.numbers.get("worker_cpu_s", 0.0) + cpu_seconds(process.pid)
                self.numbers["worker_cpu_s"] = spent
            self.served.close()
            self.served = None

    def snapshot(self) -> str:
        """Make a recovery point and return its id."""
        return self.call("snapshot", MOUNT).split()[-1]

    def ingest(self, source: Path, number: int, delivery: Delivery) -> float:
        with stopwatch() as seconds:
            deliver(source, self.mountpoint, delivery)
            copied = time.perf_counter()
            self.points[number] = self.snapshot()
            last = time.perf_counter() - copied
        self.numbers["snapshot_s"] = max(self.numbers.get("snapshot_s", 0.0), last)
        return seconds[0]

    def stored_bytes(self) -> int:
        self.stop()  # so that nothing is still on its way to the disk
        stats: dict[str, float] = json.loads(self.call("stats", "--json"))
        self.numbers.update({key: stats[key] for key in STATS if key in stats})
        return super().stored_bytes()

    def restore(self, number: int, target: Path, way: str) -> float:
        point = self.points[number]
        if way == "restore":
            target.rmdir()  # restore makes its target itself
            store: list[str | Path] = ["--store", self.work / "store"]
            usage = run([*self.command, *store, "restore", point, target])
            self.numbers["restore_peak"] = float(usage.peak)
            return usage.seconds
        # A new worker and an empty page cache: nothing of what was just restored is in memory.
        self.start()
        drop_caches()
        seconds = run(["cp", "-r", f"{self.mountpoint}/.snapshots/{point}/.", target]).seconds
        self.stop()
        return seconds

    def extra(self) -> dict[str, float]:
        return dict(self.numbers)

    def close(self) -> None:
        self.stop()
        super().close()
