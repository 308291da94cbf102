"""Words for the person who watches: progress lines with the time, sizes, and the one error type."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TextIO

MB = 1_000_000


class DemoError(Exception):
    """The demonstration cannot go on; the message says what failed and what to do about it."""


class Console:
    """Progress lines on standard error, each with the seconds since the start."""

    def __init__(
        self, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._stream = stream if stream is not None else sys.stderr
        self._clock = clock
        self._started = clock()

    def elapsed(self) -> float:
        """Seconds since this console was made."""
        return self._clock() - self._started

    def step(self, text: str) -> None:
        """Print one line: the next thing that is being done."""
        self._print(f"[{self.elapsed():6.1f} s] {text}")

    def detail(self, text: str) -> None:
        """Print one line that belongs to the step above."""
        self._print(f"{'':11}{text}")

    def _print(self, line: str) -> None:
        print(line, file=self._stream, flush=True)


def size_text(count: int) -> str:
    """A number of bytes in MB (10**6) or GB, for people."""
    if abs(count) >= 1000 * MB:
        return f"{count / (1000 * MB):.2f} GB"
    return f"{count / MB:.1f} MB"


def name_text(path: bytes) -> str:
    """A path for people: one line, whatever bytes it holds."""
    text = path.decode("utf-8", "backslashreplace").encode("unicode_escape").decode("ascii")
    return text if len(text) <= 100 else f"{text[:60]}…{text[-30:]}"
