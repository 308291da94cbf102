"""The key ring of an adopted location as this store keeps it, while the location is not this store's to write.

``locations/NAME.ring`` is the ring that was there, with one slot: for this machine's key, which lies beside it. So
nothing is written at a location that is adopted. Taking over lets the key into the ring there.
"""

from __future__ import annotations

from functools import partial

from engine.chunks import Context
from engine.copies.connect import refuse_without_create, seen_ring
from engine.copies.link import Link
from engine.copies.rings import LocationRings, machine_key, own_ring, ring_file, save_key
from engine.errors import from_os
from engine.keys import Key, Keyring
from engine.seam import save


def keep(context: Context, name: str, ring: bytes, key: Key) -> None:
    """Write down the key and the ring that it opens."""
    save_key(context, name, key)
    save(context.system, ring_file(context, name), ring)


def take_over(link: Link) -> None:
    """Be the location's only writer, with a key that opens its ring there. Raises Busy when somebody has written there
    since it was adopted, PermissionDenied when its master key is another since, Unsupported where a server (to which
    it may have been copied) lets two write."""
    refuse_without_create(link.location, link.location.features())
    if link.row.ring_here:
        link.nobody_since()
        _let_in(link)
    link.take_over()
    _forget(link)


def _let_in(link: Link) -> None:
    context, name = link.context, link.name
    key = machine_key(context, name)
    rings = LocationRings(link.location, partial(seen_ring, context, name))
    row, here = link.row, link.vault.location
    ring = Keyring(rings, here, key, key, row.ring, system=context.system, mark=row.ring_mark)
    made = ring.let_in(own_ring(context, name))
    rings.seen(made.number, made.vault)
    link.opened(made.number, made.vault)


def _forget(link: Link) -> None:
    path = ring_file(link.context, link.name)
    try:
        if link.context.system.exists(path):
            link.context.system.unlink(path)
    except OSError as error:
        raise from_os(error, path) from None
