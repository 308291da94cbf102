"""The native API through a real listener: what answers look like, what is done once, what bad input gets."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest

from daemon.contract import Durability, JobInfo, MountSpec
from daemon.http import problem
from daemon.http.native import jobs
from daemon.supervise.changes import Changes
from tests.daemon.http.world import World, world


def is_problem(answer: httpx.Response, status: int, kind: str) -> str:
    """Check that it is a problem; what it says."""
    assert answer.headers["content-type"] == problem.MEDIA_TYPE
    found = answer.json()
    assert (answer.status_code, found["status"], found["kind"]) == (status, status, kind), found
    assert found["type"] == f"about:holdfast/{kind}" and found["title"]
    return str(found["detail"])


# --- problems -------------------------------------------------------------------------------------------------


def test_everything_refused_is_a_problem(client: httpx.Client) -> None:
    is_problem(client.get("/v1/mounts/nobody"), 404, "not_found")
    is_problem(client.get("/nowhere"), 404, "not_found")
    is_problem(client.get("/v1/mounts/"), 404, "not_found")
    is_problem(client.put("/v1/mounts"), 405, "unsupported")
    assert "allow" in client.put("/v1/mounts").headers
    is_problem(client.post("/v1/mounts", json={"name": "m"}), 409, "already_exists")
    kind = {"Content-Type": "application/json"}
    for body in ("", "{", "[]", '{"name": 7}', '{"nam": "x"}', '{"name": "x", "quota": -1}',
                 '{"name":"x","quota":1e400}',
                 '{"name": "\\ud800"}', "[" * 100_000, '{"name": "x", "quota": NaN}'):  # fmt: skip
        told = is_problem(
            client.post("/v1/mounts", content=body, headers=kind), 400, "invalid_request"
        )
        assert "Traceback" not in told
    is_problem(
        client.post("/v1/mounts", content="name=x", headers={"Content-Type": "text/plain"}),
        415,
        "invalid_request",
    )
    is_problem(client.get("/v1/points?limit=0"), 400, "invalid_request")
    is_problem(client.get("/v1/points?limit=1001"), 400, "invalid_request")
    answer = client.post("/v1/mounts", content=bytes((2 << 20) + 1))
    is_problem(answer, 413, "invalid_request")
    assert answer.headers["connection"] == "close"  # not all of it is read


def test_a_bug_is_a_number(one: World, client: httpx.Client, expect_log: Callable[[str], None],
                           monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    def broken() -> None:
        raise ZeroDivisionError("inner")

    expect_log("bug [0-9a-f]{12} in GET /v1/incidents")
    monkeypatch.setattr(one.service, "incidents", broken)
    answer = client.get("/v1/incidents")
    is_problem(answer, 500, "internal")
    assert answer.json()["reference"] and "inner" not in answer.text
    with pytest.raises(AttributeError):
        one.service.nothing  # type: ignore[attr-defined]  # noqa: B018


NAMES = [
    "m/", "..", ".", "../m", "%2e%2e", "a/b", "m%00", "-m", "é", "m m", "x" * 65, "x" * 10_000, "%ff%fe", "m\n", "*",
]  # fmt: skip
ASKED = (
    ("GET", ""),
    ("DELETE", ""),
    ("POST", "/start"),
    ("POST", "/sessions"),
    ("POST", "/snapshots"),
)


@pytest.mark.parametrize("name", NAMES)
def test_names_that_are_none(one: World, client: httpx.Client, name: str) -> None:
    raw = name if "%" in name else quote(name, safe="").replace(".", "%2E")
    for method, path in ASKED:
        answer = client.request(method, f"/v1/mounts/{raw}{path}")
        assert answer.status_code in (400, 404), answer.text
        assert answer.json()["kind"] in ("invalid_request", "not_found")
    assert client.post("/v1/mounts", json={"name": name}).status_code == 400
    assert [one.name for one in one.service.mounts()] == ["m"]


def test_names_have_their_case(client: httpx.Client) -> None:
    for method, path in ASKED:
        assert client.request(method, f"/v1/mounts/M{path}").status_code == 404


def test_names_in_lists_of_points(client: httpx.Client) -> None:
    for name in NAMES:
        answer = client.get("/v1/points", params={"mount": name})
        assert answer.status_code in (400, 404)


# --- lists ----------------------------------------------------------------------------------------------------


def test_pages(tmp_path: Path) -> None:
    with world(tmp_path) as one:
        client = one.client()
        for name in "edcba":
            one.service.create_mount(MountSpec(name))
        found, url = [], "/v1/mounts?limit=2"
        while url:
            answer = client.get(url)
            found += [each["name"] for each in answer.json()["items"]]
            link = answer.headers.get("link", "")
            assert bool(link) == bool(answer.json()["cursor"])
            url = link[1 : link.index(">")] if link else ""
        assert found == list("abcde")
        for path in ("/v1/mounts", "/v1/sessions", "/v1/points", "/v1/jobs", "/v1/history", "/v1/tokens", "/v1/audit",
                     "/v1/incidents", "/v1/restores"):  # fmt: skip
            told = client.get(path, params={"cursor": "nonsense"})
            assert told.status_code in (200, 400), told.text
            assert set(client.get(path).json()) == {"items", "cursor"}


# --- idempotency keys -----------------------------------------------------------------------------------------


def test_a_key_makes_it_once(tmp_path: Path) -> None:
    with world(tmp_path) as one:
        client, other = one.client(), one.client()
        one.service.create_mount(MountSpec("m"))
        key = {"Idempotency-Key": "one"}
        first = client.post("/v1/mounts/m/sessions", json={"label": "x"}, headers=key)
        again = client.post("/v1/mounts/m/sessions", json={"label": "x"}, headers=key)
        assert first.status_code == again.status_code == 201 and first.json() == again.json()
        assert again.headers["idempotency-replayed"] == "true"
        told = client.post("/v1/mounts/m/sessions", json={"label": "y"}, headers=key)
        assert "another" in is_problem(told, 422, "invalid_request")
        is_problem(
            other.post("/v1/mounts/m/sessions", json={"label": "x"}, headers=key), 409, "busy"
        )
        without = client.post("/v1/mounts/m/sessions", json={"label": "x"})
        assert first.json()["id"] in is_problem(without, 409, "busy")
        assert (
            len(
                [
                    act
                    for _, act, _, result in one.acts()
                    if act == "begin session" and result == "ok"
                ]
            )
            == 1
        )
        # What failed did nothing: the key may be used for it again.
        key = {"Idempotency-Key": "two"}
        assert client.post("/v1/mounts/n/snapshots", headers=key).status_code == 404
        one.service.create_mount(MountSpec("n"))
        made = client.post("/v1/mounts/n/snapshots", headers=key)
        assert made.status_code == 201
        assert client.post("/v1/mounts/n/snapshots", headers=key).json() == made.json()
        one.clock.now += 25 * 3600 * 10**9
        assert client.post("/v1/mounts/n/snapshots", headers=key).json() != made.json()


def test_a_key_while_it_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with world(tmp_path) as one:
        client = one.client()
        one.service.create_mount(MountSpec("m"))
        began, go = threading.Event(), threading.Event()
        real = one.service.snapshot

        def slow(
            mount: str, *, label: str = "", durability: Durability = "local", once: str = ""
        ) -> object:
            began.set()
            assert go.wait(20)
            return real(mount, label=label, durability=durability, once=once)

        monkeypatch.setattr(one.service, "snapshot", slow)
        found: list[httpx.Response] = []
        key = {"Idempotency-Key": "k"}
        asking = threading.Thread(
            target=lambda: found.append(client.post("/v1/mounts/m/snapshots", headers=key))
        )
        asking.start()
        assert began.wait(20)
        assert "still runs" in is_problem(one_more(client, key), 409, "busy")
        go.set()
        asking.join()
        assert found[0].status_code == 201 and one_more(client, key).json() == found[0].json()


def one_more(client: httpx.Client, key: dict[str, str]) -> httpx.Response:
    return client.post("/v1/mounts/m/snapshots", headers=key)


def test_keys_that_are_none(client: httpx.Client) -> None:
    for key in ("x" * 201, "\xe9"):
        raw = [(b"idempotency-key", key.encode("latin-1"))]
        is_problem(
            client.post("/v1/mounts", json={"name": "n"}, headers=raw), 400, "invalid_request"
        )
    headers = {"Idempotency-Key": "k"}
    is_problem(
        client.post("/v1/tokens", json={"role": "admin"}, headers=headers), 400, "invalid_request"
    )
    is_problem(client.get("/v1/mounts", headers=headers), 400, "invalid_request")


# --- jobs as events -------------------------------------------------------------------------------------------


def test_events_of_a_job(one: World, client: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "POLL_S", 0.05)
    monkeypatch.setattr(jobs, "HEARTBEAT_S", 0.1)
    known = one.service.state.jobs.create("collect", {})
    url = f"/v1/jobs/{known.id}/events"
    found: list[str] = []

    def act() -> None:
        time.sleep(0.4)
        one.service.job_started(known.id)
        time.sleep(0.2)
        one.service.job_ended(known.id, "done", result={"freed": 1})

    acting = threading.Thread(target=act)
    acting.start()
    with client.stream("GET", url) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        found = [line for line in answer.iter_lines() if line]
    acting.join()
    told = [json.loads(line[6:]) for line in found if line.startswith("data: ")]
    assert [each["state"] for each in told] == ["queued", "running", "done"]
    assert told[-1]["result"] == {"freed": 1} and set(told[0]) == set(JobInfo.__dataclass_fields__)
    assert ": still there" in found
    last = [line[4:] for line in found if line.startswith("id: ")][-1]
    assert client.get(url, headers={"Last-Event-ID": last}).status_code == 204
    again = client.get(url, headers={"Last-Event-ID": "older"}).text
    assert again.count("data: ") == 1
    is_problem(client.get("/v1/jobs/99999/events"), 404, "not_found")


def test_what_is_told_of_a_job_arrives_without_a_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("POLL_S", "LOOK_S", "HEARTBEAT_S"):
        monkeypatch.setattr(jobs, name, 100.0)
    changes = Changes()
    with world(tmp_path, changes=changes) as one:
        known = one.service.state.jobs.create("collect", {})
        with one.client().stream("GET", f"/v1/jobs/{known.id}/events") as answer:
            lines = answer.iter_lines()

            def state() -> str:
                return str(
                    json.loads(next(x for x in lines if x.startswith("data: "))[6:])["state"]
                )

            assert state() == "queued"
            began = time.monotonic()
            running = one.service.job_started(known.id)
            one.served.on_loop(lambda: changes.publish(running))
            assert state() == "running"
            done = one.service.job_ended(known.id, "done")
            one.served.on_loop(lambda: changes.publish(done))
            assert state() == "done" and list(lines)[1:] == []
            assert time.monotonic() - began < 20


def test_events_end_with_the_listener(tmp_path: Path) -> None:
    with world(tmp_path) as one:
        known = one.service.state.jobs.create("collect", {})
        client = one.client()
        with client.stream("GET", f"/v1/jobs/{known.id}/events") as answer:
            lines = answer.iter_lines()
            assert next(lines) == "event: job"
            began = time.monotonic()
            one.served.stop()
            assert [line for line in lines if line.startswith("event")] == []
        assert time.monotonic() - began < 3


# --- the page -------------------------------------------------------------------------------------------------


def test_the_page_describes_it(one: World, client: httpx.Client) -> None:
    page = client.get("/v1/openapi.json").json()
    assert page["openapi"].startswith("3.") and "Problem" in page["components"]["schemas"]
    identities = [
        each["operationId"] for found in page["paths"].values() for each in found.values()
    ]
    assert len(set(identities)) == len(identities)
    for path, found in page["paths"].items():
        for operation in found.values():
            assert operation["summary"] and operation["description"], path
            assert operation["security"] == ([] if path == "/v1/health" else [{"token": []}])
            assert operation["responses"]["default"]["content"][problem.MEDIA_TYPE]


def test_metrics(client: httpx.Client) -> None:
    client.get("/v1/mounts/m").raise_for_status()
    answer = client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    assert 'route="/v1/mounts/{name}"' in answer.text
