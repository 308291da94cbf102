"""Jobs: work in the background, and what restores have left that can be used."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from daemon.contract import JobInfo, JobKind, JobState
from daemon.state.database import Database
from daemon.state.keys import Once
from engine.errors import InvalidRequest, NotFound

ENDS = ("done", "failed", "cancelled")
NUMBER_MAX = 2**63 - 1


@dataclass(frozen=True)
class Restored:
    """A restore that is there: shown in its mount (``target`` ""), or in a directory of its own. ``paths``: these only;
    ``location``: where it is read from."""

    job: int
    mount: str
    point: str
    path: str
    target: str = ""
    paths: tuple[str, ...] = ()
    location: str = ""


class Jobs:
    """The table of jobs. Thread-safe."""

    def __init__(self, database: Database, clock: Callable[[], int]) -> None:
        self._database = database
        self._clock = clock
        self._once = Once(database, clock)

    def create(
        self, kind: JobKind, options: dict[str, Any], mount: str = "", *, once: str = ""
    ) -> JobInfo:
        """A new job, queued. ``once``: the wish that it is made for, by these options."""
        with self._database.write() as txn:
            row = txn.execute(
                "INSERT INTO jobs (kind, state, mount, created_ns, options) VALUES (?, 'queued', ?, ?, ?)"
                " RETURNING *",
                (kind, mount, self._clock(), json.dumps(options)),
            ).fetchone()  # fmt: skip
            if once:
                self._once.put_in(txn, once, [kind, options], {"job": row["id"]})
        return _info(row)

    def get(self, number: int) -> JobInfo:
        """Raises NotFound."""
        with self._database.read() as db:
            return self._get(db, number)

    def page(
        self, *, kind: str = "", state: str = "", before: int = 0, limit: int = 100
    ) -> list[JobInfo]:
        """Jobs, the newest first; ``before``: only those with a smaller id, 0 for all."""
        with self._database.read() as db:
            rows = db.execute(
                "SELECT * FROM jobs WHERE (?1 = '' OR kind = ?1) AND (?2 = '' OR state = ?2)"
                " AND (?3 = 0 OR id < ?3) ORDER BY id DESC LIMIT ?4",
                (kind, state, min(max(before, 0), NUMBER_MAX), limit),
            )
            return [_info(row) for row in rows]

    def unended(self) -> list[JobInfo]:
        """Jobs that are queued or running, the oldest first."""
        with self._database.read() as db:
            rows = db.execute("SELECT * FROM jobs WHERE state IN ('queued', 'running') ORDER BY id")
            return [_info(row) for row in rows]

    def started(self, number: int) -> JobInfo:
        """queued -> running."""
        return self._step(number, ("queued",), "state = 'running', started_ns = ?", self._clock())

    def again(self, number: int, *, counted: bool) -> JobInfo:
        """running -> queued: what it has done stays. Option ``resumed``: how often it was cut off, if that counts."""
        with self._database.write() as txn:
            options = self._get(txn, number).options
            if counted:
                options = {**options, "resumed": int(options.get("resumed", 0)) + 1}
            return self._stepped(
                txn, number, ("running",), "state = 'queued', started_ns = 0, options = ?",
                json.dumps(options),
            )  # fmt: skip

    def progress(self, number: int, progress: dict[str, Any]) -> None:
        """How far a running job is; the caller sees to it that this is not written too often."""
        with self._database.write() as txn:
            txn.execute(
                "UPDATE jobs SET progress = ? WHERE id = ? AND state = 'running'",
                (json.dumps(progress), number),
            )

    def ended(
        self, number: int, state: JobState, *, result: dict[str, Any] | None = None,
        error: dict[str, str] | None = None, restored: Restored | None = None,
    ) -> JobInfo:  # fmt: skip
        """queued or running -> done, failed or cancelled, with the restore that is there then: one transaction.

        Raises InvalidRequest when it has ended already."""
        assert state in ENDS, state
        with self._database.write() as txn:
            if restored is not None:
                _keep(txn, restored)
            return self._stepped(
                txn, number, ("queued", "running"), "state = ?, ended_ns = ?, result = ?, error = ?",
                state, self._clock(), json.dumps(result or {}), json.dumps(error or {}),
            )  # fmt: skip

    # --- restores -------------------------------------------------------------------------------------------

    def restored(self, what: Restored) -> None:
        """A restore is there from now on."""
        with self._database.write() as txn:
            _keep(txn, what)

    def restores(self, mount: str = "") -> list[Restored]:
        """Restores that are there, of one mount or of all."""
        with self._database.read() as db:
            rows = db.execute(
                "SELECT * FROM restores WHERE ?1 = '' OR mount = ?1 ORDER BY job", (mount,)
            )
            return [_restored(row) for row in rows]

    def unrestored(self, number: int) -> None:
        """A restore is gone."""
        with self._database.write() as txn:
            txn.execute("DELETE FROM restores WHERE job = ?", (number,))

    # --- rows -----------------------------------------------------------------------------------------------

    def _step(self, number: int, before: tuple[str, ...], change: str, *values: object) -> JobInfo:
        with self._database.write() as txn:
            return self._stepped(txn, number, before, change, *values)

    def _stepped(
        self, txn: sqlite3.Connection, number: int, before: tuple[str, ...], change: str, *values: object
    ) -> JobInfo:  # fmt: skip
        marks = ", ".join("?" * len(before))
        row = txn.execute(
            f"UPDATE jobs SET {change} WHERE id = ? AND state IN ({marks}) RETURNING *",
            (*values, number, *before),
        ).fetchone()
        if row is None:
            found = self._get(txn, number)
            raise InvalidRequest(
                f"job {number}", expected=f"one that is {' or '.join(before)}", found=f"it {found.state}"
            )  # fmt: skip
        return _info(row)

    def _get(self, db: sqlite3.Connection, number: int) -> JobInfo:
        row = None
        if 0 < number <= NUMBER_MAX:
            row = db.execute("SELECT * FROM jobs WHERE id = ?", (number,)).fetchone()
        if row is None:
            raise NotFound(f"job {number}", expected="one that was started", found="none")
        return _info(row)


def _keep(txn: sqlite3.Connection, what: Restored) -> None:
    txn.execute(
        "INSERT OR REPLACE INTO restores VALUES (?, ?, ?, ?, ?)",
        (what.job, what.mount, what.point, json.dumps(_part(what)), what.target),
    )


def _part(what: Restored) -> object:
    """What of the point: the path, or an object where there is more to say."""
    if not what.paths and not what.location:
        return what.path
    return {"path": what.path, "paths": what.paths, "location": what.location}


def _restored(row: sqlite3.Row) -> Restored:
    part = json.loads(row["path"])
    if isinstance(part, str):
        part = {"path": part, "paths": [], "location": ""}
    return Restored(
        row["job"], row["mount"], row["point"], part["path"], row["target"], tuple(part["paths"]), part["location"]
    )  # fmt: skip


def _info(row: sqlite3.Row) -> JobInfo:
    return JobInfo(
        id=row["id"], kind=row["kind"], state=row["state"], created_ns=row["created_ns"],
        started_ns=row["started_ns"], ended_ns=row["ended_ns"], mount=row["mount"],
        options=json.loads(row["options"]), progress=json.loads(row["progress"]),
        result=json.loads(row["result"]), error=json.loads(row["error"]),
    )  # fmt: skip
