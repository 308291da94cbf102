"""Measuring peers on the data sets: ingest of every generation, stored bytes, cold restore, proof.

One repetition measures every peer once (A B C, A B C), so that a change in the machine's mood
meets all of them; ratios are then taken within a repetition.
"""

import os
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tools.bench.gen import dbimg, dbset, tree, vm
from tools.bench.gen.base import MIB, SEED, DataSet
from tools.bench.measure import (
    BenchError,
    difference,
    drop_caches,
    stopwatch,
    sync_file_system,
    warm,
)
from tools.bench.peers.base import Delivery, Peer
from tools.bench.peers.registry import make

NAMES: Final = ("dbimg", "dbset", "vm", "tree", "treetar")
MB: Final = 1e6

Row = dict[str, Any]
Say = Callable[[str], None]


@dataclass(frozen=True)
class Sizes:
    """Sizes of the sets at scale 1, and how they scale."""

    scale: float = 1.0

    def dbimg(self) -> dbimg.Plan:
        """Six data files, 256 MiB in all, seven days."""
        return dbimg.Plan(size=max(4 * MIB, round(256 * MIB * self.scale)))

    def pieces(self) -> int:
        """Bytes of one piece at most: four or more pieces a day at any scale."""
        return min(dbset.PIECE, max(MIB, round(64 * MIB * self.scale)))

    def vm(self) -> vm.Plan:
        """Four guests with about 300 MiB of files each."""
        return vm.Plan(size=max(6 * MIB, round(300 * MIB * self.scale)))

    def tree(self) -> tree.Plan:
        """27,000 files."""
        files = max(300, round(27_000 * self.scale))
        return tree.Plan(files=files, size=max(4 * MIB, round(320 * MIB * self.scale)))


def build(cache: Path, name: str, sizes: Sizes) -> DataSet:
    """Return a set by name, building it (and what it is made from) below `cache` when needed."""
    if name == "dbimg":
        return dbimg.build(cache, sizes.dbimg())
    if name == "dbset":
        return dbset.build(cache, build(cache, "dbimg", sizes), SEED, sizes.pieces())
    if name == "vm":
        return vm.build(cache, sizes.vm())
    if name == "tree":
        return tree.build(cache, sizes.tree())
    if name == "treetar":
        return tree.build_tar(cache, build(cache, "tree", sizes))
    raise BenchError(f"unknown set {name!r}; there are {', '.join(NAMES)}")


def sizes_of(data: DataSet) -> list[int]:
    """Return the bytes of each generation that rates and ratios are taken of.

    For vm these are the allocated ones: holes cost nothing and count for nothing.
    """
    numbers = range(len(data.generations))
    return [data.allocated(n) if data.name == "vm" else data.logical(n) for n in numbers]


def measure(data: DataSet, peer: Peer, repeat: int, work: Path) -> Row:
    """Measure one peer once. The row has ``error`` instead of numbers when it failed."""
    row: Row = {"set": data.name, "peer": peer.name, "repeat": repeat}
    home = work / f"{data.name}-{peer.name}"
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)
    try:
        peer.prepare(home)
        row.update(_ingest(data, peer))
        if peer.ways:
            row.update(_restore(data, peer, work / "restored"))
        row["extra"] = peer.extra()
    except (BenchError, OSError) as problem:
        row["error"] = str(problem)
    finally:
        peer.close()
        shutil.rmtree(home, ignore_errors=True)
    row["peak_mib"] = round(peer.peak / MIB, 1)
    return row


def synced(place: Path) -> float:
    """Return the seconds it takes until everything written there is on the disk."""
    with stopwatch() as seconds:
        sync_file_system(place)
    return seconds[0]


def _ingest(data: DataSet, peer: Peer) -> Row:
    """Let the peer take every generation; return its rates and what it stores."""
    delivery = Delivery(rsync=data.name == "tree")
    seconds = []
    for number, source in enumerate(data.generations):
        warm(source)
        os.sync()  # what others left dirty is not this peer's to wait for
        taken = peer.ingest(source, number, delivery)
        seconds.append(taken + synced(peer.work))
    sizes = sizes_of(data)
    row: Row = {
        "bytes": sum(sizes),
        "seconds": [round(one, 3) for one in seconds],
        "first_mb_s": sizes[0] / seconds[0] / MB,
    }
    if len(sizes) > 1:
        row["later_mb_s"] = sum(sizes[1:]) / sum(seconds[1:]) / MB
    if peer.ratio:
        row["stored"] = peer.stored_bytes()
        row["ratio"] = sum(sizes) / row["stored"]
    return row


def _restore(data: DataSet, peer: Peer, target: Path) -> Row:
    """Restore the last generation in every way there is, caches cold, and compare every byte."""
    last = len(data.generations) - 1
    row: Row = {"cold": True}
    for way in peer.ways:
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir()
        row["cold"] = drop_caches() and row["cold"]
        seconds = peer.restore(last, target, way)
        seconds += synced(target)
        row[f"{way}_mb_s"] = sizes_of(data)[last] / seconds / MB
        wrong = difference(data.generations[last], target)
        shutil.rmtree(target)
        if wrong:
            raise BenchError(f"{way}: NOT EQUAL to what was written: {wrong}")
        row[f"{way}_equal"] = True
    return row


def available(names: Iterable[str], say: Say) -> list[str]:
    """Return the peers that can run here, saying which cannot and why."""
    usable = []
    for name in names:
        reason = make(name).missing()
        if reason:
            say(f"left out: {name}: {reason}")
        else:
            usable.append(name)
    return usable


def run(data: DataSet, peers: Iterable[str], repeats: int, work: Path, say: Say) -> list[Row]:
    """Measure every peer `repeats` times on one set and return a row for each."""
    rows = []
    usable = available(peers, say)
    for repeat in range(repeats):
        for name in usable:
            row = measure(data, make(name), repeat, work)
            say(describe(row))
            rows.append(row)
    return rows


def describe(row: Row) -> str:
    """Return one line about a measurement."""
    head = f"{row['set']:8} {row['peer']:18} run {row['repeat'] + 1}"
    if "error" in row:
        return f"{head}  FAILED: {row['error']}"
    parts = [f"first {row['first_mb_s']:6.0f}", f"later {row.get('later_mb_s', 0):6.0f} MB/s"]
    if "ratio" in row:
        parts.append(f"{row['ratio']:6.2f} : 1")
    parts += [
        f"{way} {row[key]:6.0f}" for way in ("restore", "mount") if (key := f"{way}_mb_s") in row
    ]
    if row.get("peak_mib"):
        parts.append(f"peak {row['peak_mib']:.0f} MiB")
    return f"{head}  " + "  ".join(parts)
