"""The course of the demonstration: three days of writing, then every point restored and proven."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tools.demolib.commands import Runner
from tools.demolib.console import Console, DemoError, size_text
from tools.demolib.dataset import DataSet
from tools.demolib.holdfast import Holdfast, forget_cached, stored_bytes
from tools.demolib.report import Result
from tools.demolib.scratch import Scratch, remove_tree
from tools.demolib.witness import Tree, compare, note

DAYS = 3
# Of every comparison so many differences are said at once; the end tells more.
SAID = 3
# The way into recovery points from a mounted directory; it must not show in a listing.
WAY_IN = b".snapshots"


@dataclass(slots=True)
class Point:
    """One recovery point and what was noted when it was made."""

    id: str
    day: int
    tree: Tree


class Story:
    """Runs the demonstration over `sets`, in one store."""

    def __init__(
        self, runner: Runner, holdfast: Holdfast, scratch: Scratch, sets: Sequence[DataSet]
    ) -> None:
        self._runner = runner
        self._holdfast = holdfast
        self._scratch = scratch
        self._sets = sets
        self._points: dict[str, list[Point]] = {one.name: [] for one in sets}
        # What the store's own check complains of.
        self.damage: list[str] = []
        self._results = {one.name: Result(one.name, one.title, one.proof) for one in sets}

    @property
    def results(self) -> list[Result]:
        """What was measured, set by set."""
        return list(self._results.values())

    @property
    def _console(self) -> Console:
        return self._runner.console

    def mount_point(self, name: str) -> Path:
        """Where a set's mount is mounted."""
        return self._scratch.mounts / name

    def run(self) -> None:
        """From nothing to the numbers in `results`. Raises DemoError when it cannot go on; what
        differs is collected, and does not stop the rest.
        """
        self._open_store()
        for one in self._sets:
            self._console.step(f"making the source of {one.name}")
            self._console.detail(one.prepare())
        for day in range(1, DAYS + 1):
            for one in self._sets:
                self._write_day(one, day)
        for one in self._sets:
            self._look_back(one)
            for point in self._points[one.name]:
                self._restore(one, point)
        self._check()
        stats = self._holdfast.stats()
        self._console.detail(
            "the store's own count: "
            + ", ".join(f"{key} {value:,}" for key, value in sorted(stats.items()))
        )

    def _check(self) -> None:
        self._console.step("holdfast check --read-data")
        try:
            seconds = self._holdfast.check()
        except DemoError as error:
            # The table is worth seeing all the same.
            self.damage.append(f"the store: {error}")
            self._console.detail(self.damage[-1])
        else:
            self._console.detail(f"every stored byte verified in {seconds:.1f} s")

    def _open_store(self) -> None:
        self._console.step(f"holdfast init, create and mount, below {self._scratch.path}")
        self._holdfast.init()
        for one in self._sets:
            path = self.mount_point(one.name)
            path.mkdir()
            self._holdfast.create(one.name)
            self._holdfast.mount(one.name, path)

    def _write_day(self, one: DataSet, day: int) -> None:
        result, path = self._results[one.name], self.mount_point(one.name)
        self._console.step(f"day {day}, {one.name}")
        if day > 1:
            self._console.detail(one.change(day))
        before = stored_bytes(self._holdfast.store)
        written = one.write(day, path)
        live = note(path, skip=frozenset({WAY_IN}))
        self._differ(one, f"day {day}, in the mount", one.verify_live(day, live))
        started = time.monotonic()
        point = self._holdfast.snapshot(one.name, f"day-{day}")
        seconds = written.seconds + time.monotonic() - started
        self._points[one.name].append(Point(point, day, live))
        grown = stored_bytes(self._holdfast.store) - before
        result.points += 1
        result.logical += one.logical(day)
        result.stored += grown
        result.handed += written.handed
        result.ingest_s += seconds
        self._console.detail(
            f"{written.how}: {size_text(written.handed)} in {seconds:.1f} s; the store grew by "
            f"{size_text(grown)}; point {point}"
        )

    def _look_back(self, one: DataSet) -> None:
        """The first point, read through the mounted directory while a later state is live."""
        listed = self._holdfast.points(one.name)
        expected = [point.id for point in self._points[one.name]]
        if sorted(listed) != sorted(expected):
            raise DemoError(f"holdfast points {one.name} lists {listed}, expected {expected}")
        first = self._points[one.name][0]
        path = self.mount_point(one.name)
        way_in = WAY_IN.decode()
        self._console.step(f"{path}/{way_in}/{first.id}: the first point of {one.name}, in place")
        if any(member.name == way_in for member in path.iterdir()):
            self._differ(one, "in the mount", [f"{way_in} shows in the listing"])
        try:
            found = note(path / way_in / first.id)
        except OSError as error:
            self._differ(one, f"{way_in}/{first.id}", [str(error)])
            return
        self._differ(one, f"{way_in}/{first.id}", compare(first.tree, found))

    def _restore(self, one: DataSet, point: Point) -> None:
        result = self._results[one.name]
        target = self._scratch.restored / f"{one.name}-{point.day}"
        self._console.step(f"restoring {one.name}, day {point.day}")
        forget_cached(self._holdfast.store)
        result.restore_s += self._holdfast.restore(point.id, target)
        result.restored += one.logical(point.day)
        found = note(target)
        lines = compare(point.tree, found)
        lines += one.prove(point.day, target, found)
        self._differ(one, f"day {point.day}, restored", lines)
        if not lines:
            result.proven += 1
            self._console.detail(f"{len(found):,} entries equal; {one.proof}")
        remove_tree(target)

    def _differ(self, one: DataSet, where: str, lines: Sequence[str]) -> None:
        """Remember what differs; the first of it is said at once."""
        said = [f"{one.name}, {where}: {line}" for line in lines]
        self._results[one.name].differences += said
        for line in said[:SAID]:
            self._console.detail(f"DIFFERS {line}")
        if len(said) > SAID:
            self._console.detail(f"DIFFERS … and {len(said) - SAID} more")
