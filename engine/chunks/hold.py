"""Holds: the chunks that work in progress refers to, before a transaction does.

A collection must not take away a chunk that a seal or a snapshot has looked up but not committed a reference to.
Work opens a ``Hold``, adds every id it takes by deduplication or as a delta base **before** it looks at the row's
flags, and releases the hold only when the rows that refer to the ids are committed.  A commit protects the ids of
all open holds while a collection runs.
"""

from __future__ import annotations

import threading
from collections.abc import Callable


class Hold:
    """Ids one piece of work refers to. ``add`` may be called from any thread; ``release`` once.

    ``missed``: those of them that were asked for and not there, as bases that were collected: nothing refers to them,
    unless they are stored later.
    """

    __slots__ = ("_owner", "ids", "missed")

    def __init__(self, owner: Holds) -> None:
        self._owner = owner
        self.ids: set[bytes] = set()
        self.missed: set[bytes] = set()

    def add(self, cid: bytes) -> None:
        self.ids.add(cid)  # atomic under the GIL; readers copy

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
        return self._all(lambda hold: hold.ids)

    def missed(self) -> set[bytes]:
        """Those that may have no row."""
        return self._all(lambda hold: hold.missed)

    def _all(self, which: Callable[[Hold], set[bytes]]) -> set[bytes]:
        with self._lock:
            holds = list(self._open)
        result: set[bytes] = set()
        for hold in holds:
            result.update(which(hold).copy())
        return result
