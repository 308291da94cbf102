"""How long a snapshot takes: against the number of files in the tree, and against a file's size.

Trees are made through the engine's facade, because a million files through a mount would take
most of an hour; what is measured is `holdfast snapshot` of the mounted tree, from the start of the
command to its end, after 100 files (and after 1 %) were changed through the mount.
"""

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

from tools.bench.gen.base import MIB, SEED, chance, pick
from tools.bench.measure import BenchError
from tools.bench.peers.holdfast import MOUNT, Holdfast
from tools.bench.peers.mounted import PROJECT
from tools.bench.probes.base import Bench, Row, mounted
from tools.bench.probes.overwrite import fill, overwrite

PER_FOLDER: Final = 1000
TREES: Final = (1_000, 10_000, 100_000, 1_000_000)
FILES_MIB: Final = (16, 256, 1024, 4096)
TIMES: Final = 3  # snapshots of each kind, the median counts


def file_name(number: int) -> str:
    """Return the path of the numbered file in a tree."""
    return f"d{number // PER_FOLDER:04}/f{number % PER_FOLDER:03}"


def grow(store: Path, files: int, mount: str = MOUNT) -> float:
    """Create `files` small files through the engine, in a process of its own; return seconds."""
    start = time.perf_counter()
    command = [sys.executable, "-m", "tools.bench.probes.grow", str(store), mount, str(files)]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BenchError(f"growing a tree of {files} files: {done.stderr.strip()[-400:]}")
    return time.perf_counter() - start


def change(root: Path, files: int, count: int, turn: int) -> None:
    """Overwrite `count` random files of the tree in place."""
    rnd = chance(SEED, "change", files, count, turn)
    for _ in range(count):
        handle = os.open(root / file_name(pick(rnd, files)), os.O_WRONLY)
        try:
            os.pwrite(handle, b"changed in turn %d of %d\n" % (turn, count), 0)
        finally:
            os.close(handle)


def timed_snapshot(peer: Holdfast) -> float:
    """Return the seconds of one snapshot of a mounted tree."""
    start = time.perf_counter()
    peer.snapshot()
    return time.perf_counter() - start


def _tree(bench: Bench, files: int) -> Row:
    """Measure one tree."""
    row: Row = {"kind": "tree", "files": files}
    with mounted(bench, "holdfast") as peer:
        assert isinstance(peer, Holdfast)
        peer.stop()
        row["grow_s"] = grow(peer.work / "store", files)
        peer.start()
        row["first_s"] = timed_snapshot(peer)
        for label, count in (("idle", 0), ("changed_100", 100), ("changed_1pc", files // 100)):
            seconds = []
            for turn in range(TIMES):
                change(peer.mountpoint, files, min(count, files), turn)
                seconds.append(timed_snapshot(peer))
            row[f"{label}_s"] = statistics.median(seconds)
        peer.stop()
        row["peak_mib"] = round(peer.peak / MIB, 1)
    return row


def _file(bench: Bench, size: int) -> Row:
    """Measure one large file in which 100 blocks of 4 KiB change."""
    row: Row = {"kind": "file", "file_mib": size}
    with mounted(bench, "holdfast") as peer:
        assert isinstance(peer, Holdfast)
        path = peer.mountpoint / "disk.raw"
        fill(path, size * MIB)
        row["first_s"] = timed_snapshot(peer)
        seconds = []
        for turn in range(TIMES):
            overwrite(path, 100, "buffered", SEED + turn)
            seconds.append(timed_snapshot(peer))
        row["changed_100_s"] = statistics.median(seconds)
        peer.stop()
        row["peak_mib"] = round(peer.peak / MIB, 1)
    return row


def run(bench: Bench) -> list[Row]:
    """Measure all sizes of trees and of files."""
    trees = [{"kind": "tree", "files": files} for files in TREES[: bench.part(4, 2)]]
    files = [{"kind": "file", "file_mib": size} for size in FILES_MIB[: bench.part(4, 2)]]
    return [_guarded(bench, row) for row in (*trees, *files)]


def _guarded(bench: Bench, row: Row) -> Row:
    """Measure what `row` names; a failure becomes part of the row."""
    try:
        if row["kind"] == "tree":
            row = _tree(bench, row["files"])
        else:
            row = _file(bench, row["file_mib"])
    except (BenchError, OSError) as problem:
        row["error"] = str(problem)
    bench.say(describe(row))
    return row


def describe(row: Row) -> str:
    """Return one line about a measurement."""
    what = f"{row['files']} files" if row["kind"] == "tree" else f"file of {row['file_mib']} MiB"
    if "error" in row:
        return f"snapshot  {what}  FAILED: {row['error']}"
    keys = [key for key in row if key.endswith("_s") and key != "grow_s"]
    return f"snapshot  {what:18} " + "  ".join(f"{key[:-2]} {row[key]:.3f} s" for key in keys)
