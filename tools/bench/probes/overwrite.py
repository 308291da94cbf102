"""Random 4 KiB overwrites in a large disk file: operations per second, beside a passthrough.

The file is written through the mount first, with a page of its own in every 8 KiB. Two ways: as a
producer with the page cache writes (an fsync at the end counts), and with O_DIRECT, one request at
a time, as a hypervisor without a cache does.
"""

import mmap
import os
import struct
import time
from pathlib import Path
from typing import Final

from tools.bench.gen.base import MIB, SEED, chance, pick
from tools.bench.gen.pages import PAGE, make_page
from tools.bench.measure import BenchError, drop_caches
from tools.bench.peers.holdfast import Holdfast
from tools.bench.probes.base import Bench, Row, mounted

PEERS: Final = ("passthrough", "holdfast")
WAYS: Final = ("buffered", "direct")
UNIT: Final = 4096
SAMPLE: Final = 512  # different pages the file is made of; each copy gets its own number


def fill(path: Path, size: int) -> float:
    """Write a file of `size` bytes of pages and return the seconds, fsync included."""
    pages = [bytearray(make_page(SEED, 90, n, n)) for n in range(SAMPLE)]
    start = time.perf_counter()
    with path.open("wb", buffering=0) as out:
        for first in range(0, size // PAGE, SAMPLE):
            for n, page in enumerate(pages):
                # The number is put into row data as well, so that copies share no long run.
                for at in (12, 2048, 4200, 6400):
                    struct.pack_into("<Q", page, at, (first + n) * 2_654_435_761)
            out.write(b"".join(pages))
        os.fsync(out.fileno())
    return time.perf_counter() - start


def overwrite(path: Path, count: int, way: str, seed: int) -> float:
    """Overwrite `count` random blocks of 4 KiB; return the seconds, fsync included."""
    rnd = chance(seed, "overwrite", way)
    blocks = path.stat().st_size // UNIT
    places = [pick(rnd, blocks) * UNIT for _ in range(count)]
    data = mmap.mmap(-1, UNIT * 64)  # aligned, as O_DIRECT wants it
    data[:] = b"".join(make_page(seed, 91, n, n) for n in range(UNIT * 64 // PAGE))
    parts = [memoryview(data)[n * UNIT : (n + 1) * UNIT] for n in range(64)]
    handle = os.open(path, os.O_RDWR | (os.O_DIRECT if way == "direct" else 0))
    try:
        start = time.perf_counter()
        for n, place in enumerate(places):
            part = parts[n & 63]
            struct.pack_into("<II", part, 64, seed, n)
            os.pwrite(handle, part, place)
        os.fsync(handle)
        return time.perf_counter() - start
    finally:
        os.close(handle)


def run(bench: Bench) -> list[Row]:
    """Measure both peers, in turns, both ways."""
    size = bench.part(4096, 256) * MIB
    count = bench.part(30_000, 3_000)
    rows: list[Row] = []
    for repeat in range(bench.repeats):
        for name in PEERS:
            row: Row = {"peer": name, "repeat": repeat, "file_mib": size // MIB, "writes": count}
            try:
                with mounted(bench, name) as peer:
                    path = peer.mountpoint / "disk.raw"
                    row["fill_mb_s"] = size / fill(path, size) / 1e6
                    for way in WAYS:
                        drop_caches()
                        seconds = overwrite(path, count, way, SEED + repeat)
                        row[f"{way}_iops"] = count / seconds
                    if isinstance(peer, Holdfast):
                        peer.stop()
                row["peak_mib"] = round(peer.peak / MIB, 1)
            except (BenchError, OSError) as problem:
                row["error"] = str(problem)
            bench.say(describe(row))
            rows.append(row)
    return rows


def describe(row: Row) -> str:
    """Return one line about a measurement."""
    head = f"overwrite {row['peer']:17} run {row['repeat'] + 1}"
    if "error" in row:
        return f"{head}  FAILED: {row['error']}"
    rates = "  ".join(f"{way} {row[f'{way}_iops']:7.0f} /s" for way in WAYS)
    return f"{head}  fill {row['fill_mb_s']:5.0f} MB/s  {rates}  peak {row['peak_mib']:.0f} MiB"
