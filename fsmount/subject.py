"""What a worker serves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from engine.incidents import Journal
from fsmount.contract import Tree
from fsmount.pointfs import View
from fsmount.snapdir import Points


@dataclass(frozen=True)
class Subject:
    """What a worker serves: a live tree with its recovery points, or one recovery point alone."""

    name: str
    source: str  # as mount(8) shows it
    folder: str  # where the control socket goes
    tree: Tree | None = None
    points: Points | None = None
    view: View | None = None
    incidents: Journal = field(default_factory=Journal)
    counters: Callable[[], dict[str, int]] = dict  # of what the store does for it
