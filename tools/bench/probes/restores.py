"""Restoring from a storage location alone, against a plain download of the same stored bytes.

Database files are taken into a store, sent to a bucket (a server of the S3 protocol on loopback) and restored from it
with nothing but the location; beside it the client library fetches the packs that lie there into files, as many at
once, which are synced as what is restored is. Once as fast as server and loopback give it, once through a network of
1 Gbit/s with 10 ms to the server. The time to begin (the passphrase's second, the trailers) is told by itself.
"""

import os
import random
import re
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import obstore
from obstore.store import S3Store

from engine import Store
from engine.keys import Passphrase
from engine.locations import Location, open_location
from engine.seam import keep_memory
from tools.bench.probes import uploads
from tools.bench.probes.base import Bench, Row
from tools.bench.probes.link import linked

AT_ONCE: Final = 6
GBIT: Final = 125e6
DELAY_MS: Final = 10
SECRET: Final = Passphrase("bench")


def sent(bench: Bench, url: str) -> int:
    """Fill a store, send a point of it, and forget the store; bytes of files."""
    home = bench.work / "store"
    Store.init(str(home))
    data = uploads.rows_of(bench.part(512, 24) << 20, random.Random(1))
    with Store.open(str(home)) as store:
        store.create_mount("m")
        tree = store.open_live("m")
        part = len(data) // 4
        for number in range(4):
            uploads.fill(tree, b"%d" % number, bytes(data[number * part : (number + 1) * part]))
        tree.close()
        store.snapshot("m")
        store.copies.add("far", url, secrets=[SECRET])
        store.copies.send("far")
    shutil.rmtree(home)
    return len(data)


def download(url: str, names: list[str], folder: Path) -> tuple[int, float]:
    """(bytes, seconds) of fetching these by the library alone, into files that are synced."""
    _, port, prefix = parts(url)
    client = S3Store(
        "bench", prefix=prefix, endpoint=f"http://127.0.0.1:{port}", region="us-east-1", access_key_id="bench",
        secret_access_key="bench-secret", client_options={"allow_http": True},
    )  # fmt: skip
    folder.mkdir()

    def one(name: str) -> int:
        data = obstore.get(client, name).bytes()
        (folder / name.rpartition("/")[2]).write_bytes(memoryview(data))
        return len(data)

    start = time.perf_counter()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        total = sum(pool.map(one, names))
    os.sync()
    taken = time.perf_counter() - start
    shutil.rmtree(folder)
    return total, taken


def parts(url: str) -> tuple[str, int, str]:
    """(URL with a place for the port, port, prefix) of a bucket on this machine."""
    found = re.search(r"bench/([^?]*)\?.*127\.0\.0\.1:(\d+)", url)
    assert found is not None
    return url.replace(f":{found[2]}", ":{}"), int(found[2]), found[1]


def restore(url: str, work: Path, size: int) -> tuple[float, float]:
    """(seconds to begin, seconds to restore)."""
    out = work / "out"
    start = time.perf_counter()
    with Store.borrow(url, SECRET, scratch=str(work)) as store:
        begun = time.perf_counter()
        found = store.restore("m@latest", b"", bytes(out))
        taken = time.perf_counter() - begun
    assert found.bytes == size and not found.damaged
    shutil.rmtree(out)
    return begun - start, taken


def measure(url: str, work: Path, size: int, location: Location) -> Row:
    """Download and restore by turns."""
    names = [one.name for one in location.list("packs/")]
    total, first = download(url, names, work / "download")
    begin, taken = restore(url, work, size)
    _, second = download(url, names, work / "download")
    rate = total / 1e6 / ((first + second) / 2)
    return {
        "stored_mib": total / (1 << 20), "download_mb_s": rate, "restore_mb_s": total / 1e6 / taken,
        "restore_by_download": total / 1e6 / taken / rate, "begin_s": begin,
    }  # fmt: skip


def run(bench: Bench) -> list[Row]:
    """One location, restored again and again."""
    keep_memory()
    os.environ.update(uploads.KEYS)
    rows: list[Row] = []
    with uploads.server(bench.work) as url:
        size = sent(bench, url)
        location = open_location(url, uploads.KEYS)
        pattern, port, _ = parts(url)
        for repeat in range(bench.repeats):
            row: Row = {"peer": "holdfast", "repeat": repeat}
            row |= measure(url, bench.work, size, location)
            with linked(port, GBIT, DELAY_MS) as relay:
                through = measure(pattern.format(relay), bench.work, size, location)
            row |= {f"link_{key}": value for key, value in through.items()}
            row["load"] = round(os.getloadavg()[0], 2)
            bench.say(describe(row))
            rows.append(row)
        location.close()
    return rows


def describe(row: Row) -> str:
    """Return one line about a measurement."""
    return (
        f"restores  run {row['repeat'] + 1}  {row['restore_mb_s']:.0f} MB/s of stored bytes,"
        f" {row['restore_by_download']:.2f} of a download;  through 1 Gbit/s {row['link_restore_mb_s']:.0f} MB/s,"
        f" {row['link_restore_by_download']:.2f};  {row['begin_s']:.1f} s to begin;  load {row['load']}"
    )
