"""Adopting a location of a million chunks: the seconds until there is a store again.

The location is made directly, of tiny records in sealed packs and a journal that names them, in a directory: a real
million chunks would be 60 GB. What is measured is the whole command but for the passphrase's own second: trailers
fetched, opened and checked, the index filled.
"""

import json
import os
import resource
import sys
import time
from pathlib import Path
from typing import Final

from engine import Store, codec
from engine.copies import journal, marker, sealed
from engine.copies.chain import Chain
from engine.index.rows import ENC_RAW, KIND_DATA
from engine.keys import Key, Vault, make
from engine.packs.records import Entry, encode_record_head
from tools.bench.probes.base import Bench, Row, apart

PACK_RECORDS: Final = 50_000
TINY: Final = 24  # bytes of a record's content
LOCATION: Final = b"bench-location.."
ID_KEY: Final = bytes(range(32))


def put(root: Path, name: str, data: bytes | memoryview) -> None:
    """Write one thing of the location."""
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def pack(vault: Vault, first: int, count: int) -> sealed.SealedPack:
    """Return a pack of that many tiny records."""
    builder = sealed.PackBuilder(vault, sealed.SMALL)
    for number in range(first, first + count):
        data = number.to_bytes(TINY, "little")
        cid = codec.chunk_id(ID_KEY, data)
        head = encode_record_head(KIND_DATA, ENC_RAW, 0, TINY, TINY, cid)
        builder.add(head, data, Entry(cid, 0, len(head) + TINY, TINY, KIND_DATA, ENC_RAW, 0, ()))
    return builder.finish()


def build(root: Path, total: int) -> Key:
    """Make the location and return what opens it."""
    key = Key.new()
    ring, vault = make(LOCATION, ID_KEY, [key], now_ns=1)
    put(root, marker.NAME, marker.encode(marker.Marker(LOCATION, b"bench-store.....", sealed=True)))
    put(root, "keys/00000001.json", ring)
    rows = []
    for first in range(0, total, PACK_RECORDS):
        made = pack(vault, first, min(PACK_RECORDS, total - first))
        put(root, sealed.path_of(made.row.name), made.data)
        rows.append(made.row)
    chain = Chain(vault)
    bodies: tuple[journal.Body, ...] = (
        journal.Begin(b"bench-store.....", b""),
        journal.PacksChanged(tuple(rows), ()),
    )
    for seq, body in enumerate(bodies, 1):
        raw = journal.encode(vault, chain.next(b"bench-writer....", 1, body))
        chain.take(seq, raw)
        put(root, journal.path_of(seq), raw)
    return key


def measure(work: Path, total: int) -> Row:
    """Adopt a location of `total` chunks and return the seconds."""
    place = work / "location"
    key = build(place, total)
    before, begin = time.process_time(), time.perf_counter()
    found = Store.adopt(str(work / "store"), f"file://{place}", key)
    row: Row = {"chunks": found.chunks, "packs": found.packs}
    row["adopt_s"] = time.perf_counter() - begin
    row["processor_s"] = time.process_time() - before
    row["load"] = round(os.getloadavg()[0], 2)
    row["peak_mib"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)
    assert found.chunks == total
    return row


def run(bench: Bench) -> list[Row]:
    """Measure in a process of its own, so that its memory is its own."""
    total = bench.part(1_000_000, 50_000)
    work = bench.work / "adopt"
    work.mkdir(parents=True)
    row = apart(__name__, work, total)
    bench.say(describe(row))
    return [row]


def describe(row: Row) -> str:
    """Return one line about the measurement."""
    return (
        f"adopt     {row['chunks']} chunks  {row['adopt_s']:.1f} s, {row['processor_s']:.1f} s of processor,"
        f" {row['peak_mib']:.0f} MiB, load {row['load']}"
    )


if __name__ == "__main__":
    print(json.dumps(measure(Path(sys.argv[1]), int(sys.argv[2]))))
