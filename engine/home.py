"""A store on disk: creating it, opening it, and what one process holds of it while it is open.

A store is one directory: ``format.json`` (identity, id key, format version), ``keys.json`` (of a sealed store, and its
copy), ``index/`` (LMDB), ``packs/`` (sealed), ``segments/`` (open), ``workers/`` (lock files that tell who lives),
``run/`` (control sockets), ``quarantine/``, and the incidents.

``lock`` is held shared by every process that has the store open and exclusively by a repair that replaces the
index: it decides nothing else.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple, Self

from engine.chunks import ChunkReader, ChunkWriter, Context, Worker
from engine.errors import (
    AlreadyExists,
    Busy,
    Corrupt,
    FormatTooNew,
    HoldfastError,
    InvalidRequest,
    NotFound,
    PermissionDenied,
    ReadOnly,
    from_os,
)
from engine.incidents import Journal
from engine.index import Index, shared
from engine.index.inspect import inspect
from engine.ingest.sealer import Sealer
from engine.packs.files import PackFiles
from engine.seam import REAL, Os, save

if TYPE_CHECKING:  # of sealed stores only
    from engine.keys import Opener, Secret, StoreSeal
    from engine.keys.primitives import Cost

FORMAT, FORMAT_SEALED = 1, 2
_FORMAT_FILE = "format.json"
_RINGS = ("keys.json", "keys.copy.json")
_FIELDS = {FORMAT: (("store_id", 16), ("id_key", 32)), FORMAT_SEALED: (("store_id", 16),)}
_FOLDERS = ("segments", "packs", "workers", "run", "quarantine", "index")


class Identity(NamedTuple):
    """What a store is, in the order in which ``Context`` has it: its id, the key of its chunk ids; and its seal."""

    store_id: bytes
    id_key: bytes
    seal: StoreSeal | None


class Session:
    """A process's right to write: its worker, its chunk writer, its sealer. Close it to leave cleanly."""

    def __init__(self, context: Context, reader: ChunkReader) -> None:
        self.worker = Worker(context)
        self.writer = ChunkWriter(context, reader, self.worker.id)
        self.sealer = Sealer(context, reader, self.writer)

    def close(self) -> None:
        """Commit what is pending, seal what is worth it, leave the list of workers."""
        try:
            self.sealer.flush()
            self.writer.close()
        finally:
            self.worker.close()


