"""Other processes for tests: children of this one that do some work and end, or are ended in the middle of it."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable

FAILED = 70  # exit status of a child whose work raised


def started(work: Callable[[], object]) -> int:
    """A child that does the work and ends, with nothing of the test run around it; its process id."""
    child = os.fork()
    if child:
        return child
    try:
        work()
        os._exit(0)
    except BaseException:  # noqa: BLE001  (nothing may get out into the run this is a copy of)
        traceback.print_exc()
    finally:
        os._exit(FAILED)


def ended(child: int) -> int:
    """Wait for a child: its exit status, negative the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def run(work: Callable[[], object]) -> int:
    """``started`` and ``ended``."""
    return ended(started(work))
