"""Serving an application on listeners of our own. The one module that knows hypercorn.

Hypercorn's ``worker_serve`` makes sockets itself and knows no peer of a unix socket, no limit of connections, no
new certificate while it runs.  Its protocols are all that is used: ``TCPServer`` is given each accepted stream.
"""

from __future__ import annotations

import logging
import ssl
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any

import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config as Hypercorn
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ConnectionState

import daemon.http
from daemon.http import Peer, problem
from daemon.http.guard import App, Guard, Limits, Tell
from daemon.http.sockets import Listening
from engine.errors import InvalidRequest

log = logging.getLogger("holdfast.http")

_FAREWELL_S = (
    5.0  # what a request may still do when its client is gone; its thread, if any, ends by itself
)
_FULL = b"HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\nretry-after: 5\r\ncontent-length: 0\r\n\r\n"
_PEER = trio.socket.SO_PEERCRED


class Tls:
    """Certificate and key, PEM files; ``client_ca``: clients must have a certificate of it. Raises InvalidRequest."""

    def __init__(self, cert: str, key: str, client_ca: str = "") -> None:
        self._files = (cert, key, client_ca)
        self.context = self._load()

    def reload(self) -> None:
        """Read the files again. Connections that are there go on; if it raises, all stays as it was."""
        self.context = self._load()

    def take(self, cert: str, key: str, client_ca: str) -> None:
        """As ``reload``, of these files from now on."""
        before = self._files
        self._files = (cert, key, client_ca)
        try:
            self.reload()
        except InvalidRequest:
            self._files = before
            raise

    def _load(self) -> ssl.SSLContext:
        cert, key, client_ca = self._files
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
        context.set_ciphers("ECDHE+AESGCM:ECDHE+CHACHA20")
        context.set_alpn_protocols(["h2", "http/1.1"])
        try:
            context.load_cert_chain(
                cert, key, password=""
            )  # a key with a passphrase is refused, not asked for
            if client_ca:
                context.load_verify_locations(client_ca)
                context.verify_mode = ssl.CERT_REQUIRED
        except (OSError, ValueError) as error:
            raise InvalidRequest(
                f"certificate {cert} with key {key}" + (f" and clients' authority {client_ca}" if client_ca else ""),
                expected="PEM files that belong together", found=str(error),
            ) from None  # fmt: skip
        return context


class _Line:
    """One connection, as its guard sees it."""

    def __init__(self, stream: trio.SocketStream, stopping: trio.Event, limits: Limits) -> None:
        self.stream = stream
        self.stopping = stopping
        self.local = stream.socket.family == trio.socket.AF_UNIX
        self._limits = limits
        self._sending: dict[object, float] = {}
        self._requests = 0
        self._idle = trio.current_time()

    @contextmanager
    def watched(self) -> Iterator[None]:
        """See ``guard.Line``. Hypercorn shields its sending, so that a deadline of ours would not end it."""
        mark = object()
        self._sending[mark] = trio.current_time() + self._limits.stall_s
        try:
            yield
        finally:
            del self._sending[mark]

    @contextmanager
    def asked(self) -> Iterator[None]:
        """See ``guard.Line``."""
        self._requests += 1
        try:
            yield
        finally:
            self._requests -= 1
            self._idle = trio.current_time()

    def why_not(self, now: float) -> str:
        """Why the connection has to go; "" if it may stay."""
        if any(deadline < now for deadline in self._sending.values()):
            return f"its client took nothing of an answer for {self._limits.stall_s:g} s"
        # Hypercorn ends idle connections itself, but not those that asked for HTTP/2 and then for nothing.
        if not self._requests and now > self._idle + self._limits.idle_s + 1:
            return "nothing was asked"
        return ""

    def abort(self) -> None:
        """Cut it: everything that waits for the socket ends."""
        self.stream.socket.close()

    def peer(self) -> Peer:
        """Who is at the other end. Raises OSError."""
        if self.local:
            raw = self.stream.socket.getsockopt(trio.socket.SOL_SOCKET, _PEER, 12)
            return Peer(uid=int.from_bytes(raw[4:8], "little"))
        return Peer(address=str(self.stream.socket.getpeername()[0]))


_line: ContextVar[_Line] = ContextVar("line")


class _Server(TCPServer):
    """Hypercorn's connection, whose requests do not outlive it: some of its waits would never end."""

    async def _read_data(self) -> None:
        await super()._read_data()
        await (
            self.idle_task.stop()
        )  # else the connection is counted as open until its idle time is over
        nursery = self._task_group._nursery  # noqa: SLF001 - nothing public leads there
        if nursery is not None:
            nursery.cancel_scope.deadline = trio.current_time() + _FAREWELL_S


