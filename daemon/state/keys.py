"""Idempotency keys: a request that is sent again with the same key gets the answer the first one got."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from typing import Any

from daemon.state.database import Database
from engine.errors import Busy, InvalidRequest

LIFETIME = 24 * 3600 * 10**9  # ns after which a key is forgotten
NAME_MAX = 200
ONCE = "once "  # of a mark, before who asked and the name of a wish


class Once:
    """What a wish that has a name has begun to make: told again, it is not made again. Marks, for a day. Thread-safe.

    ``what``: the wish itself, so that another of that name is refused.
    """

    def __init__(self, database: Database, clock: Callable[[], int]) -> None:
        self._database = database
        self._clock = clock

    def get(self, name: str, what: list[Any]) -> dict[str, Any] | None:
        """What it makes; None when it was not begun. Raises InvalidRequest for another wish."""
        with self._database.read() as db:
            row = db.execute("SELECT value FROM marks WHERE name = ?", (ONCE + name,)).fetchone()
        found = None if row is None else json.loads(row["value"])
        if found is None or found["time_ns"] <= self._clock() - LIFETIME:
            return None
        if found["what"] != what:
            raise InvalidRequest(
                f"idempotency key of {name!r}", expected="the request it was first used for", found="another",
                do="use a new key for each request",
            )  # fmt: skip
        return dict(found["makes"])

    def put(self, name: str, what: list[Any], makes: dict[str, Any]) -> None:
        """Before it is made."""
        with self._database.write() as txn:
            self.put_in(txn, name, what, makes)

    def put_in(
        self, txn: sqlite3.Connection, name: str, what: list[Any], makes: dict[str, Any]
    ) -> None:
        """Within a transaction."""
        value = {"what": what, "makes": makes, "time_ns": self._clock()}
        txn.execute("INSERT OR REPLACE INTO marks VALUES (?, ?)", (ONCE + name, json.dumps(value)))

    def forget(self, name: str) -> None:
        """Nothing was made."""
        with self._database.write() as txn:
            txn.execute("DELETE FROM marks WHERE name = ?", (ONCE + name,))


class Keys:
    """The table of keys. Thread-safe."""

    def __init__(self, database: Database, clock: Callable[[], int]) -> None:
        self._database = database
        self._clock = clock

    def claim(self, principal: str, name: str, fingerprint: str) -> dict[str, Any] | None:
        """None: the request is new, run it, then call ``done`` or ``forget``. Else the answer it got.

        Raises Busy while the first one runs, InvalidRequest when the key was used for another request.
        """
        if not 0 < len(name) <= NAME_MAX or not name.isprintable():
            raise InvalidRequest(
                "idempotency key", expected=f"1 to {NAME_MAX} printable characters"
            )
        now = self._clock()
        with self._database.write() as txn:
            txn.execute("DELETE FROM keys WHERE time_ns <= ?", (now - LIFETIME,))
            row = txn.execute(
                "SELECT * FROM keys WHERE principal = ? AND name = ?", (principal, name)
            ).fetchone()
            if row is None:
                txn.execute(
                    "INSERT INTO keys (principal, name, fingerprint, time_ns) VALUES (?, ?, ?, ?)",
                    (principal, name, fingerprint, now),
                )
                return None
        if row["fingerprint"] != fingerprint:
            raise InvalidRequest(
                f"idempotency key {name!r}", expected="the request it was first used for", found="another",
                do="use a new key for each request",
            )  # fmt: skip
        if not row["response"]:
            raise Busy(
                f"request with key {name!r}", expected="its end", found="it still runs", do="ask again"
            )  # fmt: skip
        return dict(json.loads(row["response"]))

    def done(self, principal: str, name: str, response: dict[str, Any]) -> None:
        """The answer, for all who ask again."""
        with self._database.write() as txn:
            txn.execute(
                "UPDATE keys SET response = ? WHERE principal = ? AND name = ?",
                (json.dumps(response), principal, name),
            )

    def forget(self, principal: str, name: str) -> None:
        """The request did nothing: sent again, it is new."""
        with self._database.write() as txn:
            txn.execute("DELETE FROM keys WHERE principal = ? AND name = ?", (principal, name))

    def forget_running(self) -> None:
        """After a crash: nobody runs those requests any more."""
        with self._database.write() as txn:
            txn.execute("DELETE FROM keys WHERE response = ''")
