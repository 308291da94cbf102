"""The metrics of the daemon, gathered when they are asked for."""

from __future__ import annotations

import logging
import threading
import time

from daemon.observe.metrics import CONTENT_TYPE, Metrics
from daemon.supervise.served import Served
from daemon.supervise.workers import Workers
from engine.errors import HoldfastError

log = logging.getLogger("holdfast.supervise")

STORE_EVERY = 60.0  # s: what the store holds is counted by looking at all of its packs
JOBS_SHOWN = 1000  # the newest


class Numbers:
    """Thread-safe; called in threads."""

    content_type = CONTENT_TYPE

    def __init__(self, service: Served, workers: Workers) -> None:
        self.metrics = Metrics()
        self._service = service
        self._workers = workers
        self._lock = threading.Lock()
        self._counted = -STORE_EVERY

    def request(self, method: str, route: str, status: int, seconds: float) -> None:
        """One HTTP request was answered."""
        self.metrics.request(method, route, status, seconds)

    def text(self) -> bytes:
        """All of them as they are now. What cannot be read now is as it was."""
        with self._lock:
            try:
                self._gather()
            except HoldfastError as error:
                log.warning("metrics: %s", error)
            return self.metrics.text()

    def _gather(self) -> None:
        service, metrics = self._service, self.metrics
        metrics.show_workers(self._workers.statuses())
        mounts = service.mounts()
        names = [one.name for one in mounts]
        metrics.show_recovery(mounts)
        metrics.show_mounts({name: self._workers.status(name)[0] for name in names})
        pending = service.pending()
        metrics.show_pending({name: pending.get(name, 0) for name in names})
        metrics.show_copies(
            service.locations(), service.uploaded, service.oldest_pending(), service.clock()
        )
        metrics.show_restarts(self._workers.restarts())
        metrics.show_restored(service.restored)
        sessions = [
            one for state in ("open", "committing") for one in service.sessions(state=state)
        ]
        metrics.show_sessions([one.state for one in sessions], sum(one.stale for one in sessions))
        metrics.show_jobs([(one.kind, one.state) for one in service.jobs(limit=JOBS_SHOWN).items])
        metrics.show_incidents([str(one["kind"]) for one in service.incidents()])
        if time.monotonic() - self._counted >= STORE_EVERY:
            metrics.show_store(service.stats())
            self._counted = time.monotonic()
