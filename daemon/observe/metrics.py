"""What Prometheus is told: counts of this process, and the last values that others handed in.

Nothing is read here: workers' counters come as their ``status()``, the store's sizes as its ``stats()``.  What they do
not name is not told.  Labels have few values: a route is the template, never the path of a request.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, get_args

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector

from daemon.contract import LocationInfo, MountInfo, UploadState

CONTENT_TYPE = CONTENT_TYPE_LATEST
_SECONDS = (0.005, 0.02, 0.1, 0.5, 2.0, 10.0, 60.0)  # begin should take 0.02, commit 0.5


Values = dict[tuple[str, ...], float]
"""A value for each combination of labels."""


class Family(NamedTuple):
    """A metric whose values are handed in: counters are told with ``_total`` behind their name."""

    name: str
    counter: bool
    help: str
    labels: tuple[str, ...] = ()


_BY_MOUNT = ("mount",)
WORKER = {
    "bytes_written": Family("ingest_bytes", True, "Written by users of a mount.", _BY_MOUNT),
    "bytes_read": Family("read_bytes", True, "Read by users of a mount.", _BY_MOUNT),
    "dedupe_hits": Family("dedupe_hits", True, "Chunks that were there already.", _BY_MOUNT),
    "delta_hits": Family("delta_hits", True, "Chunks stored as a delta of another.", _BY_MOUNT),
    "fsyncs": Family("fsyncs", True, "Syncs that users of a mount waited for.", _BY_MOUNT),
    "fsync_seconds": Family("fsync_seconds", True, "Time they waited for them.", _BY_MOUNT),
    "requests": Family("fuse_requests", True, "Requests of the kernel.", _BY_MOUNT),
    "open_writers": Family("open_writers", False, "Files open for writing.", _BY_MOUNT),
    "peak_rss": Family("worker_peak_bytes", False, "Most memory a worker has had.", _BY_MOUNT),
}
"""By the key of a worker's ``status()``. Its counters begin again with each worker, as Prometheus expects."""

STORE = {
    "stored_bytes": Family("stored_bytes", False, "Everything in the store's directory."),
    "logical_bytes": Family("logical_bytes", False, "What the recovery points hold, together."),
    "live_bytes": Family("live_bytes", False, "What the mounts hold now."),
    "points": Family("points", False, "Recovery points."),
    "chunks": Family("chunks", False, "Chunks of data in the store."),
    "delta_chunks": Family("delta_chunks", False, "Of these, stored as a delta of another."),
    "plain_bytes": Family("chunk_plain_bytes", False, "What the chunks hold."),
    "chunk_bytes": Family("chunk_stored_bytes", False, "What they take."),
    "index_used_bytes": Family("index_used_bytes", False, "Rows in the index."),
    "last_scrub_ns": Family("last_scrub_ns", False, "When all was verified, in ns; 0 for never."),
}
"""By the key of the store's ``stats()``."""

QUEUE = Family("queue_depth", False, "What waits in a worker's queues.", ("mount", "queue"))
STATE = Family("mount_state", False, "1 for the state a mount is in.", ("mount", "state"))
INCIDENTS = Family("incidents", False, "Incidents nobody has reset.", ("kind",))
SESSIONS = Family("sessions", False, "Sessions by state.", ("state",))
PENDING = Family("pending_points", False, "Points that wait for a copy.", _BY_MOUNT)
UPLOADS = Family(
    "uploads", False, "Points by location and how far their copy is.", ("location", "state")
)
UPLOADED = Family("uploaded_bytes", True, "Sent by uploads that came to their end.", ("location",))
ASKED = Family(
    "location_requests", True, "Asked of a location, as a server bills it.", ("location", "kind")
)
MOVED = Family(
    "location_bytes", True, "Sent to a location and fetched from it.", ("location", "direction")
)
OLDEST = Family(
    "oldest_pending_seconds", False, "Age of the oldest point without a verified copy; 0 for none.", ("location",)
)  # fmt: skip
RESTARTS = Family("worker_restarts", True, "Workers that died.", _BY_MOUNT)
RESTORED = Family("restore_bytes", True, "Written by restores, or read as files and streams.")
FROZEN = Family(
    "retention_frozen", False, "1 while retention of a mount waits for somebody to look.", _BY_MOUNT
)
DRILLED = Family(
    "drill_last_success_timestamp_seconds", False, "When a drill last went well; 0 for never.", _BY_MOUNT
)  # fmt: skip
RECOVERY = Family("drill_recovery_seconds", False, "What it took to restore and verify.", _BY_MOUNT)
STALE = Family("stale_sessions", False, "Open sessions whose lease has ended.")
JOBS = Family("jobs", False, "Jobs by kind and state.", ("kind", "state"))


