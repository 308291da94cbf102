"""A location that is struck at one of its calls: the process dies, or the server goes wrong."""

from __future__ import annotations

import os
import random
import signal
import threading
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from engine.errors import LocationUnavailable
from engine.locations.contract import Features, Location, Pieces, Stat

if TYPE_CHECKING:
    from typing_extensions import Buffer

HOWS = ("killed", "killed after", "killed halfway", "refused", "answer lost", "lost")
CHANGES = ("put", "create", "remove")


class Strike(NamedTuple):
    """What goes wrong: at the ``left``-th call (from 0) of the kinds that change something, or of any kind.
    ``again``: what may pass is tried again."""

    how: str
    left: int
    reads: bool
    again: bool

    @staticmethod
    def chosen(rng: random.Random) -> Strike:
        """The first calls are the likeliest: most jobs are short."""
        left = min(int(rng.expovariate(0.3)), 60)
        return Strike(rng.choice(HOWS), left, rng.random() < 0.25, rng.random() < 0.5)


class Struck:
    """A location over another. A put that is lost says that it is done; all else ends with an error, or the process."""

    def __init__(self, inner: Location, strike: Strike) -> None:
        self.inner = inner
        self.shown = inner.shown
        self._strike = strike
        self._left = strike.left
        self._lock = threading.Lock()

    def features(self) -> Features:
        return self.inner.features()

    def put(self, name: str, data: Buffer) -> None:
        how = self._due("put")
        if how == "lost":
            return
        self._before(how, name)
        view = memoryview(data)
        self.inner.put(name, view[: len(view) // 2] if how == "killed halfway" else view)
        self._after(how)

    def create(self, name: str, data: Buffer) -> bool:
        how = self._due("create")
        self._before(how, name)
        made = self.inner.create(name, data)
        self._after(how)
        return made

    def remove(self, names: Sequence[str]) -> None:
        how = self._due("remove")
        self._before(how, names[0] if names else "")
        self.inner.remove(names[: len(names) // 2] if how == "killed halfway" else names)
        self._after(how)

    def read(self, name: str, offset: int = 0, length: int = -1) -> bytes:
        self._reading(name)
        return self.inner.read(name, offset, length)

    def ranges(self, name: str, parts: Sequence[tuple[int, int]]) -> Pieces:
        self._reading(name)
        return self.inner.ranges(name, parts)

    def stat(self, name: str) -> Stat:
        self._reading(name)
        return self.inner.stat(name)

    def list(self, prefix: str, after: str = "") -> Iterator[Stat]:
        self._reading(prefix)
        return self.inner.list(prefix, after)

    def retain(self, name: str, until_s: int) -> None:
        self.inner.retain(name, until_s)

    def tidy(self, age_s: float) -> int:
        return self.inner.tidy(age_s)

    def counts(self) -> dict[str, int]:
        return {}

    def close(self) -> None:
        self.inner.close()

    # ----------------------------------------------------------------------------------------------------------

    def _due(self, call: str) -> str:
        if not self._strike.reads and call not in CHANGES:
            return ""
        with self._lock:
            self._left -= 1
            return self._strike.how if self._left == -1 else ""

    def _reading(self, name: str) -> None:
        self._before(self._due("read"), name)

    @staticmethod
    def _before(how: str, name: str) -> None:
        if how == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if how == "refused":
            raise LocationUnavailable(name, found="no answer")

    @staticmethod
    def _after(how: str) -> None:
        if how in ("killed after", "killed halfway"):
            os.kill(os.getpid(), signal.SIGKILL)
        if how == "answer lost":
            raise LocationUnavailable("a location", found="no answer")
