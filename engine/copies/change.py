"""Changing what a location was made with: what is read back, whose points go there, credentials, limits.

Who is sending sees another bandwidth within seconds, and all else with the next point.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from engine.chunks import Context
from engine.copies import connect, outbox, policy
from engine.copies.rows import LocationRow
from engine.errors import Corrupt, HoldfastError
from engine.index import Table, Txn
from engine.nodes.point import decode_point

log = logging.getLogger("holdfast.engine.copies")


def change(context: Context, name: str, fields: Mapping[str, Any]) -> None:
    """Change these fields of a location. Points of mounts that are new to it are queued; those of mounts that are no
    longer sent there are not, and what is there already stays.

    Raises NotFound, InvalidRequest, and for credentials what the location raises: they are tried first.
    """
    found = {field: policy.checked(field, value) for field, value in fields.items()}
    if found.get("object_lock"):
        _try_lock(context, name)
    if "credentials" in found:
        _try(context, name, found["credentials"])
    with context.index.write() as txn:
        row = replace(outbox.location(txn, name), **found)
        outbox.save(txn, name, row)
        if "mounts" in found:
            _queue(txn, row, context.system.time_ns())
    if "object_lock" in found and not row.paused:
        _tell(context, name)


def _try(context: Context, name: str, credentials: str) -> None:
    """Credentials that do not open the location are not taken."""
    with context.index.read() as txn:
        row = outbox.location(txn, name)
    location = connect.opened(row.url, credentials, context.system)
    try:
        found = connect.read_marker(location).location.hex()
    finally:
        location.close()
    if found != row.location:
        raise Corrupt(location.shown, expected=f"location {row.location}", found=found)


def _try_lock(context: Context, name: str) -> None:
    with context.index.read() as txn:
        row = outbox.location(txn, name)
    location = connect.opened(row.url, row.credentials, context.system)
    try:
        connect.refuse_without_lock(location, location.features())
    finally:
        location.close()


def _tell(context: Context, name: str) -> None:
    """Now, as long as the location answers. Where that cannot be, the next upload tells it."""
    try:
        link = connect.open_link(context, name)
        try:
            with link.alone():
                link.catch_up()
                policy.tell(link)
        finally:
            link.close()
    except HoldfastError as error:
        log.info("location %s: its journal will be told later: %s", name, error)


def _queue(txn: Txn, row: LocationRow, now_ns: int) -> None:
    for point, one in list(outbox.of_location(txn, row.id)):
        raw = txn.get(Table.POINTS, point.encode())
        if raw is not None and not one.entry and not row.takes(decode_point(raw).mount):
            txn.delete(Table.OUTBOX, outbox.key(row.id, point))
    connect.enqueue_all(txn, row, now_ns)
