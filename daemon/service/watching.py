"""Retention: which points are given up, and when it waits because of a point that is not like those before it."""

from __future__ import annotations

import logging
import threading
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

from daemon.contract import RetentionInfo
from daemon.service import retention, returning
from daemon.service.collapse import MARK, Figures, Watch
from daemon.service.jobs import Jobs
from engine import PointInfo
from engine.clock import Seen
from engine.errors import Busy, Held, HoldfastError, NotFound
from engine.seam import REAL

log = logging.getLogger("holdfast.daemon")

CLOCK = "clock "  # of a mark, before a mount's name: the clock as its retention saw it
_SECOND = 10**9


class Watching(Jobs):
    """The part of ``Backend`` about retention."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._watching: dict[
            str, threading.Lock
        ] = {}  # mount -> held while its points are looked at

    def retention(self) -> list[RetentionInfo]:
        """What retention does with each mount, by name."""
        return [self._retention(mount.name) for mount in self.store.mounts()]

    def _retention(self, mount: str) -> RetentionInfo:
        keep, watch = self.policy(mount).keep, self.watch_of(mount)
        return RetentionInfo(
            mount, keep.last, keep.within_s, watch.frozen, watch.since_ns, watch.point
        )

    def release_retention(self, mount: str) -> RetentionInfo:
        """Let retention go on: the newest point is as it should be. Harmless where it does. Raises NotFound."""
        name = self.store.mount(mount).name
        with self._looking(name):
            self.state.marks.put(MARK + name, self.watch_of(name).released().to_json())
        self.store.incidents.over("expiry_frozen", f"mount {name}")
        return self._retention(name)

    def _looking(self, mount: str) -> threading.Lock:
        return self._watching.setdefault(mount, threading.Lock())

    def watch(self, mount: str, now: int, made: Sequence[PointInfo]) -> Watch:
        """Look at those of a mount's points that were made since the last look; what is known then. One that
        collapsed freezes the mount, until somebody releases it."""
        with self._looking(mount):
            watch = before = self.watch_of(mount)
            if watch.seen and watch.seen[-1].seq > self.store.mount(mount).points:
                watch = Watch()  # another mount of the same name
            for figures, new in self._since(mount, watch, made):
                limits = self.policy(mount).freeze
                if new:
                    watch = watch.looked_at(figures, limits, now)
                else:
                    watch = Watch((*watch.seen, figures))
            if watch != before:
                self.state.marks.put(MARK + mount, watch.to_json())
        if watch.frozen and not before.frozen:
            self._write("freeze retention", f"mount {mount} point {watch.point}")
        if watch.frozen:
            self.store.incidents.note(
                "expiry_frozen", f"mount {mount}",
                f"point {watch.point}: {watch.frozen}; retention deletes no point of the mount: look at what writes"
                f" there, then run 'holdfast retention release {mount}'",
            )  # fmt: skip
        return watch

    def _write(self, act: str, about: str) -> None:
        try:
            self.audit_log.write("holdfast", "retention", act, about, "ok")
        except HoldfastError as error:  # the act has happened
            log.error("the audit log could not be written: %s; lost: %s %s", error, act, about)

    def _since(
        self, mount: str, watch: Watch, made: Sequence[PointInfo]
    ) -> Iterator[tuple[Figures, bool]]:
        """Figures of points not looked at, the oldest first, each with whether it is to be judged. Of a mount that is
        looked at for the first time, those before the newest are what is usual."""
        points = sorted(made, key=lambda point: point.seq)
        if not watch.seen:
            points = points[-self.policy(mount).freeze.points - 1 :]
        last = watch.seen[-1].seq if watch.seen else 0
        before: PointInfo | None = None
        for point in points:
            if point.seq > last:
                yield self._figures(before, point), bool(watch.seen) or point is points[-1]
            before = point

    def _figures(self, before: PointInfo | None, point: PointInfo) -> Figures:
        found = Figures(point.id, point.seq, point.logical_bytes, point.files)
        if before is None:
            return found
        try:
            new = self.store.novelty(before.id, point.id)
        except HoldfastError as error:  # what it holds is known all the same
            log.info("point %s is not compared with the one before it: %s", point.id, error)
            return found
        return Figures(
            point.id, point.seq, point.logical_bytes, point.files, new.files, new.bytes, new.plain, new.stored
        )  # fmt: skip

    def watch_all(self, now: int) -> None:
        """Look at the points of every mount, also of those that keep all."""
        made: defaultdict[str, list[PointInfo]] = defaultdict(list)
        for point in self.store.points():
            made[point.mount].append(point)
        for mount in self.store.mounts():
            if not self.state.wanted.get(mount.name).deleting:
                self.watch(mount.name, now, made[mount.name])
                self._late(mount.name, now, made[mount.name])

    def _late(self, mount: str, now: int, points: Sequence[PointInfo]) -> bool:
        """Whether a mount has had no new point for longer than its configuration allows: an incident then."""
        limit = self.policy(mount).unprotected_s
        if not limit or not points:
            return False
        newest = max(points, key=lambda point: point.seq)
        age = (now - newest.time_ns) / _SECOND
        if age <= limit:
            self.store.incidents.over("points_late", f"mount {mount}")
            return False
        self.store.incidents.note(
            "points_late", f"mount {mount}",
            f"expected a new recovery point every {limit:.0f} s (unprotected_s), found the last one, {newest.id},"
            f" {age:.0f} s old; look at what writes there",
        )  # fmt: skip
        return True

    def expire(self, mount: str, now: int) -> list[PointInfo]:
        """Delete the points of a mount that its retention gives up; which. None while it is frozen."""
        made = self.store.points(mount)
        watch = self.watch(mount, now, made)
        if watch.frozen:
            return []
        keep = self.policy(mount).keep
        seen = Seen(now, self._since_boot(), REAL.boot())
        last = retention.from_mark(self.state.marks.get(CLOCK + mount))
        believed, ahead, seen = retention.believable(seen, last)
        self.state.marks.put(CLOCK + mount, retention.to_mark(seen))
        if ahead:
            way = "forwards" if ahead > 0 else "back"
            self.store.incidents.note(
                "clock", f"retention of {mount}",
                f"the clock was set {way} by {abs(ahead) / _SECOND:.0f} s: no point is deleted because of it, until"
                " it is right, or the incidents are reset",
            )  # fmt: skip
        gone = []
        for point in retention.expired(
            made, self.state.notes.kept(), last=keep.last, within_s=keep.within_s, now_ns=believed,
        ):  # fmt: skip
            if point.locked_ns > believed:
                continue
            try:
                with self.locked(mount):  # who keeps a point has an answer, or finds it gone
                    if not returning.may_go(self.store, self.state, point.id):
                        log.info(
                            "retention leaves point %s: what was kept with it is not back", point.id
                        )
                    elif not self.state.notes.get(point.id).kept:
                        gone += self.remove_points([point.id])
            except (
                Busy,
                Held,
                NotFound,
            ) as error:  # open, shown, or another's doing: the next time
                log.info("retention leaves point %s: %s", point.id, error)
        return gone
