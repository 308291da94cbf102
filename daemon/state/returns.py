"""What comes back from a storage location of a point that was adopted: its note, its session, its attachments.

Texts may be long, so they are written part by part as attachments that nobody is told of yet; then all of a point is
there, in one transaction. What a process that died has begun is forgotten by the next; one at a time is at it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Literal, NamedTuple

from daemon.contract import SessionInfo
from daemon.state import notes
from daemon.state.attachments import SENDING, parts
from daemon.state.database import Database
from daemon.state.jobs import NUMBER_MAX
from daemon.state.notes import HALF, Note
from engine.errors import NotFound

_COMING = "coming back"  # in the place of a session's id, which has no blanks


class Text(NamedTuple):
    """An attachment that is coming back. ``row``: its number here; ``files``: as its log says."""

    row: int
    size: int
    time_ns: int
    files: dict[str, list[str]]


class Returns:
    """Writing what comes back. Thread-safe."""

    def __init__(self, database: Database, clock: Callable[[], int]) -> None:
        self._database = database
        self._clock = clock

    def begin(self, point: str) -> None:
        """Forget what somebody who died has begun of the point."""
        with self._database.write() as txn:
            rows = txn.execute(
                "SELECT id FROM attachments WHERE point = ? AND session = ?", (point, _COMING)
            ).fetchall()
            for row in rows:
                txn.execute("DELETE FROM attachment_parts WHERE attachment = ?", (row["id"],))
                txn.execute("DELETE FROM attachments WHERE id = ?", (row["id"],))

    def text(
        self, point: str, kind: Literal["log", "hook"], name: str, time_ns: int,
        files: dict[str, list[str]], content: Iterable[bytes],
    ) -> Text:  # fmt: skip
        """The content of an attachment; nobody is told of it yet. Raises what reading it raises."""
        with self._database.write() as txn:
            row = txn.execute(
                "INSERT INTO attachments (kind, name, size, time_ns, session, point)"
                " VALUES (?, ?, ?, ?, ?, ?) RETURNING id",
                (kind, name, SENDING, self._clock(), _COMING, point),
            ).fetchone()
        number, size = int(row["id"]), 0
        for index, part in enumerate(parts(content, NUMBER_MAX, name)):
            with self._database.write() as txn:
                txn.execute("INSERT INTO attachment_parts VALUES (?, ?, ?)", (number, index, part))
            size += len(part)
        return Text(number, size, time_ns, files)

    def complete(self, note: Note, session: SessionInfo | None, texts: Iterable[Text] = ()) -> None:
        """All of a point is back: one transaction. Whether it is kept is as somebody has said here meanwhile; a session
        that is known here stays as it is. Raises NotFound when what had come was removed."""
        with self._database.write() as txn:
            half = HALF + note.point
            said = txn.execute(
                "SELECT kept FROM notes WHERE point = ? AND EXISTS (SELECT 1 FROM marks WHERE name = ?)",
                (note.point, half),
            ).fetchone()
            notes.put(txn, note)
            if said is not None:
                txn.execute("UPDATE notes SET kept = ? WHERE point = ?", (said["kept"], note.point))
            if session is not None:
                txn.execute(
                    "INSERT OR IGNORE INTO sessions (id, mount, state, begun_ns, expires_ns, ended_ns, holder,"
                    " label, point, note) VALUES (?, ?, 'committed', ?, ?, ?, ?, ?, ?, ?)",
                    (session.id, session.mount, session.begun_ns, session.expires_ns, session.ended_ns,
                     session.holder, session.label, note.point, note.to_json()),
                )  # fmt: skip
            for one in texts:
                row = txn.execute(
                    "UPDATE attachments SET size = ?, time_ns = ?, session = ?, files = ? WHERE id = ? RETURNING id",
                    (one.size, one.time_ns, note.session, json.dumps(one.files) if one.files else "", one.row),
                ).fetchone()  # fmt: skip
                if row is None:
                    raise NotFound(
                        f"attachment {one.row}", expected="it to stay", found="that it was removed"
                    )
