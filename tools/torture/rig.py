"""What every rig is: a name, a function that runs one job, and the planted bugs it must catch.

A rig takes all chance from its job's ``random``, all sizes from ``size`` and writes only below ``scratch``.  It counts
what it did and raises ``Found`` for a broken promise; anything else it raises is a fault of the rig.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn


class Found(Exception):
    """The store broke a promise. The message says which, and how to see it again."""


@dataclass
class Job:
    """One run of a rig. ``scale`` 1.0 is the full size; ``case`` replays a single case of the seed."""

    rig: str
    seed: int
    scale: float
    scratch: Path
    case: str = ""
    say: Callable[[str], None] = lambda text: None
    figures: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)
    started: float = field(default_factory=time.monotonic)

    def random(self, *labels: object) -> random.Random:
        """Chance that depends on the seed and the labels alone."""
        return random.Random(":".join(map(str, (self.seed, self.rig, *labels))))

    def size(self, full: int, least: int = 1) -> int:
        """How many of what is done ``full`` times at full size."""
        return max(least, round(full * self.scale))

    def wants(self, case: object) -> bool:
        """Is this case to be run? All are, unless one is replayed."""
        return not self.case or self.case == str(case)

    def count(self, what: str, number: int = 1) -> None:
        """Add to a figure; ``what`` is a plural noun."""
        self.figures[what] += number

    def note(self, text: str) -> None:
        """A measured fact that is no count, for the record."""
        self.notes.append(text)

    def fail(self, case: object, text: str) -> NoReturn:
        """The store broke a promise. Raises Found."""
        again = (
            f"python -m tools.torture {self.rig} --seed {self.seed} --scale {self.scale:g}"
            f" --case '{case}'"
        )
        raise Found(f"{text}\n  case {case}; again: {again}")


@dataclass(frozen=True)
class Rig:
    """One way to attack a store.

    ``needs``: what the machine must have, of ``needs.REASONS``.  ``bugs``: names of planted bugs (``bugs.BUGS``) that
    a job at ``teeth`` size must end with Found.
    """

    name: str
    what: str
    run: Callable[[Job], None]
    needs: tuple[str, ...] = ()
    bugs: tuple[str, ...] = ()
    teeth: float = 0.02  # scale of the run that must catch a planted bug
    test: float = 0.05  # scale of the run in the test suite
    alone: bool = False  # it measures time: nothing runs beside it
