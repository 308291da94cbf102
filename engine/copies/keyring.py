"""Who may open a location of this store: its key ring shown and changed. See ``engine.keys.keyring``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple

from engine.chunks import Context
from engine.copies import outbox
from engine.copies.connect import look, opened, seen_ring
from engine.copies.rings import LocationRings, machine_key, new_machine_key
from engine.errors import InvalidRequest, NotFound
from engine.keys import Key, Keyring, Opened, Opener, Secret, SlotFacts


class KeyringInfo(NamedTuple):
    """A key ring, and ``own``: the id of the slot of this machine's key, "" none; ``left``: why rings before it are
    still at the location, "" when none is."""

    location: str
    number: int
    slots: tuple[SlotFacts, ...]
    own: str
    epochs: tuple[int, ...]
    fingerprint: str
    left: str = ""


def show(context: Context, name: str, secret: Opener | None) -> KeyringInfo:
    """The ring as it is. ``secret``: what opens it, by default this machine's key."""
    with _ring(context, name, secret) as ring:
        return _info(name, ring.show())


def change(
    context: Context, name: str, secret: Opener | None, *, add: Sequence[Secret], drop: Sequence[str],
    machine: bool, force: bool,
) -> KeyringInfo:  # fmt: skip
    """Slots added and left out, in one ring. ``machine``: one for this machine's key as well, where it has none."""
    if not (add or drop or machine):
        raise InvalidRequest(
            f"key ring of location {name!r}", expected="something to change", found="nothing"
        )
    with _ring(context, name, secret, new=machine) as ring:
        missing = [ring.own] if machine and ring.own else []
        return _info(name, ring.change(add, drop, missing=missing, force=force))


def rotate(
    context: Context, name: str, secret: Opener | None, master_for: Sequence[Secret]
) -> KeyringInfo:
    """A new epoch; and where secrets are given, a new master key with slots for these and this machine alone."""
    with _ring(context, name, secret) as ring:
        return _info(name, ring.rotate(master_for))


def _info(name: str, found: Opened) -> KeyringInfo:
    facts = found.facts
    return KeyringInfo(
        name, found.number, facts.slots, found.own, facts.epochs, found.vault.fingerprint, found.left
    )  # fmt: skip


@contextmanager
def _ring(
    context: Context, name: str, secret: Opener | None, *, new: bool = False
) -> Iterator[Keyring]:
    """The ring of a location. ``new``: make this machine a key where it has none."""
    with context.index.read() as txn:
        row = outbox.location(txn, name)
    if not row.sealed:
        raise InvalidRequest(
            f"location {name!r}", expected="a sealed one", found="one without keys"
        )
    location = opened(row.url, row.credentials, context.system)
    try:
        look(location, row)
        own = new_machine_key(context, name) if new else _own(context, name)
        if row.ring_here and secret is None:
            raise InvalidRequest(
                f"key ring of location {name!r}", expected="a passphrase or key that opens it",
                found="this store's own key, which opens nothing there before the location is taken over",
                do="give one, or 'holdfast location take-over' first",
            )  # fmt: skip
        opener = secret or own or machine_key(context, name)
        rings = LocationRings(location, partial(seen_ring, context, name))
        yield Keyring(
            rings,
            bytes.fromhex(row.location),
            opener,
            own,
            row.ring,
            system=context.system,
            mark=row.ring_mark,
        )
    finally:
        location.close()


def _own(context: Context, name: str) -> Key | None:
    try:
        return machine_key(context, name)
    except NotFound:
        return None
