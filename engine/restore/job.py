"""The state of one restore: threads that write content, what went wrong, progress."""

from __future__ import annotations

import errno
import logging
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import count
from typing import NamedTuple

from engine import limits
from engine.chunks import Brought, ChunkReader, Seen, Want
from engine.errors import (
    Corrupt,
    HoldfastError,
    InvalidRequest,
    LocationUnavailable,
    NotFound,
    PermissionDenied,
    ReadOnly,
    StoreFull,
    from_os,
)
from engine.nodes import Entry, Extent
from engine.progress import Progress, Report
from engine.restore.content import write_span
from engine.restore.helper import Helper, HelperGone
from engine.restore.trays import Trays

log = logging.getLogger("holdfast.engine.restore")

HELP_FROM = 64 * limits.MIB  # bytes from which a helping process (90 ms to start) is worth having
_THREADS_MAX = 8
_ASK_FROM = 256 * limits.KIB  # bytes of a span from which asking a helper costs less than it saves
_FAR = 6  # batches fetched at once from storage locations, each in requests of up to 16 MiB
_BATCH = 8  # pieces fetched together at most
_GROUP = 16  # small files that one thread writes one after the other
_ALL_NEAR = 32  # pieces in a row with nothing far, from which only one in so many is looked at
_IN_FLIGHT = 64  # pieces of work queued: bounds open files, and what was fetched and not read yet


@dataclass(frozen=True)
class Notice:
    """Something about one path that the user should know."""

    path: bytes
    text: str


@dataclass
class RestoreReport:
    """``files``: entries of every type restored; ``damaged``: files whose content could not be read whole;
    ``kept``: bytes that an earlier try had
    restored; ``disowned``: entries that now belong to whoever restored them, since only root gives files to others."""

    files: int = 0
    bytes: int = 0
    disowned: int = 0
    kept: int = 0
    damaged: list[Notice] = field(default_factory=list)
    skipped: list[Notice] = field(default_factory=list)


def on_target(error: OSError, what: str) -> HoldfastError:
    """Translate an error of the target, which is not the store's file system."""
    found = os.strerror(error.errno) if error.errno else str(error)
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return StoreFull(what, found=found, do="free space on the target's file system")
    if error.errno == errno.EROFS:
        return ReadOnly(what, found=found, do="choose another target")
    if error.errno in (errno.EACCES, errno.EPERM):
        return PermissionDenied(what, found=found, do="choose a target you may write to")
    if error.errno in (errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP):
        return InvalidRequest(what, found=found, do="choose another target")
    return from_os(error, what)


class Piece(NamedTuple):
    """A piece of work: a span, or a small file. ``dropped`` is called instead of ``work``, once, when it is not done
    because of an error; ``needs``: the chunks that it reads, asked in another thread; ``size``: bytes of them. ``work``
    is given what was fetched of them."""

    work: Callable[[Brought | None], None]
    dropped: Callable[[], None]
    needs: Callable[[], list[Want]]
    size: int


class _Batch:
    """Pieces that are fetched together, into a tray that goes back when the last of them is done."""

    def __init__(self, pieces: list[Piece], trays: Trays) -> None:
        self.pieces = pieces
        self.brought: Brought | None = None
        self._trays = trays
        self._tray = -1
        self._left = len(pieces)
        self._lock = threading.Lock()

    def fetch(self, reader: ChunkReader, seen: Seen) -> bool:
        """Whether anything of it was far. Raises what a location raises."""
        wants = [want for piece in self.pieces for want in piece.needs()]
        start = self._tray = self._trays.take()
        found = reader.bring(wants, self._trays.room(start), seen)
        if found is None:
            self._give()
            return False
        places = {cid: (start + at, length) for cid, (at, length) in found.places.items()}
        self.brought = Brought(places, found.rows)
        return True

    def done(self, count: int) -> None:
        """So many of the pieces are."""
        with self._lock:
            self._left -= count
            if self._left:
                return
        self._give()

    def _give(self) -> None:
        if self._tray >= 0:
            self._trays.give(self._tray)
            self._tray = -1


def _enough(group: list[Piece]) -> bool:
    """Whether pieces are worth handing over to a thread."""
    return len(group) >= _GROUP or sum(one.size for one in group) >= limits.SPAN // 2


def _work(group: list[Piece], brought: Brought | None) -> None:
    done = 0
    try:
        for piece in group:
            done += 1
            piece.work(brought)
    except BaseException:
        _drop(group[done:])
        raise


def _drop(group: list[Piece]) -> None:
    for piece in group:
        piece.dropped()


