"""The rig ``conform-model``: many operations on a mount, on ext4 and in a model, and what needs several processes."""

from __future__ import annotations

import os
from pathlib import Path

from tools.torture.conform.compare import Frozen, difference
from tools.torture.conform.machine import Machine, Wrong
from tools.torture.conform.places import MODES, Mounted, control
from tools.torture.conform.races import append, read_changing, snapshot_under_writes
from tools.torture.rig import Found, Job, Rig

STEPS = 20_000
RUN = 500  # steps of one run: a tree of its own, so that what went wrong replays in seconds
COMPARE = 60  # steps between two comparisons of whole trees
POINTS = 3  # recovery points of a run that are looked at again


class Run:
    """One run of a job."""

    def __init__(self, job: Job, number: int, mounted: Mounted, there: Path) -> None:
        self._job = job
        self._number = number
        self._mounted = mounted
        self._there = there
        self._name = f"run-{number:04}"
        self._chance = job.random("run", number)
        self._machine = self._new_machine()
        self._points: list[tuple[str, Frozen]] = []

    def _new_machine(self) -> Machine:
        return Machine(
            str(self._mounted.path / self._name),
            str(self._there / self._name),
            self._chance.randrange,
        )

    def go(self, steps: int) -> None:
        """All of it. Raises Wrong and Found."""
        machine = self._machine
        try:
            while machine.steps < steps:
                machine.step()
                if machine.steps % COMPARE == 0:
                    frozen = machine.compare()
                    self._at_times(machine, frozen)
            machine.close_all()
            frozen = machine.compare()
            self._point(frozen)
            self._forgotten(machine)
            self._frozen_still()
            self._restored(frozen)
        finally:
            machine.end()
            self._job.count("steps", machine.steps)
            self._job.count("refused", machine.refused)

    def _at_times(self, machine: Machine, frozen: Frozen) -> None:
        """Something larger, each in its turn."""
        place = self._mounted.path / f"{self._name}-more"
        kind = machine.steps // COMPARE % 6
        if kind == 1:
            self._point(frozen)
        elif kind == 2:
            self._job.count("records appended", append(place, 3, 60))
        elif kind == 3:
            self._job.count("changes under a listing", read_changing(place, self._chance, 250))
        elif kind == 4:
            self._job.count(
                "numbers written past a snapshot", snapshot_under_writes(self._mounted, place.name)
            )
        elif kind == 5:
            self._point(frozen)
            self._frozen_still()
        else:
            machine.close_all()
            self._forgotten(machine)

    def _forgotten(self, machine: Machine) -> None:
        """After a new mount everything is as it was, times too."""
        before, how = machine.times(), self._mounted.options
        self._mounted.remount(*self._chance.choice(MODES))
        machine.compare()
        after = machine.times()
        for path, times in before.items():
            if after[path] != times:
                raise Found(
                    machine.said(
                        f"{path!r}: a new mount shows the times {after[path]}, that before ({how}) {times}"
                    )
                )

    def _point(self, frozen: Frozen) -> None:
        if len(self._points) < POINTS:
            self._points.append((self._mounted.snapshot(), frozen))
            self._job.count("points")

    def _frozen_still(self) -> None:
        for point, frozen in self._points:
            place = self._mounted.path / ".snapshots" / point / self._name
            complaint = difference(str(place), frozen)
            if complaint:
                raise Found(f"the point {point} is not what it was: {complaint}")

    def _restored(self, frozen: Frozen) -> None:
        point = self._points[-1][0] if self._points[-1][1] is frozen else self._mounted.snapshot()
        target = self._job.scratch / f"restored-{self._number}"
        problems = self._mounted.steward.ask("restore", point, str(target))
        if problems:
            raise Found(f"restore: {problems[:5]}")
        complaint = difference(str(target / self._name), frozen)
        if complaint:
            raise Found(f"what was restored differs: {complaint}")


def run(job: Job) -> None:
    """As many runs as the size wants."""
    steps = job.size(STEPS)
    old = os.umask(0)
    try:
        with control(job.scratch / "c") as there, Mounted(job.scratch / "h") as mounted:
            for number in range(max(1, steps // RUN)):
                if job.wants(number):
                    try:
                        Run(job, number, mounted, there).go(min(RUN, steps))
                    except (Wrong, Found) as error:
                        job.fail(number, str(error))
            mounted.verify()
    finally:
        os.umask(old)


RIGS = (
    Rig(
        "conform-model",
        "random operations on a mount, on ext4 and in a model, compared after each",
        run,
        needs=("fuse", "sticky"),
        bugs=(
            "conform-point-of-now",
            "conform-capture-skipped",
            "conform-listing-skips",
            "conform-append-overlap",
            "conform-unlinked-lost",
        ),
    ),
)
