"""What has to be undone, in reverse order, whatever happened; and the signals that ask for it."""

from __future__ import annotations

import signal
from collections.abc import Callable
from types import FrameType

from tools.demolib.console import Console, DemoError

_STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stopped(BaseException):
    """A signal asked the demonstration to stop."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def watch_signals() -> None:
    """From now on the first stopping signal raises Stopped in the main thread; later ones do
    nothing, so that the clean-up is not cut short.
    """
    for number in _STOPPING:
        signal.signal(number, _stop)


def ignore_signals() -> None:
    """From now on stopping signals do nothing; programs started from here inherit that."""
    for number in _STOPPING:
        signal.signal(number, signal.SIG_IGN)


def _stop(number: int, frame: FrameType | None) -> None:
    ignore_signals()
    raise Stopped(number)


class Cleanup:
    """Steps to undo what was done. Every step runs, also when an earlier one fails."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._steps: list[tuple[str, Callable[[], None]]] = []

    def add(self, what: str, step: Callable[[], None]) -> None:
        """Register a step before doing what it undoes; it must bear being run too early."""
        self._steps.append((what, step))

    def run(self) -> list[str]:
        """Run all steps, last registered first; what went wrong, one line each."""
        trouble = []
        while self._steps:
            what, step = self._steps.pop()
            try:
                step()
            except (DemoError, OSError) as error:
                trouble.append(f"{what}: {error}")
                self._console.detail(trouble[-1])
        return trouble
