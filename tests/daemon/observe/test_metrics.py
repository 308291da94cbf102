"""Metrics as Prometheus' own parser reads them."""

from __future__ import annotations

import threading

from prometheus_client.parser import text_string_to_metric_families

from daemon.observe.metrics import STORE, WORKER, Metrics


def told(metrics: Metrics) -> dict[str, float]:
    found = {}
    for family in text_string_to_metric_families(metrics.text().decode()):
        assert family.name.startswith("holdfast_") and family.documentation
        for sample in family.samples:
            labels = ",".join(f"{key}={value}" for key, value in sorted(sample.labels.items()))
            found[sample.name.removeprefix("holdfast_") + (f"{{{labels}}}" if labels else "")] = (
                sample.value
            )
    return found


def test_what_nobody_said_is_not_told() -> None:
    assert told(Metrics()) == {}


def test_requests() -> None:
    metrics = Metrics()
    metrics.request("GET", "/v1/mounts/{name}", 200, 0.01)
    metrics.request("GET", "/v1/mounts/{name}", 404, 1.5)
    metrics.show_restarts({"m": 1})
    metrics.show_restored(9)
    found = told(metrics)
    route = "method=GET,route=/v1/mounts/{name}"
    assert found[f"http_requests_total{{{route},status=404}}"] == 1
    assert found[f"http_request_seconds_count{{{route}}}"] == 2
    assert found[f"http_request_seconds_sum{{{route}}}"] == 1.51
    assert found[f"http_request_seconds_bucket{{le=0.02,{route}}}"] == 1
    assert found["worker_restarts_total{mount=m}"] == 1
    assert found["restore_bytes_total"] == 9


def test_snapshots_replace_each_other() -> None:
    metrics = Metrics()
    metrics.show_workers({
        "a": {"bytes_written": 5, "fsyncs": 2, "fsync_seconds": 0.5, "state": "serving"},
        "b": {"bytes_written": 7, "queues": {"chunks": 3, "uploads": 0}, "pid": 1},
    })  # fmt: skip
    metrics.show_mounts({"a": "serving", "b": "failed"})
    metrics.show_store({"stored_bytes": 10, "logical_bytes": 100, "ratio": 10.0})
    metrics.show_incidents(["corrupt", "clock", "corrupt"])
    metrics.show_sessions(["open", "committed", "open"], stale=1)
    metrics.show_jobs([("scrub", "running"), ("scrub", "done"), ("scrub", "done")])
    assert told(metrics) == {
        "ingest_bytes_total{mount=a}": 5, "ingest_bytes_total{mount=b}": 7,
        "fsyncs_total{mount=a}": 2, "fsync_seconds_total{mount=a}": 0.5,
        "queue_depth{mount=b,queue=chunks}": 3, "queue_depth{mount=b,queue=uploads}": 0,
        "mount_state{mount=a,state=serving}": 1, "mount_state{mount=b,state=failed}": 1,
        "stored_bytes": 10, "logical_bytes": 100, "incidents{kind=corrupt}": 2,
        "incidents{kind=clock}": 1, "sessions{state=open}": 2, "sessions{state=committed}": 1,
        "stale_sessions": 1, "jobs{kind=scrub,state=running}": 1, "jobs{kind=scrub,state=done}": 2,
    }  # fmt: skip
    metrics.show_workers({"b": {"bytes_written": 8}})
    metrics.show_mounts({})
    metrics.show_incidents([])
    found = told(metrics)
    assert found["ingest_bytes_total{mount=b}"] == 8
    assert not [
        name
        for name in found
        if "mount=a" in name or "state=serving" in name or "incidents" in name
    ]


def test_every_metric_can_be_told() -> None:
    metrics = Metrics()
    metrics.show_workers({"m": dict.fromkeys(WORKER, 1.0) | {"queues": {"q": 1}}})
    metrics.show_store(dict.fromkeys(STORE, 1.0))
    assert len(told(metrics)) == len(WORKER) + len(STORE) + 1


def test_any_label_is_one_line() -> None:
    metrics = Metrics()
    metrics.request("GET", 'a"\\\n{}', 200, 0)
    assert told(metrics)['http_requests_total{method=GET,route=a"\\\n{},status=200}'] == 1


def test_threads_count_together() -> None:
    metrics = Metrics()

    def work() -> None:
        for number in range(200):
            metrics.request("GET", "/", 200, 0.1)
            metrics.show_store({"points": number})
            if number % 50 == 0:
                metrics.text()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert told(metrics)["http_requests_total{method=GET,route=/,status=200}"] == 800


def test_two_do_not_share() -> None:
    one, other = Metrics(), Metrics()
    one.show_restored(5)
    assert told(other) == {}
