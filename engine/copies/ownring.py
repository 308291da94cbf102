"""The key ring of an adopted location as this store keeps it, while the location is not this store's to write.

``locations/NAME.ring`` is the ring that was there, with one slot: for this machine's key, which lies beside it. So
nothing is written at a location that is adopted. Taking over lets the key into the ring there.
"""

from __future__ import annotations

import os
from dataclasses import replace

from engine.chunks import Context
from engine.copies import outbox
from engine.copies.connect import machine_key, newest_ring, own_ring, ring_file, ring_path
from engine.copies.link import Link
from engine.copies.rows import FOLDER
from engine.errors import Busy, from_os
from engine.keys import Key, let_in
from engine.seam import save

_TRIES = 5  # others may write a ring at the same time


def keep(context: Context, name: str, ring: bytes, key: Key) -> None:
    """Write down the key and the ring that it opens."""
    system = context.system
    folder = os.path.join(context.root, FOLDER)
    if not system.exists(folder):
        system.mkdir(folder)
    save(system, os.path.join(folder, f"{name}.key"), f"{key.printed()}\n".encode("ascii"))
    save(system, ring_file(context, name), ring)


def take_over(link: Link) -> None:
    """Be the location's only writer, with a key that opens its ring there. Raises Busy when somebody has written there
    since it was adopted, PermissionDenied when its master key is another since."""
    if link.row.ring_here:
        link.nobody_since()
        _let_in(link)
    link.take_over()
    _forget(link)


def _let_in(link: Link) -> None:
    context, system = link.context, link.context.system
    key, kept = machine_key(context, link.name), own_ring(context, link.name)
    for _ in range(_TRIES):
        number, raw = newest_ring(link.location)
        made, vault = let_in(
            raw, kept, key, least=link.row.ring, now_ns=system.time_ns(), system=system
        )
        if made != raw:
            if not link.location.create(ring_path(number + 1), made):
                continue
            link.location.remove([ring_path(number)])
            number += 1
        link.vault = vault
        with context.index.write() as txn:
            outbox.save(txn, link.name, replace(outbox.location(txn, link.name), ring=number))
        return
    raise Busy(
        f"key ring of {link.location.shown}", expected="nobody else changing it", found="other rings each time",
        do="try again",
    )  # fmt: skip


def _forget(link: Link) -> None:
    path = ring_file(link.context, link.name)
    try:
        if link.context.system.exists(path):
            link.context.system.unlink(path)
    except OSError as error:
        raise from_os(error, path) from None
