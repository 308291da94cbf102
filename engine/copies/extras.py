"""What the service keeps with a point, read back from a location that has it."""

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


def extras(store: OpenStore, point: str) -> Iterator[bytes]:
    """The chunks, in their order, each fetched and verified when it is asked for, from the first location that gives
    it; none of a point that is nowhere else.

    Raises Corrupt, and what the location raises.
    """
    places = _places(store, point)
    for at in range(len(places[0][1]) if places else 0):
        yield _chunk(store, point, at, places)


def _places(store: OpenStore, point: str) -> list[tuple[int, list[str]]]:
    """(location, chunk ids) of every location that has the point with the same things kept: later there may be more
    of them, and a part of these and a part of those is nothing."""
    with store.context.index.read() as txn:
        found = [
            (place.id, row.extras)
            for place in outbox.locations(txn).values()
            if (row := outbox.get(txn, place.id, point)) is not None and row.extras
        ]
    return [one for one in found if one[1] == found[0][1]]


def _chunk(store: OpenStore, point: str, at: int, places: list[tuple[int, list[str]]]) -> bytes:
    first: HoldfastError | None = None
    for place, ids in places:
        try:
            return _read(store, place, ids[at])
        except NotFound as error:
            first = first or Corrupt(f"what is kept with point {point}", found=str(error))
        except HoldfastError as error:
            first = first or error
    assert first is not None
    raise first


def _read(store: OpenStore, place: int, text: str) -> bytes:
    try:
        cid = bytes.fromhex(text)
        key = rows.copy_key(place, cid)
    except (ValueError, AssertionError):
        raise Corrupt("index row of the outbox", expected="chunk ids", found=text) from None
    with store.context.index.read() as txn:
        raw = txn.get(Table.COPIES, key)
    if raw is None:  # of a borrowed store they are chunks like others
        return store.reader.read(cid)
    copy = rows.copy_row(raw)
    row = ChunkRow(copy.pack, copy.offset, copy.stored, 0, KIND_DATA, 0, 0, 0, ())
    return store.reader.load_at(cid, row).data