class Metrics:
    """All metrics of a daemon, in a registry of their own. Thread-safe."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a time a counter, which nobody asks for
        self._registry = CollectorRegistry()
        self._shown = _Shown()
        self._registry.register(self._shown)
        here: dict[str, Any] = {"namespace": "holdfast", "registry": self._registry}
        asked = ["method", "route"]
        self._requests = Counter("http_requests", "Requests.", [*asked, "status"], **here)
        self._took = Histogram(
            "http_request_seconds", "Until the answer was sent.", asked, buckets=_SECONDS, **here
        )

    def request(self, method: str, route: str, status: int, seconds: float) -> None:
        """One HTTP request was answered. ``route``: the template, as ``/v1/mounts/{name}``."""
        self._requests.labels(method, route, str(status)).inc()
        self._took.labels(method, route).observe(seconds)

    def show_workers(self, statuses: Mapping[str, Mapping[str, Any]]) -> None:
        """What all workers say of themselves, by mount; those that are not there now are told no more.

        ``queues`` in a status is a mapping of queues to what waits in them.
        """
        for key, family in WORKER.items():
            values: Values = {
                (name,): one[key] for name, one in statuses.items() if _number(one.get(key))
            }
            self._shown.show(family, values)
        queues: Values = {
            (mount, str(queue)): depth
            for mount, one in statuses.items()
            for queue, depth in (one.get("queues") or {}).items()
            if _number(depth)
        }
        self._shown.show(QUEUE, queues)

    def show_mounts(self, states: Mapping[str, str]) -> None:
        """The state of every mount."""
        self._shown.show(STATE, dict.fromkeys(states.items(), 1))

    def show_pending(self, points: Mapping[str, int]) -> None:
        """How many points of each mount wait for their copy."""
        self._shown.show(PENDING, {(mount,): count for mount, count in points.items()})

    def show_recovery(self, mounts: Iterable[MountInfo]) -> None:
        """Of every mount: whether its retention waits, and what its last good drill took."""
        known = list(mounts)
        self._shown.show(FROZEN, {(one.name,): int(bool(one.frozen)) for one in known})
        self._shown.show(DRILLED, {(one.name,): one.drilled_ns / 1e9 for one in known})
        self._shown.show(RECOVERY, {(one.name,): one.recovery_s for one in known if one.drilled_ns})

    def show_copies(
        self, locations: Iterable[LocationInfo], sent: Mapping[str, int], oldest: Mapping[str, int], now: int
    ) -> None:  # fmt: skip
        """Storage locations: their points by state, bytes sent in this daemon's time, when the oldest point was made
        that waits."""
        known = list(locations)
        self._shown.show(
            UPLOADS, {(one.name, state): getattr(one, state) for one in known for state in get_args(UploadState)}
        )  # fmt: skip
        self._shown.show(UPLOADED, {(one.name,): sent.get(one.name, 0) for one in known})
        counts = [(one.name, kind, count) for one in known for kind, count in one.requests.items()]
        moved = {"bytes_up": "up", "bytes_down": "down"}
        self._shown.show(ASKED, {(name, kind): n for name, kind, n in counts if kind not in moved})
        self._shown.show(
            MOVED, {(name, moved[kind]): n for name, kind, n in counts if kind in moved}
        )
        self._shown.show(
            OLDEST, {(one.name,): max(0, now - oldest.get(one.name, now)) / 1e9 for one in known}
        )

    def show_restarts(self, deaths: Mapping[str, int]) -> None:
        """How often the worker of each mount has died, in this daemon's time."""
        self._shown.show(RESTARTS, {(mount,): count for mount, count in deaths.items()})

    def show_restored(self, count: int) -> None:
        """Bytes that were restored, in this daemon's time."""
        self._shown.show(RESTORED, {(): count})

    def show_store(self, stats: Mapping[str, int | float]) -> None:
        """The store's ``stats()``."""
        for key, family in STORE.items():
            self._shown.show(family, {(): stats[key]} if key in stats else {})

    def show_incidents(self, kinds: Iterable[str]) -> None:
        """The kind of every incident there is."""
        self._shown.show(INCIDENTS, _counted((kind,) for kind in kinds))

    def show_sessions(self, states: Iterable[str], stale: int) -> None:
        """The state of every session, and how many are stale."""
        self._shown.show(SESSIONS, _counted((state,) for state in states))
        self._shown.show(STALE, {(): stale})

    def show_jobs(self, jobs: Iterable[tuple[str, str]]) -> None:
        """Kind and state of every job."""
        self._shown.show(JOBS, _counted(jobs))

    def text(self) -> bytes:
        """Everything in Prometheus' text format; its type is ``CONTENT_TYPE``."""
        return generate_latest(self._registry)


def _number(value: object) -> bool:
    return isinstance(value, int | float)


def _counted(labels: Iterable[tuple[str, ...]]) -> Values:
    found: Values = {}
    for one in labels:
        found[one] = found.get(one, 0) + 1
    return found


class _Shown(Collector):
    """The last values handed in, a family each."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._values: dict[Family, Values] = {}

    def show(self, family: Family, values: Values) -> None:
        with self._lock:
            self._values[family] = values

    def collect(self) -> Iterable[Metric]:
        with self._lock:
            shown = list(self._values.items())
        for family, values in shown:
            kind = CounterMetricFamily if family.counter else GaugeMetricFamily
            metric = kind(f"holdfast_{family.name}", family.help, labels=family.labels)
            for labels, value in sorted(values.items()):
                metric.add_metric(labels, value)
            if values:
                yield metric
