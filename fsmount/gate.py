"""The freeze gate: while it is closed, requests that would change the tree wait; all others go on.

Handlers that change the tree do so without an await between passing the gate and being done, so when
``close`` returns no change is half made.
"""

from __future__ import annotations

import trio


class Gate:
    """Open or closed. Used on the loop's thread only."""

    def __init__(self) -> None:
        self.closed = False
        self._opened = trio.Event()
        self.waiting = 0

    def close(self) -> None:
        """From now on, changes wait."""
        if not self.closed:
            self.closed = True
            self._opened = trio.Event()

    def open(self) -> None:
        """Let everything that waits go on."""
        if self.closed:
            self.closed = False
            self._opened.set()

    async def passed(self) -> None:
        """Return once the gate is open. Callers look at ``closed`` first: the usual case awaits nothing."""
        self.waiting += 1
        try:
            while self.closed:
                await self._opened.wait()
        finally:
            self.waiting -= 1
