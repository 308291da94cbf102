"""Copies at storage locations: which there are, how far each point is, and waiting until it is everywhere."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Collection
from typing import Any, get_args

from daemon.contract import (
    Durability,
    LocationChange,
    LocationInfo,
    LocationSpec,
    UploadInfo,
    UploadState,
)
from daemon.service.core import Core
from engine.errors import Busy, HoldfastError, InvalidRequest, LocationUnavailable, NotFound

WAITERS = 8  # who wait for a copy at once: each takes a thread that commits need
ADOPTED = "adopted settings "  # the same as another machine's configuration had them: only sent along, never followed
SETTINGS = "settings "  # of a mark, before a mount's name: its settings, as they are sent along with its points
_FIRST, _LONGEST = 0.02, 1.0  # s between two looks


class Copies(Core):
    """The part of ``Backend`` about storage locations."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._waiters = threading.BoundedSemaphore(WAITERS)

    def locations(self) -> list[LocationInfo]:
        """All storage locations, by name."""
        return [
            LocationInfo(**{**one._asdict(), "mounts": list(one.mounts)})
            for one in self.store.copies.locations()
        ]

    def add_location(self, spec: LocationSpec) -> LocationInfo:
        """A new storage location: from now on points go there, and so do those that are here.

        Raises AlreadyExists, InvalidRequest, Unsupported, and what the location raises.
        """
        from engine.keys import Identity, Passphrase, Secret, parse

        secrets: list[Secret] = [Passphrase(spec.passphrase)] if spec.passphrase else []
        for text in spec.keys:
            key = parse(text)
            secrets.append(key.recipient if isinstance(key, Identity) else key)
        if secrets and not spec.sealed:
            raise InvalidRequest(
                f"location {spec.name!r}", expected="no secrets where nothing is sealed",
                found=str(len(secrets)),
            )  # fmt: skip
        if not 0 <= spec.verify <= 1:
            raise InvalidRequest("verify", expected="a part from 0 to 1", found=str(spec.verify))
        if spec.local not in ("keep", "drop"):
            raise InvalidRequest(f"local {spec.local!r}", expected="keep or drop")
        for mount in spec.mounts:
            self.store.mount(mount)
        self.store.copies.add(
            spec.name, spec.url, secrets=secrets, credentials=spec.credentials, sealed=spec.sealed,
            mounts=spec.mounts, verify=spec.verify, local=spec.local, bandwidth=spec.bandwidth,
            read_bandwidth=spec.read_bandwidth, object_lock=spec.object_lock,
        )  # fmt: skip
        self.ports.uploads.wake()
        return self.location(spec.name)

    def change_location(self, name: str, change: LocationChange) -> LocationInfo:
        """Change what is not None. Raises NotFound, InvalidRequest; for credentials, which are tried first, what the
        location raises."""
        for mount in change.mounts or ():
            self.store.mount(mount)
        fields = {field: value for field, value in vars(change).items() if value is not None}
        self.store.copies.change(name, **fields)
        self.ports.uploads.wake()
        return self.location(name)

    def location(self, name: str) -> LocationInfo:
        """One of them. Raises NotFound."""
        found = {one.name: one for one in self.locations()}
        if name not in found:
            known = ", ".join(found) or "none"
            raise NotFound(f"location {name!r}", expected="a storage location of this store",
                           found=f"locations: {known}")  # fmt: skip
        return found[name]

    def remove_location(self, name: str) -> None:
        """Forget a location; what lies there stays. Raises NotFound, Busy while bytes of points are there only, or a
        restore is shown that is read from there."""
        for one in self.state.jobs.restores():
            if one.location == name:
                raise Busy(f"location {name!r}", expected="no restore that is read from there", found=f"job {one.job}",
                           do="delete that restore first")  # fmt: skip
        self.store.copies.remove(name)

    def uploads(
        self, location: str = "", state: str = "", points: Collection[str] | None = None
    ) -> list[UploadInfo]:
        """Points, all or these, and how far their copies are, of one location or all. Raises NotFound,
        InvalidRequest."""
        if state and state not in get_args(UploadState):
            raise InvalidRequest(f"state {state!r}", expected=" or ".join(get_args(UploadState)))
        found = self.store.copies.uploads(location, state, points)
        return [UploadInfo(**one._asdict()) for one in found]

    def pending_uploads(self, location: str) -> list[UploadInfo]:
        """Those to a location that are not verified. Raises NotFound."""
        return [
            UploadInfo(**one._asdict()) for one in self.store.copies.uploads(location, "pending")
        ]

    def retry_uploads(self, location: str) -> int:
        """Queue again what failed at a location; how many points. Raises NotFound."""
        count = self.store.copies.retry(location)
        self.ports.uploads.wake(waited_for=True)
        return count

    # --- how far points are ---------------------------------------------------------------------------------

    def copies_of(self, point: str) -> dict[str, UploadInfo]:
        """Of each location that the point goes to, how far it is."""
        found = self.store.copies.uploads(points=[point])
        return {one.location: UploadInfo(**one._asdict()) for one in found}

    def pending(self) -> dict[str, int]:
        """Points of each mount that some location does not have verified; mounts without one are left out."""
        waiting: defaultdict[str, set[str]] = defaultdict(set)
        for one in self.store.copies.uploads(state="pending"):
            waiting[one.mount].add(one.point)
        return {mount: len(points) for mount, points in waiting.items()}

    def oldest_pending(self) -> dict[str, int]:
        """When the oldest point was made that a location does not have verified, by location."""
        waiting = self.store.copies.uploads(state="pending")
        made = {point.id: point.time_ns for point in self.store.points()} if waiting else {}
        oldest: dict[str, int] = {}
        for one in waiting:
            time_ns = made.get(one.point, one.since_ns)
            oldest[one.location] = min(oldest.get(one.location, time_ns), time_ns)
        return oldest

    # --- durability -----------------------------------------------------------------------------------------

    def check_durability(self, mount: str, durability: Durability) -> None:
        """Before a point is made: can what is asked for be had? Raises InvalidRequest."""
        if durability not in get_args(Durability):
            raise InvalidRequest(
                f"durability {durability!r}", expected=" or ".join(get_args(Durability))
            )
        if durability == "remote" and not any(
            not one.mounts or mount in one.mounts for one in self.locations()
        ):
            raise InvalidRequest(
                "durability 'remote'", expected=f"a storage location that takes points of mount {mount!r}",
                found="none", do="run 'holdfast location add', or ask for durability 'local'",
            )  # fmt: skip

    def point_made(
        self, point: str, durability: Durability = "local", *, sleep: Callable[[float], None] = time.sleep
    ) -> None:  # fmt: skip
        """A point was made: it is sent where it must go. Of durability ``remote``, wait until it is there.

        Raises Busy while it is on its way at the end of the wait, LocationUnavailable when its copy failed; the point
        exists all the same.
        """
        if durability == "local":
            self.ports.uploads.wake()
            return
        if not self._waiters.acquire(blocking=False):
            self.ports.uploads.wake()
            raise self._on_its_way(point, f"{WAITERS} others that wait for their copies")
        try:
            try:
                self.ports.uploads.wake(waited_for=True)
            except HoldfastError as error:
                raise self._on_its_way(point, str(error)) from None
            end = time.monotonic() + self._config().uploads.wait_s
            pause = _FIRST
            while left := self._not_there(point):
                if time.monotonic() >= end:
                    raise self._on_its_way(point, "; ".join(left))
                sleep(pause)
                pause = min(_LONGEST, pause * 1.5)
        finally:
            self._waiters.release()

    def _not_there(self, point: str) -> list[str]:
        """Where the point is not verified, each with what is known of it. Raises NotFound, LocationUnavailable."""
        found = self.copies_of(point)
        if not found:
            self.store.point(point)
            raise NotFound(
                f"copies of point {point}", expected="a storage location that it goes to", found="none any more",
                do="the point is durable here only",
            )  # fmt: skip
        for one in found.values():
            if one.state == "failed":
                raise LocationUnavailable(
                    f"point {point}", expected=f"a copy of it at location {one.location!r}; the point itself exists",
                    found=one.reason, do="mend that, then run 'holdfast uploads --retry'",
                )  # fmt: skip
        return [
            f"{one.location}: {one.state}" + (f" ({one.reason})" if one.reason else "")
            for one in found.values()
            if one.state != "verified"
        ]

    def _on_its_way(self, point: str, found: str) -> Busy:
        return Busy(
            f"point {point}", expected="its copies verified; the point itself exists, and is on its way", found=found,
            do="wait, and look with 'holdfast uploads'; a snapshot without the same idempotency key (--once) would make"
            " another point",
        )  # fmt: skip
