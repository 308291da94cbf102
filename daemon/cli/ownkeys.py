"""The key ring of the store itself, for the command ``key``: changed where it lies, by whoever has the files."""

from __future__ import annotations

from collections.abc import Sequence

from daemon.contract import KeyRing, KeySlot, SecretSpec
from daemon.service.keyrings import opener_of, secret_of
from engine.keys import RingFacts
from engine.storekeys import StoreKeys


class OwnRing:
    """The part of ``Backend`` about keys, of the sealed store at a path. What is given opens the ring, else what opens
    the store."""

    def __init__(self, path: str) -> None:
        self._path = path

    def keys(self, location: str) -> KeyRing:
        """Who may open the store. Raises InvalidRequest where it is not sealed."""
        return _told(location, StoreKeys.facts(self._path))

    def change_keys(
        self, location: str, *, add: Sequence[SecretSpec] = (), remove: Sequence[str] = (),
        opened_with: SecretSpec | None = None,
    ) -> KeyRing:  # fmt: skip
        """Slots added, and those with these ids left out, in one ring. Raises PermissionDenied, Busy."""
        ring = StoreKeys(self._path, opener_of(opened_with))
        found = ring.change([secret_of(one) for one in add], remove)
        return _told(location, found.facts, found.fingerprint)

    def rotate_keys(
        self, location: str, *, master_for: Sequence[SecretSpec] = (), opened_with: SecretSpec | None = None
    ) -> KeyRing:  # fmt: skip
        """A new key for what is written from now on; ``master_for``: a new master key as well, for these alone."""
        ring = StoreKeys(self._path, opener_of(opened_with))
        found = ring.rotate([secret_of(one) for one in master_for])
        return _told(location, found.facts, found.fingerprint)


def _told(location: str, facts: RingFacts, fingerprint: str = "") -> KeyRing:
    slots = [KeySlot(one.id, one.kind, one.made_ns) for one in facts.slots]
    return KeyRing(location, facts.number, slots, list(facts.epochs), fingerprint)
