"""The freeze gate, and the fence: while one of them is closed, requests that would change the tree are looked at.

At a gate that is shut they wait; at a fence they are refused. All other requests go on.  Handlers that change the tree
do so without an await between passing the gate and being done, so when ``close`` returns no change is half made.
"""

from __future__ import annotations

import trio

from engine.errors import ReadOnly


class Gate:
    """Open, shut, fenced, or both. ``closed``: changes must ask ``passed``. Used on the loop's thread only."""

    def __init__(self) -> None:
        self.closed = False
        self.shut = False
        self.fenced = False
        self._opened = trio.Event()
        self.waiting = 0

    def close(self) -> None:
        """From now on, changes wait."""
        if not self.shut:
            self.shut = self.closed = True
            self._opened = trio.Event()

    def open(self) -> None:
        """Let everything that waits go on."""
        if self.shut:
            self.shut = False
            self.closed = self.fenced
            self._opened.set()

    def fence(self, fenced: bool) -> None:
        """From now on, changes are refused, or not any more."""
        self.fenced = fenced
        self.closed = self.shut or fenced

    async def passed(self) -> None:
        """Return once the gate is open; raises ReadOnly at a fence. Callers look at ``closed`` first: the usual case
        awaits nothing."""
        self.check()
        await self.opened()
        self.check()

    async def opened(self) -> None:
        """Return once the gate is not shut, whatever the fence says."""
        self.waiting += 1
        try:
            while self.shut:
                await self._opened.wait()
        finally:
            self.waiting -= 1

    def check(self) -> None:
        """Raises ReadOnly at a fence."""
        if self.fenced:
            raise ReadOnly(
                "mount", expected="no change outside a session", found="one", do="begin a session first"
            )  # fmt: skip
