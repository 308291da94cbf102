"""What holds for every request, whatever it asks: its limits, the host it is for, where it comes from, how it ends.

``Guard`` stands between the listener and an application.  It counts the body while it streams, gives each step its
time, refuses other hosts' names and browsers, and answers for an application that raises.
"""

from __future__ import annotations

import ipaddress
import math
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import trio
from starlette.responses import Response

from daemon.http import problem
from engine.errors import Busy, HoldfastError, InvalidRequest, PermissionDenied

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Tell = Callable[[HoldfastError], Response]

EXTENSION = "holdfast"
"""In a scope's extensions: ``patience(seconds)``, which gives the answer more time, and ``stopping``, an event."""

_MULTIPART = b"multipart/form-data"
_ENVELOPE = 64 << 10  # bytes of an upload that are not content: part headers, other fields
_SLOWEST = 16 << 10  # bytes a second: who sends slower runs out of time
_DRAIN_S = 5.0  # how long a refused body is read on, so that its sender gets to see the answer
_ALWAYS = (
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
)


@dataclass(frozen=True)
class Limits:
    """Of one listener; bytes, seconds, counts. Each is there so that no client can take what others need."""

    header: int = (
        32 << 10
    )  # all header lines and the address: a path of 4096 bytes, each as %XX, and a cursor
    body: int = 1 << 20
    upload: int = 64 << 20  # instead of ``body`` where the content is multipart/form-data
    request_s: float = 60  # until the request is there, and again until its answer begins
    idle_s: float = 15  # a connection without a request; also the time for header lines
    stall_s: float = 60  # a client that takes nothing of its answer
    handshake_s: float = 10
    connections: int = 256  # at once, each listener for itself: what fills one leaves the others
    stop_s: float = 10  # requests under way when the listener stops


class Line(Protocol):
    """What a guard needs of the connection."""

    local: bool
    stopping: trio.Event

    def watched(self) -> AbstractContextManager[None]:
        """Within it something is sent: if that takes too long, the connection is cut."""

    def asked(self) -> AbstractContextManager[None]:
        """Within it a request is under way: the connection is not idle."""

    def abort(self) -> None:
        """Cut the connection."""


class Guard:
    """An ASGI application around another one. ``names``: host names this server is called by, lower case;
    ``limits``: asked for with each request; ``tell``: makes an answer of what is refused here."""

    def __init__(
        self, app: App, limits: Callable[[], Limits], names: frozenset[str], line: Callable[[], Line],
        tell: Tell = problem.answer,
    ) -> None:  # fmt: skip
        self._app = app
        self._limits = limits
        self._tell = tell
        self._names = names | {"localhost"}
        self._line = line

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            line = self._line()
            with line.asked():
                limits = self._limits()
                exchange = _Exchange(limits, self._tell, line, scope, receive, send)
                await exchange.run(self._app, self._refusal(limits, scope, line.local))
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})

    def _refusal(self, limits: Limits, scope: Scope, local: bool) -> HoldfastError | None:
        """Why a request is refused before anything looks at it."""
        headers = scope["headers"]
        size = len(scope["raw_path"]) + len(scope["query_string"])
        if size + sum(len(name) + len(value) + 4 for name, value in headers) > limits.header:
            return problem.Refused(
                431, InvalidRequest(
                    "header of the request", expected=f"at most {limits.header} bytes", found="more"
                ),
            )  # fmt: skip
        host = _header(headers, b"host")
        if not local and not self._ours(host):
            return problem.Refused(
                421, PermissionDenied(
                    f"host {host!r}", expected="an address, or a name the server is configured to have",
                    do="ask by one of these, or add the name to api.names of the configuration",
                ),
            )  # fmt: skip
        origin = _header(headers, b"origin")
        if origin and origin.lower() != f"{scope['scheme']}://{host}".lower():
            return PermissionDenied(
                f"origin {origin!r}", do="do not ask from web pages of other servers"
            )
        length = _header(headers, b"content-length")
        told, most = _body_limit(limits, scope)
        if length.isdigit() and int(length) > most:
            return problem.too_large(told)
        return None

    def _ours(self, host: str) -> bool:
        """Is the host one of ours? An address always is: only names can be made to point elsewhere."""
        name = host
        if host.startswith("[") and "]" in host:
            name = host[1:].partition("]")[0]
        elif host.count(":") == 1:
            name = host.partition(":")[0]
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return name.lower().rstrip(".") in self._names
        return True


def _header(headers: list[tuple[bytes, bytes]], wanted: bytes) -> str:
    return next((value.decode("latin-1") for name, value in headers if name.lower() == wanted), "")


def _body_limit(limits: Limits, scope: Scope) -> tuple[int, int]:
    """(bytes of content, which are what is told; bytes of the body)."""
    kind = _header(scope["headers"], b"content-type").encode("latin-1").lower()
    if kind.startswith(_MULTIPART):
        return limits.upload, limits.upload + _ENVELOPE
    return limits.body, limits.body


