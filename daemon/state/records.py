"""The store's numbers over time, and small values by name."""

from __future__ import annotations

import json

from daemon.state.database import Database

DELETED = "deleted "  # of a mark, before the name of a mount that was deleted and that a file may still name
HISTORY_MAX = 3 * 366 * 24  # rows: three years of one an hour


class History:
    """The table of statistics. Thread-safe."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, time_ns: int, numbers: dict[str, int | float]) -> None:
        """A row; the oldest over ``HISTORY_MAX`` go."""
        with self._database.write() as txn:
            txn.execute(
                "INSERT OR REPLACE INTO history VALUES (?, ?)", (time_ns, json.dumps(numbers))
            )
            txn.execute(
                "DELETE FROM history WHERE time_ns <= (SELECT time_ns FROM history ORDER BY time_ns DESC"
                " LIMIT 1 OFFSET ?)",
                (HISTORY_MAX,),
            )  # fmt: skip

    def since(self, time_ns: int, limit: int) -> list[dict[str, int | float]]:
        """Rows from a time on, the oldest first, each with its ``time_ns``."""
        with self._database.read() as db:
            rows = db.execute(
                "SELECT * FROM history WHERE time_ns >= ? ORDER BY time_ns LIMIT ?",
                (time_ns, limit),
            )
            return [{"time_ns": row["time_ns"], **json.loads(row["numbers"])} for row in rows]


class Marks:
    """Small values by name. Thread-safe."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def get(self, name: str) -> str:
        """The value, "" when there is none."""
        with self._database.read() as db:
            row = db.execute("SELECT value FROM marks WHERE name = ?", (name,)).fetchone()
        return "" if row is None else str(row["value"])

    def names(self, prefix: str) -> list[str]:
        """Those that begin so."""
        with self._database.read() as db:
            rows = db.execute(
                "SELECT name FROM marks WHERE substr(name, 1, ?) = ? ORDER BY name", (len(prefix), prefix)
            )  # fmt: skip
            return [str(row["name"]) for row in rows]

    def remove(self, name: str) -> None:
        """This one; harmless when there is none."""
        with self._database.write() as txn:
            txn.execute("DELETE FROM marks WHERE name = ?", (name,))

    def forget(self, prefix: str) -> None:
        """Those whose name begins so."""
        with self._database.write() as txn:
            txn.execute("DELETE FROM marks WHERE substr(name, 1, ?) = ?", (len(prefix), prefix))

    def put(self, name: str, value: str) -> None:
        """Write or replace one."""
        with self._database.write() as txn:
            txn.execute("INSERT OR REPLACE INTO marks VALUES (?, ?)", (name, value))
