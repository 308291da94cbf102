"""How every endpoint of the native API runs: who asks, what the request is, the answer, and what is written down.

An endpoint is a function: it gets an ``Asked`` and the request's parameters, asks the ``Backend``, returns a value of
the contract or a ``Stream``.  It runs in a thread, so it may block; everything after it (the audit log, the
idempotency key) happens in the same thread, so that a request whose client is gone still ends as it should.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import AbstractContextManager, aclosing
from dataclasses import dataclass, field
from typing import Annotated, Any, Protocol, TypeVar

import trio
from fastapi import Depends, Path, Query, Request
from pydantic import BaseModel, ConfigDict
from starlette.requests import ClientDisconnect
from starlette.responses import Response, StreamingResponse

from daemon.contract import Backend, JobInfo, Page
from daemon.http import wire
from daemon.http.gate import Caller, Gate, Row, row_of
from daemon.http.problem import Refused
from daemon.http.upload import Upload
from daemon.service import cursors
from engine.errors import InvalidRequest, NotFound

T = TypeVar("T")

PAGE_MAX = 1000
_END = object()

Limit = Annotated[int, Query(ge=1, le=PAGE_MAX, description="Longest list wanted.")]
Cursor = Annotated[
    str, Query(max_length=16_000, description="Where the page begins: from the page before.")
]
InPoint = Annotated[
    str, Query(description="A path inside the point; bytes that are no UTF-8 as %XX.")
]
MountName = Annotated[
    str, Path(max_length=64 << 10, description="The name of a mount.", examples=["oracle-prod"])
]
Text = Annotated[str, Query(max_length=1000)]
Time = Annotated[int, Query(ge=0, le=2**63 - 1, description="Nanoseconds since 1970.")]
Number = Annotated[int, Path(description="The number of a thing; there are none below 1.")]
Reference = Annotated[
    str, Path(max_length=1000, description="A point: its id, the beginning of it, or MOUNT@latest.")
]


class Keys(Protocol):
    """What is needed of ``state.keys``."""

    def claim(self, principal: str, name: str, fingerprint: str) -> dict[str, Any] | None: ...
    def done(self, principal: str, name: str, response: dict[str, Any]) -> None: ...
    def forget(self, principal: str, name: str) -> None: ...


class Metrics(Protocol):
    """What is needed of ``observe.metrics``."""

    def request(self, method: str, route: str, status: int, seconds: float) -> None: ...
    def text(self) -> bytes: ...


class Changes(Protocol):
    """What is needed of ``supervise.changes``; on the loop's thread."""

    def watch(self, job_id: int = 0) -> AbstractContextManager[AsyncIterator[JobInfo]]: ...


@dataclass
class Shared:
    """What all endpoints of one application share. Limiters: how many threads are at work on what. ``changes``: of
    jobs, None where nobody tells of them."""

    backend: Backend
    gate: Gate
    keys: Keys
    metrics: Metrics
    version: str
    max_upload: Callable[[], int]
    changes: Changes | None = None
    requests: trio.CapacityLimiter = field(default_factory=lambda: trio.CapacityLimiter(16))
    commits: trio.CapacityLimiter = field(default_factory=lambda: trio.CapacityLimiter(16))
    streams: trio.CapacityLimiter = field(default_factory=lambda: trio.CapacityLimiter(16))
    openapi: Callable[[], dict[str, Any]] = dict


class Body(BaseModel):
    """A request's JSON: what is not known is refused, like the misspelt."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


@dataclass(frozen=True)
class Stream:
    """An answer that is more than JSON: pieces of bytes, one after the other."""

    pieces: Iterator[bytes]
    headers: dict[str, str]
    status: int = 200


@dataclass(frozen=True)
class Endless:
    """An answer that goes on: events, made on the event loop."""

    events: AsyncIterator[bytes]
    headers: dict[str, str]


@dataclass
class Asked:
    """One request, for its endpoint. ``about``: what the audit log says it was about."""

    shared: Shared
    request: Request
    row: Row
    caller: Caller
    about: str = ""
    key: str = ""
    fingerprint: str = ""
    upload: Upload | None = None

    @property
    def backend(self) -> Backend:
        return self.shared.backend

    @property
    def once(self) -> str:
        """The idempotency key, as the backend is told it: it is this caller's."""
        return f"{self.caller.id} {self.key}" if self.key else ""

    def mount(self, name: str) -> str:
        """The name of a mount this caller is for; nothing is told of others. Raises PermissionDenied."""
        self.about = self.about or f"mount {name}"
        self.caller.need_mount(name)
        return name

    def hidden(self, mount: str, what: str) -> None:
        """Refuse a thing of a mount this caller is not for, as if there were none of its id. Raises NotFound."""
        self.about = self.about or what
        if not self.caller.sees(mount):
            raise NotFound(what, found="none", do="see that this token is for its mount")


def asked(request: Request) -> Asked:
    """The dependency by which endpoints get theirs; the route has put it there."""
    found: Asked = request.state.asked
    return found


Ask = Annotated[Asked, Depends(asked)]


@dataclass(frozen=True)
class Endpoint:
    """One function, and where it is served. ``answer``: the type of its value, None for what is no JSON;
    ``media``: what else it answers with; ``pool``: whose threads; ``patience``: s for the answer to begin;
    ``keyed``: may an idempotency key be given?"""

    row: Row
    run: Callable[..., Any]
    answer: Any
    media: str
    status: int
    pool: str
    patience: float
    keyed: bool
    upload: bool


ENDPOINTS: list[Endpoint] = []


