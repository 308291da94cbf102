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
SHORT, LONG = 0.02, 0.2  # s
# Chances of a rest of up to SHORT and of one of LONG, for some steps: one process hurries while another dawdles.
MOODS = ((0.0, 0.0), (0.04, 0.002), (0.3, 0.02))
MOOD_STEPS = (20, 200)


class Fuzz:
    """Rests by chance. Patches this process for good: for children of a rig."""

    def __init__(self, rng: random.Random, beat: Callable[[], None]) -> None:
        """``beat`` is called at every place where it may rest: who does not get there stands still."""
        self._rng = rng
        self._beat = beat
        self._mood = MOODS[1]
        self._left = 0

    def rest(self) -> None:
        """Perhaps rest here."""
        self._beat()
        self._left -= 1
        if self._left < 0:
            self._left = self._rng.randint(*MOOD_STEPS)
            self._mood = self._rng.choice(MOODS)
        often, seldom = self._mood
        chance = self._rng.random()
        if chance < seldom:
            time.sleep(LONG)
        elif chance < often:
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

        for place, name, function in ((Index, "write", rested), (Reading, "__enter__", entered)):
            setattr(place, name, function)
