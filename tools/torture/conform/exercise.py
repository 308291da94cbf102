"""The rigs ``conform-fsx`` and ``conform-fsstress``: the two exercisers on a mount, a million operations in all."""

from __future__ import annotations

import os
import stat

from tools.torture.conform.fsstress import Inconsistent, Record, stress, walk
from tools.torture.conform.fsx import Different, Exerciser
from tools.torture.conform.places import MODES, Mounted
from tools.torture.rig import Job, Rig

FSX = 850_000
FSSTRESS = 150_000
TURN = 2_000  # operations of one file before it is the other's turn
TURNS = 5  # turns of each before everything is unmounted and mounted again
PART = 7_500  # operations on one tree before it is looked at from all sides
PROCESSES = 4
UNSUPPORTED = {"punch", "zero"}  # forms of fallocate that README says are refused


def fsx(job: Job) -> None:
    """Two files in turn, with points between, and all forgotten now and then."""
    left = job.size(FSX)
    points: list[tuple[str, list[bytes]]] = []
    chance = job.random("modes")
    with Mounted(job.scratch / "h") as mounted:
        files = [Exerciser(str(mounted.path / f"file-{n}"), job.random("fsx", n)) for n in range(2)]
        try:
            while left > 0:
                for _ in range(TURNS):
                    for one in files:
                        one.run(min(TURN, max(0, left)))
                        left -= TURN
                if len(points) < 8:
                    points.append((mounted.snapshot(), [one.content for one in files]))
                for one in files:
                    one.close()
                mounted.remount(*chance.choice(MODES))
                for one in files:
                    one.reopen()
                    one.whole()
            for point, contents in points:
                for number, content in enumerate(contents):
                    path = mounted.path / ".snapshots" / point / f"file-{number}"
                    if path.read_bytes() != content:
                        job.fail("fsx", f"file {number} in point {point} is not what was written")
        except Different as error:
            job.fail("fsx", f"after about {sum(one.done for one in files)} operations: {error}")
        finally:
            for one in files:
                one.close()
        job.count("operations", sum(one.done for one in files))
        job.count("points", len(points))
        refused = files[0].unsupported | files[1].unsupported
        if not refused <= UNSUPPORTED:
            job.fail("fsx", f"refused: {', '.join(sorted(refused))}")
        job.note(f"not supported: {', '.join(sorted(refused))}")
        mounted.verify()


def settled(top: str) -> None:
    """Have the kernel hand over pages and times it holds: until then a page's time is that of its arrival."""
    for folder, _, names in os.walk(top):
        for name in names:
            path = os.path.join(folder, name)
            if stat.S_ISREG(os.lstat(path).st_mode):
                fd = os.open(path, os.O_RDONLY)
                try:
                    os.fsync(fd)
                finally:
                    os.close(fd)


def compared(
    job: Job, case: int, what: str, have: dict[str, Record], want: dict[str, Record]
) -> None:
    for path in sorted({*have, *want}):
        if have.get(path) != want.get(path):
            one, other = str(have.get(path))[:400], str(want.get(path))[:400]
            job.fail(case, f"{what}: {path!r} is {one}, not {other}")


def _without_change_times(tree: dict[str, Record]) -> dict[str, Record]:
    """No program can set them, so a restored tree has others."""
    return {path: record._replace(ctime_ns=0) for path, record in tree.items()}


def fsstress(job: Job) -> None:
    """Tree after tree, each then seen live, in a point, restored, and after all was forgotten."""
    whole = job.size(FSSTRESS)
    with Mounted(job.scratch / "h") as mounted:
        for case in range(max(1, round(whole / PART))):
            if not job.wants(case):
                continue
            top = str(mounted.path / f"tree-{case}")
            try:
                stress(top, min(PART, whole), PROCESSES, f"{job.seed}:{case}")
                settled(top)
                live = walk(top)
                point = mounted.snapshot()
                compared(
                    job,
                    case,
                    "in the point",
                    walk(f"{mounted.path}/.snapshots/{point}/tree-{case}"),
                    live,
                )
                target = job.scratch / f"restored-{case}"
                problems = mounted.steward.ask("restore", point, str(target))
                if problems:
                    job.fail(case, f"restore: {problems[:5]}")
                restored = _without_change_times(walk(f"{target}/tree-{case}"))
                compared(job, case, "restored", restored, _without_change_times(live))
                mounted.remount(*job.random("mode", case).choice(MODES))
                compared(job, case, "mounted again", walk(top), live)
            except Inconsistent as error:
                job.fail(case, str(error))
            job.count("operations", min(PART, whole) // PROCESSES * PROCESSES)
            job.count("paths", len(live))
            os.rename(top, f"{top}-done")
        mounted.verify()


RIGS = (
    Rig(
        "conform-fsx",
        "one file exercised in every way, each read checked",
        fsx,
        needs=("fuse",),
        bugs=("conform-old-bytes", "conform-end-lost"),
        teeth=0.01,
        test=0.03,
    ),
    Rig(
        "conform-fsstress",
        "a tree exercised by several processes, then seen live, in a point and restored",
        fsstress,
        needs=("fuse", "root", "sticky"),
        bugs=("conform-mkdir-count", "conform-unlinked-lost"),
    ),
)
