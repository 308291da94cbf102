"""The application: every endpoint at its route, each request admitted before anything of it is read."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Coroutine
from typing import Any
from urllib.parse import parse_qsl

import trio
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.datastructures import QueryParams
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

import daemon.http
from daemon.contract import Backend
from daemon.http import problem
from daemon.http.gate import Gate
from daemon.http.guard import EXTENSION
from daemon.http.native import (  # noqa: F401 - their routes
    admin,
    copies,
    jobs,
    mounts,
    points,
    restores,
    retention,
    sessions,
)
from daemon.http.native.base import (
    ENDPOINTS,
    Asked,
    Changes,
    Endpoint,
    Keys,
    Metrics,
    Shared,
    served,
)
from daemon.http.native.schema import described, model_of, responses
from engine.errors import HoldfastError, InvalidRequest

KEY_MAX = 200


def app(
    backend: Backend, gate: Gate, metrics: Metrics, keys: Keys, *, version: str = "0",
    max_upload: Callable[[], int] = lambda: 64 << 20, changes: Changes | None = None,
) -> Application:  # fmt: skip
    """The native API over a ``Backend``; ``keys`` remembers the answers of requests with an idempotency key,
    ``changes`` tells how jobs go on."""
    return Application(Shared(backend, gate, keys, metrics, version, max_upload, changes))


class Application:
    """ASGI. ``openapi()`` is the description it gives of itself."""

    def __init__(self, shared: Shared) -> None:
        self._fastapi = FastAPI(
            title="Holdfast", version=shared.version, openapi_url=None, docs_url=None, redoc_url=None,
            redirect_slashes=False,
        )  # fmt: skip
        for endpoint in ENDPOINTS:
            self._add(endpoint, shared)
        self._fastapi.add_exception_handler(HTTPException, _outside)
        self._page: dict[str, Any] | None = None
        shared.openapi = self.openapi
        self.routes = [(endpoint.row.method, endpoint.row.path) for endpoint in ENDPOINTS]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._fastapi(scope, receive, send)

    def openapi(self) -> dict[str, Any]:
        """The API's OpenAPI page."""
        if self._page is None:
            self._page = described(self._fastapi.openapi(), ENDPOINTS)
        return self._page

    def _add(self, endpoint: Endpoint, shared: Shared) -> None:
        class Route(_Route):
            of = endpoint
            everywhere = shared

        self._fastapi.router.add_api_route(
            endpoint.row.path, served(endpoint), methods=[endpoint.row.method], status_code=endpoint.status,
            operation_id=endpoint.run.__name__, tags=[endpoint.run.__module__.rpartition(".")[2]],
            responses=responses(endpoint), route_class_override=Route,
            response_model=endpoint.answer and model_of(endpoint.answer),
        )  # fmt: skip


class _Asking(Request):
    """A request whose query keeps bytes that are no UTF-8, as paths may have them."""

    @property
    def query_params(self) -> QueryParams:
        raw = self.scope["query_string"].decode("latin-1")
        return QueryParams(parse_qsl(raw, keep_blank_values=True, errors="surrogateescape"))


class _Route(APIRoute):
    """A route that knows who asks before it reads what is asked."""

    of: Endpoint
    everywhere: Shared

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        inner = super().get_route_handler()
        row, metrics = self.of.row, self.everywhere.metrics

        async def handle(request: Request) -> Response:
            began = trio.current_time()
            try:
                asking = _Asking(request.scope, request.receive)
                await self._admit(asking)
                answer = await inner(asking)
            except HoldfastError as error:
                answer = problem.answer(error)
            except RequestValidationError as error:
                answer = _invalid(error)
            except HTTPException as error:
                answer = _by_status(request, error)
            except Exception as error:  # noqa: BLE001 - a bug, whatever it is: told by a number
                answer = problem.bug(error, f"{row.method} {row.path}")
            metrics.request(row.method, row.path, answer.status_code, trio.current_time() - began)
            return answer

        return handle

    async def _admit(self, request: _Asking) -> None:
        endpoint, shared = self.of, self.everywhere
        asked = Asked(shared, request, endpoint.row, _NOBODY)
        request.state.asked = asked
        if endpoint.row.roles:
            peer = daemon.http.peer.get(daemon.http.Peer())
            said = request.headers.get("authorization", "")
            asked.caller = await trio.to_thread.run_sync(
                shared.gate.admit, said, peer, limiter=shared.requests, abandon_on_cancel=True
            )
            try:
                shared.gate.allow(endpoint.row, asked.caller)
            except HoldfastError as error:
                await trio.to_thread.run_sync(
                    shared.gate.record, endpoint.row, asked.caller, request.url.path[:200], error,
                    limiter=shared.requests,
                )  # fmt: skip
                raise
        if endpoint.patience:
            request.scope.get("extensions", {}).get(EXTENSION, {}).get("patience", _ignored)(
                endpoint.patience
            )
        asked.key = request.headers.get("idempotency-key", "")
        if asked.key:
            _check_key(asked.key, endpoint)
            asked.fingerprint = await _fingerprint(request, endpoint)
        elif endpoint.row.method != "GET" and not endpoint.upload:
            _check_json(request)


def _ignored(_seconds: float) -> None:
    pass


_NOBODY = daemon.http.gate.Caller("", "auditor")


def _check_key(key: str, endpoint: Endpoint) -> None:
    if not endpoint.keyed:
        raise InvalidRequest(
            "idempotency key", expected=f"none with {endpoint.row.method} {endpoint.row.path}", found="one",
            do="leave it out: its answer is not kept, or asking twice does no harm",
        )  # fmt: skip
    if len(key) > KEY_MAX or not key.isascii() or not key.isprintable():
        raise InvalidRequest("idempotency key", expected=f"1 to {KEY_MAX} printable characters")


def _check_json(request: Request) -> None:
    """Other forms of body are not read into memory, whatever their limit."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind and kind != "application/json":
        raise problem.Refused(
            415, InvalidRequest("content type", expected="application/json", found=repr(kind[:100]))
        )


async def _fingerprint(request: Request, endpoint: Endpoint) -> str:
    """What tells one request from another. Of an upload, the length stands for the content: it is not kept to be
    looked at twice."""
    seen = hashlib.blake2b(digest_size=16)
    for part in (
        endpoint.row.method.encode(),
        request.scope["raw_path"],
        request.scope["query_string"],
    ):
        seen.update(len(part).to_bytes(8) + part)
    if endpoint.upload:
        seen.update(request.headers.get("content-length", "").encode("latin-1"))
    else:
        _check_json(request)
        seen.update(await request.body())
    return seen.hexdigest()


def _invalid(error: RequestValidationError) -> Response:
    found = [
        {"where": ".".join(str(part) for part in each["loc"])[:200], "what": str(each["msg"])[:500]}
        for each in error.errors()[:20]
    ]
    first = f"{found[0]['where']}: {found[0]['what']}" if found else ""
    return problem.answer(
        InvalidRequest("request", expected="what /v1/openapi.json says", found=first), found
    )


def _by_status(request: Request, error: HTTPException) -> Response:
    if isinstance(error.__cause__, HoldfastError):  # raised while the body was read
        return problem.answer(error.__cause__)
    answer = problem.answer(problem.of_status(error.status_code, request.url.path))
    for name, value in (error.headers or {}).items():
        answer.headers[name] = value
    return answer


async def _outside(request: Request, error: Exception) -> Response:
    """What no route raised: there is none for it."""
    assert isinstance(error, HTTPException)
    return _by_status(request, error)
