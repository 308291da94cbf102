"""Sending points to a storage location, against the client library's own put of the very same bytes.

A database's files are taken into a store, a point is made and sent to a bucket (a server of the S3 protocol on
loopback); then the packs that lie there are put once more by the library alone, as many at once. Then 3 % of the files'
pages change, and a second point is sent.  ``alone`` of the write rows: the same copy into the store without an upload.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from engine import Store, limits
from engine.copies import connect
from engine.keys import Passphrase
from engine.live import ROOT, Ctx
from engine.live.tree import LiveTree
from engine.locations import Location, Retry, open_location
from tools.bench.measure import BenchError
from tools.bench.probes.base import Bench, Row

PAGE: Final = 8192
CHANGED: Final = 0.03
PIECE: Final = 1 << 20
KEYS: Final = {"AWS_ACCESS_KEY_ID": "bench", "AWS_SECRET_ACCESS_KEY": "bench-secret"}


@contextmanager
def server(folder: Path) -> Iterator[str]:
    """An S3 server in a process of its own, with a bucket; the URL of the bucket."""
    code = (
        "import sys, boto3\n"
        "from moto.server import ThreadedMotoServer\n"
        "one = ThreadedMotoServer(ip_address='127.0.0.1', port=0, verbose=False)\n"
        "one.start()\n"
        "port = one.get_host_and_port()[1]\n"
        "boto3.client('s3', endpoint_url=f'http://127.0.0.1:{port}', region_name='us-east-1',\n"
        "  aws_access_key_id='bench', aws_secret_access_key='bench-secret').create_bucket(Bucket='bench')\n"
        "print(port, flush=True)\n"
        "sys.stdin.read()\n"
    )
    with (folder / "server.log").open("wb") as log:
        child = subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log
        )
    try:
        assert child.stdout is not None
        port = child.stdout.readline().decode().strip()
        if not port:
            raise BenchError(f"no server: {(folder / 'server.log').read_text()[-300:]}")
        yield f"s3://bench/holdfast?endpoint=http://127.0.0.1:{port}&region=us-east-1"
    finally:
        child.kill()
        child.wait()


def fill(tree: LiveTree, name: bytes, data: bytes) -> float:
    """Write a file and sync it; MB/s."""
    start = time.perf_counter()
    ino = tree.create(ROOT, name, 0o600, Ctx(0, 0)).ino
    tree.opened(ino, os.O_RDWR)
    for at in range(0, len(data), PIECE):
        tree.write(ino, at, data[at : at + PIECE])
        while tree.over_limit():
            tree.wait_room()
    tree.released(ino)
    tree.barrier()
    return len(data) / 1e6 / (time.perf_counter() - start)


def rows_of(size: int, chance: random.Random) -> bytearray:
    """Pages of a database: half of each compresses well."""
    pages = bytearray()
    for number in range(size // PAGE):
        pages += chance.randbytes(PAGE // 2) + number.to_bytes(8, "little") * (PAGE // 16)
    return pages


def change(tree: LiveTree, name: bytes, data: bytearray, chance: random.Random) -> None:
    """Write other pages over some of a file."""
    ino = tree.lookup(ROOT, name).ino
    for page in chance.sample(range(len(data) // PAGE), int(len(data) // PAGE * CHANGED)):
        data[page * PAGE : (page + 1) * PAGE] = chance.randbytes(PAGE)
        tree.write(ino, page * PAGE, bytes(data[page * PAGE : (page + 1) * PAGE]))
        while tree.over_limit():
            tree.wait_room()
    tree.barrier()


def put_alone(location: Location, inner: Location, threads: int) -> tuple[int, float, float]:
    """(bytes, MB/s, processor seconds) of putting what lies in packs/ once more, by the library alone."""
    packs = [inner.read(one.name) for one in inner.list("packs/")]
    start, busy = time.perf_counter(), time.process_time()
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(lambda one: location.put(f"again/{one[0]}", one[1]), enumerate(packs)))
    total = sum(map(len, packs))
    return total, total / 1e6 / (time.perf_counter() - start), time.process_time() - busy


def measure(bench: Bench, url: str, repeat: int) -> Row:
    """One whole story in a new prefix."""
    url = url.replace("/holdfast?", f"/holdfast-{repeat}?")
    home = bench.work / "store"
    shutil.rmtree(home, ignore_errors=True)
    Store.init(str(home))
    chance = random.Random(repeat)
    data = rows_of(bench.part(512, 24) << 20, chance)
    counted = Retry(open_location(url, KEYS))
    with Store.open(str(home)) as store:
        store.create_mount("m")
        tree = store.open_live("m")
        try:
            row = _sent(store, tree, url, data, chance, counted)
        finally:
            tree.close()
    counted.close()
    shutil.rmtree(home)
    return row


def _sent(
    store: Store,
    tree: LiveTree,
    url: str,
    data: bytearray,
    chance: random.Random,
    counted: Location,
) -> Row:
    row: Row = {"write_alone_mb_s": fill(tree, b"a", bytes(data))}
    store.snapshot("m")
    os.environ.update(KEYS)
    store.copies.add("far", url, secrets=[Passphrase("bench")])
    link = connect.open_link(store._open.context, "far")  # noqa: SLF001  to count requests
    start, busy = time.perf_counter(), time.process_time()
    [first] = store.copies.send("far")
    taken, busy = time.perf_counter() - start, time.process_time() - busy
    again, rate, busy_alone = put_alone(counted, link.location, limits.UPLOADS)
    row |= {
        "upload_cpu_s": busy,
        "put_cpu_s": busy_alone,
        "sent_mib": first.bytes / (1 << 20),
        "upload_mb_s": first.bytes / 1e6 / taken,
        "put_mb_s": rate,
    }
    row["by_put"] = row["upload_mb_s"] / rate
    before = store.counters()["appended_bytes"]
    change(tree, b"a", data, chance)
    store.snapshot("m")
    stored = store.counters()["appended_bytes"] - before
    [second] = store.copies.send("far")
    row["later_by_stored"] = second.bytes / stored
    objects = len(list(link.location.list("")))
    row["objects_per_gib"] = objects / ((first.bytes + second.bytes) / (1 << 30))
    row["requests_per_gib"] = first.requests / (first.bytes / (1 << 30))
    other = rows_of(len(data), chance)
    row["write_beside_mb_s"] = _beside(store, tree, bytes(other))
    row["beside_by_alone"] = row["write_beside_mb_s"] / row["write_alone_mb_s"]
    assert again == first.bytes
    link.location.close()
    return row


def _beside(store: Store, tree: LiveTree, data: bytes) -> float:
    """A copy into the store while another point is being sent, by a process of its own as the service does."""
    fill(tree, b"b", data)
    store.snapshot("m")
    code = "import sys; from engine import Store\nwith Store.open(sys.argv[1]) as s: s.copies.send('far')"
    sender = subprocess.Popen([sys.executable, "-c", code, store.path])
    try:
        return fill(tree, b"c", bytes(reversed(data)))
    finally:
        if sender.wait():
            raise BenchError("the process that sends failed")


def run(bench: Bench) -> list[Row]:
    """Each repetition is a story of its own."""
    rows: list[Row] = []
    with server(bench.work) as url:
        for repeat in range(bench.repeats):
            row: Row = {"peer": "holdfast", "repeat": repeat}
            row |= measure(bench, url, repeat)
            bench.say(describe(row))
            rows.append(row)
    return rows


def describe(row: Row) -> str:
    """Return one line about a measurement."""
    return (
        f"uploads   run {row['repeat'] + 1}  {row['upload_mb_s']:.0f} MB/s, {row['by_put']:.2f} of put"
        f" ({row['upload_cpu_s']:.2f} s of processor time, {row['put_cpu_s']:.2f} s);  second point"
        f" {row['later_by_stored']:.2f} of what it stored;  {row['objects_per_gib']:.0f} objects and"
        f" {row['requests_per_gib']:.0f} requests per GiB;"
        f"  writing beside it {row['beside_by_alone']:.2f} of alone"
    )
