"""What memory knows of one directory's entries."""

from __future__ import annotations

from typing import NamedTuple


class Entry(NamedTuple):
    """``kind``: file type as in ``mode >> 12``."""

    ino: int
    kind: int
    cookie: int


class Names:
    """What memory knows of one directory.

    ``entries``: name -> entry, or None when it is known to be absent.  ``changed``: name -> cookies under which the
    index may hold it, for names changed since the last collection; ``flight``: the same for the commit in progress.
    ``cookies``: cookie -> name of every entry in memory.  ``order``: (cookie, name) of a complete directory, sorted,
    built by the first reading; entries that are gone stay in it until it is built again.  ``collided``: two names
    with one hash have been met, so no short cut about free places holds.
    """

    __slots__ = ("changed", "collided", "complete", "cookies", "entries", "flight", "order")

    def __init__(self, complete: bool) -> None:
        self.entries: dict[bytes, Entry | None] = {}
        self.changed: dict[bytes, tuple[int, ...]] = {}
        self.flight: dict[bytes, tuple[int, ...]] = {}
        self.cookies: dict[int, bytes] = {}
        self.complete = complete
        self.collided = False
        self.order: list[tuple[int, bytes]] | None = None

    @property
    def unsaved(self) -> bool:
        return bool(self.changed) or bool(self.flight)

    def drop_clean(self) -> int:
        """Forget what the index knows as well; returns how many entries went."""
        kept = {
            name: self.entries[name]
            for name in (*self.changed, *self.flight)
            if name in self.entries
        }
        count = len(self.entries) - len(kept)
        if count:
            self.entries = kept
            self.cookies = {entry.cookie: name for name, entry in kept.items() if entry}
            self.complete = False
            self.order = None
        return count

    def old_cookies(self, name: bytes, entry: Entry | None) -> tuple[int, ...]:
        """Cookies under which the index holds ``name``, or will if the commit in progress succeeds."""
        known = self.changed.get(name)
        if known is not None:
            return known
        flying = self.flight.get(name)
        here = () if entry is None else (entry.cookie,)
        return here if flying is None else tuple({*flying, *here})
