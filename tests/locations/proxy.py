"""A proxy between a client and an HTTP server, that can go wrong in chosen ways: for tests of what a network does.

    with Proxy(endpoint) as proxy:
        location = open_location(f"s3://bucket?endpoint={proxy.endpoint}", credentials)
        proxy.next(Status(503), method="PUT", times=2)      # the next two PUTs are answered 503, nothing is forwarded
        proxy.next(CutRequest(after=1 << 20))               # the connection ends 1 MiB into what the client sends
        proxy.next(FlipRequest(bit=8 * 100))                # one bit of what the client sends is another
        proxy.next(Redate("20200101T000000Z"))              # its time is another, as of a clock that is wrong
        proxy.next(CutAnswer(after=1 << 20))                # … into the body of the answer (the server did all of it)
        proxy.next(CutAnswer(after=-1))                     # … before any answer: done, and nobody knows
        proxy.next(Delay(2.0))                              # the answer comes so much later
        proxy.next(Truncate(to=100))                        # a whole answer, but of a body cut short
        proxy.next(Flip(bit=8 * 100))                       # one bit of the answer's body is another
        proxy.next(Call(function, after=1 << 20))           # call this with the path, so far into the body
        proxy.down(); proxy.up()                            # connections are refused; accepted again, same port

A fault is used up by the requests it fits (``method``, ``path`` as a part of it), in the order they were given; all
other requests pass. ``proxy.seen`` lists (method, path) of every request. The Host header is passed on as it is, so
that signatures stay right.
"""

from __future__ import annotations

import contextlib
import re
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlsplit


@dataclass(frozen=True)
class Status:
    """Answer with this status instead of asking the server."""

    code: int
    body: bytes = b""


@dataclass(frozen=True)
class CutRequest:
    """End the connections so many bytes into the request's body; the server sees a part of it."""

    after: int = 0


@dataclass(frozen=True)
class FlipRequest:
    """Pass the request on with one bit of its body changed."""

    bit: int


@dataclass(frozen=True)
class Redate:
    """Pass the request on as one of another time."""

    time: str


@dataclass(frozen=True)
class CutAnswer:
    """Let the server do it, end the connection so many bytes into the answer's body; -1: before its head."""

    after: int = 0


@dataclass(frozen=True)
class Delay:
    """Hold the answer back for so many seconds."""

    seconds: float


@dataclass(frozen=True)
class Truncate:
    """Pass a whole answer on with a shorter body."""

    to: int


@dataclass(frozen=True)
class Flip:
    """Pass the answer on with one bit of its body changed."""

    bit: int


@dataclass(frozen=True)
class Call:
    """Call this with the request's path, so many bytes into its body, 0: before it is passed on; then go on as if
    nothing was."""

    function: Callable[[str], object]
    after: int = 0


Fault = Call | Status | CutRequest | FlipRequest | Redate | CutAnswer | Delay | Truncate | Flip


@dataclass
class _Planned:
    fault: Fault
    method: str
    path: str
    times: int


@dataclass
class _Message:
    """The head of a request or an answer, and how its body ends."""

    head: bytes
    length: int
    chunked: bool

    @property
    def first(self) -> list[str]:
        return self.head.split(b"\r\n", 1)[0].decode("latin-1").split(" ")


class _Gone(Exception):
    """One side has closed."""


