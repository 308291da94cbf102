"""What is set for a location: which values it may have, and how its journal tells them to whoever adopts it.

Told is what differs from what a new location has, in an entry of its own, as soon as something is sent; so a store that
is made again has the server retain what locked points need, and drops local bytes, as the one before did.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from engine.copies import journal, outbox
from engine.copies.link import Link
from engine.copies.rows import DROP, KEEP, LocationRow, told_of
from engine.errors import HoldfastError, InvalidRequest
from engine.index import Txn
from engine.locations import parse_windows
from engine.registry import valid_name

_NEW = LocationRow(0, "", "", "")
_TOLD = ("verify", "local", "mounts", "bandwidth", "read_bandwidth", "object_lock")
LOST = "lock_lost"
"""Kind of the incident."""


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


def checked(field: str, value: Any) -> Any:
    """A new value of something that may be changed. Raises InvalidRequest."""
    if field not in _CHECKS:
        raise InvalidRequest(
            f"field {field!r} of a location", expected=" or ".join(_CHECKS), found="another"
        )
    return _CHECKS[field](value)


# --- in the journal -----------------------------------------------------------------------------------------


def said(txn: Txn, row: LocationRow) -> dict[str, Any]:
    """What an adopter is to know. Local bytes are dropped only where every location lets them go: he knows of this one
    alone."""
    found = {
        name: getattr(row, name) for name in _TOLD if getattr(row, name) != getattr(_NEW, name)
    }
    if any(one.local != DROP for one in outbox.locations(txn).values()):
        found.pop("local", None)
    return found


def tell(link: Link) -> bool:
    """Have the journal say it, where it says something else. Whoever calls has the location alone."""
    with link.context.index.read() as txn:
        now = said(txn, link.row)
    if told_of(now) == link.row.told:
        return False
    link.append(journal.Place(now))
    return True


def taken(row: LocationRow, place: Mapping[str, Any]) -> tuple[LocationRow, list[str]]:
    """The row with what the journal tells of the location, and a sentence for each thing."""
    texts = []
    for name in _TOLD:
        if name not in place:
            continue
        try:
            row = replace(row, **{name: checked(name, place[name])})
        except (HoldfastError, TypeError, AttributeError, ValueError) as error:
            texts.append(f"{name} of the location is not as it was: {error}")
        else:
            texts.append(f"{name} of the location is as it was: {place[name]}")
    return replace(row, told=told_of(place)), texts


def still_retains(link: Link) -> str:
    """Whether the server can do what the location's row says of retention; else that is taken back, with an incident,
    and this says so. Asks by trying: for who may write there."""
    if not link.row.object_lock or link.location.features().lock:
        return ""
    text = (
        "the store before had the server retain what locked points need, and this bucket has no Object Lock (any more):"
        " nothing is retained there, whoever has its credentials can delete it; use a bucket made with Object Lock"
    )
    with link.context.index.write() as txn:
        row = replace(outbox.location(txn, link.name), object_lock=False)
        outbox.save(txn, link.name, row)
    link.row = row
    link.context.incidents.note(LOST, f"location {link.name}", text)
    return text
