"""Holds: the chunks that work in progress refers to, before a transaction does.

A collection must not take away a chunk that a seal or a snapshot has looked up but not committed a reference to.
Work opens a ``Hold``, adds every id it takes by deduplication or as a delta base **before** it begins the transaction
in which it looks at the row's flags, and releases the hold only when the rows that refer to the ids are committed.  A
commit protects the ids of all open holds while a collection runs.

An id that is held may have no row: it is being looked for, or stored, and its row comes with a later commit.  One that
was found is *relied* on: if its row is gone, the collection did not wait.
"""

from __future__ import annotations

import threading


class Hold:
    """Ids one piece of work refers to. ``add`` may be called from any thread; ``release`` once."""

    __slots__ = ("_owner", "ids", "relied")

    def __init__(self, owner: Holds) -> None:
        self._owner = owner
        self.ids: set[bytes] = set()
        self.relied: set[bytes] = set()

    def add(self, cid: bytes) -> None:
        self.ids.add(cid)  # atomic under the GIL; readers copy

    def rely(self, cid: bytes) -> None:
        """A row was found for an id that was added before."""
        self.relied.add(cid)

    def share(self, other: Hold, cid: bytes) -> None:
        """Hold an id as another hold does, which is still open."""
        self.add(cid)
        if cid in other.relied:
            self.rely(cid)

    def release(self) -> None:
        """The references are committed (or given up)."""
        self._owner.discard(self)

    def __enter__(self) -> Hold:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


class Holds:
    """All open holds of one worker."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: set[Hold] = set()

    def open(self) -> Hold:
        hold = Hold(self)
        with self._lock:
            self._open.add(hold)
        return hold

    def discard(self, hold: Hold) -> None:
        with self._lock:
            self._open.discard(hold)

    def ids(self) -> tuple[set[bytes], set[bytes]]:
        """(every id held now, those of them that are relied on)."""
        with self._lock:
            holds = list(self._open)
        held: set[bytes] = set()
        relied: set[bytes] = set()
        for hold in holds:
            held.update(hold.ids.copy())
            relied.update(hold.relied.copy())
        return held, relied
