"""The daemon: how long begin and commit take, many mounts at once, and what a thousand sessions leave behind.

A daemon of its own on an empty store, asked over its unix socket, one connection that stays open.  Times of begin and
commit stand beside those of an empty request of the same run; what eight mounts write at once beside what one writes.
"""

import os
import shutil
import signal
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

import httpx

from tools.bench.gen.base import MIB
from tools.bench.measure import BenchError
from tools.bench.peers.mounted import PROJECT
from tools.bench.probes.base import Bench, Row
from tools.bench.probes.snapshots import grow

START: Final = 60.0  # s in which the daemon must serve
STOP: Final = 120.0
TURNS: Final = 50  # begins, commits and empty requests
TREE: Final = 100_000  # files of the quiet mount
SESSIONS: Final = 1_000
WARM: Final = 50  # sessions before the first look: caches and thread pools fill
MOUNTS: Final = 8
ALL: Final = 512 * MIB  # what is written at once, by one or by all
IDLE: Final = 10  # mounts of a daemon that does nothing
SETTLE: Final = 5.0  # s of doing nothing before memory is looked at


class Daemon:
    """A running `holdfast serve` and a client of it."""

    def __init__(self, home: Path, mounts: int) -> None:
        """Start it with mounts m0, m1, … Raises BenchError."""
        self.home = home
        self.names = [f"m{number}" for number in range(mounts)]
        store = home / "store"
        self.run_dir = Path(tempfile.mkdtemp(prefix="hf-bench-"))  # paths of sockets are short
        self._holdfast = [shutil.which("holdfast") or "holdfast", "--store", str(store)]
        self._call("init")
        for name in self.names:
            self._call("create", name)
            (home / name).mkdir()
        config = home / "holdfast.toml"
        config.write_text(self._config(store))
        self.log = home / "daemon.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [self._holdfast[0], "serve", "--config", str(config)],
                cwd=PROJECT, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        transport = httpx.HTTPTransport(uds=str(self.run_dir / "api.sock"))
        self.client = httpx.Client(transport=transport, base_url="http://localhost", timeout=300)
        self._wait()

    def _call(self, *words: str) -> None:
        done = subprocess.run(
            [*self._holdfast, *words], capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise BenchError(f"holdfast {words[0]}: {done.stderr.strip()[-400:]}")

    def _config(self, store: Path) -> str:
        lines = [
            f'store = "{store}"', f'mount_root = "{self.home / "mounts"}"',
            f'run_dir = "{self.run_dir}"', "[api]", "listen = []", "[phoenix]", "enabled = false",
        ]  # fmt: skip
        for name in self.names:
            lines += [f"[mounts.{name}]", f'path = "{self.home / name}"']
        return "\n".join(lines) + "\n"

    def _wait(self) -> None:
        deadline = time.monotonic() + START
        while True:
            try:
                found = self.ask("GET", "/v1/mounts")["items"]
                if all(one["state"] == "serving" for one in found):
                    return
            except (httpx.HTTPError, BenchError):
                pass
            if self.process.poll() is not None or time.monotonic() > deadline:
                said = self.log.read_text(errors="replace").strip()[-800:]
                raise BenchError(f"holdfast serve does not serve: {said}")
            time.sleep(0.1)

    def ask(self, method: str, path: str, **body: Any) -> Any:
        """One request. Raises BenchError unless it succeeds."""
        answer = self.client.request(method, path, json=body or None)
        if not answer.is_success:
            raise BenchError(f"{method} {path}: {answer.status_code} {answer.text[:300]}")
        return answer.json()

    def workers(self) -> list[int]:
        """Process ids of the workers."""
        return [one["pid"] for one in self.ask("GET", "/v1/mounts")["items"]]

    def stop(self) -> None:
        """End it as systemd does; by force when it does not end."""
        self.client.close()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(STOP)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        for name in self.names:
            if os.path.ismount(self.home / name):
                subprocess.run(["fusermount3", "-uz", str(self.home / name)], check=False)
        shutil.rmtree(self.run_dir, ignore_errors=True)


@contextmanager
def served(bench: Bench, mounts: int) -> Iterator[Daemon]:
    """A daemon on an empty store, for as long as the block runs."""
    home = bench.work / "probe-service"
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)
    daemon = Daemon(home, mounts)
    try:
        yield daemon
    finally:
        daemon.stop()
        shutil.rmtree(home, ignore_errors=True)


def timed(what: Any) -> float:
    """Return the seconds of one call."""
    start = time.perf_counter()
    what()
    return time.perf_counter() - start


