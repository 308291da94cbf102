"""The SQLite file: opening and making it, transactions, and its errors as those of the family.

Write-ahead log, ``synchronous=FULL``: a transaction that has ended is on the disk. A connection is used by one thread
at a time, and kept for the next. Several processes may have the file open.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self

from daemon.state import schema
from engine.errors import (
    Busy,
    Corrupt,
    FormatTooNew,
    HoldfastError,
    InvalidRequest,
    LocationUnavailable,
    NotFound,
    PermissionDenied,
    ReadOnly,
    StoreFull,
    from_os,
)

FOLDER = "daemon"
FILE = "state.db"
BUSY_MS = 10_000  # longest wait for another's transaction: none of ours lasts longer than a commit to disk
IDLE_MAX = 8  # connections kept open for the next thread
_WHAT_TO_DO = (
    "put a copy of it back, or move it and its -wal away: sessions, tokens, jobs and logs in it are lost then,"
    " recovery points are not"
)
_FATAL = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_FORMAT)


class Database:
    """The file. Thread-safe."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._idle: list[sqlite3.Connection] = []
        self._closed = False

    @classmethod
    def open(cls, store_path: str) -> Self:
        """The state file of a store, made or brought to this version if it must be."""
        folder = os.path.join(os.path.abspath(store_path), FOLDER)
        path = os.path.join(folder, FILE)
        try:
            _make(store_path, folder, path)
        except OSError as error:
            raise from_os(error, f"state {path}") from None
        database = cls(path)
        try:
            database._migrate()
        except BaseException:
            database.close()
            raise
        return database

    def close(self) -> None:
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    # --- transactions -------------------------------------------------------------------------------------

    @contextmanager
    def read(self) -> Iterator[sqlite3.Connection]:
        """A connection to read by; several statements may see different states."""
        with self._translated(), self._connection() as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """A transaction: durable when the block has ended, nothing when it raises. Keep it short."""
        with self._translated(), self._connection() as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                with contextlib.suppress(sqlite3.Error):  # it may have been rolled back already
                    connection.execute("ROLLBACK")
                raise

    def verify(self) -> None:
        """Raises Corrupt when the file's structure is damaged; reads all of it."""
        with self.read() as connection:
            found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if found != "ok":
            raise Corrupt(f"state {self.path}", expected="a sound file", found=found, do=_WHAT_TO_DO)  # fmt: skip

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            if self._closed:
                raise NotFound(f"state {self.path}", expected="it to be open", found="it closed")
            connection = self._idle.pop() if self._idle else None
        if connection is None:
            connection = self._connect()
        try:
            yield connection
        finally:
            self._give_back(connection)

    def _give_back(self, connection: sqlite3.Connection) -> None:
        with self._lock:
            if not self._closed and len(self._idle) < IDLE_MAX:
                self._idle.append(connection)
                return
        connection.close()

    def _connect(self) -> sqlite3.Connection:
        # mode=rw: a file that is gone is an error, not an empty state.
        name = "file:" + self.path.replace("%", "%25").replace("?", "%3f").replace("#", "%23")
        connection = sqlite3.connect(
            name + "?mode=rw", uri=True, timeout=BUSY_MS / 1000, isolation_level=None,
            check_same_thread=False,
        )  # fmt: skip
        try:
            connection.row_factory = sqlite3.Row
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=FULL")
            connection.execute("PRAGMA trusted_schema=OFF")
        except BaseException:
            connection.close()
            raise
        return connection

    # --- versions -----------------------------------------------------------------------------------------

    def _migrate(self) -> None:
        if self._version() == len(schema.MIGRATIONS):
            return
        with self.write() as txn:
            version = self._version_in(txn)  # another process may have been first
            for script in schema.MIGRATIONS[version:]:
                for statement in schema.statements(script):
                    txn.execute(statement)
            txn.execute(f"PRAGMA application_id = {schema.APPLICATION}")
            txn.execute(f"PRAGMA user_version = {len(schema.MIGRATIONS)}")

    def _version(self) -> int:
        with self.read() as connection:
            return self._version_in(connection)

    def _version_in(self, connection: sqlite3.Connection) -> int:
        version = int(connection.execute("PRAGMA user_version").fetchone()[0])
        if version > len(schema.MIGRATIONS):
            raise FormatTooNew(
                f"state {self.path}", expected=f"version {len(schema.MIGRATIONS)} or older",
                found=f"version {version}", do="use a newer Holdfast",
            )  # fmt: skip
        ours = connection.execute("PRAGMA application_id").fetchone()[0] == schema.APPLICATION
        tables = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
        if ours != (version > 0) or bool(tables) != ours:
            raise Corrupt(
                f"state {self.path}", expected="Holdfast's tables", found="other content",
                do=_WHAT_TO_DO,
            )  # fmt: skip
        return version

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except UnicodeEncodeError:
            raise InvalidRequest("text", expected="UTF-8", found="half of a character") from None
        except sqlite3.Error as error:
            raise translated(error, f"state {self.path}") from None


def give_to_owner(place: str, store_path: str) -> None:
    """What root makes in a store is its owner's: the daemon must be able to use it."""
    if os.geteuid() == 0:
        owner = os.stat(store_path)
        os.chown(place, owner.st_uid, owner.st_gid)


def _make(store_path: str, folder: str, path: str) -> None:
    """The folder and an empty file, if they are not there."""
    os.stat(store_path)  # no store, no folder
    for place, make in ((folder, os.mkdir), (path, None)):
        try:
            if make is not None:
                make(place, 0o700)
            else:
                fd = os.open(place, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
                os.close(fd)
        except FileExistsError:
            continue
        give_to_owner(place, store_path)
        parent = os.open(os.path.dirname(place), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(parent)
        finally:
            os.close(parent)


def translated(error: sqlite3.Error, what: str) -> HoldfastError:
    """An error of SQLite as one of the family."""
    code = getattr(error, "sqlite_errorcode", 0)
    found = str(error)
    match code & 0xFF:  # the rest says more of the same
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return Busy(what, expected="its turn", found="another's transaction", do="try again")
        case code if code in _FATAL:
            return Corrupt(what, expected="a sound file", found=found, do=_WHAT_TO_DO)
        case sqlite3.SQLITE_FULL:
            return StoreFull(what, found=found, do="free space on the store's file system")
        case sqlite3.SQLITE_READONLY:
            return ReadOnly(what, found=found, do="remount the store's file system read-write")
        case sqlite3.SQLITE_PERM | sqlite3.SQLITE_AUTH:
            return PermissionDenied(what, found=found, do="run as the store's owner")
        case sqlite3.SQLITE_IOERR | sqlite3.SQLITE_CANTOPEN:
            return LocationUnavailable(what, found=found, do="look at the disk and its log")
        case _:
            return HoldfastError(what, found=found)