class Job:
    """Runs pieces of work in a few threads; the first error that is not about one file ends the restore."""

    def __init__(
        self, reader: ChunkReader, report: Report, total: int | None, helped_at: str, *, all_far: bool = False
    ) -> None:  # fmt: skip
        """``helped_at``: path of the store that helping processes are to open; "" for none; ``all_far``: everything is
        at a location, and where that is not to be had there is no use in going on."""
        self._all_far = all_far
        self.result = RestoreReport()
        self._reader = reader
        self._report = report
        self._total = total
        threads = min(_THREADS_MAX, max(2, os.cpu_count() or 2))
        # One thread works itself: it has something to do while the helpers start.
        self._trays = Trays()
        self._seen = Seen()
        self._helpers = [
            Helper(helped_at, self._trays.fd) for _ in range(threads - 1 if helped_at else 0)
        ]
        self._free = list(self._helpers)
        self._mine = threading.local()
        self._pool = ThreadPoolExecutor(
            threads, thread_name_prefix="restore", initializer=self._take_helper
        )
        self._far = ThreadPoolExecutor(_FAR, thread_name_prefix="restore-far")
        self._batch: list[Piece] = []  # gathered, and not sent yet; of the walking thread
        self._group: list[Piece] = []  # near, gathered, and not begun yet
        self._near = 0  # pieces in a row of which nothing was far
        self._count = count()
        self._room = threading.Semaphore(_IN_FLIGHT)
        self._lock = threading.Lock()
        self._error: BaseException | None = None

    def _take_helper(self) -> None:
        self._mine.helper = self._free.pop() if self._free else None  # atomic enough: pop is

    def write_span(
        self,
        reader: ChunkReader,
        fd: int,
        start: int,
        extents: list[Extent],
        brought: Brought | None,
    ) -> tuple[int, list[str]]:
        """As ``content.write_span``, by this thread's helper when it has one."""
        places = brought.of([extent[2] for extent in extents]) if brought is not None else []
        helper: Helper | None = self._mine.helper
        if helper is not None and sum([e[1] for e in extents]) >= _ASK_FROM:
            try:
                if helper.ready():
                    return helper.write_span(fd, start, extents, places)
            except HelperGone:
                log.warning("a helping process of the restore has ended; going on without it")
                self._mine.helper = None
        return write_span(reader, fd, start, extents, self._trays.shared.parts(places))

    def submit(self, piece: Piece) -> None:
        """Queue a piece of work; waits for room. Raises the first error of an earlier piece."""
        self._room.acquire()
        if self._error is not None:
            self._room.release()
            piece.dropped()
            raise self._error
        if self._near >= _ALL_NEAR and next(self._count) % _ALL_NEAR:
            self._group.append(piece)
            if _enough(self._group):
                group, self._group = self._group, []
                self._begin(group, None)
            return
        self._batch.append(piece)
        if len(self._batch) >= _BATCH or sum(one.size for one in self._batch) >= limits.RANGE_MAX:
            self._send()

    def _send(self) -> None:
        """Fetch what is far of what was gathered, in few requests, and then do it."""
        pieces, self._batch = self._batch, []
        batch = _Batch(pieces, self._trays)
        self._far.submit(self._fetch, batch).add_done_callback(lambda f: self._fetched(f, batch))

    def _fetch(self, batch: _Batch) -> None:
        try:
            far = batch.fetch(self._reader, self._seen)
        except (Corrupt, NotFound):
            far = True  # who reads it says what is wrong
        except HoldfastError:
            if self._all_far:
                raise
            self._near = _ALL_NEAR  # what is here is restored all the same
            return
        self._near = 0 if far else self._near + len(batch.pieces)

    def _fetched(self, first: Future[None], batch: _Batch) -> None:
        error = None if first.cancelled() else first.exception()
        if error is not None:
            self._failed(error)
        group: list[Piece] = []
        for piece in batch.pieces:
            if first.cancelled() or self._error is not None:
                self._room.release()
                piece.dropped()
                batch.done(1)
                continue
            group.append(piece)
            if _enough(group):
                self._begin(group, batch)
                group = []
        if group:
            self._begin(group, batch)

    def _begin(self, group: list[Piece], batch: _Batch | None) -> None:
        """Have pieces be done one after the other: to hand over a small file costs as much as to write it."""
        future = self._pool.submit(_work, group, None if batch is None else batch.brought)
        future.add_done_callback(lambda f: self._done(f, group, batch))

    def _done(self, future: Future[None], group: list[Piece], batch: _Batch | None) -> None:
        self._room.release(len(group))
        if batch is not None:
            batch.done(len(group))
        if future.cancelled():
            _drop(group)
            return
        error = future.exception()
        if error is not None:
            self._failed(error)

    def _failed(self, error: BaseException) -> None:
        with self._lock:
            self._error = self._error or error

    def own(self, entry: Entry) -> bool:
        """Whether an entry may be given to its owner; one that may not, and is another's, is counted."""
        if os.geteuid() == 0:
            return True
        if (entry.uid, entry.gid) != (os.geteuid(), os.getegid()):
            with self._lock:
                self.result.disowned += 1
        return False

    def wrote(self, count: int) -> None:
        """Count restored bytes."""
        with self._lock:
            self.result.bytes += count
        self._tell()

    def _tell(self) -> None:
        done = self.result.bytes + self.result.kept
        self._report(Progress("restore", done, self._total, "bytes"))

    def kept(self, count: int) -> None:
        """Count bytes that were there already."""
        with self._lock:
            self.result.kept += count
        self._tell()

    def lost(self, path: bytes, text: str, error: Exception) -> None:
        """What cannot be read for this reason is damaged, unless it may be read later: that is raised."""
        if self._all_far and isinstance(error, LocationUnavailable):
            raise error
        self.damaged(path, f"{text} cannot be read: {error}")

    def damaged(self, path: bytes, text: str) -> None:
        with self._lock:
            self.result.damaged.append(Notice(path, text))

    def skipped(self, path: bytes, text: str) -> None:
        with self._lock:
            self.result.skipped.append(Notice(path, text))

    def finish(self) -> None:
        """Wait for everything queued. Raises the first error; an OSError is one of the target."""
        if self._batch:
            self._send()
        if self._group:
            self._begin(self._group, None)
            self._group = []
        self._far.shutdown(wait=True, cancel_futures=self._error is not None)
        self._pool.shutdown(wait=True, cancel_futures=self._error is not None)
        if isinstance(self._error, OSError):
            raise self._error
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        """Let the helpers end."""
        for helper in self._helpers:
            helper.close()
        self._trays.close()

    def abandon(self) -> None:
        """End without regard for what is queued."""
        self._error = self._error or HoldfastError("restore abandoned")
        _drop(self._batch + self._group)
        self._batch, self._group = [], []
        self._far.shutdown(wait=True, cancel_futures=True)
        self._pool.shutdown(wait=True, cancel_futures=True)
