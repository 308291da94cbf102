"""The facade's part about who may open a sealed store: its key ring, shown and changed (``engine.storering``).

Of use by its path: nothing of the store but its ring is opened, and a store that is served may be changed all the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from engine import home, storering
from engine.errors import InvalidRequest
from engine.keys import COST, Keyring, Opened, Opener, RingFacts, Secret
from engine.keys.primitives import Cost
from engine.seam import REAL, Os
from engine.storering import StoreRings, told


class RingInfo(NamedTuple):
    """A key ring: its number, its slots, its epochs (the last is in use); ``fingerprint``: known once it is opened."""

    facts: RingFacts
    fingerprint: str


class StoreKeys:
    """The key ring of the sealed store at ``path``, to who can open it."""

    def __init__(
        self, path: str, opener: Opener | None, *, cost: Cost = COST, system: Os = REAL
    ) -> None:
        """``opener``: None for what is at hand. Raises NotFound, Corrupt, FormatTooNew, PermissionDenied, and
        InvalidRequest for a store that is not sealed."""
        self._path = home.named(path)
        self._system = system
        self._store = home.sealed_id(self._path, system)
        found = opener or storering.unlock(self._path, self._store, None, system=system).master
        self._ring = Keyring(
            StoreRings(self._path, system), self._store, found, cost=cost, system=system
        )

    @staticmethod
    def facts(path: str, system: Os = REAL) -> RingFacts:
        """What everybody can see of it."""
        path = home.named(path)
        home.sealed_id(path, system)
        return told(path, system)

    def show(self) -> RingInfo:
        """As it is. Raises PermissionDenied, Corrupt, FormatTooNew."""
        return _info(self._ring.show())

    def change(self, add: Sequence[Secret] = (), drop: Sequence[str] = ()) -> RingInfo:
        """Slots for ``add``, and none of those with the ids in ``drop``, in one step. Raises InvalidRequest, Busy."""
        if not add and not drop:
            raise InvalidRequest(
                f"key ring of store {self._path}", expected="something to change", found="nothing"
            )
        return _info(self._ring.change(add, drop))

    def rotate(self, master_for: Sequence[Secret] = ()) -> RingInfo:
        """A new epoch. ``master_for``: a new master key as well, with slots for these alone, which nobody who has the
        store open could follow. Raises InvalidRequest, Busy."""
        if not master_for:
            return _info(self._ring.rotate())
        with home.free(self._path, self._system):
            return _info(self._ring.rotate(master_for))


def _info(found: Opened) -> RingInfo:
    return RingInfo(found.facts, found.vault.fingerprint)
