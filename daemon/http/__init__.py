"""HTTP: listeners, who is asking, the native API. ``peer`` is who is at the other end of this task's connection."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(frozen=True)
class Peer:
    """The other end of a connection. ``uid``: of the process at a unix socket, -1 at any other;
    ``address``: of the machine, "" at a unix socket."""

    address: str = ""
    uid: int = -1

    @property
    def origin(self) -> str:
        """In one word, for logs and limits."""
        return self.address if self.uid < 0 else f"unix:{self.uid}"


peer: ContextVar[Peer] = ContextVar("peer")
"""Set by the listener for every task of a connection; unset where no listener is."""
