"""Untar of 27,000 small files into mounts, one sync at the end: alone and four at once.

Four at once means four tars of a quarter of the files each, in four directories: the same work in
all. The ceiling is the do-nothing tree in memory, which never spins.
"""

import subprocess
import tarfile
import time
from pathlib import Path
from typing import Final

from tools.bench.gen.base import MIB
from tools.bench.measure import BenchError, warm
from tools.bench.measure import run as run_command
from tools.bench.probes.base import Bench, Row, mounted
from tools.bench.sets import build

PEERS: Final = ("null-writeback", "holdfast", "null", "holdfast-through", "passthrough")
QUARTERS: Final = 4


def make_tars(bench: Bench) -> tuple[Path, list[Path], int]:
    """Return one tar of the first tree, four tars of a quarter each, and the number of files."""
    source = build(bench.cache, "tree", bench.sizes).generations[0]
    places = sorted(path for path in source.rglob("*") if path.is_file())
    if bench.quick:
        places = places[: min(len(places), 2_700)]
    whole = bench.work / "whole.tar"
    parts = [bench.work / f"part{n}.tar" for n in range(QUARTERS)]
    _write_tar(whole, source, places)
    size = -(-len(places) // QUARTERS)
    for n, part in enumerate(parts):
        _write_tar(part, source, places[n * size : (n + 1) * size])
    return whole, parts, len(places)


def _write_tar(path: Path, root: Path, files: list[Path]) -> None:
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as out:
        for file in files:
            out.add(file, file.relative_to(root))


def extract(tars: list[Path], target: Path) -> float:
    """Extract all `tars` at once, each into its own directory; return the seconds, sync included."""
    start = time.perf_counter()
    running = []
    for n, path in enumerate(tars):
        folder = target / f"t{n}"
        folder.mkdir()
        running.append(subprocess.Popen(["tar", "-xf", path, "-C", folder]))
    codes = [child.wait() for child in running]
    if any(codes):
        raise BenchError(f"tar ended with {codes}")
    run_command(["sync", "-f", target])
    return time.perf_counter() - start


def run(bench: Bench) -> list[Row]:
    """Measure every mount, in turns."""
    whole, parts, files = make_tars(bench)
    warm(bench.work)
    rows: list[Row] = []
    for repeat in range(bench.repeats):
        for name in PEERS:
            row: Row = {"peer": name, "repeat": repeat, "files": files}
            try:
                for way, tars in (("alone", [whole]), ("four", parts)):
                    with mounted(bench, name) as peer:
                        row[f"{way}_files_s"] = files / extract(tars, peer.mountpoint)
                    row["peak_mib"] = round(max(peer.peak / MIB, row.get("peak_mib", 0)), 1)
            except (BenchError, OSError) as problem:
                row["error"] = str(problem)
            bench.say(describe(row))
            rows.append(row)
    for path in (whole, *parts):
        path.unlink()
    return rows


def describe(row: Row) -> str:
    """Return one line about a measurement."""
    head = f"untar     {row['peer']:17} run {row['repeat'] + 1}"
    if "error" in row:
        return f"{head}  FAILED: {row['error']}"
    alone, four = row["alone_files_s"], row["four_files_s"]
    return f"{head}  alone {alone:6.0f} files/s  four {four:6.0f} files/s"
