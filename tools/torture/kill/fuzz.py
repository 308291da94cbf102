"""Scheduling fuzz: a process that rests for a moment, now and then for long, at every seam and transaction."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from engine.index import Index, Txn
from engine.index.env import Reading
from engine.seam import Os

SEAMS = (
    "open", "pwritev", "pread", "fdatasync", "fsync", "fsync_dir", "truncate", "size", "rename", "unlink", "mkdir",
    "listdir", "exists", "try_lock",
)  # fmt: skip
OFTEN, SHORT = 0.04, 0.02  # chance of a short rest, its longest, s
SELDOM, LONG = 0.002, 0.2


class Fuzz:
    """Rests by chance. Patches this process for good: for children of a rig."""

    def __init__(self, rng: random.Random, beat: Callable[[], None]) -> None:
        """``beat`` is called at every place where it may rest: who does not get there stands still."""
        self._rng = rng
        self._beat = beat

    def rest(self) -> None:
        """Perhaps rest here."""
        self._beat()
        chance = self._rng.random()
        if chance < SELDOM:
            time.sleep(LONG)
        elif chance < OFTEN:
            time.sleep(self._rng.uniform(0, SHORT))

    def install(self) -> None:
        """From now on every call of the seam and every transaction of this process passes here."""
        for name in SEAMS:
            setattr(Os, name, self._rested(getattr(Os, name)))
        self._transactions()

    def _rested(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **named: Any) -> Any:
            self.rest()
            return real(*args, **named)

        return call

    def _transactions(self) -> None:
        rest, write, enter = self.rest, Index.write, Reading.__enter__

        @contextmanager
        def rested(index: Index) -> Iterator[Txn]:
            rest()
            with write(index) as txn:
                rest()
                yield txn
                rest()

        def entered(reading: Reading) -> Txn:
            txn = enter(reading)
            rest()  # what it sees grows old
            return txn

        Index.write = rested  # type: ignore[method-assign]
        Reading.__enter__ = entered  # type: ignore[method-assign]
