"""A key ring shown and changed where others may do so at the same time, wherever its rings lie.

A change is a ring with the next number, created in one step: of several who try one wins, and the others begin anew
from what it made.  It counts once it was read back as the greatest; then its number is remembered, then older rings go.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from engine.errors import Busy, Corrupt, HoldfastError, InvalidRequest, PermissionDenied
from engine.keys.primitives import Cost
from engine.keys.records import Master
from engine.keys.ring import COST, RingFacts, facts, let_in, rotated, slot_of, unlock, with_slots
from engine.keys.seal import Vault
from engine.keys.secrets import Key, Opener, Secret
from engine.seam import REAL, Os

_TRIES = 5  # others may write rings at the same time


class Rings(Protocol):
    """Where the rings of one thing lie: a location, or a store. Raises what its place raises."""

    @property
    def shown(self) -> str:
        """What it is, for people."""

    def newest(self) -> tuple[int, bytes]:
        """(number, bytes) of the ring that counts, the one with the greatest number. Raises NotFound."""

    def create(self, number: int, raw: bytes) -> bool:
        """Make the ring of this number, durably and in one step; False: one is there."""

    def seen(self, number: int, vault: Vault) -> None:
        """Remember durably that this number was seen, with these keys: no lower one is taken from now on, nor one
        without them."""

    def remove_older(self, number: int) -> None:
        """Remove every ring with a lower number."""


class Opened(NamedTuple):
    """The ring that counts. ``own``: the slot that this machine's key opens, "" none; ``left``: why older rings are
    still there."""

    number: int
    raw: bytes
    vault: Vault
    own: str
    left: str = ""

    @property
    def facts(self) -> RingFacts:
        return facts(self.raw)


_Made = tuple[bytes, Vault] | None


@dataclass(frozen=True)
class Keyring:
    """The key ring of ``location``. ``opener``: who looks or changes; ``own``: this machine's key, where it has one;
    ``least``: the greatest number that was seen; ``mark``: of the keys that were seen in it, see ``Vault.mark``."""

    rings: Rings
    location: bytes
    opener: Opener | Master = field(repr=False)
    own: Key | None = field(default=None, repr=False)
    least: int = 0
    cost: Cost = COST
    system: Os = REAL
    mark: str = ""

    def show(self) -> Opened:
        """As it is. Raises PermissionDenied, Corrupt, FormatTooNew."""
        return self._opened(*self.rings.newest())

    def change(
        self, add: Sequence[Secret] = (), drop: Sequence[str] = (), *, missing: Sequence[Secret] = (),
        force: bool = False,
    ) -> Opened:  # fmt: skip
        """Slots for ``add``, for those of ``missing`` that do not open it yet (of a recipient nobody can tell), and
        none of those with the ids in ``drop`` any more, in one step.

        This machine's own slot goes, or stays as the only one, with ``force`` only. Raises InvalidRequest, Busy.
        """

        def make(raw: bytes) -> _Made:
            wanted = [*add, *(one for one in missing if not _opens(raw, one))]
            if not wanted and not drop:
                return None
            if drop and not force:
                self._spare_own(raw, wanted, drop)
            return with_slots(
                raw, self.opener, add=wanted, drop=drop, location=self.location, least=self.least,
                now_ns=self.system.time_ns(), cost=self.cost, system=self.system,
            )  # fmt: skip

        return self._write(make)

    def let_in(self, kept: bytes) -> Opened:
        """A slot for this machine's own key, which opens the ring ``kept``, where it has none: see ``ring.let_in``.
        Raises PermissionDenied, Busy."""
        own = self.own
        assert own is not None

        def make(raw: bytes) -> _Made:
            made = let_in(
                raw, kept, own, least=self.least, now_ns=self.system.time_ns(), system=self.system
            )
            return None if made[0] == raw else made

        return self._write(make)

    def rotate(self, master_for: Sequence[Secret] = ()) -> Opened:
        """A new epoch. ``master_for``: a new master key as well, with slots for these, and for this machine's own key
        where it has one; all other slots go. Raises InvalidRequest, Busy."""

        def make(raw: bytes) -> _Made:
            own = [self.own] if master_for and self.own and slot_of(raw, self.own) else []
            return rotated(
                raw, self.opener, master_for=[*master_for, *own], location=self.location, least=self.least,
                now_ns=self.system.time_ns(), cost=self.cost, system=self.system,
            )  # fmt: skip

        return self._write(make)

    def _opened(self, number: int, raw: bytes) -> Opened:
        vault = unlock(
            raw, self.opener, location=self.location, least=self.least, system=self.system
        )
        bearing(vault, self.mark, f"key ring {number} of {self.rings.shown}")
        return Opened(number, raw, vault, self._own(raw))

    def _own(self, raw: bytes) -> str:
        return slot_of(raw, self.own) if self.own else ""

    def _spare_own(self, raw: bytes, wanted: Sequence[Secret], drop: Sequence[str]) -> None:
        """Raises InvalidRequest."""
        own = self._own(raw)
        what = f"key ring of {self.rings.shown}"
        if own in drop:
            raise InvalidRequest(
                what, expected="another slot than this machine's own", found=own,
                do="force it, if nothing is to be sent or read there from here any more",
            )  # fmt: skip
        left = {slot.id for slot in facts(raw).slots} - set(drop)
        if left == {own} and not wanted:
            raise InvalidRequest(
                what, expected="a slot for somebody beside this machine", found="its own as the only one",
                do="add another first, or force it: else the content dies with this machine",
            )  # fmt: skip

    def _write(self, make: Callable[[bytes], _Made]) -> Opened:
        for _ in range(_TRIES):
            number, before = self.rings.newest()
            made = make(before)
            if made is None:
                return self._opened(number, before)
            raw, vault = made
            bearing(vault, self.mark, f"key ring {number} of {self.rings.shown}")
            number += 1
            if not self.rings.create(number, raw):
                continue
            found, counts = self.rings.newest()
            if found > number:
                # Ours is the one before theirs; or theirs came and older ones went while we made it of one of those.
                if not self._is_in(counts, before, raw, vault):
                    continue
                number, raw = found, counts
            elif (found, counts) != (number, raw):
                raise Corrupt(
                    f"key ring {number} of {self.rings.shown}", expected="the one that was made",
                    found="another, or none",
                    do="look whether the server keeps conditional creates; show the ring, then try again",
                )  # fmt: skip
            self.rings.seen(number, vault)
            return Opened(number, raw, vault, self._own(raw), self._tidied(number))
        raise Busy(
            f"key ring of {self.rings.shown}", expected="nobody else changing it", found="other rings each time",
            do="try again",
        )  # fmt: skip

    def _is_in(self, counts: bytes, before: bytes, made: bytes, vault: Vault) -> bool:
        """Is what was changed from ``before`` to ``made`` so in the ring that counts?"""
        old, new, now = ({slot.id for slot in facts(raw).slots} for raw in (before, made, counts))
        try:
            opened = unlock(counts, self.opener, location=self.location, system=self.system)
        except PermissionDenied:
            return False
        return new - old <= now and not (old - new) & now and opened.goes_on(vault)

    def _tidied(self, number: int) -> str:
        """The change is made: that older rings stay is to be told, and is no failure of it."""
        try:
            self.rings.remove_older(number)
        except HoldfastError as error:
            return str(error)
        return ""


def bearing(vault: Vault, mark: str, what: str) -> Vault:
    """The vault, if it has the data key that was seen before: whoever knows an older master key can make up a ring of
    any number, but not with what he never knew. Raises Corrupt."""
    if not vault.bears(mark):
        raise Corrupt(
            what, expected="the data keys that were seen before", found="others",
            do="find out who put it there, and remove it",
        )  # fmt: skip
    return vault


def _opens(raw: bytes, secret: Secret) -> bool:
    return isinstance(secret, Opener) and bool(slot_of(raw, secret))
