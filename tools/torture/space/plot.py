"""Series of numbers as text: a line of bars, and whether it is flat."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

_BARS = "▁▂▃▄▅▆▇█"
WIDTH = 24


def bars(values: Sequence[float], width: int = WIDTH) -> str:
    """Medians of ``width`` parts of the series, each as a bar from zero to the greatest."""
    width = min(width, len(values))
    parts = [
        values[i * len(values) // width : (i + 1) * len(values) // width] for i in range(width)
    ]
    heights = [median(part) for part in parts]
    top = max(heights) or 1
    return "".join(_BARS[min(7, int(8 * height / top))] for height in heights)


def growth(values: Sequence[float]) -> tuple[float, float]:
    """Medians of the second and of the last quarter."""
    quarter = len(values) // 4
    return median(values[quarter : 2 * quarter]), median(values[-quarter:])


def flat(values: Sequence[float], slack: float, factor: float = 1.1) -> bool:
    """Whether the last quarter is at most ``factor`` times the second, and ``slack``."""
    before, after = growth(values)
    return after <= factor * before + slack
