"""What there is to do by itself, from the configuration as it holds now; ``schedules`` decides when."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import Any

import trio

from daemon.config import Config, Schedule
from daemon.contract import DrillSpec, JobKind
from daemon.observe import Audit
from daemon.service.service import Service
from daemon.supervise.schedules import Task
from daemon.supervise.settings import keeps_all

log = logging.getLogger("holdfast.supervise")

AT_ONCE = 2  # snapshots and the like beside each other: requests have threads of their own
LABEL = "scheduled"
JOBS_SEEN = 1000
WHO = "holdfast"  # in the audit log
_STALE = Schedule.parse("every 1m")
_HOURLY = Schedule.parse("every 1h")
_DAILY = Schedule.parse("every 1d")


class Chores:
    """Makes tasks. Each runs in a thread of maintenance's own, so that no request waits for one."""

    def __init__(self, service: Service, config: Callable[[], Config], audit: Audit) -> None:
        self._service = service
        self._config = config
        self._audit = audit
        self._limiter = trio.CapacityLimiter(AT_ONCE)
        # Their own: the first time there may be years of rows, or all logs of a store to be fetched.
        self._pruning = trio.CapacityLimiter(1)
        self._returning = trio.CapacityLimiter(1)

    async def tasks(self) -> list[Task]:
        """All of them, as the configuration is now."""
        config = self._config()
        maintenance = config.maintenance
        scrub = {
            "rate": maintenance.scrub_rate or None, "every_s": maintenance.scrub_every,
            "budget_s": maintenance.scrub_for,
        }  # fmt: skip
        found = [
            self._task("stale sessions", _STALE, self._stale),
            self._task("points watched", _HOURLY, self._watch),
            self._task("history", _HOURLY, self._service.note_history, at_once=True),
            self._task(
                "what came with points",
                _HOURLY,
                self._service.give_back,
                at_once=True,
                limiter=self._returning,
            ),
            self._task("old rows", _DAILY, self._service.prune, limiter=self._pruning),
            self._task(
                "collect", Schedule.parse(maintenance.collect), partial(self._job, "collect", {})
            ),
            self._task(
                "scrub", Schedule.parse(maintenance.scrub), partial(self._job, "scrub", scrub)
            ),
        ]
        for name, mount in config.mounts.items():
            if mount.snapshots:
                schedule = Schedule.parse(mount.snapshots)
                found.append(
                    self._task(f"snapshot of {name}", schedule, partial(self._snapshot, name))
                )
            if mount.drill:
                schedule = Schedule.parse(mount.drill)
                found.append(self._task(f"drill of {name}", schedule, partial(self._drill, name)))
            if not keeps_all(mount.keep):
                found.append(
                    self._task(f"retention of {name}", _HOURLY, partial(self._expire, name))
                )
        return found

    def failed(self, name: str, error: Exception) -> None:
        """A run raised: told, and done again at its next time."""
        log.error("%s: %s", name, error)
        self._service.store.incidents.note("job_failed", name, str(error))

    def _task(
        self, name: str, schedule: Schedule, work: Callable[[], object], *, at_once: bool = False,
        limiter: trio.CapacityLimiter | None = None,
    ) -> Task:  # fmt: skip
        async def run() -> None:
            await trio.to_thread.run_sync(
                work, limiter=limiter or self._limiter, abandon_on_cancel=True
            )

        return Task(name, schedule, run, at_once)

    # --- in threads -------------------------------------------------------------------------------------

    def _stale(self) -> None:
        """What may have changed with the time: leases that ended, locations that answer again."""
        self._service.show_hidden()
        self._service.stale(self._service.clock())

    def _watch(self) -> None:
        now = self._service.clock()
        self._service.sweep_drills()
        self._service.watch_all(now)
        there = {mount.name for mount in self._service.store.mounts()}
        for name, mount in self._config().mounts.items():
            if mount.drill and name in there:
                self._service.late_drill(name, Schedule.parse(mount.drill), now)

    def _drill(self, name: str) -> None:
        """Unless one of the mount is still at work; a mount without points has nothing to restore."""
        for state in ("queued", "running"):
            jobs = self._service.jobs(kind="drill", state=state, limit=JOBS_SEEN).items
            if any(job.mount == name for job in jobs):
                log.info("drill of %s: the last one is still at work", name)
                return
        if not self._service.store.points(name):
            log.info("drill of %s: left out, there is no recovery point", name)
            return
        source = self._config().mount(name).drill_from
        job = self._service.drill(DrillSpec(name, source=source))
        about = f"mount {name} point {job.options['point']}"
        self._audit.write(WHO, "schedule", "start drill", about, "ok")

    def _job(self, kind: JobKind, options: dict[str, Any]) -> None:
        """Unless one of the kind is still at work, whoever began it."""
        for state in ("queued", "running"):
            if self._service.jobs(kind=kind, state=state, limit=1).items:
                log.info("%s: the last one is still at work", kind)
                return
        self._service.start_job(kind, options)

    def _snapshot(self, name: str) -> None:
        """While a session is open its commit makes the point: one in its midst would be half of what is written."""
        if self._service.state.wanted.get(name).deleting:
            return
        session = self._service.state.sessions.open_of(name)
        if session is not None:
            log.info("snapshot of %s: left out, session %s is open", name, session.id)
            return
        made = self._service.snapshot(name, label=LABEL)
        self._audit.write(
            WHO, "schedule", "take snapshot", f"mount {name} point {made.point.id}", "ok"
        )
        self._expire(name)

    def _expire(self, name: str) -> None:
        if self._service.state.wanted.get(name).deleting or keeps_all(
            self._config().mount(name).keep
        ):
            return
        for gone in self._service.expire(name, self._service.clock()):
            self._audit.write(
                WHO, "retention", "delete points", f"mount {name} point {gone.id}", "ok"
            )
