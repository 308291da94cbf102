"""The index at ten million chunks: insert and look-up rates at the end against the start.

Rows are put as the chunk writer puts them: batches of 10,000 in key order, each key looked up
first, one durable transaction per batch. Ids are hashes, so every batch falls all over the tree.
Look-ups are of known and unknown ids, half of each. This goes past the facade, to the engine's
index: ten million chunks of real data would be 600 GB.
"""

import json
import resource
import sys
import time
from hashlib import blake2b
from pathlib import Path
from typing import Final

from engine import Store
from engine.index import Index, Table
from engine.index.rows import ENC_ZSTD, KIND_DATA, ChunkRow, chunk_row
from tools.bench.gen.base import MIB, chance, pick
from tools.bench.probes.base import Bench, Row, apart

BATCH: Final = 10_000
LOOKUPS: Final = 100_000
START: Final = 100_000  # chunks: where the first rates are taken
TIB: Final = 1 << 40
CHUNK: Final = 1 << 16  # plaintext bytes of a chunk of the size the store aims at


def chunk_id(number: int) -> bytes:
    """Return the id of a synthetic chunk."""
    return blake2b(number.to_bytes(8, "little"), digest_size=32).digest()


def insert(index: Index, first: int, count: int) -> float:
    """Insert `count` chunks and return the seconds the transactions took."""
    spent = 0.0
    for start in range(first, first + count, BATCH):
        batch = {}
        for number in range(start, min(start + BATCH, first + count)):
            row = ChunkRow(
                number >> 10, (number & 1023) << 15, 27_000, CHUNK, KIND_DATA, ENC_ZSTD, 0, 0
            )
            batch[chunk_id(number)] = row
        begin = time.perf_counter()
        with index.write() as txn:
            for cid in sorted(batch):
                if txn.get(Table.CHUNKS, cid) is None:
                    txn.put(Table.CHUNKS, cid, batch[cid].pack_bytes())
        spent += time.perf_counter() - begin
    return spent


def look_up(index: Index, known: int) -> float:
    """Look LOOKUPS ids up, half of them known; return the seconds."""
    rnd = chance("look-up", known)
    ids = [chunk_id(pick(rnd, known) + (n & 1) * (1 << 40)) for n in range(LOOKUPS)]
    found = 0
    begin = time.perf_counter()
    for start in range(0, LOOKUPS, 1000):
        with index.read() as txn:
            for cid in ids[start : start + 1000]:
                raw = txn.get(Table.CHUNKS, cid)
                found += raw is not None and chunk_row(raw).usable
    seconds = time.perf_counter() - begin
    assert found == LOOKUPS // 2
    return seconds


def measure(store: Path, total: int) -> Row:
    """Fill the index of a new store with `total` chunks and return the rates."""
    Store.init(str(store))
    index = Index(str(store / "index"))
    insert(index, 0, START)
    row: Row = {"chunks": total}
    row["insert_start_s"] = START / insert(index, START, START)
    row["lookup_start_s"] = LOOKUPS / look_up(index, 2 * START)
    insert(index, 2 * START, total - 3 * START)
    row["insert_end_s"] = START / insert(index, total - START, START)
    row["lookup_end_s"] = LOOKUPS / look_up(index, total)
    row["index_bytes"] = index.size()
    row["bytes_per_chunk"] = index.size() / total
    row["index_bytes_per_tib"] = index.size() / total * TIB / CHUNK
    row["peak_mib"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)
    index.close()
    return row


def run(bench: Bench) -> list[Row]:
    """Measure in a process of its own, so that its memory is its own."""
    total = bench.part(10_000_000, 500_000)
    store = bench.work / "index-store"
    row = apart(__name__, store, total)
    bench.say(describe(row))
    return [row]


def describe(row: Row) -> str:
    """Return one line about the measurement."""
    return (
        f"index     {row['chunks']} chunks  insert {row['insert_start_s']:.0f} then"
        f" {row['insert_end_s']:.0f} /s  look-up {row['lookup_start_s']:.0f} then"
        f" {row['lookup_end_s']:.0f} /s  {row['bytes_per_chunk']:.0f} bytes a chunk,"
        f" {row['index_bytes_per_tib'] / MIB:.0f} MiB a TiB"
    )


if __name__ == "__main__":
    print(json.dumps(measure(Path(sys.argv[1]), int(sys.argv[2]))))