def rss(pid: int) -> float:
    """Return the resident memory of a process in MiB that is its own or its share of what is shared."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    raise BenchError(f"no Pss of process {pid}")


def leftovers(pid: int) -> dict[str, float]:
    """Return what a process holds: descriptors, threads, memory."""
    return {
        "descriptors": len(os.listdir(f"/proc/{pid}/fd")),
        "threads": len(os.listdir(f"/proc/{pid}/task")),
        "mib": rss(pid),
    }


def _answers(bench: Bench) -> Row:
    """Begin, commit of a quiet tree, and an empty request, in turns."""
    files = bench.part(TREE, TREE // 10)
    with served(bench, 1) as daemon:
        daemon.ask("POST", "/v1/mounts/m0/stop")
        grow(daemon.home / "store", files, "m0")
        daemon.ask("POST", "/v1/mounts/m0/start")
        times: dict[str, list[float]] = {"empty": [], "begin": [], "commit": []}
        for _ in range(bench.part(TURNS, 5) + 1):
            times["empty"].append(timed(lambda: daemon.ask("GET", "/v1/health")))
            times["begin"].append(timed(lambda: daemon.ask("POST", "/v1/mounts/m0/sessions")))
            (begun,) = daemon.ask("GET", "/v1/sessions?state=open")["items"]
            commit = f"/v1/sessions/{begun['id']}/commit"
            times["commit"].append(timed(partial(daemon.ask, "POST", commit)))
        row: Row = {"kind": "answers", "files": files}
        for name, seconds in times.items():  # the first of each is not quiet: it reads the tree
            row[f"{name}_ms"] = round(statistics.median(seconds[1:]) * 1000, 2)
        return row


def _write(path: Path, content: memoryview) -> None:
    with open(path, "wb", buffering=0) as file:
        file.writelines(content[at : at + MIB] for at in range(0, len(content), MIB))
        os.fsync(file.fileno())


def _rate(daemon: Daemon, count: int, size: int, turn: int) -> float:
    """Write ``size`` new bytes to so many mounts at once; MB/s of all together."""
    content, part = memoryview(os.urandom(size)), size // count
    threads = [
        threading.Thread(
            target=_write,
            args=(daemon.home / name / f"{count}-{turn}", content[number * part : (number + 1) * part]),
        )
        for number, name in enumerate(daemon.names[:count])
    ]  # fmt: skip
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return size / (time.perf_counter() - start) / 1e6


def _together(bench: Bench) -> Row:
    """One mount is written, then eight at once, as many bytes in all."""
    size = bench.part(ALL, ALL // 8)
    rates: dict[int, list[float]] = {1: [], MOUNTS: []}
    with served(bench, MOUNTS) as daemon:
        for turn in range(bench.part(5, 1)):
            for count, found in rates.items():
                found.append(_rate(daemon, count, size, turn))
    one, many = (statistics.median(found) for found in rates.values())
    return {"kind": "together", "one_mb_s": round(one, 1), "eight_mb_s": round(many, 1),
            "ratio": round(many / one, 3)}  # fmt: skip


def _repeated(bench: Bench) -> Row:
    """Many sessions in a row; what the daemon and the worker hold before and after."""
    count = bench.part(SESSIONS, SESSIONS // 20)
    with served(bench, 1) as daemon:
        (worker,) = daemon.workers()

        def session(number: int) -> None:
            begun = daemon.ask("POST", "/v1/mounts/m0/sessions")["id"]
            (daemon.home / "m0" / "file").write_text(f"session {number}")
            daemon.ask("POST", f"/v1/sessions/{begun}/commit")

        for number in range(bench.part(WARM, 10)):
            session(number)
        pids = {"daemon": daemon.process.pid, "worker": worker}
        before = {who: leftovers(pid) for who, pid in pids.items()}
        start = time.perf_counter()
        for number in range(count):
            session(number)
        row: Row = {
            "kind": "repeated",
            "sessions": count,
            "seconds": round(time.perf_counter() - start, 1),
        }
        for who, pid in pids.items():
            after = leftovers(pid)
            for key, value in after.items():
                row[f"{who}_{key}"] = f"{before[who][key]:.0f} -> {value:.0f}"
        return row


def _idle(bench: Bench) -> Row:
    """Memory of a daemon with ten mounts that nobody uses, and of its workers."""
    with served(bench, IDLE) as daemon:
        time.sleep(SETTLE)
        workers = [rss(pid) for pid in daemon.workers()]
        return {"kind": "idle", "mounts": IDLE, "daemon_mib": round(rss(daemon.process.pid), 1),
                "worker_mib": round(max(workers), 1)}  # fmt: skip


def run(bench: Bench) -> list[Row]:
    """Measure all of it."""
    rows = []
    for probe in (_answers, _together, _repeated, _idle):
        try:
            row = probe(bench)
        except (BenchError, OSError, httpx.HTTPError) as problem:
            row = {"kind": probe.__name__.strip("_"), "error": str(problem)}
        bench.say(describe(row))
        rows.append(row)
    return rows


def describe(row: Row) -> str:
    """Return one line about a measurement."""
    values = "  ".join(f"{key} {value}" for key, value in row.items() if key != "kind")
    return f"service  {row['kind']:9} {values}"
