"""Tries again what may pass, for so long and no longer.

By time, never by count: a server that answers at once with an error would use up any number of tries before it is back.
Only ``LocationUnavailable`` is tried again; a denial, damage and what is not there stay so, and a disk that is ``Away``
comes back when somebody brings it.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, TypeVar

from engine import limits
from engine.errors import Away, LocationUnavailable, NotFound, ShuttingDown
from engine.locations.contract import Features, Location, Pieces, Stat

if TYPE_CHECKING:
    from typing_extensions import Buffer

_T = TypeVar("_T")


class Retry:
    """A location that outlives absences of ``limit_s`` seconds, each call for itself.

    ``clock`` gives seconds that only go forward; ``sleep`` waits so many (by default until ``close``); ``chance`` gives
    numbers from 0 to 1: a pause is half fixed and half chance, so that many who wait do not come back together.
    """

    def __init__(
        self,
        inner: Location,
        limit_s: float = limits.RETRY_LIMIT,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] | None = None,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.shown = inner.shown
        self._inner = inner
        self._limit = limit_s
        self._clock = clock
        self._closed = threading.Event()
        self._sleep = sleep or self._closed.wait
        self._chance = chance

    def features(self) -> Features:
        return self._again(self._inner.features)

    def put(self, name: str, data: Buffer) -> None:
        self._again(lambda: self._inner.put(name, data))

    def create(self, name: str, data: Buffer) -> bool:
        unsure = False  # did a try before this one end without an answer? It may have been done

        def attempt() -> bool:
            nonlocal unsure
            try:
                if self._inner.create(name, data):
                    return True
                return unsure and self._is(name, data)
            except LocationUnavailable:
                unsure = True
                raise

        return self._again(attempt)

    def _is(self, name: str, data: Buffer) -> bool:
        """Is it these bytes that are there?"""
        view = memoryview(data).cast("B")
        try:
            return self._inner.stat(name).size == len(view) and self._inner.read(name) == view
        except NotFound as error:
            raise LocationUnavailable(error.what, found="that it came and went") from None

    def read(self, name: str, offset: int = 0, length: int = -1) -> bytes:
        return self._again(lambda: self._inner.read(name, offset, length))

    def ranges(self, name: str, parts: Sequence[tuple[int, int]]) -> Pieces:
        return self._again(lambda: self._inner.ranges(name, parts))

    def stat(self, name: str) -> Stat:
        return self._again(lambda: self._inner.stat(name))

    def list(self, prefix: str, after: str = "") -> Iterator[Stat]:
        """One that breaks off goes on behind the last name that came; each name's wait has the whole limit."""
        stream: Iterator[Stat] | None = None

        def following() -> Stat | None:
            nonlocal stream
            try:
                if stream is None:
                    stream = self._inner.list(prefix, after)
                return next(stream, None)
            except LocationUnavailable:
                stream = None
                raise

        while (one := self._again(following)) is not None:
            after = one.name
            yield one

    def remove(self, names: Sequence[str]) -> None:
        self._again(lambda: self._inner.remove(names))

    def retain(self, name: str, until_s: int) -> None:
        self._again(lambda: self._inner.retain(name, until_s))

    def tidy(self, age_s: float) -> int:
        return self._again(lambda: self._inner.tidy(age_s))

    def counts(self) -> dict[str, int]:
        return self._inner.counts()

    def close(self) -> None:
        self._closed.set()
        self._inner.close()

    def _again(self, attempt: Callable[[], _T]) -> _T:
        begun = self._clock()
        pause = limits.RETRY_FIRST
        tries = 0
        while True:
            if self._closed.is_set():
                raise ShuttingDown(f"storage location {self.shown}", found="it was closed")
            tries += 1
            try:
                return attempt()
            except Away:
                raise
            except LocationUnavailable as error:
                last = error
            gone = self._clock() - begun
            wait = pause * (0.5 + 0.5 * self._chance())
            if gone + wait > self._limit:
                if tries > 1:
                    last.args = (f"{last} (tried {tries} times in {gone:.0f} s)",)
                raise last
            self._sleep(wait)
            pause = min(pause * 2, limits.RETRY_LONGEST)
