"""Incidents: conditions that want attention, kept in the store so that they can be asked for later.

An incident is a condition (``kind``, a slug of the error table or one of ``OTHER_KINDS``) of a thing, counted, with
the time of its first and last occurrence.  They lie in a file beside the index, one JSON object a line, so that they
can be read and written when the index is what fails.  What cannot be written (the disk is full) stays in memory and
is written as soon as it can be.

A condition that goes on is one incident: within a process, what recurs before it was quiet for ``INCIDENT_QUIET`` is
counted, and told anew after a minute and then each time it has lasted half as long again.  The file and what is kept
in memory are bounded.  Nothing here raises, and ``note`` waits for no disk in a process that calls ``tick``.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace

from engine import limits
from engine.errors import HoldfastError, PosixError
from engine.seam import REAL, Os

FILE = "incidents.jsonl"
OLD = "incidents.1.jsonl"  # what was written before the file reached its size
CONDITIONS = frozenset(
    ("store_full", "quota", "corrupt", "location_unavailable", "read_only", "permission_denied",
     "internal")
)  # fmt: skip
"""Kinds of errors that are incidents; the others are answers to a request."""

OTHER_KINDS = {
    "clock": "the clock was set, forwards or back",
    "index_reopened": "the index was closed and opened again after a commit that failed",
    "readers_full": "the index has no slot left for one more reader",
    "stalled": "a background turn of a mount takes long: a disk does not answer",
    "session_stale": "the lease of a session has ended, and it is still open",
    "hook_failed": "a hook after begin, commit or restore failed",
    "job_failed": "a job in the background failed",
    "copy_failed": "recovery points have no copy at a storage location, and are not tried again by themselves",
    "copy_late": "a recovery point is old and has no copy at a storage location",
    "rings_left": "older key rings cannot be removed from a storage location: slots taken out of them still open it",
    "lock_lost": "a storage location that was adopted no longer retains what locked points need, as it did before",
    "expiry_frozen": "a recovery point is not like those before it: retention deletes none of its mount",
    "points_late": "a mount has had no new recovery point for longer than it should",
    "drill_failed": "a recovery point could not be restored and verified in a drill",
    "drill_late": "no drill of a mount has gone well for longer than its schedule says",
    "worker_failed": "the process that serves a mount ended, or did not start",
    "export_failed": "a mount could not be exported",
}
"""Incidents that are no errors, and what they say."""

_SECOND = 1_000_000_000


@dataclass(frozen=True)
class Incident:
    """Times are ns since the epoch; ``count``: how often it was met between them."""

    kind: str
    thing: str
    text: str
    count: int
    first: int
    last: int


@dataclass(frozen=True)
class Line(Incident):
    """A line of the file: an incident as process ``by`` saw it then. The newest of (by, kind, thing, first) counts."""

    by: str

    def encode(self) -> bytes:
        """JSON between line ends: a torn line before it is then no part of it."""
        return b"\n" + json.dumps(asdict(self)).encode() + b"\n"


@dataclass
class _Seen:
    """What this process has seen of one condition. ``met``, ``said`` and ``began`` are monotonic s."""

    line: Line
    began: float
    met: float
    said: float = 0.0
    told: int = 0  # its count in the store
    waiting: bool = True


class Journal:
    """The incidents of one process with one store. Thread-safe; ``placed`` says where they are kept."""

    def __init__(self, system: Os = REAL) -> None:
        self._system = system
        self._root: str | None = None
        self._lock = threading.Lock()
        self._writing = threading.Lock()
        self._seen: dict[tuple[str, str], _Seen] = {}
        self._queue: list[_Seen] = []
        self._ticking = False
        self._pause, self._again_at = 0.0, 0.0  # after a try that failed
        self._by = os.urandom(6).hex()
        self._clock: tuple[int, float] | None = None

    def placed(self, root: str, system: Os) -> None:
        """Keep them in this store. Without effect when they have a place."""
        if self._root is None:
            self._system = system
            self._root = root

    # --- noting -------------------------------------------------------------------------------------------

    def error(self, error: HoldfastError, thing: str = "") -> None:
        """Note an error of the store's own; answers to a request (not found, read-only point …) are passed over."""
        kind = error.kind.slug
        if kind in CONDITIONS and not isinstance(error, PosixError):
            self.note(kind, thing or ("store" if kind == "store_full" else error.what), str(error))

    def note(self, kind: str, thing: str, text: str) -> None:
        """A condition was met."""
        now, moment = self._system.time_ns(), self._system.monotonic()
        with self._lock:
            key = (kind, thing)
            seen = self._seen.get(key)
            if seen is None and len(self._seen) >= limits.INCIDENTS_MAX:
                self._forget_quiet(moment)
                if len(self._seen) >= limits.INCIDENTS_MAX:
                    key = (kind, "others")
                    seen = self._seen.get(key)
            if seen is None or moment - seen.met > limits.INCIDENT_QUIET:
                self._queue_rest(seen)
                line = Line(
                    kind, key[1][: limits.INCIDENT_THING], text[: limits.INCIDENT_TEXT], 1, now, now, self._by
                )  # fmt: skip
                seen = self._seen[key] = _Seen(line, moment, moment)
                self._queue.append(seen)
            else:
                self._again(seen, text, now, moment)
        if not self._ticking:
            self.flush()

    def _again(self, seen: _Seen, text: str, now: int, moment: float) -> None:
        seen.met = moment
        text = text[: limits.INCIDENT_TEXT]
        seen.line = replace(seen.line, count=seen.line.count + 1, last=now, text=text)
        pause = max(limits.INCIDENT_AGAIN, (moment - seen.began) / 2)
        if not seen.waiting and moment - seen.said >= pause:
            seen.waiting = True
            self._queue.append(seen)

    def over(self, kind: str, thing: str) -> None:
        """The condition has ended: if it comes back, that is another incident."""
        with self._lock:
            self._queue_rest(self._seen.pop((kind, thing), None))

    def _queue_rest(self, seen: _Seen | None) -> None:
        """Its count as it is, if the store has another."""
        if seen is not None and not seen.waiting and seen.line.count > seen.told:
            seen.waiting = True
            self._queue.append(seen)

    def _forget_quiet(self, moment: float) -> None:
        for key, seen in list(self._seen.items()):
            if not seen.waiting and moment - seen.met > limits.INCIDENT_QUIET:
                self._queue_rest(self._seen.pop(key))

    # --- keeping ------------------------------------------------------------------------------------------

    def tick(self) -> None:
        """[T] About once a second in a process that lives long: look at the clock, write what waits."""
        self._ticking = True
        wall, moment = self._system.time_ns(), self._system.since_boot()
        if self._clock is not None:
            jump = (wall - self._clock[0]) / _SECOND - (moment - self._clock[1])
            if abs(jump) > limits.CLOCK_JUMP:
                way = "forwards" if jump > 0 else "back"
                self.note("clock", "clock", f"the clock was set {way} by {abs(jump):.0f} s")
        self._clock = (wall, moment)
        self.flush()

    def waiting(self) -> list[Line]:
        """What is not in the store yet."""
        with self._lock:
            return [seen.line for seen in self._queue]

    def known(self) -> list[Line]:
        """What this process has met, with each count as it is; the store may say less, or nothing."""
        with self._lock:
            return [seen.line for seen in [*self._seen.values(), *self._queue]]

    def flush(self, *, last: bool = False) -> None:
        """Write what waits; what cannot be written, or not synced, goes on waiting and is written anew.

        After a failure it is tried ever more rarely. ``last``: try in any case, with every count as it is.
        """
        if last:
            with self._lock:
                for seen in self._seen.values():
                    self._queue_rest(seen)
        if self._root is None or not self._queue:
            return
        with self._writing:
            with self._lock:
                batch = [(seen, seen.line) for seen in self._queue[: limits.INCIDENTS_MAX]]
            moment = self._system.monotonic()
            if moment < self._again_at and not last:
                return
            try:
                _append(self._system, self._root, b"".join(line.encode() for _, line in batch))
            except OSError:
                self._pause = min(max(1.0, 2 * self._pause), limits.INCIDENT_AGAIN)
                self._again_at = moment + self._pause
                return
            self._pause = self._again_at = 0.0
            with self._lock:
                del self._queue[: len(batch)]
                for seen, line in batch:
                    seen.waiting = False
                    seen.said, seen.told = moment, line.count


