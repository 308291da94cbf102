"""Bytes a second by the time of day, and a count of requests by kind.

A window is ``{from = "08:00", to = "18:00", rate = "10M"}``; the first that holds the moment counts, outside of all of
them nothing is limited. The rate is kept over calls, not inside one: a pack goes at the speed of the line, and the next
one waits until it has been paid for. Both directions draw on the same rate.
"""

from __future__ import annotations

import datetime
import math
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from engine import limits
from engine.errors import InvalidRequest, ShuttingDown
from engine.locations.contract import Features, Location, Pieces, Stat, join

if TYPE_CHECKING:
    from typing_extensions import Buffer

_DAY = 86_400
_TIME = re.compile(r"([01][0-9]|2[0-3]):([0-5][0-9])\Z|(24):(00)\Z")
_RATE = re.compile(r"([1-9][0-9]{0,11})([KMG]?)\Z")
_UNITS = {"": 1, "K": limits.KIB, "M": limits.MIB, "G": limits.GIB}


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


def parse_windows(rows: Sequence[Mapping[str, object]]) -> tuple[Window, ...]:
    """Windows as a configuration has them: ``from``, ``to`` (HH:MM; left out: all day) and ``rate`` (K, M, G)."""
    windows = []
    for number, row in enumerate(rows, 1):
        what = f"limit {number} of bytes a second"
        if extra := set(row) - {"from", "to", "rate"}:
            raise InvalidRequest(
                what, expected="from, to, rate", found=", ".join(sorted(map(repr, extra)))
            )
        start = _second(what, row.get("from", "00:00"))
        end = _second(what, row.get("to", "24:00"))
        if start == end:
            raise InvalidRequest(
                what, expected="a time from one hour to another", found="the same twice"
            )
        match = _RATE.match(str(row.get("rate", "")))
        if match is None:
            raise InvalidRequest(
                what,
                expected="a rate such as 500K or 10M (bytes a second)",
                found=repr(row.get("rate")),
            )
        windows.append(Window(start, end, int(match[1]) * _UNITS[match[2]]))
    return tuple(windows)


def _second(what: str, value: object) -> int:
    match = _TIME.match(str(value))
    if match is None:
        raise InvalidRequest(what, expected="times HH:MM", found=repr(value))
    hour, minute = match[1] or match[3], match[2] or match[4]
    return int(hour) * 3600 + int(minute) * 60


def local_second(now_ns: int) -> int:
    """The second of the day at this machine, by its own time zone."""
    here = datetime.datetime.fromtimestamp(now_ns / 1e9).astimezone()
    return here.hour * 3600 + here.minute * 60 + here.second


class Throttle:
    """A location that keeps to windows, and counts.

    ``clock`` gives wall time in ns, ``ticks`` seconds that only go forward, ``sleep`` waits (by default until
    ``close``), ``second`` turns wall time into the second of the day.
    """

    def __init__(
        self,
        inner: Location,
        windows: Sequence[Window] = (),
        *,
        clock: Callable[[], int] = time.time_ns,
        ticks: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] | None = None,
        second: Callable[[int], int] = local_second,
    ) -> None:
        self.shown = inner.shown
        self._inner = inner
        self._windows = tuple(windows)
        self._clock, self._ticks, self._second = clock, ticks, second
        self._closed = threading.Event()
        self._sleep = sleep or self._closed.wait
        self._lock = threading.Lock()  # guards what follows
        self._balance = 0.0  # bytes that may go at once; below zero: what is still to be paid for
        self._at = ticks()
        self._counts: dict[str, int] = {}

    def limit(self, windows: Sequence[Window]) -> None:
        """Other windows from now on; who waits looks again within a second."""
        with self._lock:
            self._windows = tuple(windows)

    def counts(self) -> dict[str, int]:
        """Since the start: requests by kind (put, part, create, get, head, list, delete, retain), ``bytes_up`` and
        ``bytes_down``. Tries that failed count; those the client library makes again by itself do not."""
        with self._lock:
            return dict(self._counts)

    def features(self) -> Features:
        self._count(create=2, delete=1, head=1)
        return self._inner.features()

    def put(self, name: str, data: Buffer) -> None:
        size = memoryview(data).nbytes
        parts = math.ceil(size / limits.PUT_PART)
        self._pay(size)
        # In parts: one request to begin, one to end.
        self._count(bytes_up=size, **({"put": 1} if parts <= 1 else {"put": 2, "part": parts}))
        self._inner.put(name, data)

    def create(self, name: str, data: Buffer) -> bool:
        size = memoryview(data).nbytes
        self._pay(size)
        self._count(bytes_up=size, create=1)
        return self._inner.create(name, data)

    def read(self, name: str, offset: int = 0, length: int = -1) -> bytes:
        self._pay(max(length, 0))
        self._count(get=1)
        data = self._inner.read(name, offset, length)
        if length < 0:
            self._owe(len(data))
        self._count(bytes_down=len(data))
        return data

    def ranges(self, name: str, parts: Sequence[tuple[int, int]]) -> Pieces:
        joined = join(parts)
        size = sum(one.length for one in joined)
        self._pay(size)
        self._count(get=len(joined))
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

    # --- the bucket ------------------------------------------------------------------------------

    def _count(self, **kinds: int) -> None:
        with self._lock:
            for kind, number in kinds.items():
                self._counts[kind] = self._counts.get(kind, 0) + number

    def _owe(self, size: int) -> None:
        with self._lock:
            self._balance -= size

    def _pay(self, size: int) -> None:
        """Wait until what went before is paid for; then these bytes may go, and are owed."""
        while size:
            if self._closed.is_set():
                raise ShuttingDown(f"storage location {self.shown}", found="it was closed")
            with self._lock:
                wait = self._due()
                if wait <= 0:
                    self._balance -= size
                    return
            # No longer than a second: the windows may change, and the clock may be set.
            self._sleep(min(wait, 1.0))

    def _due(self) -> float:
        """Bring the balance up to now; seconds until something may go, at the rate of now."""
        second = self._second(self._clock())
        rate = next((window.rate for window in self._windows if window.holds(second)), None)
        now = self._ticks()
        gone, self._at = now - self._at, now
        if rate is None:
            self._balance = 0.0
            return 0.0
        self._balance = min(self._balance + gone * rate, rate * limits.THROTTLE_BURST)
        return -self._balance / rate
