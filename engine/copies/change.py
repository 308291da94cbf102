"""Changing what a location was made with: what is read back, whose points go there, credentials, limits.

Who is sending sees another bandwidth within seconds, and all else with the next point.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from engine.chunks import Context
from engine.copies import connect, outbox
from engine.copies.rows import DROP, KEEP, LocationRow
from engine.errors import Corrupt, InvalidRequest
from engine.index import Table, Txn
from engine.locations import parse_windows
from engine.nodes.point import decode_point
from engine.registry import valid_name


def change(context: Context, name: str, fields: Mapping[str, Any]) -> None:
    """Change these fields of a location. Points of mounts that are new to it are queued; those of mounts that are no
    longer sent there are not, and what is there already stays.

    Raises NotFound, InvalidRequest, and for credentials what the location raises: they are tried first.
    """
    found = {field: _checked(field, value) for field, value in fields.items()}
    if found.get("object_lock"):
        _try_lock(context, name)
    if "credentials" in found:
        _try(context, name, found["credentials"])
    with context.index.write() as txn:
        row = replace(outbox.location(txn, name), **found)
        outbox.save(txn, name, row)
        if "mounts" in found:
            _queue(txn, row, context.system.time_ns())


def _part(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise InvalidRequest("verify", expected="a part from 0 to 1", found=repr(value))
    return float(value)


def _local(value: Any) -> str:
    if value not in (KEEP, DROP):
        raise InvalidRequest("local", expected=f"{KEEP} or {DROP}", found=repr(value))
    return str(value)


def _windows(value: Any) -> str:
    parse_windows(str(value))
    return str(value)


def _yes(value: Any) -> bool:
    if value is not True:
        raise InvalidRequest(
            "object_lock",
            expected="that it stays: locks were made that rely on it",
            found=repr(value),
        )
    return True


_CHECKS: dict[str, Callable[[Any], Any]] = {
    "verify": _part,
    "local": _local,
    "mounts": lambda value: [valid_name(one) for one in value],
    "credentials": str,
    "bandwidth": _windows,
    "read_bandwidth": _windows,
    "object_lock": _yes,
}
"""What may be changed, and what makes a value of it, or says that it is none."""


def _checked(field: str, value: Any) -> Any:
    if field not in _CHECKS:
        raise InvalidRequest(
            f"field {field!r} of a location", expected=" or ".join(_CHECKS), found="another"
        )
    return _CHECKS[field](value)


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


def _queue(txn: Txn, row: LocationRow, now_ns: int) -> None:
    for point, one in list(outbox.of_location(txn, row.id)):
        raw = txn.get(Table.POINTS, point.encode())
        if raw is not None and not one.entry and not row.takes(decode_point(raw).mount):
            txn.delete(Table.OUTBOX, outbox.key(row.id, point))
    connect.enqueue_all(txn, row, now_ns)