def _append(system: Os, root: str, data: bytes) -> None:
    """Raises OSError, and then the lines count as not written."""
    path = os.path.join(root, FILE)
    new = not system.exists(path)
    fd = system.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        if system.size(fd) + len(data) > limits.INCIDENT_FILE and system.try_lock(fd):
            _rotate(system, root)
            system.close(fd)
            fd = -1
            fd = system.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
            new = True
        system.pwritev(fd, [data], 0)  # O_APPEND: it goes to the end
        system.fdatasync(fd)
        if new:
            system.fsync_dir(root)
    finally:
        if fd >= 0:
            system.close(fd)


def _rotate(system: Os, root: str) -> None:
    """With the file locked: unless another process just did it."""
    path = os.path.join(root, FILE)
    fd = system.open(path, os.O_RDONLY)
    try:
        if system.size(fd) > limits.INCIDENT_FILE // 2:
            system.rename(path, os.path.join(root, OLD))
    finally:
        system.close(fd)


# --- reading them ---------------------------------------------------------------------------------------------


def lines(root: str, system: Os = REAL) -> list[Line]:
    """What is in the store; lines that are none are passed over."""
    found = []
    for name in (OLD, FILE):
        try:
            fd = system.open(os.path.join(root, name), os.O_RDONLY)
        except OSError:
            continue
        try:
            data = system.pread(
                fd, 4 * limits.INCIDENT_FILE, 0
            )  # one append over the limit is possible
        except OSError:
            data = b""
        finally:
            system.close(fd)
        found += [line for raw in data.split(b"\n") if (line := parsed(raw)) is not None]
    return found


