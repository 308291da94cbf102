"""A mount over NFS against a plain directory that the same server exports in the same way.

A virtual machine's disk is copied in by an NFSv3 client (nfs-cp of libnfs) until the server has committed it, and out
again with cold caches.  Both go through NFS-Ganesha on this host's loopback: what is compared is what lies behind it.
"""

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from daemon.contract import ExportInfo
from daemon.export.ganesha import Settings, identities, render
from daemon.export.plan import Wanted, planned
from daemon.export.server import Loaded, Server
from engine.errors import HoldfastError
from tools.bench.measure import BenchError, drop_caches, sync_file_system, warm
from tools.bench.probes.base import Bench, Row, mounted
from tools.bench.sets import build

PEERS: Final = ("holdfast", "plain")
LIMIT: Final = 1800  # s for one copy


def free_ports() -> int:
    """Return a port that is free, as the next one should be."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
    return port if port < 65_535 else free_ports()


@contextmanager
def exported(folder: Path, path: Path) -> Iterator[str]:
    """Export a directory; what to append to a file's path, and the URL before it."""
    settings = Settings(port=free_ports(), grace_s=5)
    server = Server(str(folder), settings)
    folder.mkdir(mode=0o700)
    plan = planned(
        Wanted("bench", str(path), str(path), (ExportInfo("bench", "127.0.0.1", squash="none"),))
    )
    try:
        server.start(Loaded(render(settings, server.recovery, [(1, plan)]), {}), identities([plan]))
        ports = f"nfsport={settings.port}&mountport={settings.mount_port}&version=3"
        yield f"nfs://127.0.0.1{path}/disk?{ports}"
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


def copy(source: str | Path, target: str | Path) -> None:
    """Run nfs-cp. Raises BenchError."""
    done = subprocess.run(["nfs-cp", source, target], capture_output=True, text=True, timeout=LIMIT)
    if done.returncode:
        raise BenchError(f"nfs-cp: {done.stderr.strip() or done.stdout.strip()}")


def measure(bench: Bench, path: Path, disk: Path) -> Row:
    """Copy in and out, in MB/s."""
    size = disk.stat().st_size
    out = bench.work / "out"
    disk.read_bytes()  # into the cache: reading it is not what is measured
    with exported(bench.work / "nfs", path) as url:
        start = time.perf_counter()
        copy(disk, url)
        sync_file_system(path)
        taken = time.perf_counter() - start
        drop_caches()
        begin = time.perf_counter()
        copy(url, out)
        back = time.perf_counter() - begin
        same = subprocess.run(["cmp", disk, out], capture_output=True).returncode == 0
        out.unlink()
        if not same:
            raise BenchError("what came back is not what was sent")
    return {"in_mb_s": size / 1e6 / taken, "out_mb_s": size / 1e6 / back}


def one(bench: Bench, name: str, disk: Path) -> Row:
    """Measure one of both."""
    if name == "plain":
        path = bench.work / "plain"
        path.mkdir()
        try:
            return measure(bench, path, disk)
        finally:
            shutil.rmtree(path)
    with mounted(bench, name) as peer:
        row = measure(bench, peer.mountpoint, disk)
        (peer.mountpoint / "disk").unlink()
    return {**row, "peak_mib": round(peer.peak / (1 << 20), 1)}


def run(bench: Bench) -> list[Row]:
    """Measure both in turns, each first in every other repetition."""
    if shutil.which("nfs-cp") is None:
        raise BenchError("no nfs-cp: install libnfs-utils")
    source = build(bench.cache, "vm", bench.sizes).generations[0]
    disk = max(
        (one for one in source.rglob("*") if one.is_file()), key=lambda one: one.stat().st_size
    )
    warm(bench.work)
    rows: list[Row] = []
    for repeat in range(bench.repeats):
        for name in PEERS if repeat % 2 == 0 else PEERS[::-1]:
            row: Row = {"peer": name, "repeat": repeat}
            try:
                row |= one(bench, name, disk)
            except (BenchError, HoldfastError, OSError) as problem:
                row["error"] = str(problem)
            bench.say(describe(row))
            rows.append(row)
    return rows


def describe(row: Row) -> str:
    """Return one line about a measurement."""
    head = f"nfs       {row['peer']:17} run {row['repeat'] + 1}"
    if "error" in row:
        return f"{head}  FAILED: {row['error']}"
    return f"{head}  in {row['in_mb_s']:6.1f} MB/s  out {row['out_mb_s']:6.1f} MB/s"
