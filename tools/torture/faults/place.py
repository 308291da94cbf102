"""Where the cases lie: in memory if there is room, for thousands of small stores are synced again and again."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tools.torture.rig import Job
from tools.torture.run import scratch

MEMORY = "/dev/shm"
ROOM = 2 << 30  # bytes that must be free there


@contextmanager
def in_memory(job: Job) -> Iterator[Path]:
    """A directory that goes at the end, with all that is mounted below it."""
    quick = os.access(MEMORY, os.W_OK) and tempfile.gettempdir() != MEMORY
    if quick:
        found = os.statvfs(MEMORY)
        quick = found.f_bavail * found.f_frsize > ROOM
    with scratch(MEMORY if quick else str(job.scratch)) as place:
        yield place
