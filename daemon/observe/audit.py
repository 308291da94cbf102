"""The audit log: every administrative act, one JSON object a line, each with a hash over itself and all before.

Invariants:

- ``chain`` of a line is BLAKE2b over the chain of the line before and the line without it; ``number`` counts from 1.
- A line is written and synced under an exclusive lock on the file, so that only the end can be torn by a crash, and
  it was never acknowledged.  Whoever writes next puts what is torn into ``FILE.torn``, cuts it off, and says so in a
  line of its own, with its hash; a crash between cutting and saying leaves it in ``FILE.torn`` alone.
- Text of others is printable and bounded: nothing in the file moves a terminal's cursor.

A chain shows that a line was changed, taken out or put in.  Who may write the file can write it all anew: keep the
``chain`` that ``verify`` tells elsewhere, and compare.
"""

from __future__ import annotations

import dataclasses
import fcntl
import json
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import blake2b

from daemon.contract import AuditLine
from daemon.observe.text import masked, printable
from engine.errors import Busy, LocationUnavailable, from_os
from engine.seam import REAL, hand_over

WHO_MAX, ACT_MAX, ABOUT_MAX, RESULT_MAX = 128, 64, 512, 64  # characters
LINE_MAX = 16 << 10  # bytes: more than the longest line of ours
LOCK_LIMIT = 30.0  # s; whoever holds it writes and syncs one line
TORN = "audit.torn"
"""The act of a line that tells of a torn one before it."""
_LOCK_STEP = 0.01
_TAIL = 4 << 10  # bytes first looked at for the last line
_NUMBER = re.compile(rb'\{"number": ([0-9]{1,18}),')


@dataclass(frozen=True)
class Verified:
    """What a look at the whole file found. ``bad``: number of the first line that does not fit, from 1, 0 for none,
    ``why`` not; ``chain``: of the last line before that, to be compared with one kept elsewhere."""

    lines: int
    bad: int
    why: str
    chain: str


