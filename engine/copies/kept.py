"""What the service kept with a point, read again from a location that has the point: chunks that are of no tree."""

from __future__ import annotations

from collections.abc import Iterator

from engine.copies import outbox, rows
from engine.errors import Corrupt, HoldfastError, NotFound
from engine.home import OpenStore
from engine.index import Table
from engine.index.rows import KIND_DATA, ChunkRow


def having(store: OpenStore) -> list[str]:
    """Points with which something is kept at a location, in order of ids."""
    found: set[str] = set()
    with store.context.index.read() as txn:
        for place in outbox.locations(txn).values():
            for point, row in outbox.of_location(txn, place.id):
                if row.extras and txn.get(Table.POINTS, point.encode()) is not None:
                    found.add(point)
    return sorted(found)


def has(store: OpenStore, point: str) -> bool:
    """Whether something is kept with a point at a location."""
    return bool(_places(store, point))


def read(store: OpenStore, point: str) -> Iterator[bytes]:
    """The chunks, as they were given to ``send``, verified; of the first location that gives one. None where nothing
    is kept.

    Raises Corrupt for what is damaged everywhere, and what the locations raise.
    """
    places = _places(store, point)
    if not places:
        return
    for at in range(len(places[0][1])):
        yield _chunk(store, point, at, places)


def _places(store: OpenStore, point: str) -> list[tuple[int, list[str]]]:
    """(location, chunk ids) of every location that has the point with the same things kept: later there may be more
    of them, and a part of these and a part of those is nothing."""
    with store.context.index.read() as txn:
        found = [
            (place.id, row.extras)
            for place in outbox.locations(txn).values()
            if (row := outbox.get(txn, place.id, point)) and row.extras
        ]
    return [one for one in found if one[1] == found[0][1]]


def _chunk(store: OpenStore, point: str, at: int, places: list[tuple[int, list[str]]]) -> bytes:
    first: HoldfastError | None = None
    for location, ids in places:
        cid = bytes.fromhex(ids[at])
        try:
            return store.reader.load_at(cid, _row(store, location, cid)).data
        except NotFound as error:
            first = first or Corrupt(f"what is kept with point {point}", found=str(error))
        except HoldfastError as error:
            first = first or error
    assert first is not None
    raise first


def _row(store: OpenStore, location: int, cid: bytes) -> ChunkRow:
    """Where the chunk lies: of its row what reading needs."""
    with store.context.index.read() as txn:
        raw = txn.get(Table.COPIES, rows.copy_key(location, cid))
    if raw is None:
        raise NotFound(f"chunk {cid.hex()}", expected="a copy at the location", found="none")
    copy = rows.copy_row(raw)
    return ChunkRow(copy.pack, copy.offset, copy.stored, 0, KIND_DATA, 0, 0, 0)
