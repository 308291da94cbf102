"""The matrix: every call by every user in every way on things of every mode; live, in a recovery point, with squash.

What the modes allow must work and what they forbid must not, and must leave no trace.  Attempts of one user run in one
child, one after the other, each on a scene of its own.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from tools.torture.rig import Job, Rig
from tools.torture.users import tricks
from tools.torture.users.agents import NOBODY, Child, Who
from tools.torture.users.calls import Stage, build, trace
from tools.torture.users.ground import Ground, Mounted, ground
from tools.torture.users.model import ACTORS, Judge, Scene, scene

FULL = 10_000  # attempts
BATCH = 200  # scenes that have handles open at once
REFUSALS = {"EACCES", "EPERM"}
UNCHANGING = REFUSALS | {"EROFS"}  # what a point answers to a change

Trace = dict[str, tuple[object, ...]]


class Matrix:
    """Attempts of one phase of a job."""

    def __init__(self, job: Job, phase: str, count: int, judge: Judge, *, squashed: bool) -> None:
        self._job = job
        self._phase = phase
        self._judge = judge
        self._squashed = squashed
        self._before: dict[str, Trace] = {}
        names = (f"{phase}-{number}" for number in range(count))
        self.scenes = [scene(name, job.random(name), squashed) for name in names if job.wants(name)]

    def build(self, root: Path, point: str = "") -> None:
        """As root, on a mount without squash. ``point``: the tree is to be looked at in a point, through ``to``."""
        (root / self._phase).mkdir()
        for one in self.scenes:
            place = self._place(root, one)
            place.mkdir()
            towards = f"{place}/d" if not point else "unset"
            actor = self._judge.acts_as(one.who)
            build(one, str(place), f"{place}/mine", towards, (actor.uid, actor.gid))
            self._before[one.number] = trace(str(place))

    def point_to(self, root: Path, point: Path) -> None:
        """The scenes' links lead into the point, and the live tree is open to all: that must not help."""
        for one in self.scenes:
            place = self._place(root, one)
            (place / "mine" / "to").unlink()
            (place / "mine" / "to").symlink_to(self._place(point, one) / "d")
            for name in ("d/f", "d/s", "d"):
                os.chmod(place / name, 0o777)

    def _place(self, root: Path, one: Scene) -> Path:
        return root / self._phase / one.number

    def play(self, root: Path, point: Path | None = None) -> dict[str, str]:
        """What came of each attempt."""
        said: dict[str, str] = {}
        for at in range(0, len(self.scenes), BATCH):
            stages = [
                Stage(one, str(self._place(point or root, one)), f"{self._place(root, one)}/mine")
                for one in self.scenes[at : at + BATCH]
            ]
            for stage in stages:
                stage.open_handle()
            for who in ACTORS:
                mine = [stage for stage in stages if stage.scene.who == who]
                if mine:
                    said |= Child(who, playing(mine)).result()
            for stage in stages:
                stage.close()
        return said

    def judge(self, said: dict[str, str], root: Path, *, read_only: bool) -> None:
        """Compare with the model. ``root``: where what is left of the scenes is, seen by a real root."""
        for one in self.scenes:
            allowed = self._judge.allowed(one)
            if read_only and one.call.changes:
                allowed = False
            outcome = said[one.number]
            self._job.count("attempts")
            self._job.count("allowed" if allowed else "refused")
            if allowed and outcome != "ok":
                self._job.fail(one.number, f"{one} gave {outcome}: the modes allow it")
            if not allowed and outcome not in (UNCHANGING if read_only else REFUSALS):
                self._job.fail(one.number, f"{one} gave {outcome}: it must be refused")
            after = trace(str(self._place(root, one)))
            changed = after != self._before[one.number]
            if changed != (allowed and one.call.changes):
                left = "left a trace" if changed else "left no trace"
                self._job.fail(one.number, f"{one} gave {outcome} and {left}: {after}")


def playing(stages: list[Stage]) -> Callable[[], dict[str, str]]:
    """What a child does."""
    return lambda: {stage.scene.number: stage.play() for stage in stages}


def protected_links() -> bool:
    """What this host does about hard links to files of others."""
    with open("/proc/sys/fs/protected_hardlinks", encoding="ascii") as file:
        return file.read().strip() != "0"


def _live(job: Job, mounted: Mounted, count: int) -> None:
    matrix = Matrix(job, "live", count, Judge(None, protected_links()), squashed=False)
    matrix.build(mounted.where)
    said = matrix.play(mounted.where)
    matrix.judge(said, mounted.where, read_only=False)


def _point(job: Job, mounted: Mounted, count: int) -> None:
    matrix = Matrix(job, "point", count, Judge(None, protected_links()), squashed=False)
    matrix.build(mounted.where, "point")
    point = mounted.where / ".snapshots" / mounted.snapshot()
    matrix.point_to(mounted.where, point)
    said = matrix.play(mounted.where, point)
    matrix.judge(said, point, read_only=True)


def _squash(job: Job, place: Ground, mounted: Mounted, count: int) -> Mounted:
    """Live and in a point, on a mount where root is nobody."""
    nobody = Who(NOBODY.uid - 1, NOBODY.gid - 1) if job.seed % 2 else NOBODY
    live = Matrix(job, "squash", count, Judge(nobody), squashed=True)
    old = Matrix(job, "squash-point", count // 4, Judge(nobody), squashed=True)
    live.build(mounted.where)
    old.build(mounted.where, "point")
    point = mounted.where / ".snapshots" / mounted.snapshot()
    old.point_to(mounted.where, point)
    mounted.end()
    mounted = place.mount("shared", "--root-squash", "--squash-to", f"{nobody.uid}:{nobody.gid}")
    said = live.play(mounted.where)
    said_old = old.play(mounted.where, point)
    mounted.end()
    mounted = place.mount("shared")
    live.judge(said, mounted.where, read_only=False)
    old.judge(said_old, point, read_only=True)
    return mounted


def run(job: Job) -> None:
    """Every phase on one store, then the tricks that fit no matrix."""
    count = job.size(FULL)
    with ground(job.scratch / "access") as place:
        place.create("shared")
        mounted = place.mount("shared")
        _live(job, mounted, count * 2 // 5)
        _point(job, mounted, count * 3 // 10)
        mounted = _squash(job, place, mounted, count // 4)
        if not job.case or job.case in tricks.NAMES:
            tricks.play(job, place, mounted)
        mounted.end()
        problems = place.problems()
        if problems:
            job.fail("store", f"check finds {problems[:3]}")
    shutil.rmtree(job.scratch / "access", ignore_errors=True)


RIGS = (
    Rig(
        "users-access",
        "no call, name, handle or point gives a user what permissions forbid; root squash holds",
        run,
        needs=("root", "fuse"),
        bugs=(
            "points open to all",
            "control socket for all",
            "squash forgets setattr",
            "kernel checks nothing",
            "listing opens points",
        ),
        teeth=0.015,
        test=0.03,
    ),
)