class Proxy:
    """Listens on loopback; a thread for each connection. A context manager."""

    def __init__(self, endpoint: str) -> None:
        target = urlsplit(endpoint)
        assert target.hostname and target.port
        self._target = (target.hostname, target.port)
        self._lock = threading.Lock()
        self._plan: list[_Planned] = []
        self._open: set[socket.socket] = set()
        self._listener: socket.socket | None = None
        self._port = 0
        self.seen: list[tuple[str, str]] = []

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def __enter__(self) -> Proxy:
        self.up()
        return self

    def __exit__(self, *_: object) -> None:
        self.down()

    def next(self, fault: Fault, *, method: str = "", path: str = "", times: int = 1) -> None:
        """Plan a fault for the next requests that fit."""
        with self._lock:
            self._plan.append(_Planned(fault, method, path, times))

    def left(self) -> list[Fault]:
        """Faults that no request has met."""
        with self._lock:
            return [one.fault for one in self._plan if one.times > 0]

    def clear(self) -> None:
        """Forget all that is planned, and what was seen."""
        with self._lock:
            self._plan.clear()
            self.seen.clear()

    def up(self) -> None:
        """Accept connections, on the port of the first time."""
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", self._port))
        listener.listen(128)
        self._port = listener.getsockname()[1]
        self._listener = listener
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()

    def down(self) -> None:
        """End every connection, and accept none."""
        listener, self._listener = self._listener, None
        if listener is not None:
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)  # wakes who waits in accept
            listener.close()
        with self._lock:
            connections = list(self._open)
        for one in connections:
            self._end(one)

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        server = socket.socket()
        for one in (client, server):
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with self._lock:
            self._open |= {client, server}
        try:
            server.connect(self._target)
            while True:
                self._exchange(client, server)
        except (_Gone, OSError):
            pass
        finally:
            with self._lock:
                self._open -= {client, server}
            self._end(client)
            self._end(server)

    @staticmethod
    def _end(one: socket.socket) -> None:
        with contextlib.suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)
        one.close()

    def _exchange(self, client: socket.socket, server: socket.socket) -> None:
        """One request and its answer."""
        request, rest = _head(client, b"")
        method, path = request.first[0], request.first[1]
        fault = self._fault(method, path)
        if isinstance(fault, Status):
            _drain(client, request.length - len(rest))
            told = f"HTTP/1.1 {fault.code} Injected\r\nContent-Length: {len(fault.body)}\r\n\r\n"
            client.sendall(told.encode() + (fault.body if method != "HEAD" else b""))
            return
        if isinstance(fault, Call) and not fault.after:
            fault.function(path)
        if isinstance(fault, Redate):
            request.head = _dated(request.head, fault.time)
        server.sendall(request.head)
        if isinstance(fault, CutRequest):
            _pass(client, server, rest, min(fault.after, request.length))
            raise _Gone
        if isinstance(fault, Call) and fault.after:
            rest = _pass_some(client, server, rest, min(fault.after, request.length))
            fault.function(path)
            request.length -= min(fault.after, request.length)
        if isinstance(fault, FlipRequest):
            rest = _flipped(client, rest, request.length, fault.bit)
        _pass(client, server, rest, request.length)
        answer, rest = _head(server, b"")
        if isinstance(fault, Delay):
            time.sleep(fault.seconds)
        if method == "HEAD" or answer.first[1] in ("204", "304"):
            answer = _Message(answer.head, 0, chunked=False)
        self._answer(client, server, answer, rest, fault)

    def _answer(
        self,
        client: socket.socket,
        server: socket.socket,
        answer: _Message,
        rest: bytes,
        fault: Fault | None,
    ) -> None:
        match fault:
            case CutAnswer(after=after):
                if after >= 0:
                    client.sendall(answer.head)
                    _pass(server, client, rest, min(after, answer.length))
                raise _Gone
            case Truncate() | Flip():
                body = bytearray(rest)
                while len(body) < answer.length:
                    body += _some(server)
                if isinstance(fault, Truncate):
                    del body[fault.to :]
                elif body:
                    body[fault.bit // 8 % len(body)] ^= 1 << fault.bit % 8
                client.sendall(_with_length(answer.head, len(body)) + body)
            case _:
                client.sendall(answer.head)
                if answer.chunked:
                    _pass_chunks(server, client, rest)
                else:
                    _pass(server, client, rest, answer.length)

    def _fault(self, method: str, path: str) -> Fault | None:
        with self._lock:
            self.seen.append((method, path))
            for one in self._plan:
                if one.times and one.method in ("", method) and one.path in path:
                    one.times -= 1
                    return one.fault
        return None


def _some(source: socket.socket, size: int = 1 << 18) -> bytes:
    data = source.recv(size)
    if not data:
        raise _Gone
    return data


def _head(source: socket.socket, data: bytes) -> tuple[_Message, bytes]:
    while b"\r\n\r\n" not in data:
        data += _some(source)
    head, rest = data.split(b"\r\n\r\n", 1)
    length, chunked = 0, False
    for line in head.split(b"\r\n")[1:]:
        key, _, value = line.partition(b":")
        if key.lower() == b"content-length":
            length = int(value)
        elif key.lower() == b"transfer-encoding":
            chunked = b"chunked" in value.lower()
    return _Message(head + b"\r\n\r\n", length, chunked), rest


def _with_length(head: bytes, length: int) -> bytes:
    lines = head.rstrip(b"\r\n").split(b"\r\n")
    kept = [line for line in lines if not line.lower().startswith(b"content-length:")]
    return b"\r\n".join([*kept, b"Content-Length: %d" % length]) + b"\r\n\r\n"


def _dated(head: bytes, time: str) -> bytes:
    """Where it says when it was signed."""
    dated = re.sub(rb"(?i)(\r\nx-amz-date: *)[^\r]*", rb"\g<1>" + time.encode(), head)
    return re.sub(rb"(Credential=[^/]+/)[0-9]{8}", rb"\g<1>" + time[:8].encode(), dated)


def _pass(source: socket.socket, target: socket.socket, rest: bytes, length: int) -> None:
    """Send ``length`` bytes on, ``rest`` first."""
    target.sendall(rest[:length])
    length -= len(rest)
    while length > 0:
        data = _some(source, min(length, 1 << 18))
        target.sendall(data)
        length -= len(data)


def _pass_some(source: socket.socket, target: socket.socket, rest: bytes, length: int) -> bytes:
    """Send exactly ``length`` bytes on, ``rest`` first; what of ``rest`` is left."""
    target.sendall(rest[:length])
    left = length - len(rest)
    while left > 0:
        data = _some(source, min(left, 1 << 18))
        target.sendall(data)
        left -= len(data)
    return rest[length:]


def _pass_chunks(source: socket.socket, target: socket.socket, rest: bytes) -> None:
    tail = b""
    while True:
        target.sendall(rest)
        tail = (tail + rest)[-5:]
        if tail == b"0\r\n\r\n":
            return
        rest = _some(source)


def _flipped(source: socket.socket, rest: bytes, length: int, bit: int) -> bytes:
    """The whole body, with one bit changed."""
    body = bytearray(rest)
    while len(body) < length:
        body += _some(source, length - len(body))
    if body:
        body[bit // 8 % len(body)] ^= 1 << bit % 8
    return bytes(body)


def _drain(source: socket.socket, length: int) -> None:
    while length > 0:
        length -= len(_some(source, min(length, 1 << 18)))
