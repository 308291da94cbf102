"""Attachments: texts kept with a session and its point, in parts, so that no transaction waits for who sends them."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from typing import Literal

from daemon.contract import Attachment
from daemon.state.database import Database
from engine.errors import Corrupt, InvalidRequest, NotFound

PART = 1 << 20  # bytes of one row
SENDING = -1  # size of one that is not complete
_FORGOTTEN = 24 * 3600 * 10**9  # ns after which one that was never completed is removed


class Attachments:
    """The table of attachments. Thread-safe."""

    def __init__(self, database: Database, clock: Callable[[], int]) -> None:
        self._database = database
        self._clock = clock

    def add(
        self, kind: Literal["log", "hook"], name: str, session: str, content: Iterable[bytes], *,
        most: int, point: str = "", files: Callable[[], dict[str, list[str]]] = dict,
    ) -> Attachment:  # fmt: skip
        """Keep a text; ``files`` is asked when all of it has come. Raises InvalidRequest over ``most`` bytes.

        The point is that of the session, if it is committed by then, unless one is given.
        """
        number = self._begin(kind, name, session, point)
        try:
            size = 0
            for index, part in enumerate(parts(content, most, name)):
                with self._database.write() as txn:
                    txn.execute(
                        "INSERT INTO attachment_parts VALUES (?, ?, ?)", (number, index, part)
                    )
                size += len(part)
            return self._complete(number, size, files())
        except BaseException:
            self.remove(number)
            raise

    def _begin(self, kind: str, name: str, session: str, point: str) -> int:
        with self._database.write() as txn:
            found = txn.execute(
                "INSERT INTO attachments (kind, name, size, time_ns, session, point)"
                " VALUES (?, ?, ?, ?, ?, ?) RETURNING id",
                (kind, name, SENDING, self._clock(), session, point),
            ).fetchone()
            return int(found["id"])

    def _complete(self, number: int, size: int, files: dict[str, list[str]]) -> Attachment:
        text = json.dumps(files) if files else ""
        with self._database.write() as txn:
            row = txn.execute(
                "UPDATE attachments SET size = ?, files = ? WHERE id = ? RETURNING *",
                (size, text, number),
            ).fetchone()
            if row is None:
                raise NotFound(
                    f"attachment {number}", expected="it to stay", found="that it was removed"
                )
            made = txn.execute(
                "SELECT point FROM sessions WHERE id = ? AND state = 'committed'", (row["session"],)
            ).fetchone()
            if made is not None and not row["point"]:
                txn.execute(
                    "UPDATE attachments SET point = ? WHERE id = ?", (made["point"], number)
                )
                return _info({**dict(row), "point": made["point"]})
            return _info(dict(row))

    def get(self, number: int) -> Attachment:
        """Raises NotFound."""
        with self._database.read() as db:
            row = db.execute(
                "SELECT * FROM attachments WHERE id = ? AND size >= 0",
                (min(max(number, 0), 2**63 - 1),),
            ).fetchone()
        if row is None:
            raise NotFound(
                f"attachment {number}", expected="one that is kept", found="none of that id"
            )
        return _info(dict(row))

    def of(self, *, session: str = "", point: str = "") -> list[Attachment]:
        """Attachments of a session or of a point, the oldest first."""
        with self._database.read() as db:
            rows = db.execute(
                "SELECT * FROM attachments WHERE size >= 0 AND"
                " ((?1 <> '' AND session = ?1) OR (?2 <> '' AND point = ?2)) ORDER BY id",
                (session, point),
            )
            return [_info(dict(row)) for row in rows]

    def with_files(self, point: str) -> list[tuple[Attachment, dict[str, list[str]]]]:
        """Attachments of a point, the oldest first, each with the databases and files that it names."""
        with self._database.read() as db:
            rows = db.execute(
                "SELECT * FROM attachments WHERE size >= 0 AND point = ? ORDER BY id", (point,)
            )
            return [(_info(dict(row)), json.loads(row["files"] or "{}")) for row in rows]

    def files(self, point: str) -> dict[str, list[str]]:
        """Which files belong to which database, as the logs of a point say."""
        result: dict[str, list[str]] = {}
        with self._database.read() as db:
            rows = db.execute(
                "SELECT files FROM attachments WHERE point = ? AND size >= 0 AND files <> '' ORDER BY id",
                (point,),
            )  # fmt: skip
            for row in rows:
                for name, paths in json.loads(row["files"]).items():
                    known = result.setdefault(name, [])
                    known += [path for path in paths if path not in set(known)]
        return result

    def content(self, number: int) -> Iterator[bytes]:
        """Its parts. Raises NotFound at once; Corrupt when a part is missing."""
        size = self.get(number).size
        return self._content(number, size)

    def _content(self, number: int, size: int) -> Iterator[bytes]:
        index = 0
        while size:
            with self._database.read() as db:
                row = db.execute(
                    "SELECT content FROM attachment_parts WHERE attachment = ? AND number = ?",
                    (number, index),
                ).fetchone()
            part = b"" if row is None else bytes(row["content"])
            if not 0 < len(part) <= size:
                raise Corrupt(
                    f"attachment {number}", expected=f"{size} more bytes", found=f"{len(part)}",
                    do="it may have been removed with its point; ask for it again",
                )  # fmt: skip
            yield part
            size -= len(part)
            index += 1

    def remove(self, number: int) -> None:
        """Forget one, complete or not."""
        with self._database.write() as txn:
            txn.execute("DELETE FROM attachment_parts WHERE attachment = ?", (number,))
            txn.execute("DELETE FROM attachments WHERE id = ?", (number,))

    def sweep(self) -> int:
        """Remove what was begun a day ago and never completed; how many."""
        with self._database.read() as db:
            rows = db.execute(
                "SELECT id FROM attachments WHERE size = ? AND time_ns < ?",
                (SENDING, self._clock() - _FORGOTTEN),
            )
            found = [int(row["id"]) for row in rows]
        for number in found:
            self.remove(number)
        return len(found)


def settle(txn: sqlite3.Connection, session: str, point: str) -> None:
    """Within a transaction: what a session has is its point's too."""
    txn.execute("UPDATE attachments SET point = ? WHERE session = ?", (point, session))


def parts(content: Iterable[bytes], most: int, name: str) -> Iterator[bytes]:
    """The content cut anew in parts of ``PART`` bytes."""
    total = 0
    rest = bytearray()
    for some in content:
        total += len(some)
        if total > most:
            raise InvalidRequest(
                f"attachment {name!r}", expected=f"at most {most} bytes", found="more",
                do="send its end, or compress it",
            )  # fmt: skip
        rest += some
        while len(rest) >= PART:
            yield bytes(rest[:PART])
            del rest[:PART]
    if rest:
        yield bytes(rest)


def _info(row: dict[str, object]) -> Attachment:
    return Attachment(**{key: value for key, value in row.items() if key != "files"})  # type: ignore[arg-type]
