"""Retention: which points of a mount are expired. Planned from values alone, then carried out elsewhere.

A point is kept while it is one of the ``last`` so many, or younger than ``within_s``; 0 and 0 keep all. The newest is
kept, and those marked so.

No clock is believed to delete: a point is as young as the youngest made before it that has a believable time, and the
present is no later than what this machine has seen of time going by since it last looked, in the same boot.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from engine import PointInfo

_SECOND = 10**9
SLACK = 60 * _SECOND  # ns by which clocks may differ over an interval without having been set


@dataclass(frozen=True)
class Seen:
    """The clock as retention last saw it: ns since the epoch, s since the machine booted, and which boot."""

    time_ns: int
    since_boot: float
    boot: str

    def to_json(self) -> str:
        return json.dumps([self.time_ns, self.since_boot, self.boot])

    @staticmethod
    def from_json(text: str) -> Seen | None:
        """None for no mark."""
        return Seen(*json.loads(text)) if text else None


def believable(now: Seen, last: Seen | None) -> tuple[int, int, Seen]:
    """(the time that may be used to delete, by how many ns the clock is wrong, what to remember of this look).

    A clock that was set back gives the earlier time, one that was set forwards the time that has really gone by: until
    it is right again, the machine boots, or somebody says that it is right. After a boot nobody knows.
    """
    if last is None or last.boot != now.boot:
        return now.time_ns, 0, now
    expected = last.time_ns + int((now.since_boot - last.since_boot) * _SECOND)
    ahead = now.time_ns - expected
    if abs(ahead) <= SLACK:
        return now.time_ns, 0, now
    return min(now.time_ns, expected), ahead, replace(now, time_ns=expected)


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