class _Exchange:
    """One request and its answer."""

    def __init__(
        self, limits: Limits, tell: Tell, line: Line, scope: Scope, receive: Receive, send: Send
    ) -> None:
        self._limits = limits
        self._tell = tell
        self._line = line
        self._scope = scope
        self._receive = receive
        self._send = send
        self._time = trio.CancelScope()
        self._began = trio.current_time()
        self._told, self._most = _body_limit(limits, scope)
        self._taken = 0
        self._whole = False  # the body is here, or nobody is there any more
        self._waiting = False  # for the client to send
        self._started = False
        self._patience = limits.request_s
        self._instead: HoldfastError | None = (
            None  # what is answered, whatever the application says
        )
        self._silent = False

    async def run(self, app: App, refusal: HoldfastError | None) -> None:
        """Answer, in any case."""
        self._scope.setdefault("extensions", {})[EXTENSION] = {
            "patience": self._wait_longer, "stopping": self._line.stopping,
        }  # fmt: skip
        about = f"{self._scope['method']} {self._scope['path']!r}"
        answer: Response | None = None
        self._time.deadline = self._began + self._patience
        with self._time:
            try:
                if refusal is not None:
                    raise refusal
                await app(self._scope, self.receive, self.send)
            except HoldfastError as error:
                answer = self._tell(error)
            except Exception as error:  # noqa: BLE001 - whatever it is: an answer, and a reference to the log
                answer = problem.bug(error, about)
        if self._time.cancelled_caught:
            answer = self._tell(self._late())
        if answer is not None:
            if self._started:
                self._line.abort()  # nothing else tells a client that an answer is cut short
            else:
                self._instead = None
                await answer(self._scope, self._receive, self.send)

    def _late(self) -> HoldfastError:
        if self._waiting:
            return problem.too_slow(self._patience, "sending the request")
        return problem.Refused(
            503, Busy(f"answering took longer than {self._patience:g} seconds", do="ask again: it may go on")
        )  # fmt: skip

    def _wait_longer(self, seconds: float) -> None:
        """Give the answer more time; only what is known to take long asks for it."""
        self._patience = max(self._patience, seconds)
        if not math.isinf(self._time.deadline):
            self._time.deadline = max(self._time.deadline, trio.current_time() + seconds)

    async def receive(self) -> Message:
        """The application's ``receive``: counts, and raises when it is too much."""
        self._waiting = not self._whole
        message = await self._receive()
        self._waiting = False
        if message["type"] != "http.request":
            self._whole = True
            return message
        self._taken += len(message.get("body", b""))
        if self._taken > self._most:
            self._instead = problem.too_large(self._told)
            raise self._instead
        if not message.get("more_body", False):
            self._whole = True
        if not self._started:
            allowed = self._began + self._patience + self._taken / _SLOWEST
            if self._whole:
                allowed = max(allowed, trio.current_time() + self._patience)
            self._time.deadline = max(self._time.deadline, allowed)
        return message

    async def send(self, message: Message) -> None:
        """The application's ``send``."""
        if self._silent:
            return
        if message["type"] == "http.response.start":
            if self._instead is not None:  # the framework took the error for one of its own
                instead, self._instead, self._silent = self._instead, None, False
                await self._tell(instead)(self._scope, self._receive, self.send)
                self._silent = True
                return
            self._started = True
            self._time.deadline = math.inf
            known = {name.lower() for name, _ in message.get("headers", [])}
            headers = [
                *message.get("headers", []),
                *(pair for pair in _ALWAYS if pair[0] not in known),
            ]
            if self._scope["http_version"] == "2":  # where connections are not a header's business
                headers = [pair for pair in headers if pair[0].lower() != b"connection"]
            elif self._never_whole() and b"connection" not in known:
                headers.append((b"connection", b"close"))
            message = {**message, "headers": headers}
        elif not message.get("more_body", False) and not self._whole:
            await self._passed_on({**message, "more_body": True})
            await self._drain()
            message = {"type": "http.response.body", "body": b"", "more_body": False}
        await self._passed_on(message)

    def _never_whole(self) -> bool:
        """Whether more of the body is to come than ``_drain`` reads: then the connection ends, and the client is told,
        lest its next request goes the same way."""
        length = _header(self._scope["headers"], b"content-length")
        return (
            not self._whole and length.isdigit() and int(length) > self._taken + self._limits.body
        )

    async def _passed_on(self, message: Message) -> None:
        with self._line.watched():
            await self._send(message)

    async def _drain(self) -> None:
        """Read on what nobody wants: a client cut off while it sends would not see the answer."""
        most = self._taken + self._limits.body
        with trio.move_on_after(_DRAIN_S):
            while not self._whole and self._taken <= most:
                message = await self._receive()
                self._taken += len(message.get("body", b""))
                self._whole = message["type"] != "http.request" or not message.get(
                    "more_body", False
                )
        if not self._whole:
            self._line.abort()
