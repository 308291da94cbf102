"""A disk that gets full at every allocation: a small ext4 file system, filled up to its last so many blocks.

With the reserve that a store keeps from its writers, and without it, so that the end of the room falls into commits,
seals, snapshots and collections as well; and a mount's quota, of every size.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

from engine import limits
from engine.live.space import Quota
from tools.torture.faults.case import Cases, judged, small
from tools.torture.faults.child import Answer, answers
from tools.torture.faults.place import in_memory
from tools.torture.rig import Job, Rig

DISK = 24  # MiB
BLOCK = 4096
BLOCKS = 90  # what the workload takes, and some
RESERVE_STEP = 16  # blocks: the reserve is 1,024 of this disk
QUOTAS = 60  # sizes of the quota, in steps of 10 KiB


def make_disk(place: Path, mib: int = DISK) -> Path:
    """A mounted ext4 of its own, without blocks kept for root."""
    image, where = place / "disk.img", place / "disk"
    with image.open("wb") as file:
        file.truncate(mib << 20)
    where.mkdir()
    subprocess.run(["mkfs.ext4", "-q", "-m", "0", "-b", str(BLOCK), image], check=True)
    subprocess.run(["mount", "-o", "loop", image, where], check=True)
    return where


def fill_disk(disk: Path, left: int) -> Path:
    """A file that takes all but ``left`` blocks."""
    ballast = disk / "ballast"
    os.sync()
    with ballast.open("wb") as file:
        while True:
            found = os.statvfs(disk)
            more = found.f_bavail - left
            if more <= 0:
                return ballast
            try:
                os.posix_fallocate(file.fileno(), file.tell(), more * BLOCK)
                file.seek(0, os.SEEK_END)
            except OSError:  # blocks that describe blocks
                left += 1


def work(request: Answer) -> Iterator[Answer]:
    """In the child: each case that is asked for."""
    small()
    scratch = Path(request["scratch"])
    cases = Cases(scratch, request["seed"])
    disk = Path(request["disk"])
    kept = limits.RESERVE, limits.RESERVE_MIN, limits.RESERVE_PART
    for name in request["cases"]:
        way, _, number = name.partition("-")
        if way == "quota":
            yield judged(name, lambda n=int(number): _quota(cases, n))  # type: ignore[misc]
            continue
        bare = way == "bare"
        limits.RESERVE, limits.RESERVE_MIN, limits.RESERVE_PART = (0, 0, 0.0) if bare else kept
        yield judged(name, lambda n=int(number), bare=bare: _full(cases, disk, n, bare))  # type: ignore[misc]


def _full(cases: Cases, disk: Path, left: int, bare: bool) -> Answer:
    case = cases.begin(disk)
    ballast = fill_disk(disk, left)
    if not bare:
        case.run.tick()  # looks at the room; without it what is accepted is more than there is
    case.strike(readable=True)
    told = case.told()
    copy = case.copy()
    ballast.unlink()
    case.judge(copy, "full", "a disk without room" if told else "")
    case.end()
    return {"told": told}


def _quota(cases: Cases, step: int) -> Answer:
    case = cases.begin()
    space = case.run.tree._space
    space._quota = Quota(step * 10 * limits.KIB)
    case.strike(readable=True)
    told = case.told()
    copy = case.copy()
    space._quota = Quota()
    case.judge(copy, "quota", "a quota that is used up" if told else "")
    case.end()
    return {"told": told}


def run(job: Job) -> None:
    """Every block and every quota at full size."""
    rng = job.random("blocks")
    blocks = sorted(rng.sample(range(BLOCKS), min(BLOCKS, job.size(BLOCKS, 3))))
    names = [f"bare-{n}" for n in blocks] + [f"reserve-{n * RESERVE_STEP}" for n in blocks]
    names += [f"quota-{n}" for n in sorted(rng.sample(range(1, QUOTAS), job.size(QUOTAS - 1, 2)))]
    names = [name for name in names if job.wants(name)]
    with in_memory(job) as place:
        disk = make_disk(place)
        scratch = place / "cases"
        scratch.mkdir()
        request = {"scratch": str(scratch), "seed": job.seed, "disk": str(disk), "cases": names}
        for answer in answers(job, __name__, request):
            if "found" in answer:
                job.fail(answer["case"], f"{answer['found']}\n{answer.get('trace', '')}")
            job.count("rooms that were too small" if answer["told"] else "rooms that were enough")


RIGS = (
    Rig(
        "faults-full",
        "a disk that gets full at every allocation, and quotas",
        run,
        needs=("loop",),
        bugs=("full-disk-swallowed",),
        teeth=0.02,
    ),
)
