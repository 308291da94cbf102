"""Bytes a second by the time of day, and a count of requests by kind.

``08:00-18:00=5M,20M`` is windows: 5 MiB a second from eight to six, else 20; the first that holds the moment counts,
outside of all of them nothing is limited. What is sent and what is fetched have limits of their own. The rate is kept
over calls, not inside one: a pack goes at the speed of the line, and the next one waits until it has been paid for.
"""

from __future__ import annotations

import datetime
import math
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from engine import limits
from engine.errors import InvalidRequest, ShuttingDown
from engine.locations.contract import Features, Location, Pieces, Stat, join

if TYPE_CHECKING:
    from typing_extensions import Buffer

_WINDOW = re.compile(
    r"(?:([01][0-9]|2[0-3]):([0-5][0-9])-([01][0-9]|2[0-3]|24):([0-5][0-9])=)?([1-9][0-9]{0,11})([KMG]?)"
)
_UNITS = {"": 1, "K": limits.KIB, "M": limits.MIB, "G": limits.GIB}
_DAY = 86_400


class Window(NamedTuple):
    """From one second of the day to another (over midnight, if that is less): so many bytes a second."""

    start_s: int
    end_s: int
    rate: int

    def holds(self, second: int) -> bool:
        """Is this second of the day in it?"""
        if self.start_s <= self.end_s:
            return self.start_s <= second < self.end_s
        return second >= self.start_s or second < self.end_s


class Bandwidth(NamedTuple):
    """Windows of what is sent, and of what is fetched."""

    up: tuple[Window, ...] = ()
    down: tuple[Window, ...] = ()


@lru_cache(maxsize=64)
def parse_windows(text: str) -> tuple[Window, ...]:
    """Windows as people write them: ``HH:MM-HH:MM=RATE`` or ``RATE`` alone, with commas between.

    Raises InvalidRequest.
    """
    windows = []
    for number, part in enumerate(text.split(",") if text else (), 1):
        what = f"limit {number} of bytes a second"
        match = _WINDOW.fullmatch(part.strip(" "))
        if match is None:
            raise InvalidRequest(
                what, expected="such as 08:00-18:00=5M (K, M, G: bytes a second), or a rate alone", found=repr(part)
            )  # fmt: skip
        start, end = 0, _DAY
        if match[1]:
            start, end = (int(match[at]) * 3600 + int(match[at + 1]) * 60 for at in (1, 3))
        if start == end or end > _DAY:
            raise InvalidRequest(
                what, expected="from one time of the day to another", found=repr(part)
            )
        windows.append(Window(start, end, int(match[5]) * _UNITS[match[6]]))
    return tuple(windows)


def local_second(now_ns: int) -> int:
    """The second of the day at this machine, by its own time zone."""
    here = datetime.datetime.fromtimestamp(now_ns / 1e9).astimezone()
    return here.hour * 3600 + here.minute * 60 + here.second


class _Line:
    """One direction: what may go at once, or is still to be paid for."""

    def __init__(self, now: float) -> None:
        self.balance = 0.0  # bytes
        self.at = now

    def due(self, rate: int | None, now: float) -> float:
        """Bring the balance up to now; seconds until something may go."""
        gone, self.at = now - self.at, now
        if rate is None:
            self.balance = 0.0
            return 0.0
        self.balance = min(self.balance + gone * rate, rate * limits.THROTTLE_BURST)
        return -self.balance / rate


