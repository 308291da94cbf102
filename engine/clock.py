"""What time it is, for whoever deletes: no clock that was set is believed.

The row ``clock`` of META has the time as this store last knew it, and how long the machine had been up then. Within one
boot time goes by as the machine has been up, whatever the clock is set to; over a boot nobody knows, and the clock is
believed. Every process that comes to write looks, so the first one after a boot takes the clock for the rest of it.
"""

from __future__ import annotations

import json
from typing import NamedTuple

from engine.errors import Corrupt
from engine.index import Table, Txn
from engine.seam import Os

_KEY = b"clock"
_SECOND = 10**9


class Now(NamedTuple):
    """The time, ns since the epoch: it is ``earliest`` or later, and ``latest`` or earlier."""

    earliest: int
    latest: int


class Seen(NamedTuple):
    """The time as it was known at a look: ns since the epoch, s since the machine booted, and which boot."""

    time_ns: int
    since_boot: float
    boot: str


def judged(wall_ns: int, since_boot: float, boot: str, last: Seen | None) -> tuple[Now, Seen]:
    """What time it may be, and what is to be remembered of this look."""
    known = wall_ns
    if last is not None and last.boot == boot and since_boot >= last.since_boot:
        known = last.time_ns + int((since_boot - last.since_boot) * _SECOND)
    latest = max(wall_ns, known, 0 if last is None else last.time_ns)
    return Now(min(wall_ns, known), latest), Seen(known, since_boot, boot)


def look(system: Os, txn: Txn) -> Now:
    """The time, written down in a write transaction. Raises Corrupt."""
    raw = txn.get(Table.META, _KEY)
    now, seen = judged(system.time_ns(), system.since_boot(), system.boot(), _decoded(raw))
    txn.put(Table.META, _KEY, json.dumps(seen).encode("ascii"))
    return now


def _decoded(raw: bytes | None) -> Seen | None:
    if raw is None:
        return None
    try:
        time_ns, since_boot, boot = json.loads(raw)
        return Seen(int(time_ns), float(since_boot), str(boot))
    except (ValueError, TypeError) as error:
        raise Corrupt("index row of the clock", found=str(error)) from None
