"""The LMDB environment: opening, transactions, row checks, translation of lmdb's errors.

LMDB keeps no checksums (a flipped bit gives silently wrong rows), so every value ends in a CRC-32 over table,
key and value; a row that fails it raises Corrupt and the index must be rebuilt from packs.

Rules: one environment per process, never used across fork (``Index`` remembers its pid); read transactions are
short; the write transaction is the only lock between processes.  A commit is durable when ``write()`` returns
(sync and metasync stay on: without metasync the last commit can be lost, measured 19 of 20 kept).
After an error in a commit LMDB may panic on everything later, and a read that it refuses so keeps its reader slot for
ever: the environment is closed and opened again, by whoever comes first, when no reader is left.
"""

from __future__ import annotations

import contextlib
import os
import struct
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any
from zlib import crc32

import lmdb

from engine import limits
from engine.errors import (
    Busy,
    Corrupt,
    HoldfastError,
    LocationUnavailable,
    StoreFull,
    from_os,
)  # fmt: skip
from engine.incidents import Journal
from engine.index import structure
from engine.index.stall import Watch
from engine.index.tables import Table
from engine.index.translate import translate
from engine.seam import hand_over

_TRIES, _PAUSE = 500, 0.01  # to find no reader at work: 5 s in all
_CRC = struct.Struct("<I")
_SOUND = 0x2144DF1C  # the CRC-32 of anything followed by its own CRC-32, little-endian
_SEED = {table: crc32(bytes((table.value,))) for table in Table}


def _check(table: Table, key: bytes, value: bytes | memoryview) -> int:
    return crc32(value, crc32(key, _SEED[table]))


class Txn:
    """One transaction. Read methods verify each row; write methods exist only inside ``Index.write()``."""

    __slots__ = ("_dbs", "_txn")

    def __init__(self, txn: Any, dbs: dict[Table, Any]) -> None:
        self._txn = txn
        self._dbs = dbs

    def get(self, table: Table, key: bytes) -> bytes | None:
        """The value of ``key``, or None. Raises Corrupt when the row fails its check."""
        raw = self._txn.get(key, db=self._dbs[table])
        if raw is None:
            return None
        return self._open(table, key, raw)

    def put(self, table: Table, key: bytes, value: bytes) -> None:
        self._txn.put(key, value + _CRC.pack(_check(table, key, value)), db=self._dbs[table])

    def fill(self, table: Table, rows: Iterable[tuple[bytes, bytes]]) -> int:
        """Put many rows, best in order; those whose key is there already are left out. How many were put."""
        with self._txn.cursor(db=self._dbs[table]) as cursor:
            checked = [(k, v + _CRC.pack(_check(table, k, v))) for k, v in rows]
            return int(cursor.putmulti(checked, overwrite=False)[1])

    def delete(self, table: Table, key: bytes) -> bool:
        """True when the key existed."""
        return bool(self._txn.delete(key, db=self._dbs[table]))

    def scan(
        self, table: Table, start: bytes = b"", prefix: bytes = b""
    ) -> Iterator[tuple[bytes, bytes]]:
        """Rows in key order from ``start`` on whose key has ``prefix``. Do not write to the table meanwhile."""
        with self._txn.cursor(db=self._dbs[table]) as cursor:
            first = max(start, prefix)
            found = cursor.set_range(first) if first else cursor.first()
            while found:
                key, raw = cursor.item()
                if prefix and not key.startswith(prefix):
                    return
                yield key, self._open(table, key, raw)
                found = cursor.next()

    def keys(self, table: Table, start: bytes = b"", prefix: bytes = b"") -> Iterator[bytes]:
        """Like ``scan``, keys alone. Rows are not verified: what is to be deleted may be damaged."""
        with self._txn.cursor(db=self._dbs[table]) as cursor:
            first = max(start, prefix)
            found = cursor.set_range(first) if first else cursor.first()
            while found:
                key = cursor.key()
                if not key.startswith(prefix):
                    return
                yield key
                found = cursor.next()

    def last_before(
        self, table: Table, bound: bytes, prefix: bytes = b""
    ) -> tuple[bytes, bytes] | None:
        """The last row with prefix <= key < bound, or None."""
        with self._txn.cursor(db=self._dbs[table]) as cursor:
            found = cursor.prev() if cursor.set_range(bound) else cursor.last()
            if not found:
                return None
            key, raw = cursor.item()
            return (key, self._open(table, key, raw)) if key.startswith(prefix) else None

    def whole(self, table: Table) -> Iterator[tuple[bytes, bytes]]:
        """All rows, and in the end Corrupt unless they are as many as the table's record says: none is left out."""
        found = 0
        for row in self.scan(table):
            found += 1
            yield row
        if found != self.count(table):
            raise Corrupt(
                f"index table {table.name.lower()}", expected=f"{self.count(table)} rows", found=str(found),
                do="run 'holdfast check', then 'holdfast repair --rebuild-index'",
            )  # fmt: skip

    @property
    def id(self) -> int:
        """The number of the commit whose state a read transaction sees."""
        return int(self._txn.id())

    def count(self, table: Table) -> int:
        """Rows in the table."""
        return int(self._txn.stat(self._dbs[table])["entries"])

    def pages(self, table: Table) -> int:
        """Pages the table occupies."""
        stat = self._txn.stat(self._dbs[table])
        return int(stat["branch_pages"] + stat["leaf_pages"] + stat["overflow_pages"])

    def damaged(self, table: Table) -> Iterator[bytes]:
        """Keys of rows that fail their check (for ``check``); sound rows are passed over."""
        with self._txn.cursor(db=self._dbs[table]) as cursor:
            for key, raw in cursor:
                try:
                    self._open(table, key, raw)
                except Corrupt:
                    yield key

    @staticmethod
    def _open(table: Table, key: bytes, raw: bytes) -> bytes:
        if len(raw) < 4 or crc32(raw, crc32(key, _SEED[table])) != _SOUND:
            raise Corrupt(
                f"index row {table.name.lower()}/{key[:40].hex()}",
                expected="a row that matches its check",
                found="damage",
                do="run 'holdfast check', then 'holdfast repair --rebuild-index'",
            )
        return raw[:-4]


