"""How fast a job is, and when it will have ended."""

from __future__ import annotations

from daemon.service.pace import WINDOW, Pace
from engine import Progress


class Steady:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_rate_and_end_follow_the_last_half_minute() -> None:
    clock = Steady()
    pace = Pace(clock)

    def told(at: float, done: int, total: int | None = 10_000, stage: str = "restore") -> object:
        clock.now = at
        found = pace.told(Progress(stage, done, total, "bytes"))
        return found["rate"], found["eta_s"]

    assert told(0, 500) == (None, None)  # what was there before is no speed
    assert told(0.5, 600) == (None, None)
    assert told(10, 1500) == (100, 85)
    assert told(20, 1500) == (50, 170)
    for second in range(21, 21 + int(WINDOW) + 2):
        told(second, 1500)
    assert told(60, 1500) == (0, None)
    assert told(61, 3000, None)[1] is None  # type: ignore[index]
    assert told(62, 5, 10, "sync") == (None, None)
    assert told(64, 20, 10, "sync") == (7.5, 0)
    assert told(66, 1, 10, "sync") == (0, None)