class OpenStore:
    """An open store in one process: context, reader, and at most one session. Thread-safe after opening."""

    def __init__(
        self, path: str, *, system: Os = REAL, exclusive: bool = False, borrowed: str = "", key: Opener | None = None
    ) -> None:  # fmt: skip
        """``borrowed``: the location that it was made from for a while, only to be read; ``key``: what opens a sealed
        store, None for what is at hand (``engine.supply``)."""
        self._borrowed = borrowed
        self.path = named(path)
        known = _identity(self.path, system, key)
        self._lock_fd = _take_lock(self.path, system, exclusive)
        try:
            inspect(os.path.join(self.path, "index"))
            index = shared.acquire(os.path.join(self.path, "index"))
        except BaseException as error:
            if isinstance(error, HoldfastError):
                journal = Journal()
                journal.placed(self.path, system)
                journal.error(error, "index")
            system.close(self._lock_fd)
            raise
        index.journal.placed(self.path, system)
        self.context = Context(
            self.path, known.store_id, known.id_key, index, PackFiles(self.path, system, index.journal), system,
            known.seal,
        )  # fmt: skip
        self.reader = ChunkReader(self.context)
        self._opening = threading.Lock()  # of the two below: one each, whatever threads ask first
        self._session: Session | None = None
        self._reading: Worker | None = None

    def refuse_borrowed(self) -> None:
        """Raises ReadOnly when the store is only to be read."""
        if self._borrowed:
            raise ReadOnly(
                f"store borrowed from {self._borrowed}", expected="only reading", found="a change",
                do="to work with it, 'holdfast adopt' the location",
            )  # fmt: skip

    @property
    def session(self) -> Session:
        """The session, opened at first use. Raises ReadOnly for a borrowed store."""
        self.refuse_borrowed()
        with self._opening:
            if self._session is None:
                self._session = Session(self.context, self.reader)
            return self._session

    @property
    def reading(self) -> Worker:
        """A worker that only reads, for pins; the session's when there is one."""
        with self._opening:
            if self._session is not None:
                return self._session.worker
            if self._reading is None:
                self._reading = Worker(self.context, reads_only=True)
            return self._reading

    def close(self) -> None:
        reading, self._reading = self._reading, None
        session, self._session = self._session, None
        try:
            if reading is not None:
                reading.close()
            if session is not None:
                session.close()
        finally:
            self.context.files.close()
            self.context.incidents.flush(last=True)
            shared.release(self.context.index)
            self.context.system.close(self._lock_fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _take_lock(path: str, system: Os, exclusive: bool) -> int:
    """The descriptor of the store's lock. Raises Busy."""
    lock = os.path.join(path, "lock")
    try:
        fd = system.open(lock, os.O_RDWR | os.O_CREAT)
    except OSError as error:
        raise from_os(error, lock) from None
    if not system.try_lock(fd, shared=not exclusive):
        system.close(fd)
        found = "processes that have it open" if exclusive else "a repair at work"
        raise Busy(f"store {path}", expected="to be free", found=found, do="wait for it to end")
    return fd


def init(
    path: str, *, identity: tuple[bytes, bytes] | None = None, seal: Sequence[Secret] = (),
    cost: Cost | None = None, system: Os = REAL,
) -> None:  # fmt: skip
    """Create an empty store. Raises AlreadyExists when the directory has something in it.

    ``identity``: store id and id key of a store that is made again; new ones without it. ``seal``: who may open it; a
    store without any is not sealed. ``cost``: of guessing a passphrase.

    ``format.json`` is written last: a store that was not finished is none, and may be started again over.
    """
    path = named(path)
    try:
        if not system.exists(path):
            system.mkdir(path)
        refuse_used(path, system)
        for folder in _FOLDERS:
            if not system.exists(os.path.join(path, folder)):
                system.mkdir(os.path.join(path, folder))
        Index(os.path.join(path, "index"), create=True).close()
        for folder in ("index", "."):  # LMDB does not sync the directory of a new file
            system.fsync_dir(os.path.join(path, folder))
        system.fsync_dir(os.path.dirname(path))
        store_id, id_key = identity or (system.random(16), system.random(32))
        data = {"format": FORMAT, "store_id": store_id.hex(), "id_key": id_key.hex()}
        if seal:
            from engine import keys, storering

            storering.create(path, store_id, id_key, seal, cost=cost or keys.COST, system=system)
            data = {"format": FORMAT_SEALED, "store_id": store_id.hex()}
        save(system, os.path.join(path, _FORMAT_FILE), (json.dumps(data, indent=1) + "\n").encode())
    except OSError as error:
        raise from_os(error, f"store {path}") from None


def refuse_used(path: str, system: Os) -> None:
    """Raises AlreadyExists when the directory has something in it."""
    try:
        names = system.listdir(path)
    except NotADirectoryError:
        raise AlreadyExists(f"store {path}", expected="an empty or new directory", found="a file",
                            do="choose another directory") from None  # fmt: skip
    if _FORMAT_FILE in names:
        raise AlreadyExists(f"store {path}", expected="an empty or new directory", found="a store")
    made = (_FORMAT_FILE, *_RINGS)
    left = {
        name for name in names if name.startswith(tuple(f"{one}.tmp-" for one in made))
    }  # of an init that failed
    if set(names) - set(_FOLDERS) - set(_RINGS) - left:
        raise AlreadyExists(f"store {path}", expected="an empty or new directory", found=f"{len(names)} entries",
                            do="choose another directory")  # fmt: skip


def named(path: str) -> str:
    """The absolute path of a store. Raises InvalidRequest for a name that LMDB cannot open."""
    path = os.path.abspath(path)
    try:
        path.encode()
    except UnicodeEncodeError:
        raise InvalidRequest(f"store {path!r}", expected="a path in UTF-8", found="other bytes",
                             do="give the directory another name") from None  # fmt: skip
    return path


def refuse_unknown(path: str, system: Os = REAL) -> None:
    """For who would make something in it. Raises NotFound where there is no store, FormatTooNew, Corrupt."""
    _read_format(named(path), system)


def is_sealed(path: str, system: Os = REAL) -> bool:
    """Whether a store's content is encrypted. Raises NotFound, FormatTooNew, Corrupt."""
    return "id_key" not in _read_format(named(path), system)


def refuse_unsealed(path: str, system: Os = REAL) -> None:
    """Raises PermissionDenied for a store that says it is not sealed, though somebody has what opens it: whoever writes
    to the disk must not have all that comes be written in clear by saying so."""
    if not is_sealed(path, system):
        raise PermissionDenied(
            f"store {path}", expected="a sealed one, as its passphrase or key was given",
            found=f"a {_FORMAT_FILE} that says it is not sealed",
            do="find out who changed it; if it never was sealed, give no key",
        )  # fmt: skip


def sealed_id(path: str, system: Os = REAL) -> bytes:
    """The id of a sealed store. Raises InvalidRequest for one that is not, NotFound, FormatTooNew, Corrupt."""
    data = _read_format(path, system)
    if "id_key" in data:
        raise InvalidRequest(f"store {path}", expected="a sealed one", found="one without keys")
    return bytes.fromhex(data["store_id"])


@contextmanager
def without_key(path: str, system: Os = REAL) -> Iterator[tuple[bytes, Index, PackFiles]]:
    """(store id, index, packs) of a store that is not opened: its key is not asked for. Only for reading."""
    path = named(path)
    data = _read_format(path, system)
    store_id = bytes.fromhex(data["store_id"])
    lock = _take_lock(path, system, exclusive=False)
    try:
        inspect(os.path.join(path, "index"))
        index = shared.acquire(os.path.join(path, "index"))
        files = PackFiles(path, system)
        try:
            yield store_id, index, files
        finally:
            files.close()
            shared.release(index)
    finally:
        system.close(lock)


def _identity(path: str, system: Os, key: Opener | None) -> Identity:
    """Raises PermissionDenied when the store is sealed and what is given does not open it."""
    data = _read_format(path, system)
    store_id = bytes.fromhex(data["store_id"])
    if "id_key" in data:
        if key is not None:
            refuse_unsealed(path, system)
        return Identity(store_id, bytes.fromhex(data["id_key"]), None)
    from engine import storering

    seal = storering.unlock(path, store_id, key, system=system)
    return Identity(store_id, seal.id_key, seal)


def _read_format(path: str, system: Os) -> dict[str, str]:
    file = os.path.join(path, _FORMAT_FILE)
    try:
        fd = system.open(file, os.O_RDONLY)
    except (FileNotFoundError, NotADirectoryError):
        raise NotFound(f"store {path}", expected=f"a directory with {_FORMAT_FILE}", found="none",
                       do="run 'holdfast init', or give the right --store") from None  # fmt: skip
    except OSError as error:
        raise from_os(error, file) from None
    try:
        data = json.loads(system.pread(fd, 65536, 0))
        version = data["format"]
        if isinstance(version, int) and version > FORMAT_SEALED:
            raise FormatTooNew(f"store {path}", expected=f"format {FORMAT_SEALED} or older", found=f"format {version}",
                               do="use a newer Holdfast")  # fmt: skip
        if type(version) is not int or version not in _FIELDS:
            raise ValueError("format")
        if (version == FORMAT_SEALED) == ("id_key" in data):
            raise ValueError("id_key")
        for name, size in _FIELDS[version]:
            if len(bytes.fromhex(data[name])) != size:
                raise ValueError(name)
    except HoldfastError:
        raise
    except (ValueError, KeyError, TypeError, RecursionError):
        raise Corrupt(file, expected="the store's identity as JSON", found="other content",
                      do="restore this file from a copy: the id key in it is needed") from None  # fmt: skip
    finally:
        system.close(fd)
    return dict(data)


@contextmanager
def locked(path: str, system: Os, key: Opener | None = None) -> Iterator[Identity]:
    """What a store is that nobody else has open, for as long as the block runs. Raises Busy."""
    known = _identity(path, system, key)
    with free(path, system):
        yield known


@contextmanager
def free(path: str, system: Os) -> Iterator[None]:
    """Nobody else has the store open, or opens it, for as long as the block runs. Raises Busy."""
    lock = os.path.join(path, "lock")
    try:
        fd = system.open(lock, os.O_RDWR | os.O_CREAT)
    except OSError as error:
        raise from_os(error, lock) from None
    try:
        if not system.try_lock(fd):
            raise Busy(f"store {path}", expected="to be free", found="processes that have it open",
                       do="unmount its mounts and try again")  # fmt: skip
        yield
    finally:
        system.close(fd)


@contextmanager
def opened(path: str, *, system: Os = REAL, key: Opener | None = None) -> Iterator[OpenStore]:
    """An open store for the length of a block."""
    with OpenStore(path, system=system, key=key) as store:
        yield store