class Throttle:
    """A location that keeps to windows, and counts.

    ``bandwidth`` is asked anew every ``BANDWIDTH_LOOK``; ``clock`` gives wall time in ns, ``ticks`` seconds that only
    go forward, ``sleep`` waits (by default until ``close``), ``second`` turns wall time into the second of the day.
    """

    def __init__(
        self,
        inner: Location,
        bandwidth: Callable[[], Bandwidth] = Bandwidth,
        *,
        clock: Callable[[], int] = time.time_ns,
        ticks: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] | None = None,
        second: Callable[[int], int] = local_second,
    ) -> None:
        self.shown = inner.shown
        self._inner = inner
        self._ask = bandwidth
        self._clock, self._ticks, self._second = clock, ticks, second
        self._closed = threading.Event()
        self._sleep = sleep or self._closed.wait
        self._own = threading.local()
        self._lock = threading.Lock()  # guards what follows
        self._bandwidth, self._asked = bandwidth(), ticks()
        self._up, self._down = _Line(self._asked), _Line(self._asked)
        self._counts: Counter[str] = Counter()

    def counts(self) -> dict[str, int]:
        """Tries that failed count; those that the client library makes again by itself do not."""
        with self._lock:
            return dict(self._counts)

    def working(self) -> float:
        """Seconds that go forward, but not while this thread waits for its turn: that is nobody's failure."""
        waited: float = getattr(self._own, "waited", 0.0)
        return self._ticks() - waited

    def features(self) -> Features:
        self._count(create=2, delete=1, head=1)
        return self._inner.features()

    def put(self, name: str, data: Buffer) -> None:
        size = memoryview(data).nbytes
        parts = math.ceil(size / limits.PUT_PART)
        self._pay(self._up, size)
        # In parts: one request to begin, one to end.
        self._count(bytes_up=size, **({"put": 1} if parts <= 1 else {"put": 2, "part": parts}))
        self._inner.put(name, data)

    def create(self, name: str, data: Buffer) -> bool:
        size = memoryview(data).nbytes
        self._pay(self._up, size)
        self._count(bytes_up=size, create=1)
        return self._inner.create(name, data)

    def read(self, name: str, offset: int = 0, length: int = -1) -> bytes:
        self._pay(
            self._down, length if length >= 0 else 1
        )  # how much the rest is, is seen when it is there
        self._count(**({"get": 1} if length else {"head": 1}))
        data = self._inner.read(name, offset, length)
        if length < 0:
            self._owe(len(data))
        self._count(bytes_down=len(data))
        return data

    def ranges(self, name: str, parts: Sequence[tuple[int, int]]) -> Pieces:
        joined = join(parts)
        size = sum(one.length for one in joined)
        self._pay(self._down, size)
        self._count(**({"get": len(joined)} if joined else {"head": 1}))
        found = self._inner.ranges(name, parts)
        self._count(bytes_down=size)
        return found

    def stat(self, name: str) -> Stat:
        self._count(head=1)
        return self._inner.stat(name)

    def list(self, prefix: str, after: str = "") -> Iterator[Stat]:
        self._count(list=1)
        for number, one in enumerate(self._inner.list(prefix, after), 1):
            if number > 1 and number % limits.LIST_PAGE == 1:
                self._count(list=1)
            yield one

    def remove(self, names: Sequence[str]) -> None:
        self._count(delete=math.ceil(len(names) / limits.LIST_PAGE))
        self._inner.remove(names)

    def retain(self, name: str, until_s: int) -> None:
        self._count(retain=2)
        self._inner.retain(name, until_s)

    def tidy(self, age_s: float) -> int:
        self._count(list=1)
        return self._inner.tidy(age_s)

    def close(self) -> None:
        self._closed.set()
        self._inner.close()

    # --- the lines -------------------------------------------------------------------------------

    def _count(self, **kinds: int) -> None:
        with self._lock:
            self._counts.update(kinds)

    def _owe(self, size: int) -> None:
        with self._lock:
            self._down.balance -= size

    def _pay(self, line: _Line, size: int) -> None:
        """Wait until what went before is paid for; then these bytes may go, and are owed."""
        while size:
            if self._closed.is_set():
                raise ShuttingDown(f"storage location {self.shown}", found="it was closed")
            with self._lock:
                wait = line.due(self._rate(line), self._ticks())
                if wait <= 0:
                    line.balance -= size
                    return
            begun = self._ticks()
            # No longer than a second: the windows may change, and the clock may be set.
            self._sleep(min(wait, 1.0))
            self._own.waited = getattr(self._own, "waited", 0.0) + self._ticks() - begun

    def _rate(self, line: _Line) -> int | None:
        now = self._ticks()
        if now - self._asked >= limits.BANDWIDTH_LOOK:
            self._bandwidth, self._asked = self._ask(), now
        windows = self._bandwidth.up if line is self._up else self._bandwidth.down
        if not windows:
            return None
        second = self._second(self._clock())
        return next((window.rate for window in windows if window.holds(second)), None)
