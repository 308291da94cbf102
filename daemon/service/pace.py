"""How fast work goes, and when it will have ended: by what was done in the last half minute."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

from engine import Progress

WINDOW = 30.0  # s: long enough for pauses, short enough to follow a server that became slow
LEAST = 1.0  # s before anything is told
_EVERY = 0.5  # s between two samples


class Pace:
    """Of one piece of work, stage by stage. Thread-safe. ``steady``: s, a clock that nobody sets."""

    def __init__(self, steady: Callable[[], float]) -> None:
        self._steady = steady
        self._lock = threading.Lock()
        self._stage = ""
        self._samples: deque[tuple[float, int]] = deque()

    def told(self, progress: Progress) -> dict[str, float | None]:
        """``rate``: units a second; ``eta_s``: until the stage ends; each None while nobody can tell."""
        with self._lock:
            since, before, now = self._sampled(progress)
        if now - since < LEAST:
            return {"rate": None, "eta_s": None}
        rate = max(0.0, (progress.done - before) / (now - since))
        if progress.total is None or not rate:
            return {"rate": round(rate, 3), "eta_s": None}
        left = max(0, progress.total - progress.done)
        return {"rate": round(rate, 3), "eta_s": round(left / rate, 1)}

    def _sampled(self, progress: Progress) -> tuple[float, int, float]:
        """(when the window began, what was done then, now)."""
        now, samples = self._steady(), self._samples
        if progress.stage != self._stage:
            self._stage = progress.stage
            samples.clear()
        if not samples or now - samples[-1][0] >= _EVERY:
            samples.append((now, progress.done))
        while len(samples) > 2 and now - samples[1][0] >= WINDOW:
            samples.popleft()
        return *samples[0], now
