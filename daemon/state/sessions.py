"""Sessions: which there are, and the steps from one state to the next, each a transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import NamedTuple

from daemon.contract import SessionInfo, SessionState
from daemon.state import attachments, notes
from daemon.state.database import Database
from daemon.state.notes import Note
from engine import PlannedPoint
from engine.errors import Busy, InvalidRequest, NotFound

LIST_MAX = 1_000  # sessions of one answer, the newest


class Plan(NamedTuple):
    """What a commit wrote down before it made its point."""

    point: PlannedPoint
    note: Note


def occupied(known: SessionInfo) -> Busy:
    """What is said where a session stands in the way."""
    return Busy(f"mount {known.mount!r}", expected="no open session", found=f"session {known.id}",
                do="commit or abandon it first")  # fmt: skip


class Sessions:
    """The table of sessions. Thread-safe."""

    def __init__(self, database: Database, clock: Callable[[], int]) -> None:
        self._database = database
        self._clock = clock

    def begin(self, session: SessionInfo) -> None:
        """A new session. Raises Busy when its mount has one that is open or committing."""
        with self._database.write() as txn:
            known = self._open_of(txn, session.mount)
            if known is not None:
                raise occupied(known)
            txn.execute(
                "INSERT INTO sessions (id, mount, state, begun_ns, expires_ns, holder, label)"
                " VALUES (?, ?, 'open', ?, ?, ?, ?)",
                (session.id, session.mount, session.begun_ns, session.expires_ns, session.holder,
                 session.label),
            )  # fmt: skip

    def get(self, session_id: str) -> SessionInfo:
        """Raises NotFound."""
        with self._database.read() as db:
            return self._get(db, session_id)

    def of(self, mount: str = "", state: str = "") -> list[SessionInfo]:
        """Sessions, the newest first, at most ``LIST_MAX``."""
        with self._database.read() as db:
            rows = db.execute(
                "SELECT * FROM sessions WHERE (?1 = '' OR mount = ?1) AND (?2 = '' OR state = ?2)"
                " ORDER BY begun_ns DESC, rowid DESC LIMIT ?3",
                (mount, state, LIST_MAX),
            )
            return [self._info(row) for row in rows]

    def open_of(self, mount: str) -> SessionInfo | None:
        """The session of a mount that is open or committing."""
        with self._database.read() as db:
            return self._open_of(db, mount)

    def renew(self, session_id: str, expires_ns: int) -> SessionInfo:
        """Another end of the lease. Raises InvalidRequest for a session that has ended."""
        return self._step(session_id, ("open", "committing"), "expires_ns = ?", expires_ns)

    def commit(self, session_id: str, plan: Plan) -> SessionInfo:
        """open -> committing: from now on the plan says whether there is a point of it."""
        return self._step(
            session_id, ("open",), "state = 'committing', point = ?, planned_ns = ?, note = ?",
            *plan.point, plan.note.to_json(),
        )  # fmt: skip

    def plan(self, session_id: str) -> Plan:
        """What was planned for a session that is committing or committed."""
        with self._database.read() as db:
            row = db.execute("SELECT * FROM sessions WHERE id = ?", (session_id,)).fetchone()
        if row is None or not row["point"]:
            raise NotFound(f"plan of session {session_id!r}", expected="a commit that was begun")
        point = PlannedPoint(row["point"], row["planned_ns"])
        return Plan(point, Note.from_json(point.id, row["note"]))

    def reopen(self, session_id: str) -> SessionInfo:
        """committing -> open: no point was made."""
        return self._step(
            session_id, ("committing",), "state = 'open', point = '', planned_ns = 0, note = ''"
        )

    def committed(self, session_id: str) -> SessionInfo:
        """committing -> committed, with the note of the point and its attachments: one transaction."""
        with self._database.write() as txn:
            row = txn.execute(
                "UPDATE sessions SET state = 'committed', ended_ns = ? WHERE id = ? AND state = 'committing'"
                " RETURNING *",
                (self._clock(), session_id),
            ).fetchone()  # fmt: skip
            if row is None:
                raise self._refused(txn, session_id, ("committing",))
            notes.put(txn, Note.from_json(row["point"], row["note"]))
            attachments.settle(txn, session_id, row["point"])
            return self._info(row)

    def abandon(self, session_id: str) -> SessionInfo:
        """open -> abandoned; what its mount holds stays as it is."""
        return self._step(session_id, ("open",), "state = 'abandoned', ended_ns = ?", self._clock())

    # --- rows -----------------------------------------------------------------------------------------------

    def _step(
        self, session_id: str, before: tuple[SessionState, ...], change: str, *values: object
    ) -> SessionInfo:
        with self._database.write() as txn:
            marks = ", ".join("?" * len(before))
            row = txn.execute(
                f"UPDATE sessions SET {change} WHERE id = ? AND state IN ({marks}) RETURNING *",
                (*values, session_id, *before),
            ).fetchone()
            if row is None:
                raise self._refused(txn, session_id, before)
            return self._info(row)

    def _refused(
        self, db: sqlite3.Connection, session_id: str, before: tuple[str, ...]
    ) -> InvalidRequest:
        found = self._get(db, session_id)
        return InvalidRequest(
            f"session {found.id}", expected=f"one that is {' or '.join(before)}", found=f"it {found.state}",
            do="begin another",
        )  # fmt: skip

    def _get(self, db: sqlite3.Connection, session_id: str) -> SessionInfo:
        row = db.execute("SELECT * FROM sessions WHERE id = ?", (session_id,)).fetchone()
        if row is None:
            raise NotFound(
                f"session {session_id!r}", expected="one that was begun", found="none of that id"
            )
        return self._info(row)

    def _open_of(self, db: sqlite3.Connection, mount: str) -> SessionInfo | None:
        row = db.execute(
            "SELECT * FROM sessions WHERE mount = ? AND state IN ('open', 'committing')", (mount,)
        ).fetchone()
        return None if row is None else self._info(row)

    def _info(self, row: sqlite3.Row) -> SessionInfo:
        """``point`` of a session that is still committing is a plan, and told to nobody."""
        unended = row["state"] in ("open", "committing")
        return SessionInfo(
            id=row["id"], mount=row["mount"], state=row["state"], begun_ns=row["begun_ns"],
            expires_ns=row["expires_ns"], stale=unended and row["expires_ns"] <= self._clock(),
            holder=row["holder"], label=row["label"], point="" if unended else row["point"],
            ended_ns=row["ended_ns"],
        )  # fmt: skip
