"""A point whose content is elsewhere, served at once while the rest of it comes nearer in the order of its files.

A thread fetches into the cache what will be read, piece by piece, and lets whoever reads go first.  It ends when all is
there, or when the cache has room for no more: what is fetched beyond that would put out what was fetched before.
"""

from __future__ import annotations

import logging
import stat
import threading
import time
from collections.abc import Callable, Iterator

from engine import limits
from engine.errors import Corrupt, HoldfastError, LocationUnavailable, NotFound, ShuttingDown
from engine.nodes import Entry
from engine.points.view import PointView

log = logging.getLogger("holdfast.engine")

_PIECE = 4 * limits.MIB  # plaintext fetched at once: who reads waits for no more than that
_GIVE_WAY = 2.0  # s a piece waits at most while others read
_AGAIN = 30.0  # s after which a location is asked again that was gone
_PART = 0.8  # of the cache, which also holds what is read beside


class Stream:
    """``view`` is the point to serve. Close it before the store."""

    def __init__(
        self, view: PointView, filled: Callable[[], tuple[int, int]], let_go: Callable[[], None]
    ) -> None:
        """``filled``: bytes fetched so far, and those of the cache; ``let_go``: ends waits for the location."""
        self.view = _Attended(view)
        self.done = threading.Event()
        """Nothing more will be fetched ahead."""
        self._filled = filled
        self._let_go = let_go
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="stream", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End, whatever is being fetched."""
        self._stop.set()
        self._let_go()
        self._thread.join()

    def _run(self) -> None:
        try:
            self._all()
        except HoldfastError as error:
            if not self._stop.is_set():
                log.warning("reading on without what would have been fetched ahead: %s", error)
        finally:
            self.done.set()

    def _all(self) -> None:
        for piece in self._pieces(self.view.root_entry):
            end = time.monotonic() + _GIVE_WAY
            while self.view.reads and time.monotonic() < end:
                self._stop.wait(0.01)
            while not self._stop.is_set():
                if self._full():
                    return
                try:
                    self.view.reader.ahead(piece)
                    break
                except (Corrupt, NotFound):
                    break  # who reads it is told
                except LocationUnavailable as error:
                    log.warning("the rest of the point comes later: %s", error)
                    self._stop.wait(_AGAIN)
            if self._stop.is_set():
                return
        if not self._full():
            log.info("all of the point has been fetched")

    def _full(self) -> bool:
        fetched, most = self._filled()
        if fetched < most * _PART:
            return False
        log.warning(
            "the cache of %d MiB has no room for all of the point: what follows is fetched as it is read",
            most >> 20,
        )
        return True

    def _pieces(self, top: Entry) -> Iterator[list[bytes]]:
        """Chunks in the order of files, some at a time."""
        piece: list[bytes] = []
        size = 0
        inside = [self.view.scan(top, b"", _pass)]
        while inside:
            entry = next(inside[-1], None)
            if entry is None:
                inside.pop()
            elif stat.S_ISDIR(entry.mode):
                inside.append(self.view.scan(entry, b"", _pass))
            elif stat.S_ISREG(entry.mode):
                for _, extents in self.view.spans(entry, _pass):
                    piece += [cid for _, _, cid, _ in extents]
                    size += sum(length for _, length, _, _ in extents)
                    if size >= _PIECE:
                        yield piece
                        piece, size = [], 0
        if piece:
            yield piece


def _pass(first: object, last: object, error: Exception) -> None:
    """What cannot be read is told to who reads it."""
    if isinstance(error, ShuttingDown):
        raise error


class _Attended(PointView):
    """A point's tree that knows how many read its files just now."""

    def __init__(self, view: PointView) -> None:
        super().__init__(view.reader, view.root_entry)
        self._lock = threading.Lock()
        self.reads = 0

    def read(self, entry: Entry, offset: int, size: int) -> bytes:
        with self._lock:
            self.reads += 1
        try:
            return super().read(entry, offset, size)
        finally:
            with self._lock:
                self.reads -= 1
