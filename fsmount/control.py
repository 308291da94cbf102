"""The worker's control socket: one JSON object per line, request and reply.

    {"op": "status"}   state, process, mount point, counters
    {"op": "barrier"}  capture, then everything committed
    {"op": "freeze"}   capture, changes held up, everything committed; they stay held up until {"op": "thaw"}
                       on the same connection, its loss, or the limit
    {"op": "drain"}    unmount and end

A reply has "ok"; when that is false, "kind" (a slug of the error table) and "message" too.  The socket is
``run/NAME.sock`` in the store, mode 0600, and only its owner and root are listened to.  Paths of sockets are limited to
107 bytes, so both sides go through /proc/self/fd of the directory.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import struct
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import trio

from engine.errors import TABLE, Busy, HoldfastError, InvalidRequest, NotFound

LINE_MAX = 4096
LISTENERS = 32  # connections at once; the daemon needs one or two
FOLDER = "run"
Reply = dict[str, Any]


class Served(Protocol):
    """What the socket gives access to."""

    freeze_limit: float

    def status(self) -> Reply: ...
    async def barrier(self) -> None: ...
    async def freeze(self) -> None: ...
    def thaw(self) -> None: ...
    def drain(self) -> None: ...


def socket_name(name: str) -> str:
    """The socket's name in the store's run directory."""
    return f"{name}.sock"


class Place:
    """A directory kept open, and the short path of one name in it."""

    def __init__(self, folder: str, name: str) -> None:
        self._fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self.path = f"/proc/self/fd/{self._fd}/{name}"

    def __enter__(self) -> str:
        return self.path

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)


def listen(folder: str, name: str) -> socket.socket:
    """A listening socket; one left by a worker that was killed is replaced (the engine's lock says that it is)."""
    os.makedirs(folder, mode=0o700, exist_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    with Place(folder, name) as path:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        mask = os.umask(0o177)
        try:
            listener.bind(path)
        finally:
            os.umask(mask)
    listener.listen(LISTENERS)
    return listener


def remove(folder: str, name: str) -> None:
    """Take the socket away at the end."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(os.path.join(folder, name))


async def serve(listener: socket.socket, served: Served) -> None:
    """Answer connections until cancelled."""
    freezing = trio.Lock()

    async def connection(stream: trio.SocketStream) -> None:
        await _connection(stream, served, freezing)

    await trio.serve_listeners(
        connection, [trio.SocketListener(trio.socket.from_stdlib_socket(listener))]
    )


async def _connection(stream: trio.SocketStream, served: Served, freezing: trio.Lock) -> None:
    async with stream:
        if not _is_owner(stream):
            return
        lines = _Lines(stream)
        try:
            while (line := await lines.next()) is not None:
                await _answer(line, lines, served, freezing)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return


def _is_owner(stream: trio.SocketStream) -> bool:
    size = struct.calcsize("3i")
    raw = stream.socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
    _, uid, _ = struct.unpack("3i", raw)
    return uid in (0, os.geteuid())


class _Lines:
    """Lines out of a stream, and replies into it."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._rest = b""

    async def next(self) -> bytes | None:
        """The next line without its end; None when the other side has gone or sent nonsense."""
        while b"\n" not in self._rest:
            if len(self._rest) > LINE_MAX:
                return None
            more = await self._stream.receive_some(LINE_MAX)
            if not more:
                return None
            self._rest += more
        line, _, self._rest = self._rest.partition(b"\n")
        return line

    async def send(self, reply: Reply) -> None:
        await self._stream.send_all(json.dumps(reply).encode() + b"\n")


async def _answer(line: bytes, lines: _Lines, served: Served, freezing: trio.Lock) -> None:
    try:
        operation = json.loads(line)["op"]
    except (ValueError, KeyError, TypeError):
        operation = None
    if operation == "freeze":
        async with freezing:
            await _freeze(lines, served)
        return
    await lines.send(await _guarded(lambda: _simple(operation, served)))


async def _simple(operation: object, served: Served) -> Reply:
    if operation == "status":
        return served.status()
    if operation == "barrier":
        await served.barrier()
    elif operation == "drain":
        served.drain()
    elif operation != "thaw":  # a thaw after the limit: nothing to do, and said so below
        raise InvalidRequest("control request", expected="status, barrier, freeze, thaw or drain")
    else:
        raise Busy("thaw", expected="a frozen mount", found="one that is not", do="freeze again")
    return {}


async def _guarded(action: Callable[[], Awaitable[Reply]]) -> Reply:
    try:
        return {"ok": True, **await action()}
    except HoldfastError as error:
        return {"ok": False, "kind": error.kind.slug, "message": str(error)}
    except OSError as error:
        return {"ok": False, "kind": HoldfastError.kind.slug, "message": str(error)}


async def _freeze(lines: _Lines, served: Served) -> None:
    """Frozen until the client says thaw, goes away, or takes too long."""

    async def frozen() -> Reply:
        await served.freeze()
        return {"frozen": True}

    try:
        reply = await _guarded(frozen)
        await lines.send(reply)
        if not reply["ok"]:
            return
        with trio.move_on_after(served.freeze_limit):
            await lines.next()
    finally:
        served.thaw()
    await lines.send({"ok": True, "frozen": False})


# --- the other end ----------------------------------------------------------------------------------


class Client:
    """A connection to a worker; synchronous. Raises NotFound when no worker serves that mount."""

    def __init__(self, folder: str, name: str, *, timeout: float = 120.0) -> None:
        """``timeout``: longest wait for one reply, s; a capture of much dirty data takes a while."""
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        self._socket.settimeout(timeout)
        self._rest = b""
        try:
            with Place(folder, socket_name(name)) as path:
                self._socket.connect(path)
        except (FileNotFoundError, ConnectionRefusedError):
            self._socket.close()
            raise NotFound(f"worker of mount {name!r}", expected="a mounted file system") from None

    def request(self, operation: str) -> Reply:
        """One request, its reply. An error reply is raised as what it was."""
        try:
            self._socket.sendall(json.dumps({"op": operation}).encode() + b"\n")
            while b"\n" not in self._rest:
                more = self._socket.recv(1 << 16)
                if not more:
                    raise ConnectionResetError
                self._rest += more
        except TimeoutError:
            raise Busy("worker", expected="an answer", found="none in time") from None
        except ConnectionError:
            raise NotFound("worker", expected="an answer", found="that it has ended") from None
        line, _, self._rest = self._rest.partition(b"\n")
        reply: Reply = json.loads(line)
        if not reply.pop("ok"):
            raise revived(str(reply.get("kind")), str(reply.get("message")))
        return reply

    def close(self) -> None:
        """Hang up; a freeze held by this connection ends."""
        self._socket.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def revived(slug: str, message: str) -> HoldfastError:
    """An error that another process reported, as the class it was there."""
    for one in TABLE:
        if one.kind.slug == slug:
            return one(message)
    return HoldfastError(message)