def parsed(raw: bytes) -> Line | None:
    """A line of the file, or None for anything else."""
    try:
        line = Line(**json.loads(raw))
    except (ValueError, TypeError, RecursionError):
        return None
    texts, numbers = (
        (line.kind, line.thing, line.text, line.by),
        (line.count, line.first, line.last),
    )
    whole = all(type(one) is str for one in texts) and all(type(one) is int for one in numbers)
    return line if whole else None


def folded(found: Iterable[Line]) -> list[Incident]:
    """One incident for each kind and thing, the one met last first."""
    newest: dict[tuple[str, str, str, int], Line] = {}
    for line in found:
        key = (line.by, line.kind, line.thing, line.first)
        if key not in newest or newest[key].count <= line.count:
            newest[key] = line
    result: dict[tuple[str, str], Incident] = {}
    for line in newest.values():
        old = result.get((line.kind, line.thing))
        one = Incident(line.kind, line.thing, line.text, line.count, line.first, line.last)
        if old is not None:
            text = one.text if one.last >= old.last else old.text
            one = replace(one, text=text, count=one.count + old.count, first=min(one.first, old.first),
                          last=max(one.last, old.last))  # fmt: skip
        result[line.kind, line.thing] = one
    return sorted(result.values(), key=lambda one: -one.last)


def reset(root: str, system: Os = REAL) -> None:
    """Forget all that is in the store: it has been dealt with. Raises OSError."""
    for name in (OLD, FILE):
        with contextlib.suppress(FileNotFoundError):
            system.unlink(os.path.join(root, name))
    system.fsync_dir(root)
