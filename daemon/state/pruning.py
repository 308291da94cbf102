"""What is forgotten after a while, so that the state does not grow for ever.

Never forgotten here: a session whose point is there, or may come back with the index (its note is kept until the
service deletes the point); a job whose restore is there; what has not ended.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Collection

from daemon.state import keys
from daemon.state.attachments import Attachments
from daemon.state.database import Database

DAY = 86400 * 10**9
SESSION_AGE = 90 * DAY  # ns after its end: a quarter's reports still find who wrote and what failed
JOB_AGE = 30 * DAY  # ns after its end: what a job said is also in the incidents and the audit log
ROWS_MAX = (
    10_000  # ended sessions without a point, and ended jobs, however young: a loop may begin many
)
BATCH = 200  # rows of one transaction, some milliseconds: requests wait for no longer

_ENDED = "state IN ('committed', 'abandoned')"
_POINTLESS = (
    _ENDED + " AND NOT EXISTS (SELECT 1 FROM notes WHERE notes.point = sessions.point)"
    " AND NOT EXISTS (SELECT 1 FROM attachments WHERE session = sessions.id AND attachments.point <> '')"
)
_SESSIONS = (
    f"SELECT id, point, ended_ns FROM sessions WHERE {_POINTLESS} ORDER BY ended_ns DESC, id"
)
_JOBS = (
    "SELECT id, ended_ns FROM jobs WHERE state IN ('done', 'failed', 'cancelled')"
    " AND id NOT IN (SELECT job FROM restores) ORDER BY ended_ns DESC, id DESC"
)
_STRAYS = (  # what a hook said of a session that was never begun
    "SELECT id FROM attachments WHERE point = '' AND size >= 0 AND time_ns < ?"
    " AND session NOT IN (SELECT id FROM sessions)"
)


class Pruning:
    """Forgets rows of several tables. Thread-safe; another process may be at it."""

    def __init__(
        self, database: Database, attachments: Attachments, clock: Callable[[], int]
    ) -> None:
        self._database = database
        self._attachments = attachments
        self._clock = clock

    def prune(self, living: Collection[str]) -> dict[str, int]:
        """Forget what is old or too much; how many rows of what. ``living``: ids of the points that there are."""
        return {"sessions": self._sessions(living), "jobs": self._jobs(), "keys": self._keys()}

    def _sessions(self, living: Collection[str]) -> int:
        """Each with its logs, which are deleted before it: a crash leaves the rest to the next time."""
        since = self._clock() - SESSION_AGE
        with self._database.read() as db:
            found = [row for row in db.execute(_SESSIONS) if row["point"] not in living]
            strays = [int(row["id"]) for row in db.execute(_STRAYS, (since,))]
        gone = _over(found, since)
        for session in gone:
            strays += [one.id for one in self._attachments.of(session=str(session))]
        for number in strays:
            self._attachments.remove(number)
        return self._deleted("sessions", gone, "AND " + _POINTLESS)

    def _jobs(self) -> int:
        with self._database.read() as db:
            gone = _over(db.execute(_JOBS).fetchall(), self._clock() - JOB_AGE)
        return self._deleted("jobs", gone, "AND id NOT IN (SELECT job FROM restores)")

    def _deleted(self, table: str, ids: list[object], still: str) -> int:
        count = 0
        for at in range(0, len(ids), BATCH):
            some = ids[at : at + BATCH]
            marks = ", ".join("?" * len(some))
            with self._database.write() as txn:
                count += txn.execute(
                    f"DELETE FROM {table} WHERE id IN ({marks}) {still}", some
                ).rowcount
        return count

    def _keys(self) -> int:
        """Whoever uses a key does this too; but perhaps nobody does any more."""
        since = self._clock() - keys.LIFETIME
        with self._database.write() as txn:
            txn.execute(
                "DELETE FROM marks WHERE substr(name, 1, ?) = ? AND value ->> 'time_ns' <= ?",
                (len(keys.ONCE), keys.ONCE, since),
            )
            return txn.execute("DELETE FROM keys WHERE time_ns <= ?", (since,)).rowcount


def _over(rows: list[sqlite3.Row], since: int) -> list[object]:
    """Ids of those that ended before, and of all but the last so many. ``rows``: the last that ended first."""
    return [
        row["id"] for place, row in enumerate(rows) if place >= ROWS_MAX or row["ended_ns"] < since
    ]
