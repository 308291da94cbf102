"""The rig ``conform-crowd``: few files written, cut and emptied by several processes at once, then seen once more.

What the kernel shows of a file in the end comes from its own memory. After a new mount it comes from the tree; size,
content and times must be those seen before, whatever order the last calls of the processes came in.
"""

from __future__ import annotations

import os
import random
from functools import partial
from pathlib import Path

from tools.torture.conform.exercise import compared, settled
from tools.torture.conform.fsstress import walk
from tools.torture.conform.places import Mounted
from tools.torture.conform.races import child, wait
from tools.torture.rig import Job, Rig

ROUNDS = 2_000
BATCH = 40  # rounds between two mounts
PROCESSES = 4
CALLS = 60  # of each process in a round
FILES = 3
SIZES = (0, 10, 5_000, 100_000)
WORK = (
    "empty",
    "empty",
    "empty",
    "append",
    "append",
    "cut",
    "cut",
    "times",
    "mode",
    "link",
    "move",
    "remove",
    "read",
)


def _call(folder: Path, chance: random.Random) -> None:
    path, other = (folder / f"f{chance.randrange(FILES)}" for _ in range(2))
    kind = chance.choice(WORK)
    if kind in ("empty", "append"):
        with path.open("wb" if kind == "empty" else "ab") as file:
            file.write(chance.randbytes(chance.choice(SIZES)))
    elif kind == "cut":
        os.truncate(path, chance.choice((0, 100, 70_000)))
    elif kind == "times":
        os.utime(path, ns=(chance.randrange(10**18), chance.randrange(10**18)))
    elif kind == "mode":
        path.chmod(chance.choice((0o600, 0o755)))
    elif kind == "link":
        other.hardlink_to(path)
    elif kind == "move":
        path.rename(other)
    elif kind == "remove":
        path.unlink()
    else:
        path.read_bytes()


def _process(folder: Path, chance: random.Random) -> None:
    for _ in range(CALLS):
        try:
            _call(folder, chance)
        except (FileNotFoundError, FileExistsError):
            continue


def _round(folder: Path, job: Job, number: int) -> None:
    folder.mkdir()
    for pid in [
        child(partial(_process, folder, job.random(number, process)))
        for process in range(PROCESSES)
    ]:
        wait(pid)
    job.count("calls", PROCESSES * CALLS)


def crowd(job: Job) -> None:
    """Batch after batch of rounds, each in a directory of its own."""
    rounds = job.size(ROUNDS)
    with Mounted(job.scratch / "h") as mounted:
        for case, first in enumerate(range(0, rounds, BATCH)):
            if not job.wants(case):
                continue
            top = mounted.path / f"batch-{case}"
            top.mkdir()
            for number in range(first, min(first + BATCH, rounds)):
                _round(top / f"round-{number}", job, number)
            settled(str(top))
            seen = walk(str(top))
            mounted.remount()
            compared(job, case, "mounted again", walk(str(top)), seen)
            job.count("files", len(seen))
        mounted.verify()


RIGS = (
    Rig(
        "conform-crowd",
        "few files written, cut and emptied by several processes at once, then seen once more",
        crowd,
        needs=("fuse",),
        bugs=("conform-emptied-twice",),
        teeth=0.1,
        test=0.02,
    ),
)
