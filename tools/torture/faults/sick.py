"""``python -m tools.torture.faults.sick KIND COMMAND…``: the ``holdfast`` command in which something dies for a while.

KIND: ``small`` (nothing dies, packs are small), ``seal`` (threads that seal die), ``commit`` (commits meet a bug),
``tick`` (so does the background turn), ``memory`` (commits find no memory).  A few times, once the file that
HOLDFAST_SICK names is there.  ``clock``: the clock is so many seconds ahead as that file says.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from daemon.cli.main import main
from engine import limits
from engine.chunks import ChunkWriter
from engine.ingest.sealer import Sealer
from engine.live import Clock, LiveTree
from tools.torture.bugs import plant_chosen

TIMES = 3


class Death(BaseException):
    """What no handler of errors expects."""


def sicken(
    owner: type, name: str, error: Callable[[], BaseException], when: Callable[[], bool]
) -> None:
    """The method raises, as long as ``when`` says so and the count lasts."""
    real = getattr(owner, name)
    left = [TIMES]
    trigger = os.environ["HOLDFAST_SICK"]

    def method(self: Any, *arguments: Any, **options: Any) -> Any:
        if left[0] and when() and os.path.exists(trigger):
            left[0] -= 1
            raise error()
        return real(self, *arguments, **options)

    setattr(owner, name, method)


def of_seal_threads() -> bool:
    return threading.current_thread().name.startswith("seal")


def small() -> None:
    """New segments are made often."""
    limits.PACK_MAX = 1 * limits.MIB


def clock() -> None:
    """As if somebody had set it; libfaketime would do, if it did not delay every wait of a thread by up to a second."""
    real = time.time_ns

    def time_ns() -> int:
        try:
            with open(os.environ["HOLDFAST_SICK"], encoding="ascii") as file:
                return real() + int(file.read() or 0) * 10**9
        except FileNotFoundError:
            return real()

    vars(time)["time_ns"] = time_ns
    Clock.__init__.__defaults__ = (time_ns, time.monotonic)


KINDS: dict[str, Callable[[], None]] = {
    "small": small,
    "clock": clock,
    "seal": lambda: sicken(Sealer, "seal", lambda: Death("planted"), of_seal_threads),
    "commit": lambda: sicken(
        ChunkWriter, "commit", lambda: ZeroDivisionError("planted"), lambda: True
    ),
    "tick": lambda: sicken(LiveTree, "tick", lambda: ZeroDivisionError("planted"), lambda: True),
    "memory": lambda: sicken(ChunkWriter, "commit", MemoryError, lambda: True),
}

if __name__ == "__main__":
    plant_chosen()
    KINDS[sys.argv.pop(1)]()
    main()
