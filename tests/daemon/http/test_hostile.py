"""What nobody should send: paths that lead elsewhere, and requests made at random from the API's own page."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from urllib.parse import quote, unquote

import httpx
import hypothesis
import pytest
import schemathesis
import trio
from hypothesis import HealthCheck
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from daemon import http
from daemon.http.guard import App, Message
from engine.errors import InvalidRequest, NotFound
from tests.daemon.http.world import FILES, World, world

STRINGS = 10_000
CHECKS = [
    not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance,
]  # fmt: skip
_STEPS = [
    "..", ".", "", "d", "a.txt", "etc", "passwd", "%2e%2e", "..%2f", "%c0%ae%c0%ae", "..\\", "\0", "~", "D", "b.bin",
    "....//", "․․", "％2e", "\udcff", "proc", "self", "root", "x" * 300, "d\n", " ", "*", "?", "a.txt/", "file:",
]  # fmt: skip
_BETWEEN = ["/", "//", "/./", "\\", "%2f", "/../", ";/", "\r\n"]


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with world(tmp_path_factory.mktemp("w")) as found:
        found.fill("m")
        yield found


def astray(seed: int) -> Iterator[str]:
    """Paths that look like ways out of a point."""
    dice = random.Random(seed)
    for number in range(STRINGS):
        parts = [dice.choice(_STEPS) for _ in range(dice.randint(1, 9))]
        path = dice.choice(["", "/", "//", "../" * dice.randint(1, 12)]) + dice.choice(
            _BETWEEN
        ).join(parts)
        yield path + ("/etc/passwd" if number % 3 == 0 else "")


async def direct(app: App, url: str) -> tuple[int, bytes]:
    """Ask the application itself, as root at its socket would: without a listener that is five times as many."""
    raw, _, query = url.encode("ascii").partition(b"?")
    scope = {
        "type": "http", "http_version": "1.1", "method": "GET", "scheme": "http", "path": unquote(raw.decode()),
        "raw_path": raw, "query_string": query, "root_path": "", "headers": [(b"host", b"localhost")],
        "client": None, "server": None, "state": {}, "asgi": {"version": "3.0"}, "extensions": {},
    }  # fmt: skip
    found: list[Message] = []
    sent: list[Message] = [{"type": "http.request", "body": b"", "more_body": False}]

    async def receive() -> Message:
        if not sent:
            await trio.sleep_forever()
        return sent.pop()

    async def send(message: Message) -> None:
        found.append(message)

    await app(scope, receive, send)
    return found[0]["status"], b"".join(each["body"] for each in found[1:])


async def test_paths_lead_nowhere_but_into_the_point(one: World) -> None:
    """What is answered is an entry of the point, or a refusal: each string from the service, some from the API."""
    http.peer.set(http.Peer(uid=0))
    point = one.service.point("m@latest").point.id
    contents = set(FILES.values())
    names = [{each.name for each in one.service.entries(point, path).items} for path in ("", "d")]
    routes = ("file", "entries", "tar")
    answered = 0
    for number, path in enumerate(astray(4)):
        route = routes[number % 3]
        try:
            if route == "file":
                found: object = b"".join(one.service.file(point, path)[1])
            elif route == "entries":
                found = {each.name for each in one.service.entries(point, path).items}
            else:
                found = b"".join(one.service.tar(point, path))
        except (InvalidRequest, NotFound):
            found = None
        else:
            answered += 1
            assert (
                found in contents or found in names or (route == "tar" and b"root:" not in found)
            ), path  # type: ignore[operator]
        if number % 10 == 0:
            raw = quote(path.encode("utf-8", "surrogateescape"), safe="")
            status, body = await direct(one.app, f"/v1/points/{point}/{route}?path={raw}")
            if found is None:
                assert status in (400, 404), (path, body)
            elif route == "entries":
                assert {each["name"] for each in json.loads(body)["items"]} == found, path
            else:
                assert (status, body) == (200, found), path
    assert 0 < answered < STRINGS / 10


def test_mounts_lead_nowhere(one: World) -> None:
    """The same, some of them through the listener, as names of mounts and references of points."""
    client = one.client()
    for number, path in enumerate(astray(5)):
        if number % 100:
            continue
        raw = quote(path.encode("utf-8", "surrogateescape"), safe="").replace(".", "%2E")
        for url in (f"/v1/mounts/{raw}", f"/v1/points/{raw}/entries", f"/v1/sessions/{raw}",
                    f"/v1/points/m@latest/file?path={raw}"):  # fmt: skip
            answer = client.get(url)
            assert answer.status_code in (400, 404) or answer.content in FILES.values(), path


def test_requests_made_from_the_page(one: World) -> None:
    """Valid and not, by schemathesis: no 5xx but what is said to be unsupported, and every answer as described."""
    client = one.client()
    schema = schemathesis.openapi.from_dict(one.app.openapi())
    headers = dict(client.headers)
    tried = 0
    for result in schema.get_all_operations():
        operation = result.ok()
        if operation.path.endswith(("/events", "/start", "/reload")):
            continue  # the first does not end; the others need a daemon, and say so

        @hypothesis.given(case=operation.as_strategy())
        @hypothesis.settings(
            max_examples=6, deadline=None, database=None, derandomize=True,
            suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        def ask(case: schemathesis.Case) -> None:
            nonlocal tried
            tried += 1
            answer = case.call(base_url=one.url, headers=headers, timeout=20)
            if answer.status_code == 501:
                return  # exports without a daemon
            case.validate_response(
                answer,
                checks=[
                    not_a_server_error,
                    status_code_conformance,
                    content_type_conformance,
                    response_schema_conformance,
                ],
            )

        ask()
    assert tried > 150
    assert httpx.get(f"{one.url}/v1/health").status_code == 200
    assert [each.name for each in one.service.mounts() if each.name == "m"] == ["m"]
