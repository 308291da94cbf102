"""Progress of work that takes time, as callers see it."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple


class Progress(NamedTuple):
    """``done`` of ``total`` (None: not known) ``unit`` of a ``stage``."""

    stage: str
    done: int
    total: int | None
    unit: str


Report = Callable[[Progress], None]


def silent(progress: Progress) -> None:
    """A report that goes nowhere."""
