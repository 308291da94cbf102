"""Where the rigs of this folder work: in memory where they can, as no power is cut here and disks are slow to sync."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tools.torture.rig import Job

MEMORY = "/dev/shm"
ROOM = 1 << 30  # bytes that must be free there


@contextmanager
def quick(job: Job) -> Iterator[Path]:
    """A directory in memory, gone afterwards; the job's own where there is no room."""
    if not os.access(MEMORY, os.W_OK) or shutil.disk_usage(MEMORY).free < ROOM:
        yield job.scratch
        return
    with tempfile.TemporaryDirectory(
        prefix="torture-", dir=MEMORY, ignore_cleanup_errors=True
    ) as place:
        yield Path(place)
