"""Points go to their locations: a job for each location that something waits for, one at a time.

Asked when a point was made and looked at every ``LOOK_EVERY``.  When it is time again after a failure is decided from
what is written down (rows of the outbox, ended jobs), so a restart of the daemon changes nothing.  The looks have a
thread of their own; sending is a process of lower priority.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence

import trio

from daemon.config import Config
from daemon.contract import JobInfo, LocationInfo, UploadInfo
from daemon.service.service import Service
from engine.errors import HoldfastError

log = logging.getLogger("holdfast.supervise")

SECOND = 1_000_000_000
LOOK_EVERY = 30.0  # s: a retry that is due, a point of another process, a clock that was set
FIRST, LONGEST = 5.0, 300.0  # s between a failure and the next try
JOBS_SEEN = 200  # the newest uploads, of all locations
WAITING = ("queued", "uploading")


def due_ns(rows: Iterable[UploadInfo], ended: Sequence[JobInfo], now: int) -> int:
    """When sending to a location is to begin, at most ``LONGEST`` from now. ``rows``: what waits; ``ended``: jobs of
    the location that have ended, the newest first."""
    failures = 0
    times = []
    for job in ended:
        if job.state == "done":
            break
        failures += 1
        times.append(job.ended_ns)
    for row in rows:
        if row.tries:
            failures = max(failures, row.tries)
            times.append(row.since_ns)
    # What is still to come was written down before the clock was set back: waiting for it would be for as long.
    last = max((one for one in times if one <= now), default=0)
    if not last:
        return now
    wait = min(FIRST * 2 ** min(failures - 1, 30), LONGEST)
    return last + int(wait * SECOND)


class Uploading:
    """The port, and its task. ``open`` before anything else."""

    def __init__(self, config: Callable[[], Config], clock: Callable[[], int]) -> None:
        self._config = config
        self._clock = clock
        self._service: Service | None = None
        self._asked = trio.Event()
        self._now = False  # somebody waits: back-off is over
        self._token = trio.lowlevel.current_trio_token()
        self._limiter = trio.CapacityLimiter(1)

    def open(self, service: Service) -> None:
        """The service whose points are sent."""
        self._service = service

    def wake(self, *, waited_for: bool = False) -> None:
        """[T] Look soon. Harmless when nothing runs."""

        def ask() -> None:
            self._now = self._now or waited_for
            self._asked.set()

        try:
            self._token.run_sync_soon(ask)
        except trio.RunFinishedError:
            log.debug("uploads: the daemon has ended; the outbox has what was made")

    async def run(self) -> None:
        """Until it is cancelled."""
        while True:
            self._asked = trio.Event()
            at_once, self._now = self._now, False
            wait = LOOK_EVERY
            try:
                wait = await trio.to_thread.run_sync(
                    self._look, at_once, limiter=self._limiter, abandon_on_cancel=True
                )
            except HoldfastError as error:
                log.error("uploads: %s", error)
            except Exception as error:  # a bug must not end what keeps copies being made
                log.exception("uploads: %r", error)
            with trio.move_on_after(wait):
                await self._asked.wait()

    # --- in a thread ------------------------------------------------------------------------------------

    def _look(self, at_once: bool) -> float:
        """Start what is due; how long until there may be more to do."""
        service = self._service
        assert service is not None
        places = service.locations()
        if not places:
            return LOOK_EVERY
        jobs = service.jobs(kind="upload", limit=JOBS_SEEN).items
        wait = LOOK_EVERY
        for place in places:
            if place.failed or place.queued or place.uploading or place.locking:
                wait = min(wait, self._one(service, place, jobs, at_once))
        self._tell_late(service)
        return wait

    def _one(
        self, service: Service, place: LocationInfo, jobs: Sequence[JobInfo], at_once: bool
    ) -> float:
        rows = service.pending_uploads(place.name)
        failed = [one for one in rows if one.state == "failed"]
        if failed:
            service.store.incidents.note(
                "copy_failed", f"location {place.name}",
                f"{len(failed)} points have no copy there, first {failed[0].point}: {failed[0].reason}",
            )  # fmt: skip
        waiting = [one for one in rows if one.state in WAITING]
        mine = [job for job in jobs if job.options.get("location") == place.name]
        if not (waiting or place.locking) or place.paused:
            return LOOK_EVERY
        if any(job.state in ("queued", "running") for job in mine):
            return FIRST  # what was made since may not be among what it sends
        now = self._clock()
        due = now if at_once else due_ns(waiting, mine, now)
        if due > now:
            return (due - now) / SECOND
        service.start_job("upload", {"location": place.name})
        return FIRST

    def _tell_late(self, service: Service) -> None:
        limit = self._config().uploads.late_s
        now = self._clock()
        for name, made_ns in service.oldest_pending().items():
            age = (now - made_ns) / SECOND
            if age > limit:
                service.store.incidents.note(
                    "copy_late", f"location {name}",
                    f"a point that is {age / 3600:.1f} h old has no copy there; {limit / 3600:.1f} h is the limit",
                )  # fmt: skip