class Reading:
    """A read transaction as a context manager. By hand: a generator's costs more than the look-up inside."""

    __slots__ = ("_index", "_txn", "waits")

    def __init__(self, index: Index) -> None:
        self._index = index
        self.waits = False
        index.reading.add(self)  # atomic under the GIL; before the look at ``broken``
        try:
            if index.broken:
                self.waits = True
                index.mend()
                self.waits = False
            self._txn = index.begin(write=False)
        except BaseException:
            index.reading.discard(self)
            raise

    def __enter__(self) -> Txn:
        return Txn(self._txn, self._index._dbs)  # noqa: SLF001  (the same room)

    def __exit__(self, kind: object, error: BaseException | None, _: object) -> None:
        self._txn.abort()
        self._index.reading.discard(self)
        if isinstance(error, lmdb.Error):
            raise self._index.failed(error) from None
        if isinstance(error, Corrupt):
            self._index.journal.error(error)


class Index:
    """The index of one store in one process. Thread-safe."""

    def __init__(self, path: str, *, create: bool = False, map_size: int = limits.MAP_SIZE) -> None:
        self.path = path
        self._map_size = map_size
        self._create = create
        self._write_lock = threading.Lock()  # LMDB's own blocks threads in C, uninterruptibly
        self._writer = 0  # thread that has the write transaction
        self.broken = False
        self.journal = Journal()  # of whoever has the store open
        self.reading: set[Reading] = set()  # open read transactions
        self._watch = Watch(os.path.join(path, "lock.mdb"))
        self._claim_readers()
        self._open_env()

    def _claim_readers(self) -> None:
        """Have the disk hold all of the reader table: it is written through a map, and a hole in it kills when there
        is no room left.

        Never while this process has the environment open: closing any descriptor of the file drops its locks.
        """
        flags = os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT if self._create else 0)
        with contextlib.suppress(OSError):  # without it only a disk that is full already does harm
            if self._create:
                os.makedirs(self.path, exist_ok=True)
            fd = os.open(os.path.join(self.path, "lock.mdb"), flags, 0o600)
            try:
                os.posix_fallocate(fd, 0, 64 * (limits.MAX_READERS + 2))  # a line of the cache each
            finally:
                os.close(fd)

    def _hand_over(self) -> None:
        """LMDB makes its files itself."""
        for name in ("data.mdb", "lock.mdb") if os.geteuid() == 0 else ():
            path = os.path.join(self.path, name)
            # Only a path: closing a descriptor that reads or writes drops the lock file's locks.
            fd = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                hand_over(fd, self.path)
            finally:
                os.close(fd)

    def _open_env(self) -> None:
        self._pid = os.getpid()
        try:
            # Without ``meminit`` LMDB writes what was in memory before, secrets too, in unused parts of pages.
            self._env = lmdb.open(
                self.path, map_size=self._map_size, max_dbs=len(Table) + 4, max_readers=limits.MAX_READERS,
                create=self._create, mode=0o600, subdir=True, readahead=False, meminit=True, max_spare_txns=8,
            )  # fmt: skip
            self._hand_over()
            self._env.reader_check()  # before the dead have all slots: then opening itself fails
            self._dbs: dict[Table, Any] = {}
            if self._create:
                for table in Table:
                    self._dbs[table] = self._env.open_db(table.db, create=True)
            else:
                self._open_tables()
        except lmdb.NotFoundError:
            raise Corrupt(
                f"index {self.path}", expected="every table", found="some missing",
                do="run 'holdfast repair --rebuild-index'",
            ) from None  # fmt: skip
        except lmdb.Error as error:
            raise translate(error, self.path) from None
        self.broken = False

    def _open_tables(self) -> None:
        """In one write transaction: LMDB's binding would take one for each, and its turn behind others each time."""
        with self._watch.waiting():
            txn = self._env.begin(write=True)
        with txn:
            # An index of before has none of the late tables; one that has some has lost the others.
            older = not any(txn.get(table.db) for table in Table if table.late)
            for table in Table:
                new = table.late and older
                self._dbs[table] = self._env.open_db(table.db, txn=txn, create=new)

    def close(self) -> None:
        """Close the environment; no transaction may be open."""
        self._watch.close()
        self._env.close()

    def read(self) -> Reading:
        """A read transaction: one consistent state of the index, whatever is committed meanwhile."""
        assert self._pid == os.getpid(), "an index must not be used after fork"
        try:
            return Reading(self)
        except lmdb.Error as error:
            raise self.failed(error) from None

    def failed(self, error: lmdb.Error) -> HoldfastError:
        """The error of the family that it is, noted as an incident."""
        known = translate(error, self.path)
        if isinstance(known, Busy):
            self.journal.note("readers_full", "index", str(known))
        else:
            self.journal.error(known, "" if isinstance(known, StoreFull) else "index")
        return known

    @contextmanager
    def write(self) -> Iterator[Txn]:
        """The write transaction: commits, durably, when the block ends; aborts when it raises."""
        assert self._pid == os.getpid(), "an index must not be used after fork"
        assert self._writer != threading.get_ident(), (
            "a write transaction must not be begun inside another"
        )
        with self._write_lock:
            self._writer = threading.get_ident()
            try:
                yield from self._write()
            finally:
                self._writer = 0

    def _write(self) -> Iterator[Txn]:
        if self.broken:
            self._reopen()
        try:
            with self._watch.waiting():
                txn = self.begin(write=True)
        except lmdb.Error as error:
            raise self.failed(error) from None
        try:
            yield Txn(txn, self._dbs)
        except lmdb.Error as error:
            txn.abort()
            raise self.failed(error) from None
        except BaseException as error:
            txn.abort()
            if isinstance(error, Corrupt):
                self.journal.error(error)
            raise
        try:
            txn.commit()
        except lmdb.Error as error:
            self.broken = True
            raise self.failed(error) from None

    def begin(self, *, write: bool) -> Any:
        """A transaction of LMDB's own. Raises lmdb.Error."""
        try:
            return self._env.begin(write=write)
        except lmdb.MapResizedError:  # another process has grown the map
            self._env.set_mapsize(0)
            return self._env.begin(write=write)
        except lmdb.ReadersFullError:
            self._env.reader_check()
            return self._env.begin(write=write)

    def mend(self) -> None:
        """Open the environment anew after a failed commit, for a reader about to begin."""
        with self._write_lock:
            if self.broken:
                self._reopen()

    def _reopen(self) -> None:
        """With the write lock. Those about to begin wait for it; those at work end soon, or this is tried again."""
        for _ in range(_TRIES):
            if all(one.waits for one in list(self.reading)):
                self._env.close()
                self._open_env()
                self.journal.note(
                    "index_reopened", "index", "opened again after a commit that failed"
                )
                return
            time.sleep(_PAUSE)
        raise LocationUnavailable(f"index {self.path}", expected="no reader for a moment, after a commit that failed",
                                  found="some that go on", do="try again")  # fmt: skip

    def reader_check(self) -> int:
        """Free reader slots of dead processes; returns how many."""
        return int(self._env.reader_check())

    def structure(self) -> list[str]:
        """What is wrong with the file's pages, see ``structure``; about 4 ms a MiB, and LMDB follows none of them."""
        for _ in range(_TRIES):
            with self.read() as txn:
                try:
                    found = structure.problems(os.path.join(self.path, "data.mdb"), txn.id)
                except OSError as error:
                    raise from_os(error, f"index {self.path}") from None
            if found is not None:
                return found
        return ["its meta pages are not of two successive commits"]

    def verify(self) -> None:
        """Raises Corrupt when a page is damaged: what is about to be deleted must not be so because rows are hidden."""
        found = self.structure()
        if found:
            raise Corrupt(f"index {self.path}", expected="sound pages", found=found[0],
                          do="run 'holdfast repair --rebuild-index'")  # fmt: skip

    def size(self) -> int:
        """Bytes of the index file that are in use (the file may be longer, its holes are not)."""
        info = self._env.info()
        return (int(info["last_pgno"]) + 1) * int(self._env.stat()["psize"])

    def used(self, txn: Txn) -> int:
        """Bytes of the pages that hold rows."""
        return sum(txn.pages(table) for table in Table) * int(self._env.stat()["psize"])
