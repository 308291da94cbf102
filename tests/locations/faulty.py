"""A location that goes wrong at named calls: for tests of whoever relies on one.

    location = Faulty(inner)
    location.on("put", Fail(LocationUnavailable("gone")))            # the next put fails, nothing is done
    location.on("put", Fail(…, done=True), name="packs/", after=3)   # the fourth put there is done, and then fails
    location.on("put", Tear(100))            # a put keeps only the first 100 bytes; a read is Corrupt
    location.on("put", Lose())               # says it is done, and nothing is there
    location.on("read", Flip(bit=17), times=-1)                      # one bit of all that is read is another
    location.on("list", Lose(), name="journal/", times=-1)           # names that begin so are left out of lists
    location.on("stat", Delay(0.5)); location.on("create", Call(function))   # wait; call something (kill, count) first
    location.calls                           # every (operation, name), in order

Operations: features, put, create, read, ranges, stat, list, remove, retain, tidy; "*" is any. ``name`` is how the name
begins (of remove: of any of them; of list: of the prefix, but for Lose). ``after`` calls that fit are let pass first;
then ``times`` are hit (-1: all). The first plan that is due is taken. Thread-safe.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from engine.errors import Corrupt
from engine.locations.contract import Features, Location, Pieces, Stat


@dataclass(frozen=True)
class Fail:
    """Raise this; ``done``: after doing it."""

    error: Exception
    done: bool = False


@dataclass(frozen=True)
class Delay:
    """Wait before it."""

    seconds: float


@dataclass(frozen=True)
class Tear:
    """Only so many of the first bytes."""

    size: int


@dataclass(frozen=True)
class Lose:
    """Say that it is done, and do nothing."""


@dataclass(frozen=True)
class Flip:
    """One bit is another (modulo the length)."""

    bit: int


@dataclass(frozen=True)
class Call:
    """Call this first, with operation and name; what it raises is raised."""

    function: Callable[[str, str], object]


_T = TypeVar("_T")
Fault = Fail | Delay | Tear | Lose | Flip | Call


@dataclass
class _Planned:
    operation: str
    fault: Fault
    name: str
    after: int
    times: int


class Faulty:
    """A location over another, with planned faults."""

    def __init__(self, inner: Location) -> None:
        self.shown = inner.shown
        self.inner = inner
        self.calls: list[tuple[str, str]] = []
        self._plan: list[_Planned] = []
        self._lock = threading.Lock()

    def on(
        self, operation: str, fault: Fault, *, name: str = "", after: int = 0, times: int = 1
    ) -> None:
        """Plan a fault."""
        with self._lock:
            self._plan.append(_Planned(operation, fault, name, after, times))

    def clear(self) -> None:
        """Forget every plan, and every call."""
        with self._lock:
            self._plan.clear()
            self.calls.clear()

    def features(self) -> Features:
        return self._do("features", [""], self.inner.features)

    def put(self, name: str, data: bytes | bytearray | memoryview) -> None:
        fault = self._before("put", [name])
        if not isinstance(fault, Lose):
            self.inner.put(name, _hurt(fault, bytes(data)))
        self._after(fault)

    def create(self, name: str, data: bytes | bytearray | memoryview) -> bool:
        fault = self._before("create", [name])
        made = isinstance(fault, Lose) or self.inner.create(name, _hurt(fault, bytes(data)))
        self._after(fault)
        return made

    def read(self, name: str, offset: int = 0, length: int = -1) -> bytes:
        fault = self._before("read", [name])
        data = self.inner.read(name, offset, length)
        self._after(fault)
        return _given(name, data, fault)

    def ranges(self, name: str, parts: Sequence[tuple[int, int]]) -> Pieces:
        fault = self._before("ranges", [name])
        found = self.inner.ranges(name, parts)
        self._after(fault)
        return [memoryview(_given(name, bytes(data), fault)) for data in found]

    def stat(self, name: str) -> Stat:
        return self._do("stat", [name], lambda: self.inner.stat(name))

    def list(self, prefix: str, after: str = "") -> Iterator[Stat]:
        fault = self._before("list", [prefix])
        for number, one in enumerate(self.inner.list(prefix, after)):
            if isinstance(fault, Tear) and number >= fault.size:
                return
            if not self._left_out(one.name):
                yield one
        self._after(fault)

    def remove(self, names: Sequence[str]) -> None:
        fault = self._before("remove", names)
        if isinstance(fault, Tear):
            names = names[: fault.size]
        if not isinstance(fault, Lose):
            self.inner.remove(names)
        self._after(fault)

    def retain(self, name: str, until_s: int) -> None:
        fault = self._before("retain", [name])
        if not isinstance(fault, Lose):
            self.inner.retain(name, until_s)
        self._after(fault)

    def tidy(self, age_s: float) -> int:
        return self._do("tidy", [""], lambda: self.inner.tidy(age_s))

    def counts(self) -> dict[str, int]:
        return self.inner.counts()

    def close(self) -> None:
        self.inner.close()

    # ---------------------------------------------------------------------------------------------

    def _do(self, operation: str, names: Sequence[str], call: Callable[[], _T]) -> _T:
        fault = self._before(operation, names)
        answer = call()
        self._after(fault)
        return answer

    def _before(self, operation: str, names: Sequence[str]) -> Fault | None:
        fault = self._due(operation, names)
        match fault:
            case Fail(error=error, done=False):
                raise error
            case Delay(seconds=seconds):
                time.sleep(seconds)
            case Call(function=function):
                function(operation, names[0] if names else "")
        return fault

    @staticmethod
    def _after(fault: Fault | None) -> None:
        if isinstance(fault, Fail):
            raise fault.error

    def _due(self, operation: str, names: Sequence[str]) -> Fault | None:
        with self._lock:
            self.calls += [(operation, name) for name in names]
            for one in self._plan:
                if one.operation not in (operation, "*") or not one.times:
                    continue
                if operation == "list" and isinstance(one.fault, Lose):
                    continue
                if not any(name.startswith(one.name) for name in names):
                    continue
                if one.after:
                    one.after -= 1
                    continue
                one.times -= 1
                return one.fault
        return None

    def _left_out(self, name: str) -> bool:
        with self._lock:
            for one in self._plan:
                hides = one.operation == "list" and isinstance(one.fault, Lose) and one.times
                if hides and name.startswith(one.name):
                    one.times -= 1
                    return True
        return False


def _hurt(fault: Fault | None, data: bytes) -> bytes:
    match fault:
        case Tear(size=size):
            return data[:size]
        case Flip(bit=bit) if data:
            changed = bytearray(data)
            changed[bit // 8 % len(data)] ^= 1 << bit % 8
            return bytes(changed)
    return data


def _given(name: str, data: bytes, fault: Fault | None) -> bytes:
    hurt = _hurt(fault, data)
    if len(hurt) != len(data):
        raise Corrupt(name, expected=f"{len(data)} bytes", found=f"{len(hurt)}")
    return hurt
