"""Which locations there are, and how far points are: read from the index alone, without what opens a location."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from typing import NamedTuple

from engine.chunks import Context
from engine.copies import outbox
from engine.copies.rows import FAILED, QUEUED, UPLOADING, VERIFIED, OutboxRow
from engine.index import Table, Txn
from engine.nodes.point import decode_point

PENDING = "pending"
"""Not verified: any state but that."""


class LocationInfo(NamedTuple):
    """A storage location; ``queued`` to ``failed``: points by how far their copy is. ``paused``: why nothing is sent,
    or ""; ``requests``: asked of it so far, by kind, with ``bytes_up`` and ``bytes_down``; ``locking``: points there
    whose lock it does not have in full."""

    name: str
    url: str
    sealed: bool
    mounts: tuple[str, ...]
    verify: float
    local: str
    paused: str
    queued: int
    uploading: int
    verified: int
    failed: int
    bandwidth: str
    read_bandwidth: str
    requests: dict[str, int]
    object_lock: bool = False
    locking: int = 0


class UploadInfo(NamedTuple):
    """How far the copy of a point at a location is. ``since_ns``: in this state; ``sent``: bytes of its packs;
    ``requests``: asked of the location for that."""

    location: str
    point: str
    mount: str
    state: str
    since_ns: int
    tries: int
    sent: int
    reason: str
    requests: int


def locations(context: Context) -> list[LocationInfo]:
    """All locations, by name."""
    found = []
    with context.index.read() as txn:
        for name, row in sorted(outbox.locations(txn).items()):
            counts = Counter(one.state for _, one in outbox.of_location(txn, row.id))
            found.append(
                LocationInfo(
                    name, row.url, row.sealed, tuple(row.mounts), row.verify, row.local, row.paused,
                    counts[QUEUED], counts[UPLOADING], counts[VERIFIED], counts[FAILED],
                    row.bandwidth, row.read_bandwidth, row.requests, row.object_lock,
                    len(outbox.owed(txn, row, context.system.time_ns())),
                )
            )  # fmt: skip
    return found


def uploads(
    context: Context, location: str = "", state: str = "", points: Collection[str] | None = None
) -> list[UploadInfo]:
    """Points and how far they are, of one location or all, of these points or all, oldest first. ``state``: only those
    in it, or all that are ``PENDING``. Raises NotFound."""
    found = []
    with context.index.read() as txn:
        places = outbox.locations(txn)
        if location:
            places = {location: outbox.location(txn, location)}
        for name, place in sorted(places.items()):
            for one, row in _rows(txn, place.id, points):
                wanted = state in ("", row.state) or (state == PENDING and row.state != VERIFIED)
                raw = txn.get(Table.POINTS, one.encode()) if wanted else None
                if raw is not None:
                    found.append(
                        UploadInfo(
                            name, one, decode_point(raw).mount, row.state, row.since_ns, row.tries, row.sent,
                            row.reason, row.requests,
                        )
                    )  # fmt: skip
    return found


def _rows(
    txn: Txn, location_id: int, points: Collection[str] | None
) -> Iterable[tuple[str, OutboxRow]]:
    if points is None:
        return outbox.of_location(txn, location_id)
    found = ((point, outbox.get(txn, location_id, point)) for point in points)
    return [(point, row) for point, row in found if row is not None]
