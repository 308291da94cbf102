"""Who may what: one table, held against the routes, and every route asked by every role."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from daemon.contract import Role
from daemon.http import Peer
from daemon.http.gate import ALL, ROWS, Gate, Row
from daemon.http.native.base import ENDPOINTS
from daemon.http.problem import Refused
from daemon.observe.audit import Audit
from daemon.state import State
from engine import Store
from engine.errors import PermissionDenied
from tests.daemon.http.world import ROLES, World, world
from tests.daemon.service.support import Clock


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with world(tmp_path_factory.mktemp("w")) as found:
        found.fill("mine")
        found.fill("other")
        yield found


# --- the table ------------------------------------------------------------------------------------------------


def test_every_route_has_its_row_and_every_row_its_route(one: World) -> None:
    rows = [(row.method, row.path) for row in ROWS]
    assert len(set(rows)) == len(rows)
    assert sorted(one.app.routes) == sorted(rows)
    assert sorted((each.row.method, each.row.path) for each in ENDPOINTS) == sorted(rows)
    page = one.app.openapi()
    told = [(method.upper(), path) for path, found in page["paths"].items() for method in found]
    assert sorted(told) == sorted(rows)


def test_what_the_table_may_not_say() -> None:
    for row in ROWS:
        assert bool(row.roles) == (row.path != "/v1/health")
        deletes = row.method == "DELETE" or row.path.endswith("/delete")
        assert not (deletes and "writer" in row.roles), row
        assert not (
            row.method != "GET" and row.path != "/v1/points/forecast" and "auditor" in row.roles
        ), row
        assert (row.method == "GET") != bool(row.act) or row.path == "/v1/points/forecast", row
        assert "admin" in row.roles or not row.roles
        if row.path.startswith(("/v1/tokens", "/v1/config")):
            assert "operator" not in row.roles
    content = {row.path for row in ROWS if "auditor" not in row.roles and row.method == "GET"}
    assert content == {
        "/v1/health",
        "/v1/attachments/{id}",
        "/v1/points/{ref}/file",
        "/v1/points/{ref}/tar",
    }


def asked_of(row: Row, client: httpx.Client, point: str) -> httpx.Response:
    """Ask for a route with parameters that change nothing of what others look at."""
    name = "nobody" if row.method == "DELETE" or row.path.endswith(("start", "stop")) else "mine"
    ref = "0" * 26 if row.path.startswith("/v1/points/{ref}") and row.method != "GET" else point
    path = row.path.replace("{name}", name).replace("{ref}", ref).replace("{id}", "999999")
    bodies = {
        "/v1/mounts": {"name": "mine"}, "/v1/points/forecast": {"points": ["0" * 26]},
        "/v1/points/delete": {"points": ["0" * 26]}, "/v1/restores": {"point": "0" * 26},
        "/v1/jobs": {"kind": "scrub", "options": {"rate": -1}},
        "/v1/exports": {"mount": "nobody", "client": "10.0.0.0/8"},
        "/v1/tokens": {"role": "writer", "mounts": ["../x"]},
    }  # fmt: skip
    query = {"path": "a.txt"} if path.endswith("/file") else {}
    if path == "/v1/diff":
        query = {"old": point, "new": point}
    if row.method == "DELETE" and path == "/v1/exports":
        query = {"mount": "nobody", "client": "10.0.0.0/8"}
    if path.endswith("/logs"):
        return client.post(path, files={"file": ("x.log", b"text")})
    body = bodies.get(path) if row.method == "POST" else {} if row.method == "PATCH" else None
    return client.request(row.method, path, params=query, json=body)


@pytest.mark.parametrize("role", ROLES)
def test_every_role_at_every_route(one: World, role: Role) -> None:
    point = one.service.point("mine@latest").point.id
    client = one.client(role)
    for row in ROWS:
        if row.path == "/v1/incidents" and row.method == "DELETE":
            continue  # a store's incidents are looked at below
        answer = asked_of(row, client, point)
        about = (row.method, row.path, answer.status_code, answer.text[:200])
        if row.roles and role not in row.roles:
            assert answer.status_code == 403 and "role" in answer.json()["detail"], about
        else:
            assert answer.status_code not in (401, 403, 500), about
        session = one.service.mount("mine").session
        if session:
            one.service.abandon(session)


def test_without_a_token_only_health(one: World) -> None:
    with httpx.Client(base_url=one.url) as client:
        one.gate.failures_per_minute = 1000
        for row in ROWS:
            answer = asked_of(row, client, "x")
            assert answer.status_code == (401 if row.roles else 200), (row, answer.text)
            assert row.roles == frozenset() or answer.headers["www-authenticate"].startswith(
                "Bearer"
            )
        one.gate.failures_per_minute = 20


def test_a_token_for_some_mounts_sees_no_others(one: World) -> None:
    mine, other = (one.service.point(f"{name}@latest").point.id for name in ("mine", "other"))
    session = one.service.begin("other", holder="x")
    one.service.attach_log(session.id, "log", [b"secret"])
    try:
        client = one.client("admin", "mine")
        assert [each["name"] for each in client.get("/v1/mounts").json()["items"]] == ["mine"]
        points = client.get("/v1/points").json()["items"]
        assert {each["mount"] for each in points} == {"mine"}
        assert {each["mount"] for each in client.get("/v1/sessions").json()["items"]} <= {"mine"}
        for path in ("/v1/mounts/other", "/v1/mounts/nobody", "/v1/mounts/other/sessions"):
            answer = client.get(path)
            assert answer.status_code == 403 and "for mine only" in answer.json()["detail"]
        unseen = [f"/v1/points/{other}", f"/v1/points/{other[:20]}/entries", f"/v1/points/{other}/file?path=a.txt",
                  f"/v1/points/{other}/tar", f"/v1/diff?old={mine}&new={other}", f"/v1/sessions/{session.id}",
                  "/v1/attachments/1"]  # fmt: skip
        for path in unseen:
            assert client.get(path).status_code == 404, path
        assert client.get("/v1/points/other@latest").status_code == 403
        assert client.post(f"/v1/sessions/{session.id}/commit").status_code == 404
        assert client.post("/v1/points/delete", json={"points": [mine, other]}).status_code == 404
        assert client.post("/v1/restores", json={"point": other}).status_code == 404
        assert client.post("/v1/mounts", json={"name": "third"}).status_code == 403
        for path in (
            "/v1/history",
            "/v1/incidents",
            "/v1/config",
            "/v1/tokens",
            "/v1/audit",
            "/v1/stats",
            "/metrics",
        ):
            assert client.get(path).status_code == 403, path
        assert client.get("/v1/stats?mount=mine").status_code == 200
        assert client.post("/v1/jobs", json={"kind": "collect"}).status_code == 403
        assert one.service.session(session.id).state == "open" and one.service.point(other)
    finally:
        one.service.abandon(session.id)


def test_a_writer_has_its_own_sessions_only(one: World) -> None:
    writer, rival = one.client("writer", "mine"), one.client("writer")
    begun = writer.post(
        "/v1/mounts/mine/sessions", json={"holder": "somebody else", "label": "x"}
    ).json()
    assert begun["holder"] == writer.get("/v1/status").json()["who"]
    path = f"/v1/sessions/{begun['id']}"
    assert rival.get(path).status_code == 404
    for act in ("renew", "commit", "abandon"):
        assert rival.post(f"{path}/{act}").status_code == 404
    assert rival.post(f"{path}/logs", files={"file": ("a", b"b")}).status_code == 404
    assert rival.get("/v1/sessions").json()["items"] == []
    log = writer.post(f"{path}/logs", files={"file": ("a", b"b")}).json()
    assert writer.get(f"/v1/attachments/{log['id']}").content == b"b"
    assert rival.get(f"/v1/attachments/{log['id']}").status_code == 404
    assert [each["id"] for each in writer.get("/v1/sessions").json()["items"]] == [begun["id"]]
    done = writer.post(f"{path}/commit")
    assert done.status_code == 200
    point = done.json()["detail"]["point"]["id"]
    assert writer.post("/v1/points/delete", json={"points": [point]}).status_code == 403
    assert writer.get(f"/v1/points/{point}").status_code == 403


# --- tokens ---------------------------------------------------------------------------------------------------


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[tuple[Gate, State, Clock]]:
    Store.init(str(tmp_path / "store"))
    clock = Clock()
    with State.open(str(tmp_path / "store"), clock) as state:
        audit = Audit(str(tmp_path / "audit.log"), clock)
        yield (
            Gate(state.tokens, audit, clock=clock, failures_per_minute=3, own_uid=1234),
            state,
            clock,
        )


FAR = Peer(address="192.0.2.1")


def why(gate: Gate, authorization: str, peer: Peer = FAR) -> tuple[int, str]:
    with pytest.raises(Refused) as caught:
        gate.admit(authorization, peer)
    return caught.value.status, str(caught.value)


def test_tokens_that_are_refused(gate: tuple[Gate, State, Clock]) -> None:
    keeper, state, clock = gate
    keeper.failures_per_minute = 100
    info, good = state.tokens.create("writer", ["m"], label="rman", lifetime_s=60)
    caller = keeper.admit(f"Bearer {good}", FAR)
    assert (caller.id, caller.role, caller.mounts) == (info.id, "writer", frozenset({"m"}))
    assert caller.who == f"{info.id} (rman)" and caller.origin == "192.0.2.1"
    assert keeper.admit(f"bearer  {good} ", FAR) == caller
    foreign = state.tokens.create("admin", [])[1]
    wrong = [
        good[:-1],
        good + "0",
        good[:16] + foreign[16:],
        good.upper(),
        "",
        "é",
        "x" * 10_000,
        "\0",
    ]
    for text in wrong:
        status, told = why(keeper, f"Bearer {text}")
        assert status == 401 and "known" in told and good[16:] not in told
    assert why(keeper, "")[1].startswith("authentication: found no token")
    assert "another scheme" in why(keeper, f"Basic {good}")[1]
    clock.now += 61 * 10**9
    status, told = why(keeper, f"Bearer {good}")
    assert status == 401 and "expired" in told
    info, good = state.tokens.create("writer", [])
    state.tokens.revoke(info.id)
    status, told = why(keeper, f"Bearer {good}")
    assert status == 401 and "revoked" in told


def test_failures_have_a_limit(gate: tuple[Gate, State, Clock]) -> None:
    keeper, state, clock = gate
    good = state.tokens.create("writer", [])[1]
    for _ in range(3):
        assert why(keeper, "Bearer x")[0] == 401
        clock.now += 10**9
    with pytest.raises(Refused) as caught:
        keeper.admit("Bearer x", FAR)
    assert caught.value.status == 429 and caught.value.headers["Retry-After"] == "57"
    assert caught.value.kind.retryable
    assert keeper.admit(f"Bearer {good}", FAR).role == "writer"  # others of the same machine go on
    assert why(keeper, "Bearer x", Peer(address="192.0.2.2"))[0] == 401
    clock.now += 57 * 10**9
    assert why(keeper, "Bearer x")[0] == 401
    assert why(keeper, "Bearer x")[0] == 429
    clock.now -= 3600 * 10**9  # a clock that is set back locks nobody out
    assert why(keeper, "Bearer x")[0] == 401


def test_failures_are_remembered_of_so_many(gate: tuple[Gate, State, Clock]) -> None:
    keeper, _, _ = gate
    for number in range(5000):
        why(keeper, "Basic x", Peer(address=f"10.0.{number >> 8}.{number & 255}"))
    assert len(keeper._failures) <= 4096


def test_users_at_the_unix_socket(gate: tuple[Gate, State, Clock]) -> None:
    keeper, state, _ = gate
    for uid in (0, 1234):
        caller = keeper.admit("", Peer(uid=uid))
        assert (caller.id, caller.role, caller.mounts) == (f"uid:{uid}", "admin", frozenset())
        assert caller.origin == f"unix:{uid}"
    status, told = why(keeper, "", Peer(uid=1000))
    assert status == 403 and "user 1000" in told
    text = state.tokens.create("auditor", [])[1]
    assert keeper.admit(f"Bearer {text}", Peer(uid=1000)).role == "auditor"
    assert keeper.admit(f"Bearer {text}", Peer(uid=0)).role == "auditor"


def test_the_socket_knows_its_peer(tmp_path: Path) -> None:
    with world(tmp_path, own_uid=os.geteuid()) as one:
        assert one.local().get("/v1/status").json()["who"] == f"uid:{os.geteuid()}"


# --- the audit log --------------------------------------------------------------------------------------------


def test_acts_are_kept(tmp_path: Path) -> None:
    with world(tmp_path) as one:
        client, writer = one.client(), one.client("writer")
        client.post("/v1/mounts", json={"name": "m"})
        client.post("/v1/mounts", json={"name": "m"})
        client.post("/v1/mounts", json={"name": "../m"})
        writer.post("/v1/mounts", json={"name": "n"})
        client.get("/v1/mounts")
        begun = client.post("/v1/mounts/m/sessions").json()
        client.post(f"/v1/sessions/{begun['id']}/abandon")
        token = client.post("/v1/tokens", json={"role": "auditor"}).json()
        found = [(act, about, result) for _, act, about, result in one.acts()]
        assert found == [
            ("create mount", "mount m", "ok"), ("create mount", "mount m", "already_exists"),
            ("create mount", "mount ../m", "invalid_request"), ("create mount", "/v1/mounts", "permission_denied"),
            ("begin session", "mount m", "ok"), ("abandon session", f"session {begun['id']} of mount m", "ok"),
            ("create token", f"token {token['token']['id']}, auditor for all mounts", "ok"),
        ]  # fmt: skip
        assert {one.origin for one in one.audit.lines(0, 100)} == {"127.0.0.1"}
        assert token["secret"] not in Path(one.audit.path).read_text()
        assert client.get("/v1/audit?limit=2").json()["items"][1]["result"] == "already_exists"


def test_an_act_whose_line_is_lost_is_told_to_the_log(
    gate: tuple[Gate, State, Clock], expect_log: Callable[[str], None]
) -> None:
    class Full:
        def write(self, who: str, origin: str, act: str, about: str, result: str) -> None:
            raise PermissionDenied("audit log")

    _, state, clock = gate
    expect_log("the audit log could not be written.*uid:0 unix:0 create mount mount m ok")
    keeper = Gate(state.tokens, Full(), clock=clock)
    row = next(row for row in ROWS if row.act == "create mount")
    keeper.record(row, keeper.admit("", Peer(uid=0)), "mount m", None)
    assert row.roles <= ALL
