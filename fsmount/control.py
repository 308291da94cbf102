"""The worker's end of the control socket: one JSON object per line, request and reply.

    {"op": "status"}   state, process, mount point, counters
    {"op": "incidents"}  those that the worker has met
    {"op": "barrier"}  capture, then everything committed
    {"op": "freeze"}   capture, changes held up, everything committed; they stay held up until {"op": "thaw"}
                       on the same connection, its loss, or the limit
    {"op": "drain"}    unmount and end
    {"op": "writers"}  paths of files open for writing
    {"op": "fence", "writable": false}   refuse changes, after capture; true: let them in again
    {"op": "restores", "show": {"7": {"point": ID, "path": PATH}}}   what the directory ``restores`` shows; with
                                                                     "paths": [PATH] these only, with "from": NAME read
                                                                     from a storage location

A reply has "ok"; when that is false, "kind" (a slug of the error table) and "message" too.  The socket is
``run/NAME.sock`` in the store, mode 0600, and only its owner and root are listened to.  Paths of sockets are limited to
107 bytes, so both sides go through /proc/self/fd of the directory.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
import struct
from collections.abc import Awaitable, Callable
from typing import Protocol

import trio

from engine.errors import Busy, HoldfastError, InvalidRequest
from fsmount.remote import Place, Reply

log = logging.getLogger("holdfast.fsmount")

LINE_MAX = 8 << 20  # bytes of a request: restores of databases name thousands of files
RECEIVED = 4096  # bytes taken from a connection in one go
LISTENERS = 32  # connections at once; the daemon needs one or two


class Served(Protocol):
    """What the socket gives access to."""

    freeze_limit: float

    def status(self) -> Reply: ...
    def incidents(self) -> Reply: ...
    async def barrier(self) -> None: ...
    async def freeze(self) -> None: ...
    def thaw(self) -> None: ...
    def drain(self) -> None: ...
    async def writers(self) -> Reply: ...
    async def fence(self, writable: bool, /) -> None: ...
    async def show_restores(self, wanted: object, /) -> None: ...


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
            more = await self._stream.receive_some(RECEIVED)
            if not more:
                return None
            self._rest += more
        line, _, self._rest = self._rest.partition(b"\n")
        return line

    async def send(self, reply: Reply) -> None:
        await self._stream.send_all(json.dumps(reply).encode() + b"\n")


async def _answer(line: bytes, lines: _Lines, served: Served, freezing: trio.Lock) -> None:
    try:
        request = json.loads(line)
        operation = request["op"]
    except (ValueError, KeyError, TypeError, RecursionError):
        request, operation = {}, None
    if operation == "freeze":
        async with freezing:
            await _freeze(lines, served)
    elif operation == "fence":
        async with freezing:
            await lines.send(await _guarded(lambda: _fence(request, served)))
    else:
        await lines.send(await _guarded(lambda: _simple(operation, request, served)))


async def _fence(request: Reply, served: Served) -> Reply:
    writable = request.get("writable")
    if not isinstance(writable, bool):
        raise InvalidRequest("fence", expected="writable: true or false")
    await served.fence(writable)
    return {}


async def _simple(operation: object, request: Reply, served: Served) -> Reply:
    if operation == "status":
        return served.status()
    if operation == "incidents":
        return served.incidents()
    if operation == "writers":
        return await served.writers()
    if operation == "restores":
        await served.show_restores(request.get("show"))
    elif operation == "barrier":
        await served.barrier()
    elif operation == "drain":
        served.drain()
    elif operation != "thaw":  # a thaw after the limit: nothing to do, and said so below
        raise InvalidRequest(
            "control request",
            expected="status, incidents, writers, barrier, freeze, thaw, fence, restores or drain",
        )
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
    except Exception as error:  # a bug costs this request, not the mount
        log.exception("control request")
        return {"ok": False, "kind": HoldfastError.kind.slug, "message": repr(error)}


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
