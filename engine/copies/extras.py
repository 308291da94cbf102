"""What the service keeps with a point, read back from a location that has it."""

from __future__ import annotations

from collections.abc import Iterator

from engine.copies import outbox, rows
from engine.errors import Corrupt
from engine.home import OpenStore
from engine.index import Table
from engine.index.rows import KIND_DATA, ChunkRow


def extras(store: OpenStore, point: str) -> Iterator[bytes]:
    """The chunks, in their order, each fetched and verified when it is asked for; none of a point that is nowhere else.

    Raises Corrupt, and what the location raises.
    """
    with store.context.index.read() as txn:
        found = [
            (place.id, row.extras)
            for place in outbox.locations(txn).values()
            if (row := outbox.get(txn, place.id, point)) is not None and row.entry
        ]
    return _read(store, *found[0]) if found else iter(())


def _read(store: OpenStore, place: int, ids: list[str]) -> Iterator[bytes]:
    for text in ids:
        try:
            cid = bytes.fromhex(text)
            key = rows.copy_key(place, cid)
        except (ValueError, AssertionError):
            raise Corrupt("index row of the outbox", expected="chunk ids", found=text) from None
        with store.context.index.read() as txn:
            raw = txn.get(Table.COPIES, key)
        if raw is None:  # of a borrowed store they are chunks like others
            yield store.reader.read(cid)
            continue
        copy = rows.copy_row(raw)
        row = ChunkRow(copy.pack, copy.offset, copy.stored, 0, KIND_DATA, 0, 0, 0, ())
        yield store.reader.load_at(cid, row).data