class Audit:
    """The log in one file. Several processes and threads may write and read it.

    After a sync that failed nothing more is written through this object: whether the line is there is not known.
    """

    def __init__(self, path: str, clock: Callable[[], int] = time.time_ns) -> None:
        self.path = path
        self._clock = clock
        self._failed = ""
        self._lock = threading.Lock()  # before the file's own: threads wait here, not by polling

    def write(self, who: str, origin: str, act: str, about: str, result: str) -> AuditLine:
        """Append a line; it is durable when this returns. Raises Busy, StoreFull, LocationUnavailable."""
        line = AuditLine(
            0, self._clock(), _text(who, WHO_MAX), _text(origin, WHO_MAX), _text(act, ACT_MAX),
            _text(about, ABOUT_MAX), _text(result, RESULT_MAX), "",
        )  # fmt: skip
        try:
            with self._locked() as fd:
                return self._append(fd, line)
        except OSError as error:
            raise from_os(error, f"audit log {self.path}") from None

    def lines(self, after: int = 0, limit: int = 1000) -> list[AuditLine]:
        """At most ``limit`` lines, the first with a number above ``after``. One that cannot be read is there as such:
        act and result are ``unreadable``, ``about`` how it begins."""
        found: list[AuditLine] = []
        number = 0
        for raw in self._raw():
            if len(found) >= limit:
                break
            told = _NUMBER.match(raw)
            number = int(told[1]) if told else number + 1
            if number > after:
                found.append(_decode(raw) or _unreadable(number, raw))
        return found

    def verify(self) -> Verified:
        """Read all of it: does every line fit the one before?"""
        chain, count = "", 0
        for raw in self._raw():
            count += 1
            line = _decode(raw)
            why = ""
            if line is None:
                why = "it cannot be read" if raw.endswith(b"\n") else "it is torn, or far too long"
            elif line.number != count:
                why = (
                    f"it has the number {line.number}: lines are missing, or more than were written"
                )
            elif not follows(line, count, chain):
                why = "its hash is not that over it and the lines before: it was changed, or one of them"
            if why or line is None:
                return Verified(count, count, why, chain)
            chain = line.chain
        return Verified(count, 0, "", chain)

    def _raw(self) -> Iterator[bytes]:
        """Lines as they were when this was called: who appends meanwhile is not looked at half way."""
        try:
            with open(self.path, "rb") as file:
                self._wait(file.fileno(), fcntl.LOCK_SH)
                left = os.fstat(file.fileno()).st_size
                fcntl.flock(file.fileno(), fcntl.LOCK_UN)
                while raw := file.readline(min(LINE_MAX, left)):
                    left -= len(raw)
                    yield raw
        except FileNotFoundError:
            return
        except OSError as error:
            raise from_os(error, f"audit log {self.path}") from None

    @contextmanager
    def _locked(self) -> Iterator[int]:
        if not self._lock.acquire(timeout=LOCK_LIMIT):
            raise self._held("another thread holds it")
        try:
            if self._failed:
                raise LocationUnavailable(
                    f"audit log {self.path}", expected="lines on the disk", found=self._failed,
                    do="look at the disk and its log, then start the service again",
                )  # fmt: skip
            fd = _open(self.path)
            try:
                self._wait(fd, fcntl.LOCK_EX)
                yield fd
            finally:
                os.close(fd)
        finally:
            self._lock.release()

    def _wait(self, fd: int, kind: int) -> None:
        until = time.monotonic() + LOCK_LIMIT
        while True:
            try:
                return fcntl.flock(fd, kind | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > until:
                    raise self._held("another process holds it") from None
                time.sleep(_LOCK_STEP)

    def _held(self, found: str) -> Busy:
        return Busy(
            f"audit log {self.path}", expected="its lock", found=found,
            do="see which process (fuser -v PATH) and why it does not go on",
        )  # fmt: skip

    def _append(self, fd: int, line: AuditLine) -> AuditLine:
        number, chain, end, torn = _end(fd)
        added = b""
        if torn:
            aside = f"{self.path}.torn"
            self._write(_open(aside), torn + b"\n", close=True)
            os.ftruncate(fd, end)
            about = f"{len(torn)} bytes put into {os.path.basename(aside)}, BLAKE2b {_hash(torn)}"
            told = AuditLine(0, line.time_ns, "holdfast", "", TORN, about, "ok", "")
            told = _chained(told, number + 1, chain)
            added, number, chain = _encode(told), told.number, told.chain
        made = _chained(line, number + 1, chain)
        self._write(fd, added + _encode(made))
        return made

    def _write(self, fd: int, data: bytes, *, close: bool = False) -> None:
        """All of it at the end of the file, synced, or nothing."""
        try:
            start = os.fstat(fd).st_size
            try:
                left = memoryview(data)
                while left:
                    left = left[os.write(fd, left) :]
            except OSError:
                os.ftruncate(fd, start)  # where this fails too, it is torn
                raise
            try:
                os.fsync(fd)
            except OSError as error:  # a retried one would answer "ok" for what was dropped
                self._failed = os.strerror(error.errno or 0)
                raise
        finally:
            if close:
                os.close(fd)


def follows(line: AuditLine, number: int, chain: str) -> bool:
    """Whether a line is the one of that number after a line with that chain ("" before the first), unchanged."""
    return line == _chained(line, number, chain)


def _open(path: str) -> int:
    flags = os.O_RDWR | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        return os.open(path, flags)
    except FileNotFoundError:
        fd = os.open(path, flags | os.O_CREAT, 0o600)
    try:
        hand_over(fd, os.path.dirname(os.path.abspath(path)))
        REAL.fsync_dir(os.path.dirname(os.path.abspath(path)))
    except OSError:
        os.close(fd)
        raise
    return fd


def _end(fd: int) -> tuple[int, str, int, bytes]:
    """Number and chain of the last line that can be read, where it ends, and what comes after it."""
    size = os.fstat(fd).st_size
    want = _TAIL
    while True:
        start = max(size - want, 0)
        tail = REAL.pread(fd, size - start, start)
        end = len(tail)
        while (end := tail.rfind(b"\n", 0, end) + 1) > 0:
            begin = tail.rfind(b"\n", 0, end - 1) + 1
            line = _decode(tail[begin:end]) if begin or not start else None
            if line:
                return line.number, line.chain, start + end, tail[end:]
            end = begin
        if not start:
            return 0, "", 0, tail
        want *= 8


def _text(text: str, most: int) -> str:
    return printable(masked(text[: 4 * most]), most)


def _hash(data: bytes) -> str:
    return blake2b(data, digest_size=32).hexdigest()


def _chained(line: AuditLine, number: int, chain: str) -> AuditLine:
    """The line in its place: its number, and the hash over the chain before and all of it."""
    line = dataclasses.replace(line, number=number, chain="")
    return dataclasses.replace(line, chain=_hash(chain.encode() + b"\n" + _encode(line)))


def _encode(line: AuditLine) -> bytes:
    return json.dumps(dataclasses.asdict(line)).encode() + b"\n"


def _decode(raw: bytes) -> AuditLine | None:
    """The line, if these bytes are how it is written, to the last of them."""
    try:
        line = AuditLine(**json.loads(raw))
        kinds = (int, int, str, str, str, str, str, str)
        values = dataclasses.astuple(line)
        if (
            all(type(v) is kind for v, kind in zip(values, kinds, strict=True))
            and _encode(line) == raw
        ):
            return line
    except (ValueError, TypeError, RecursionError):
        pass
    return None


def _unreadable(number: int, raw: bytes) -> AuditLine:
    about = printable(raw.decode("utf-8", "surrogateescape").rstrip("\n"), ABOUT_MAX)
    return AuditLine(number, 0, "", "", "unreadable", about, "unreadable", "")
