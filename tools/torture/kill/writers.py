"""Writers through a mount: each a thread with a tree of its own, and the history of it.

Three kinds of work: the shared script of small operations, a large file written from start to end, random pages of
a file that stays.  A writer stops at its first error: what it had asked for then may have happened or not.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from typing import Protocol

from tools.torture.history import History, Op, Picture
from tools.torture.workload import PosixFiles, Script

PAGE = 4096
STREAM_END = 3_000_000  # bytes of a large file, after which the next is begun
STREAM_PIECE = 400_000
PAGES_SIZE = 1_500_000


class Source(Protocol):
    """Where operations come from."""

    def next(self) -> Op: ...


class Stream:
    """A file appended to and synced until it is large, then the next one; the one before it is removed."""

    def __init__(self, rng: random.Random, history: History) -> None:
        self._rng = rng
        self._history = history

    def next(self) -> Op:
        """The next operation."""
        history, rng = self._history, self._rng
        paths = sorted(history.now.paths)
        if len(paths) > 1:
            return Op("unlink", paths[0])
        size = 0 if not paths else len(history.contents[history.now.paths[paths[0]]].now)
        if not paths or size >= STREAM_END:
            number = int(paths[0][1:]) + 1 if paths else 0
            return Op("create", b"s%06d" % number, number=0o644)
        if rng.random() < 0.25:
            return Op("fsync", paths[0])
        data = rng.randbytes(rng.randint(1, STREAM_PIECE // 2))
        return Op("write", paths[0], number=size, data=data + data[: rng.randint(0, len(data))])


class Pages:
    """Pages of one file, written again in no order, some of them twice, synced now and then."""

    def __init__(self, rng: random.Random, history: History) -> None:
        self._rng = rng
        self._history = history

    def next(self) -> Op:
        """The next operation."""
        history, rng = self._history, self._rng
        if not history.now.paths:
            return Op("create", b"pages", number=0o600)
        size = len(history.contents[history.now.paths[b"pages"]].now)
        if size < PAGES_SIZE:
            return Op("write", b"pages", number=size, data=rng.randbytes(25 * PAGE))
        if rng.random() < 0.15:
            return Op("fsync", b"pages")
        page = rng.randrange(size // PAGE)
        return Op(
            "write", b"pages", number=page * PAGE, data=rng.randbytes(PAGE * rng.randint(1, 3))
        )


def script(rng: random.Random, history: History) -> Source:
    """The shared script, on a tree small enough to be compared in a moment."""
    return Script(rng, history, files=10, size=250_000)


KINDS: dict[str, Callable[[random.Random, History], Source]] = {
    "script": script, "stream": Stream, "pages": Pages,
}  # fmt: skip


class Asked:
    """What a snapshot that was asked for may hold of one writer's tree. Ended by ``Writer.answered``."""

    def __init__(self, history: History) -> None:
        self.history = history.copy()
        self.floor = history.finished


class Writer:
    """One thread on one tree. Everything but the thread itself is for the rig's main thread."""

    def __init__(self, name: str, kind: str) -> None:
        self.name = name
        self.kind = kind
        self.history = History()
        self.error: OSError | None = None
        self._lock = threading.Lock()
        self._asked: list[Asked] = []
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, top: bytes, rng: random.Random, pause: float) -> None:
        """Go on working below ``top``, resting up to ``pause`` s after each operation."""
        self.error = None
        self._stop.clear()
        source = KINDS[self.kind](rng, self.history)
        rest = random.Random(rng.random())
        self._thread = threading.Thread(
            target=self._work, args=(PosixFiles(top), source, rest, pause), daemon=True
        )
        self._thread.start()

    def _work(self, files: PosixFiles, source: Source, rest: random.Random, pause: float) -> None:
        while not self._stop.is_set():
            op = source.next()
            with self._lock:
                self.history.begin(op)
                for asked in self._asked:
                    asked.history.begin(op)
            try:
                files.do(op)
            except OSError as error:
                self.error = error
                return
            with self._lock:
                self.history.done(op)
                for asked in self._asked:
                    asked.history.finished = asked.history.begun  # and never settled
            time.sleep(rest.uniform(0, pause))

    def stop(self) -> None:
        """End the thread after what it is doing."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def ask(self) -> Asked:
        """A snapshot is about to be asked for."""
        with self._lock:
            asked = Asked(self.history)
            self._asked.append(asked)
        return asked

    def answered(self, asked: Asked, *, crashed: bool) -> Picture:
        """The snapshot's command has ended. ``crashed``: its worker has died, so only what was synced is sure."""
        with self._lock:
            self._asked.remove(asked)
            return asked.history.picture(None if crashed else asked.floor)