class _Serving:
    """All listeners that serve one application."""

    def __init__(self, app: Guard, tls: Tls | None, limits: Limits) -> None:
        self._app = ASGIWrapper(app)  # type: ignore[arg-type]
        self._tls = tls
        self._limits = limits
        self._config = _settings(limits)
        self._context = WorkerContext(None)
        self._stopping = trio.Event()
        self._lines: dict[int, set[_Line]] = {}
        self._gone = trio.Event()  # a connection ended

    async def run(self, listening: Sequence[Listening], stop: trio.Event, started: Any) -> None:
        """Until ``stop``; then what is under way may end, for a while."""
        async with trio.open_nursery() as watch, trio.open_nursery() as connections:
            watch.start_soon(self._watch)
            async with trio.open_nursery() as accepting:
                for number, one in enumerate(listening):
                    self._lines[number] = set()
                    listener = trio.SocketListener(trio.socket.from_stdlib_socket(one.socket))
                    handler = partial(self._connection, self._lines[number], not one.is_unix)
                    accepting.start_soon(
                        partial(
                            trio.serve_listeners, handler, [listener], handler_nursery=connections
                        )
                    )
                started(listening)
                await stop.wait()
                accepting.cancel_scope.cancel()
            for one in listening:
                one.close()
            self._stopping.set()
            await self._context.terminated.set()
            with trio.move_on_after(self._limits.stop_s):
                while self._every():
                    self._gone = trio.Event()
                    await self._gone.wait()
            for line in self._every():
                line.abort()
            connections.cancel_scope.cancel()
            watch.cancel_scope.cancel()

    def _every(self) -> list[_Line]:
        return [line for lines in self._lines.values() for line in lines]

    async def _watch(self) -> None:
        """Cut the connections whose clients do nothing."""
        while True:
            await trio.sleep(min(1.0, self._limits.stall_s / 4))
            now = trio.current_time()
            for line in self._every():
                if why := line.why_not(now):
                    log.info("a connection was cut: %s", why)
                    line.abort()

    async def _connection(self, lines: set[_Line], secure: bool, stream: trio.SocketStream) -> None:
        if len(lines) >= self._limits.connections:
            await self._turn_away(stream, secure)
            return
        line = _Line(stream, self._stopping, self._limits)
        lines.add(line)
        try:
            daemon.http.peer.set(line.peer())
            _line.set(line)
            await self._talk(stream, secure)
        except* trio.ClosedResourceError:
            pass  # it was cut
        except* Exception as group:  # noqa: BLE001 - broken in whatever way
            # The protocol of one connection is broken; the others have nothing to do with it.
            reasons = "; ".join(f"{type(error).__name__}: {error}" for error in _leaves(group))
            log.info("a connection ended: %s", reasons[:500])
        finally:
            lines.discard(line)
            line.abort()
            self._gone.set()

    async def _talk(self, stream: trio.SocketStream, secure: bool) -> None:
        talk: Any = stream
        if secure and self._tls is not None:
            talk = trio.SSLStream(
                stream, self._tls.context, server_side=True, https_compatible=True
            )
        state = ConnectionState({})
        await _Server(self._app, self._config, self._context, state, talk)

    async def _turn_away(self, stream: trio.SocketStream, secure: bool) -> None:
        log.info("a connection was turned away: %d are open", self._limits.connections)
        with trio.move_on_after(1):
            if not (secure and self._tls is not None):
                try:
                    await stream.send_all(_FULL)
                    await stream.send_eof()
                except trio.BrokenResourceError:
                    pass
        stream.socket.close()


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error


def _settings(limits: Limits) -> Hypercorn:
    config = Hypercorn()
    config.include_server_header = False
    config.accesslog = None
    config.errorlog = log
    config.h11_max_incomplete_size = limits.header
    config.h2_max_header_list_size = limits.header
    config.h2_max_concurrent_streams = 32
    config.keep_alive_timeout = limits.idle_s
    config.ssl_handshake_timeout = limits.handshake_s
    return config


async def serve(
    listening: Sequence[Listening], app: App, *, tls: Tls | None = None, limits: Limits | None = None,
    asked: Callable[[], Limits] | None = None, tell: Tell = problem.answer,
    names: frozenset[str] = frozenset(), stop: trio.Event | None = None,
    task_status: trio.TaskStatus[Sequence[Listening]] = trio.TASK_STATUS_IGNORED,
) -> None:  # fmt: skip
    """Serve ``app`` at sockets of ``sockets.listen`` until ``stop`` is set, then end within ``limits.stop_s``.

    ``tls`` is for TCP; a unix socket never has it.  ``names``: host names a client may call this server by, besides
    localhost and addresses.  ``limits`` are those of connections; requests are held to ``asked()``, where it is given.
    ``tell`` answers what is refused before the application sees it.  The sockets are closed in any case.
    """
    limits = limits or Limits()
    ours = frozenset(name.lower().rstrip(".") for name in names)
    serving = _Serving(Guard(app, asked or (lambda: limits), ours, _line.get, tell), tls, limits)
    try:
        await serving.run(listening, trio.Event() if stop is None else stop, task_status.started)
    finally:
        for one in listening:
            one.close()
