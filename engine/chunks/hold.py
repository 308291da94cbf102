"""Holds: the chunks that work in progress refers to, before a transaction does.

A collection must not take away a chunk that a seal or a snapshot has looked up but not committed a reference to.
Work opens a ``Hold``, adds every id it takes by deduplication or as a delta base **before** it looks at the row's
flags, and releases the hold only when the rows that refer to the ids are committed.  A commit protects the ids of
all open holds while a collection runs.  What was only looked up may have no row; what the work *refers* to, because
it was found or stored, must have one, or be waiting for its own commit.
"""

from __future__ import annotations

import threading


class Hold:
    """Ids one piece of work refers to. ``add`` may be called from any thread; ``release`` once."""

    __slots__ = ("_owner", "ids", "referred")

    def __init__(self, owner: Holds) -> None:
        self._owner = owner
        self.ids: set[bytes] = set()
        self.referred: set[bytes] = set()

    def add(self, cid: bytes) -> None:
        """It is about to be looked up."""
        self.ids.add(cid)  # atomic under the GIL; readers copy

    def refer(self, cid: bytes) -> None:
        """It was found or stored, and will be referred to."""
        self.ids.add(cid)
        self.referred.add(cid)

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

    def ids(self) -> set[bytes]:
        """Every id held now."""
        with self._lock:
            holds = list(self._open)
        result: set[bytes] = set()
        for hold in holds:
            result.update(hold.ids.copy())
        return result

    def is_referred(self, cid: bytes) -> bool:
        """Whether some work refers to the chunk."""
        with self._lock:
            return any(cid in hold.referred for hold in self._open)
