"""How long to wait before a worker is started again. Times are monotonic s."""

from __future__ import annotations

from collections import deque

FIRST, LONGEST = 1.0, 60.0  # s
HEALTHY = 600.0  # s of serving after which what was before is forgotten
OFTEN, WITHIN = 5, 600.0  # restarts that are an incident, and the time they come in


class Backoff:
    """Of one mount. After a time of health the first restart is at once, then 1 s, 2 s, 4 s … 60 s later."""

    def __init__(self) -> None:
        self._count = 0
        self._since: float | None = None
        self._ends: deque[float] = deque(maxlen=OFTEN)

    def serving(self, now: float) -> None:
        """It serves."""
        self._since = now

    def ended(self, now: float) -> float:
        """It ended, or could not be started: how long to wait."""
        if self._since is not None and now - self._since >= HEALTHY:
            self._count = 0
        self._since = None
        self._ends.append(now)
        wait = 0.0 if not self._count else min(FIRST * 2 ** min(self._count - 1, 30), LONGEST)
        self._count += 1
        return wait

    def often(self) -> bool:
        """Whether it ended so often in a short time that somebody should look."""
        return len(self._ends) == OFTEN and self._ends[-1] - self._ends[0] <= WITHIN
