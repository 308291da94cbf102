"""One run of a worker: its loop from start to end."""

from __future__ import annotations

import sys
from collections.abc import Callable

import trio

from engine.errors import the_cause
from fsmount.options import Options
from fsmount.subject import Subject
from fsmount.worker import Worker

SWITCH_INTERVAL = (
    0.0005  # s a Python thread may keep the interpreter from another (5 ms by default)
)


def run(subject: Subject, where: str, options: Options, ready: Callable[[], None]) -> None:
    """Mount and serve until unmounted. Blocks; must be called on the main thread.

    Raises the engine's errors; what the store still held in memory is committed in any case.
    """
    sys.setswitchinterval(SWITCH_INTERVAL)
    worker: Worker | None = None

    async def main() -> None:
        nonlocal worker
        worker = Worker(subject, where, options)
        await worker.run(ready)

    try:
        trio.run(main)
    except BaseExceptionGroup as group:
        raise the_cause(group) from group
    finally:
        if worker is None and subject.tree is not None:
            subject.tree.close()
