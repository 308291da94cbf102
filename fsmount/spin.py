"""Adaptive spinning: how long the loop keeps polling for the next request before it sleeps.

A request costs about 45 µs of wake-ups when both sides sleep between requests, and a few µs when this side is
still polling as the next one comes.  A fixed window would burn the processor whenever requests come a little
more rarely than it is long; so the window follows what happens, as a virtual machine monitor's halt polling
does: it doubles when a sleep turned out shorter than the maximum (a longer spin would have met the request),
and shrinks, soon to nothing, when sleeps are long.  An idle worker spins once for at most a window and then not at all.

This module decides only; it looks at no clock and polls nothing.  All times are seconds.
"""

from __future__ import annotations

SPIN_MAX = 100e-6  # above the round trip of a busy caller (about 45 µs), below what an idle one would notice
SPIN_FIRST = 25e-6  # first window when growing from nothing: half a usual round trip


class Spin:
    """The window of one loop. Not thread-safe: used on the loop's thread only."""

    def __init__(self, maximum: float = SPIN_MAX) -> None:
        if maximum < 0:
            raise ValueError("a spin window cannot be negative")
        self.maximum = maximum
        self.window = min(SPIN_FIRST, maximum)
        self.hits = 0
        self.sleeps = 0

    def met(self) -> None:
        """A request came while spinning: the window is right."""
        self.hits += 1

    def slept(self, waited: float) -> None:
        """The window passed, the loop slept, and ``waited`` after the wait began a request came."""
        self.sleeps += 1
        if waited <= self.maximum:
            self.window = min(self.maximum, max(SPIN_FIRST, self.window * 2))
        elif self.window > SPIN_FIRST / 4:
            self.window /= 2
        else:
            self.window = 0.0
