"""Retention: which points of a mount are expired. Planned from values alone, then carried out elsewhere.

A point is kept while it is one of the ``last`` so many, or younger than ``within_s``; 0 and 0 keep all. The newest is
kept, and those marked so.

No clock is believed to delete: a point is as young as the youngest made before it that has a believable time, and the
present is no later than what this machine has seen of time going by since it last looked, in the same boot.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence

from engine import PointInfo, clock
from engine.clock import Seen

_SECOND = 10**9
SLACK = 60 * _SECOND  # ns by which clocks may differ over a boot without anybody being told


def believable(now: Seen, last: Seen | None) -> tuple[int, int, Seen]:
    """(the time that may be used to delete, by how many ns the clock is wrong, what to remember of this look), by the
    engine's judgment. Over a boot the clock is believed, and when somebody says that it is right (``last`` is None).
    """
    judged, seen = clock.judged(now.time_ns, now.since_boot, now.boot, last)
    ahead = now.time_ns - seen.time_ns
    return judged.earliest, ahead if abs(ahead) > SLACK else 0, seen


def to_mark(seen: Seen) -> str:
    """As a mark of the state keeps it."""
    return json.dumps(seen)


def from_mark(text: str) -> Seen | None:
    """None for no mark."""
    return Seen(*json.loads(text)) if text else None


def expired(
    points: Sequence[PointInfo], kept: Collection[str], *, last: int, within_s: float, now_ns: int
) -> list[PointInfo]:
    """The points of one mount that retention gives up, the oldest first."""
    if not last and not within_s:
        return []
    made = sorted(points, key=lambda point: point.seq)
    since = now_ns - int(within_s * _SECOND)
    found = []
    youngest = 0
    for place, point in enumerate(made):
        if point.time_ns <= now_ns:
            youngest = max(youngest, point.time_ns)
        time_ns = max(point.time_ns, youngest)
        from_end = len(made) - place
        old = not within_s or time_ns < since  # of a number of points no clock is asked
        if from_end > max(last, 1) and old and point.id not in kept:
            found.append(point)
    return found