def route(
    method: str, path: str, answer: Any = None, *, media: str = "application/json", status: int = 200,
    pool: str = "requests", patience: float = 0, keyed: bool = True, upload: bool = False,
) -> Callable[[Callable[..., T]], Callable[..., T]]:  # fmt: skip
    """Serve a function at a route of ``gate.ROWS``."""

    def register(run: Callable[..., T]) -> Callable[..., T]:
        ENDPOINTS.append(
            Endpoint(
                row_of(method, path), run, answer, media, status, pool, patience, keyed and method == "POST", upload
            )
        )  # fmt: skip
        return run

    return register


def served(endpoint: Endpoint) -> Callable[..., Any]:
    """The coroutine function FastAPI calls for an endpoint."""
    run = endpoint.run

    @functools.wraps(run)
    async def call(**values: Any) -> Response:
        ask: Asked = values["ask"]
        limiter: trio.CapacityLimiter = getattr(ask.shared, endpoint.pool)
        if inspect.iscoroutinefunction(run):
            value = await run(**values)
        elif endpoint.upload:
            value = await _uploaded(endpoint, ask, values)
        else:
            work = functools.partial(_through, endpoint, ask, values)
            value = await trio.to_thread.run_sync(work, limiter=limiter, abandon_on_cancel=True)
        if isinstance(value, Stream):
            return await _streamed(ask, value)
        if isinstance(value, Endless):
            return StreamingResponse(value.events, 200, value.headers)
        assert isinstance(value, Response)
        return value

    del call.__wrapped__
    call.__signature__ = inspect.signature(run, eval_str=True)  # type: ignore[attr-defined]
    return call


async def _uploaded(endpoint: Endpoint, ask: Asked, values: dict[str, Any]) -> Any:
    """Take the file of a form first, whole, so that nothing is kept of one that breaks off."""
    kind = ask.request.headers.get("content-type", "")
    async with aclosing(ask.request.stream()) as source:

        async def piece() -> bytes | None:
            return await anext(source, None)

        with Upload(kind, "file", ask.shared.max_upload()) as upload:
            try:
                await upload.read(piece)
            except ClientDisconnect:
                raise InvalidRequest(
                    "upload", expected="all of it", found="its sender gone"
                ) from None
            ask.upload = upload
            work = functools.partial(_through, endpoint, ask, values)
            return await trio.to_thread.run_sync(
                work, limiter=ask.shared.commits, abandon_on_cancel=True
            )


def _through(endpoint: Endpoint, ask: Asked, values: dict[str, Any]) -> Any:
    """In a thread: the whole of a request."""
    if not ask.key:
        return recorded(ask, lambda: _answered(endpoint, ask, endpoint.run(**values)))
    principal = ask.caller.id
    try:
        before = ask.shared.keys.claim(principal, ask.key, ask.fingerprint)
    except InvalidRequest as error:
        raise Refused(422, error) from None
    if before is not None:
        return Response(
            str(before["body"]).encode("ascii"), int(before["status"]),
            {"Idempotency-Replayed": "true"}, "application/json",
        )  # fmt: skip
    try:
        found = recorded(ask, lambda: _answered(endpoint, ask, endpoint.run(**values)))
    except BaseException:
        ask.shared.keys.forget(principal, ask.key)
        raise
    told = {"status": found.status_code, "body": bytes(found.body).decode("ascii")}
    ask.shared.keys.done(principal, ask.key, told)
    return found


def recorded(ask: Asked, run: Callable[[], T]) -> T:
    """Run it, and keep in the audit log what became of it."""
    try:
        found = run()
    except BaseException as error:
        ask.shared.gate.record(ask.row, ask.caller, ask.about, error)
        raise
    ask.shared.gate.record(ask.row, ask.caller, ask.about, None)
    return found


def _answered(endpoint: Endpoint, ask: Asked, value: Any) -> Any:
    if isinstance(value, Stream | Endless | Response):
        return value
    headers = {}
    cursor = getattr(value, "cursor", "")
    if cursor:
        url = ask.request.url.include_query_params(cursor=cursor)
        headers["Link"] = f'<{url.path}?{url.query}>; rel="next"'
    if endpoint.status == 204:
        return Response(status_code=204)
    return Response(wire.encoded(value), endpoint.status, headers, endpoint.media)


async def _streamed(ask: Asked, stream: Stream) -> Response:
    """A response that takes piece after piece in threads, the first before anything is answered."""
    limiter = ask.shared.streams

    def piece() -> Any:
        return next(stream.pieces, _END)

    first = await trio.to_thread.run_sync(piece, limiter=limiter, abandon_on_cancel=True)

    async def pieces() -> AsyncIterator[bytes]:
        found = first
        try:
            while found is not _END:
                yield found
                found = await trio.to_thread.run_sync(piece, limiter=limiter)
        finally:
            close = getattr(stream.pieces, "close", None)
            if close is not None:
                with trio.CancelScope(shield=True):
                    await trio.to_thread.run_sync(close, limiter=limiter)

    return StreamingResponse(pieces(), stream.status, stream.headers)


def paged(
    kind: str, items: Iterable[T], place: Callable[[T], tuple[str | int, ...]], cursor: str, limit: int
) -> Page[T]:  # fmt: skip
    """A page of a list that is there as a whole, in the order of ``place``, which is what its cursors say."""
    rows = sorted(items, key=place)
    types = [type(each) for each in place(rows[0])] if rows else []
    after = tuple(cursors.decode(kind, cursor, *types)) if rows else ()
    rest = [row for row in rows if not after or place(row) > after]
    page = rest[:limit]
    return Page(page, cursors.encode(kind, *place(page[-1])) if len(rest) > limit else "")
