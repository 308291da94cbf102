"""What is kept of mounts: what was asked for by hand, and to whom they are exported."""

from __future__ import annotations

from dataclasses import dataclass

from daemon.contract import ExportInfo
from daemon.state.database import Database
from engine.errors import NotFound


@dataclass(frozen=True)
class Wanted:
    """``running``: started or stopped by hand, None as the configuration says; ``path``: "" as it says."""

    mount: str
    running: bool | None = None
    path: str = ""
    deleting: bool = False


class WantedMounts:
    """The table of what is wanted. Thread-safe."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def get(self, mount: str) -> Wanted:
        """Of a mount of which nothing was asked: what then holds."""
        with self._database.read() as db:
            row = db.execute("SELECT * FROM wanted WHERE mount = ?", (mount,)).fetchone()
        if row is None:
            return Wanted(mount)
        running = None if row["running"] < 0 else bool(row["running"])
        return Wanted(mount, running, row["path"], bool(row["deleting"]))

    def run(self, mount: str, *, running: bool) -> None:
        """Started or stopped by hand: that holds after a restart too."""
        self._set(mount, "running", running)

    def place(self, mount: str, path: str) -> None:
        """Where it is mounted."""
        self._set(mount, "path", path)

    def delete(self, mount: str, *, deleting: bool = True) -> None:
        """It goes, or stays after all."""
        self._set(mount, "deleting", deleting)

    def deleting(self) -> set[str]:
        """Mounts that go."""
        with self._database.read() as db:
            return {row["mount"] for row in db.execute("SELECT mount FROM wanted WHERE deleting")}

    def forget(self, mount: str) -> None:
        """The mount is gone: nothing is wanted of it, nobody gets it."""
        with self._database.write() as txn:
            txn.execute("DELETE FROM wanted WHERE mount = ?", (mount,))
            txn.execute("DELETE FROM exports WHERE mount = ?", (mount,))

    def _set(self, mount: str, column: str, value: object) -> None:
        with self._database.write() as txn:
            txn.execute(
                f"INSERT INTO wanted (mount, {column}) VALUES (?, ?)"
                f" ON CONFLICT (mount) DO UPDATE SET {column} = excluded.{column}",
                (mount, value),
            )


class Exports:
    """The table of exports. Thread-safe. ``state`` of what it gives is empty: the server knows that."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def of(self, mount: str = "") -> list[ExportInfo]:
        """Exports of one mount or of all."""
        with self._database.read() as db:
            rows = db.execute(
                "SELECT * FROM exports WHERE ?1 = '' OR mount = ?1 ORDER BY mount, client", (mount,)
            )
            return [
                ExportInfo(row["mount"], row["client"], bool(row["read_only"]), row["squash"])
                for row in rows
            ]

    def put(self, export: ExportInfo) -> None:
        """Write or replace one."""
        with self._database.write() as txn:
            txn.execute(
                "INSERT OR REPLACE INTO exports VALUES (?, ?, ?, ?)",
                (export.mount, export.client, export.read_only, export.squash),
            )

    def remove(self, mount: str, client: str) -> None:
        """Raises NotFound."""
        with self._database.write() as txn:
            gone = txn.execute(
                "DELETE FROM exports WHERE mount = ? AND client = ?", (mount, client)
            )
            if not gone.rowcount:
                raise NotFound(f"export of {mount!r} to {client!r}", expected="one", found="none")
