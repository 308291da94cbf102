"""The outbox: which points must still be copied where, and how far each is.

A row is written in the transaction that makes the point, so that none is forgotten. Only ``verified`` says that the
location has the point whole; rows stay as long as the point does.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from engine import locks
from engine.copies import rows
from engine.copies.rows import U16, LocationRow, OutboxRow
from engine.errors import AlreadyExists, InvalidRequest, NotFound
from engine.index import Table, Txn
from engine.registry import valid_name

_NEXT = b"next_location"
_MOST = 2**16 - 1


def locations(txn: Txn) -> dict[str, LocationRow]:
    """All storage locations, by name."""
    return {name.decode(): rows.location_row(raw) for name, raw in txn.whole(Table.LOCATIONS)}


def location(txn: Txn, name: str) -> LocationRow:
    """The location of that name. Raises NotFound."""
    raw = txn.get(Table.LOCATIONS, valid_name(name).encode())
    if raw is None:
        known = ", ".join(sorted(locations(txn))) or "none"
        raise NotFound(f"location {name!r}", expected="a storage location of this store", found=f"locations: {known}",
                       do="run 'holdfast location add'")  # fmt: skip
    return rows.location_row(raw)


def add(txn: Txn, name: str, row: LocationRow) -> LocationRow:
    """A new location's row, with a number of its own. Raises AlreadyExists, InvalidRequest."""
    if txn.get(Table.LOCATIONS, valid_name(name).encode()) is not None:
        raise AlreadyExists(
            f"location {name!r}", expected="a new name", found="a location of that name"
        )
    raw = txn.get(Table.META, _NEXT)
    number = 1 if raw is None else U16.unpack(raw)[0]
    if number == _MOST:
        raise InvalidRequest("location", expected=f"fewer than {_MOST} in a store's life")
    txn.put(Table.META, _NEXT, U16.pack(number + 1))
    made = replace(row, id=number)
    save(txn, name, made)
    return made


def save(txn: Txn, name: str, row: LocationRow) -> None:
    """Write a location's row."""
    txn.put(Table.LOCATIONS, name.encode(), rows.encoded(row))


def key(location_id: int, point: str) -> bytes:
    """Key of a row of the outbox."""
    return U16.pack(location_id) + point.encode("ascii")


def enqueue(txn: Txn, mount: str, point: str, now_ns: int) -> None:
    """A point was made: it must go wherever points of its mount go."""
    for row in locations(txn).values():
        if row.takes(mount):
            put(txn, row.id, point, OutboxRow(since_ns=now_ns))


def put(txn: Txn, location_id: int, point: str, row: OutboxRow) -> None:
    txn.put(Table.OUTBOX, key(location_id, point), rows.encoded(row))


def get(txn: Txn, location_id: int, point: str) -> OutboxRow | None:
    """How far the copy is; None where there is to be none."""
    raw = txn.get(Table.OUTBOX, key(location_id, point))
    return None if raw is None else rows.outbox_row(raw)


def of_location(txn: Txn, location_id: int) -> Iterator[tuple[str, OutboxRow]]:
    """(point, how far it is) of a location, in order of ids: of their times, but for clocks that were set."""
    for found, raw in txn.scan(Table.OUTBOX, prefix=U16.pack(location_id)):
        yield found[U16.size :].decode("ascii"), rows.outbox_row(raw)


def removed(txn: Txn, point: str, now_ns: int) -> None:
    """A point is deleted: locations that have it are to be told, and where it never came it is forgotten.

    Only this says so. A point that has no row for another reason is nothing a location should hear of.
    """
    for row in locations(txn).values():
        found = get(txn, row.id, point)
        if found is None:
            continue
        if found.entry:
            put(txn, row.id, point, found.now(rows.REMOVED, now_ns))
        else:
            txn.delete(Table.OUTBOX, key(row.id, point))


def removed_there(txn: Txn, location_id: int, point: str, time_ns: int, now_ns: int) -> None:
    """A location's journal says, with this time, that a point is deleted. One that is here was not deleted here: an
    index from before is back, or somebody else has this machine's key. It goes there again, or never went."""
    known = get(txn, location_id, point)
    here = txn.get(Table.POINTS, point.encode("ascii")) is not None
    if known is None or known.state == rows.REMOVED or not here:
        txn.delete(Table.OUTBOX, key(location_id, point))
    elif known.locked_ns <= time_ns:  # else it stays there, contested
        put(txn, location_id, point, OutboxRow(since_ns=now_ns))


def to_tell(txn: Txn, location_id: int) -> dict[str, int]:
    """Points whose deletion a location has not been told of, and when that was."""
    return {
        point: row.since_ns
        for point, row in of_location(txn, location_id)
        if row.state == rows.REMOVED
    }


def owed(txn: Txn, place: LocationRow, now_ns: int) -> dict[str, tuple[int, OutboxRow]]:
    """Points that a location has, and whose lock it does not have in full: until when each is locked, and its row."""
    found = {}
    for point, end in locks.every(txn).items():
        row = get(txn, place.id, point)
        if row is None or not row.entry or end <= now_ns:
            continue
        if row.locked_ns < end or not_retained(place, row, end):
            found[point] = end, row
    return found


def not_retained(place: LocationRow, row: OutboxRow, end_ns: int) -> bool:
    """Is what a point needs there still to be retained until then, for a lock?"""
    return place.object_lock and row.state == rows.VERIFIED and row.retained_s * 10**9 < end_ns
