"""What must survive a restart and is not the engine's: sessions, attachments, notes of points, tokens, jobs,
idempotency keys, exports, history, wanted mounts.

``State`` is all of it; ``schema`` has the tables and what always holds of them. Any thread of any process may use it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Self

from daemon.state.attachments import Attachments
from daemon.state.database import Database
from daemon.state.jobs import Jobs
from daemon.state.keys import Keys, Once
from daemon.state.mounts import Exports, Wanted, WantedMounts
from daemon.state.notes import Note, Notes
from daemon.state.pruning import Pruning
from daemon.state.records import History, Marks
from daemon.state.returns import Returns
from daemon.state.sessions import Plan, Sessions
from daemon.state.tokens import Tokens

__all__ = ["Note", "Plan", "State", "Wanted"]


class State:
    """The state of one store. ``clock``: ns since the epoch, for every time that is written or compared."""

    def __init__(self, database: Database, clock: Callable[[], int]) -> None:
        self.database = database
        self.clock = clock
        self.sessions = Sessions(database, clock)
        self.attachments = Attachments(database, clock)
        self.notes = Notes(database)
        self.returns = Returns(database, clock)
        self.tokens = Tokens(database, clock)
        self.jobs = Jobs(database, clock)
        self.keys = Keys(database, clock)
        self.once = Once(database, clock)
        self.exports = Exports(database)
        self.history = History(database)
        self.wanted = WantedMounts(database)
        self.marks = Marks(database)
        self.pruning = Pruning(database, self.attachments, clock)

    @classmethod
    def open(cls, store_path: str, clock: Callable[[], int] = time.time_ns) -> Self:
        """The state of a store, made if there is none. Raises NotFound for no store, FormatTooNew, Corrupt,
        PermissionDenied, StoreFull."""
        return cls(Database.open(store_path), clock)

    def close(self) -> None:
        """Close every connection; harmless to repeat."""
        self.database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
