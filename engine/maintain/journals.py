"""Whether the journals at storage locations can be read as far as this store wrote them, for a check."""

from __future__ import annotations

from collections.abc import Callable

from engine.copies import checkpoint, connect, outbox
from engine.errors import Corrupt, HoldfastError, LocationUnavailable, NotFound
from engine.home import OpenStore
from engine.maintain.asked import Asked
from engine.progress import Report

_TRIES = 2  # entries may go while it is read


def look(store: OpenStore, asked: Asked, found: Callable[[str, str], None], report: Report) -> int:
    """Read them; ``found`` hears of each that is damaged, and what is wrong with it. One that somebody else writes is
    left out: what he wrote is not known here. How many could not be looked at: that is nothing wrong with the store."""
    context = store.context
    with context.index.read() as txn:
        places = {name: row for name, row in outbox.locations(txn).items() if not row.paused}
    unread = 0
    for name, row in places.items():
        try:
            fault = "" if asked.is_gone(row.id) else _fault(store, name, report)
        except HoldfastError:
            unread += 1
            continue
        unread += asked.is_gone(row.id)
        if fault:
            found(f"journal of location {name}", fault)
    return unread


def _fault(store: OpenStore, name: str, report: Report) -> str:
    fault = ""
    for _ in range(_TRIES):
        try:
            link = connect.open_link(store.context, name)
        except (Corrupt, NotFound) as error:  # as where a disk is not mounted, or another one is
            raise LocationUnavailable(f"location {name!r}", found=str(error)) from None
        try:
            fault = checkpoint.fault(link, report)
        finally:
            link.close()
        if not fault:
            break
    return fault
