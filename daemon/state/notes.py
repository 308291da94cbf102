"""Notes of recovery points: what is known of one beside what the engine keeps."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

from daemon.contract import Consistency
from daemon.state.database import Database

HALF = "half "  # of a mark, before a point's id: of its note only whether it is kept was written
_MANY = 500  # values of one statement; SQLite takes more


@dataclass(frozen=True)
class Note:
    """``open_files``: the first of those that were open for writing; ``kept``: retention leaves the point alone.

    Of a point without a note nobody knows what was open: no more is claimed than holds of any.
    """

    point: str
    session: str = ""
    consistency: Consistency = "crash-consistent"
    open_files: list[str] = field(default_factory=list)
    kept: bool = False

    def to_json(self) -> str:
        """All but the point's id."""
        values = asdict(self)
        del values["point"]
        return json.dumps(values)

    @staticmethod
    def from_json(point: str, text: str) -> Note:
        """The inverse of ``to_json``."""
        return Note(point, **(json.loads(text) if text else {}))


class Notes:
    """The table of notes. Thread-safe."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def get(self, point: str) -> Note:
        """The note of a point; of one that has none what then holds."""
        with self._database.read() as db:
            row = db.execute("SELECT * FROM notes WHERE point = ?", (point,)).fetchone()
        return Note(point) if row is None else _note(row)

    def put(self, note: Note) -> None:
        """Write or replace a note."""
        with self._database.write() as txn:
            put(txn, note)

    def keep(self, point: str, *, kept: bool) -> None:
        """Have retention leave a point alone, or no longer. Of one without a note the rest may still come back."""
        with self._database.write() as txn:
            if txn.execute("SELECT 1 FROM notes WHERE point = ?", (point,)).fetchone() is None:
                txn.execute("INSERT OR REPLACE INTO marks VALUES (?, '')", (HALF + point,))
            txn.execute(
                "INSERT INTO notes (point, kept) VALUES (?, ?)"
                " ON CONFLICT (point) DO UPDATE SET kept = excluded.kept",
                (point, kept),
            )

    def has(self, point: str) -> bool:
        """Whether anything of a point was written here, if only whether it is kept."""
        with self._database.read() as db:
            return db.execute("SELECT 1 FROM notes WHERE point = ?", (point,)).fetchone() is not None  # fmt: skip

    def known(self, point: str) -> bool:
        """Whether all that there is to be known of a point was written here."""
        with self._database.read() as db:
            row = db.execute(
                "SELECT EXISTS (SELECT 1 FROM notes WHERE point = ?1)"
                " AND NOT EXISTS (SELECT 1 FROM marks WHERE name = ?2) AS whole",
                (point, HALF + point),
            ).fetchone()
        return bool(row["whole"])

    def kept(self) -> set[str]:
        """Ids of points that retention leaves alone."""
        with self._database.read() as db:
            return {row["point"] for row in db.execute("SELECT point FROM notes WHERE kept")}

    def remove(self, points: Iterable[str]) -> None:
        """Forget deleted points: their notes and attachments."""
        ids = list(points)
        for at in range(0, len(ids), _MANY):
            some: list[Any] = ids[at : at + _MANY]
            marks = ", ".join("?" * len(some))
            with self._database.write() as txn:
                txn.execute(f"DELETE FROM notes WHERE point IN ({marks})", some)
                half = [HALF + point for point in some]
                txn.execute(f"DELETE FROM marks WHERE name IN ({marks})", half)
                txn.execute(
                    "DELETE FROM attachment_parts WHERE attachment IN"
                    f" (SELECT id FROM attachments WHERE point IN ({marks}))", some,
                )  # fmt: skip
                txn.execute(f"DELETE FROM attachments WHERE point IN ({marks})", some)


def put(txn: sqlite3.Connection, note: Note) -> None:
    """Within a transaction. Whoever had the point kept meanwhile has it kept."""
    txn.execute("DELETE FROM marks WHERE name = ?", (HALF + note.point,))
    txn.execute(
        "INSERT INTO notes (point, session, consistency, open_files, kept) VALUES (?, ?, ?, ?, ?)"
        " ON CONFLICT (point) DO UPDATE SET session = excluded.session, consistency = excluded.consistency,"
        " open_files = excluded.open_files, kept = max(kept, excluded.kept)",
        (note.point, note.session, note.consistency, json.dumps(note.open_files), note.kept),
    )  # fmt: skip


def _note(row: sqlite3.Row) -> Note:
    return Note(
        row["point"], row["session"], row["consistency"], json.loads(row["open_files"]), bool(row["kept"])
    )  # fmt: skip
