"""One case: a copy of a prepared store, a workload while something fails, and the judgement of what is left."""

from __future__ import annotations

import logging
import random
import shutil
import traceback
from collections.abc import Callable
from pathlib import Path

from engine import limits
from engine.chunks import segments
from engine.live import LiveTree
from engine.seam import REAL, Os
from tools.torture.faults import verdict
from tools.torture.faults.child import Answer
from tools.torture.faults.workload import Run, Tree, fill, template

TOLD: dict[str, set[str]] = {
    "EIO": {"location_unavailable"}, "EMFILE": {"location_unavailable"}, "ENOSPC": {"store_full"},
    "EDQUOT": {"store_full"}, "EROFS": {"read_only"}, "short": set(), "full": {"store_full"},
    "busy": {"busy"}, "quota": {"quota"},
}  # fmt: skip
"""The errors of the table that steps may be told, by what the system answered."""


def small() -> None:
    """Small packs, so that a small workload seals and compacts; no threads, so that it is the same each time."""
    logging.disable(logging.CRITICAL)
    limits.PACK_MAX = 192 * limits.KIB
    segments.SEAL_ON_CLOSE = 64 * limits.KIB
    defaults = LiveTree.__init__.__kwdefaults__
    assert defaults is not None
    defaults["seal_threads"] = 0


class Cases:
    """A prepared store below ``scratch``, and the cases made of it."""

    def __init__(self, scratch: Path, seed: int) -> None:
        self.scratch = scratch
        self.seed = seed
        self.source = scratch / "template"
        self.point, self.content = template(str(self.source), seed)
        self._number = 0

    def begin(self, parent: Path | None = None, system: Os = REAL) -> Case:
        """A case on a copy of the store. ``parent``: the directory to put it in, of another file system perhaps."""
        self._number += 1
        place = (parent or self.scratch) / f"case{self._number}"
        place.mkdir()
        shutil.copytree(self.source, place / "store")
        return Case(
            place, self.scratch / f"out{self._number}", system, self.seed, self.point, self.content
        )


class Case:
    """Between ``begin`` and ``end``: strike (under the fault), judge (after it)."""

    def __init__(
        self, place: Path, out: Path, system: Os, seed: int, point: str, content: Tree
    ) -> None:
        self.place = place
        self.out = out
        self.out.mkdir()
        self.store = str(place / "store")
        self._before = verdict.descriptors()
        self._first = point
        self._rng = random.Random(seed)
        self.run = Run(self.store, out, system)
        self.run.model.states = [content]
        self.run.model.points[point] = content

    def strike(self, *, readable: bool) -> None:
        """The workload, and reads: each is right, or the engine says why not.

        ``readable``: the fault hinders no reading, so that what is safely stored must be read.
        """
        run = self.run
        fill(run, self._rng, self._first)
        for name, data in list(run.model.now.items()):
            found = run.read(name)
            safe = readable and run.model.allowed(name) == [data]
            verdict.demand(
                found == data or (found is None and not safe), f"read {name!r}: {_said(run)}"
            )
        for number, (point, tree) in enumerate(list(run.model.points.items())):
            if point not in run.model.removed:
                got = run.restore(point, f"under{number}")
                verdict.demand(
                    got == tree or (got is None and not readable),
                    f"restore of {point}: {_said(run)}",
                )
                shutil.rmtree(self.out / f"under{number}", ignore_errors=True)

    def told(self) -> list[str]:
        """What the steps were told."""
        return sorted({one.slug for one in self.run.refusals})

    def copy(self) -> Path:
        """The store as a kill would leave it now."""
        copy = self.out / "copy"
        shutil.copytree(self.store, copy)
        return copy

    def judge(self, copy: Path, how: str, fired: str) -> None:
        """The fault is over. ``fired``: what failed, of which there must be an incident. Raises Broken."""
        run = self.run
        verdict.refused_as(run, TOLD[how])
        if fired:
            verdict.demand(bool(verdict.told(run, self.store)), f"no incident of {fired}")
        verdict.after_crash(str(copy), run.model, self.out)
        verdict.goes_on(run, self._rng)
        run.close()
        verdict.demand(
            run.refusals[-1:] == [] or run.refusals[-1].step[:5] != "close", f"{run.refusals[-1:]}"
        )
        left = verdict.descriptors() - self._before
        verdict.demand(not left, f"descriptors left open: {sorted(left)[:3]}")
        verdict.reopened(self.store, run, self.out)

    def end(self) -> None:
        """Nothing stays."""
        shutil.rmtree(self.place)
        shutil.rmtree(self.out)


def _said(run: Run) -> str:
    return run.refusals[-1].text if run.refusals else "other bytes than accepted"


def judged(case: str, action: Callable[[], Answer]) -> Answer:
    """The answer of an action, or what it found."""
    try:
        return {"case": case, **action()}
    except verdict.Broken as error:
        return {"case": case, "found": str(error)}
    except Exception as error:  # noqa: BLE001  (whatever is no error of the family is a find)
        trace = "".join(traceback.format_exception(error)[-8:])
        return {"case": case, "found": f"{type(error).__name__} got out: {error}", "trace": trace}
