"""What time it is, for whoever deletes: no clock that was set is believed.

The row ``clock`` of META has the time as this store last knew it, and how long the machine had been up then. Within one
boot time goes by as the machine has been up, whatever the clock is set to. Over a boot nobody here knows how long it
was off. A store that has ever heard the time from the server of a storage location (row ``clock there``: the newest it
heard) counts of that only what the machine has been up since the boot, until a server says more, though never more than
the others do, who believe the clock as it is found. Every process that comes to write looks, so the first one after a
boot settles it for that boot.
What the first look of a boot saw is in the file ``clock`` as well: an index made anew, or an older one that was put
back, does not know it, and within a boot one look is as good as another.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from typing import NamedTuple

from engine.errors import Corrupt
from engine.index import Index, Table, Txn
from engine.index.rows import U64
from engine.seam import Os, load, save

FILE = "clock"
_MOST = 4096
_KEY = b"clock"
_THERE = b"clock there"
_SECOND = 10**9


class Now(NamedTuple):
    """The time, ns since the epoch: it is ``earliest`` or later, and ``latest`` or earlier."""

    earliest: int
    latest: int


class Seen(NamedTuple):
    """The time as it was known at a look: ns since the epoch, s since the machine booted, and which boot. ``most_ns``:
    what it would be if the clock were believed over that boot, 0 for the same."""

    time_ns: int
    since_boot: float
    boot: str
    most_ns: int = 0


def judged(
    wall_ns: int, since_boot: float, boot: str, last: Seen | None, there_ns: int = 0
) -> tuple[Now, Seen]:
    """What time it may be, and what is to be remembered of this look. ``there_ns``: the newest time that a server
    elsewhere told, 0 where none ever did."""
    known = most = wall_ns
    if last is not None and last.boot == boot and since_boot >= last.since_boot:
        gone = int((since_boot - last.since_boot) * _SECOND)
        known, most = last.time_ns + gone, (last.most_ns or last.time_ns) + gone
    elif last is not None and there_ns:
        known = min(wall_ns, last.time_ns + int(since_boot * _SECOND))
    # The server may be on this machine, and have its clock: it makes nothing later than that as it was found.
    known = max(known, min(wall_ns, there_ns, most))
    latest = max(wall_ns, most, 0 if last is None else max(last.time_ns, last.most_ns))
    return Now(min(wall_ns, known), latest), Seen(known, since_boot, boot, most)


def look(system: Os, txn: Txn, root: str) -> Now:
    """The time, written down in a write transaction; ``root``: the store's directory. Raises Corrupt."""
    raw = txn.get(Table.META, _KEY)
    last, boot = None if raw is None else _decoded(raw), system.boot()
    begins = last is None or last.boot != boot
    if begins:
        last = _of_boot(system, root, boot) or last
    now, seen = judged(system.time_ns(), system.since_boot(), boot, last, _heard(txn))
    txn.put(Table.META, _KEY, json.dumps(seen).encode("ascii"))
    if begins and (last is None or last.boot != boot):
        with suppress(OSError):  # where there is no room the row has it
            save(system, os.path.join(root, FILE), json.dumps(seen).encode("ascii"))
    return now


def hear(index: Index, there_ns: int) -> None:
    """A server that is not this machine said that it was so late when it wrote something: it is no earlier now."""
    with index.read() as txn:
        if _heard(txn) >= there_ns:
            return
    with index.write() as txn:
        txn.put(Table.META, _THERE, U64.pack(max(there_ns, _heard(txn))))


def _heard(txn: Txn) -> int:
    raw = txn.get(Table.META, _THERE)
    if raw is None:
        return 0
    if len(raw) != U64.size:
        raise Corrupt("index row of the clock", expected=f"{U64.size} bytes", found=f"{len(raw)}")
    return int(U64.unpack(raw)[0])


def _of_boot(system: Os, root: str, boot: str) -> Seen | None:
    """What the file says, where it is of this boot."""
    try:
        found = _decoded(load(system, os.path.join(root, FILE), _MOST))
    except (OSError, Corrupt):
        return None
    return found if found.boot == boot else None


def _decoded(raw: bytes) -> Seen:
    try:
        time_ns, since_boot, boot, *most = json.loads(raw)
        return Seen(int(time_ns), float(since_boot), str(boot), *map(int, most))
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise Corrupt("what is known of the clock", found=str(error)) from None
