"""Drills: which point is restored to see whether it can be, what came of it, and whether one is overdue."""

from __future__ import annotations

import json
import logging
import random
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from daemon.contract import DrillInfo, DrillSpec, JobInfo, JobState
from daemon.service import scratch
from daemon.service.drilling import LOCAL
from daemon.service.mounts import DRILLED_SINCE, DRILLS
from daemon.service.watching import Watching
from engine import PointInfo
from engine.errors import InvalidRequest, NotFound

if TYPE_CHECKING:  # what reads configurations takes longer to import than most commands run
    from daemon.config import Schedule

log = logging.getLogger("holdfast.daemon")

KEPT = 20  # drills of a mount that are remembered, with what their hooks printed
SWEPT = 100  # drills whose places are looked through
_SECOND = 10**9


def draw(points: Sequence[PointInfo], chance: float) -> PointInfo:
    """One of a mount's points, by a number from 0 to 1: the newest is twice as likely as the one before it, three times
    as likely as the third, and so on: what would be restored, but none is left out for ever."""
    newest_first = sorted(points, key=lambda point: -point.seq)
    left = chance * sum(1 / place for place in range(1, len(newest_first) + 1))
    for place, point in enumerate(newest_first, 1):
        left -= 1 / place
        if left <= 0:
            return point
    return newest_first[-1]


class Drills(Watching):
    """The part of ``Backend`` about drills."""

    def drill(self, spec: DrillSpec) -> JobInfo:
        """Restore a point into a scratch place and have its mount's hook verify it, as a job.

        Raises NotFound where there is no such point, or none that is at the location; InvalidRequest.
        """
        point = self._drawn(spec)
        place = self._place(spec.into)
        self.keep_settings(point.mount)
        options = {
            "point": point.id, "source": spec.source, "place": place, "keep": spec.keep,
        }  # fmt: skip
        return self._start("drill", options, point.mount)

    def _drawn(self, spec: DrillSpec) -> PointInfo:
        there = self._at(spec.source)
        if spec.point:
            point = self.store.point(spec.point)
            if spec.mount and point.mount != spec.mount:
                raise InvalidRequest(f"point {spec.point}", expected=f"one of mount {spec.mount!r}",
                                     found=f"one of {point.mount!r}")  # fmt: skip
            points = [point]
        else:
            points = self.store.points(spec.mount or None)
        points = [
            one
            for one in points
            if (there is None or one.id in there) and not self.state.wanted.get(one.mount).deleting
        ]
        if not points:
            where = "" if there is None else f" that is verified at location {spec.source!r}"
            raise NotFound(
                f"drill of {spec.point or spec.mount or 'any mount'}", expected=f"a recovery point{where}", found="none"
            )  # fmt: skip
        if not spec.mount:
            last = {one: self._last(one) for one in {point.mount for point in points}}
            mount = min(sorted(last), key=lambda one: last[one])
            points = [point for point in points if point.mount == mount]
        return draw(points, random.SystemRandom().random())

    def _at(self, source: str) -> set[str] | None:
        """Points that are verified at a location; None for those that are here. Raises NotFound."""
        if source == LOCAL:
            return None
        self.location(source)
        return {one.point for one in self.uploads(source, "verified")}

    def _last(self, mount: str) -> int:
        return max((one.ended_ns for one in self.drills_of(mount)), default=0)

    def _place(self, into: str) -> str:
        """Where a scratch directory is made. Raises InvalidRequest."""
        if into.startswith("/"):
            return into
        if not into:
            return self._config().drills.into or scratch.usual(self.path)
        target = self._config().restore_targets.get(into)
        if target is None:
            known = ", ".join(sorted(self._config().restore_targets)) or "none"
            raise InvalidRequest(
                f"place {into!r}", expected=f"a restore target of the configuration ({known})",
                do="name it in the configuration",
            )  # fmt: skip
        return target

    # --- what came of them ----------------------------------------------------------------------------------

    def drills(self, mount: str = "") -> list[DrillInfo]:
        """Drills that have ended, of one mount or of all, the newest first. Raises NotFound."""
        names = (
            [self.store.mount(mount).name] if mount else [one.name for one in self.store.mounts()]
        )
        return sorted((one for name in names for one in self.drills_of(name)), key=lambda one: -one.job)  # fmt: skip

    def job_ended(
        self, job_id: int, state: JobState, *, result: dict[str, Any] | None = None,
        error: dict[str, str] | None = None,
    ) -> JobInfo:  # fmt: skip
        """A job has ended: its row, and what follows from it."""
        ended = super().job_ended(job_id, state, result=result, error=error)
        if ended.kind == "drill" and state != "cancelled":
            self._drilled(ended)
        return ended

    def _drilled(self, job: JobInfo) -> None:
        found = DrillInfo(
            job.id, job.mount, str(job.options["point"]), str(job.options["source"]),
            job.started_ns or job.created_ns, job.ended_ns, job.error.get("message", ""),
            **{name: job.result[name] for name in _TOLD if name in job.result},
        )  # fmt: skip
        known = [*self.drills_of(job.mount), found]
        for one in known[:-KEPT]:
            if one.output:
                self.state.attachments.remove(one.output)
        rows = [asdict(one) for one in known[-KEPT:]]
        self.state.marks.put(DRILLS + job.mount, json.dumps(rows))
        if found.error:
            self.store.incidents.note(
                "drill_failed", f"mount {job.mount}", f"drill {job.id}: {found.error}"
            )
        else:
            self.store.incidents.over("drill_failed", f"mount {job.mount}")
            self.store.incidents.over("drill_late", f"mount {job.mount}")

    def late_drill(self, mount: str, schedule: Schedule, now: int) -> bool:
        """Whether two times have come since a drill of a mount went well last: an incident then."""
        if not self.store.points(mount):
            return False
        good = [one.ended_ns for one in self.drills_of(mount) if not one.error]
        since = self.state.marks.get(DRILLED_SINCE + mount)
        if not since or int(since) > now:
            since = str(now)
            self.state.marks.put(DRILLED_SINCE + mount, since)
        last = min(max([int(since), *good]), now)
        if now < schedule.next(schedule.next(last)):
            return False
        self.store.incidents.note(
            "drill_late", f"mount {mount}",
            f"expected a drill that goes well {schedule.text!r}, found the last one {(now - last) // _SECOND} s ago;"
            " see 'holdfast drills'",
        )  # fmt: skip
        return True

    def sweep_drills(self) -> None:
        """Remove what drills left whose processes have died, where there were any lately; it may take a while."""
        jobs = self.state.jobs.page(kind="drill", limit=SWEPT)
        for place in sorted({str(job.options["place"]) for job in jobs}):
            scratch.sweep(place)


_TOLD = ("files", "bytes", "restore_s", "verify_s", "hook", "output", "path")
