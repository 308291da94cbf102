"""The mounter's loop: takes requests of the service's processes, answers each in a thread. Standard library only.

Nothing that a worker does or leaves undone holds up the loop: an unmount waits, in its thread, for the worker to take
the last pages.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import select
import socket
import struct
import threading
from collections.abc import Callable

from daemon.mounter import places
from daemon.mounter.wire import REQUEST_MAX, Refused, decode

log = logging.getLogger("holdfast.mounter")

CONNECTIONS_MAX = 32
AT_ONCE = 32  # requests being answered
_FIRST = 3  # the first descriptor that systemd hands over
_PEER = struct.Struct("3i")


class Server:
    """Serves the connections that it has or gets. ``allowed`` says, for each request, what may be done for whom."""

    def __init__(self, allowed: Callable[[], places.Allowed]) -> None:
        self._allowed = allowed
        self._room = threading.BoundedSemaphore(AT_ONCE)
        self._connections: dict[int, socket.socket] = {}

    def serve(
        self, *, listener: socket.socket | None = None, given: socket.socket | None = None
    ) -> None:
        """Answer until there is nobody left who could ask: for ever with a listener, else until ``given`` ends."""
        poll = select.poll()
        if listener is not None:
            poll.register(listener, select.POLLIN)
        if given is not None:
            self._add(given, poll)
        while listener is not None or self._connections:
            for fd, _ in poll.poll():
                if listener is not None and fd == listener.fileno():
                    self._accept(listener, poll)
                elif not self._take(self._connections[fd]):
                    poll.unregister(fd)
                    self._connections.pop(fd).close()

    def _add(self, connection: socket.socket, poll: select.poll) -> None:
        connection.setblocking(False)
        self._connections[connection.fileno()] = connection
        poll.register(connection, select.POLLIN)

    def _accept(self, listener: socket.socket, poll: select.poll) -> None:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size)
        _, uid, _ = _PEER.unpack(raw)
        try:
            welcome = uid in (0, self._allowed().uid)
        except ValueError as error:
            log.error("%s", error)
            welcome = False
        if welcome and len(self._connections) < CONNECTIONS_MAX:
            self._add(connection, poll)
        else:
            log.warning("a process of user %d is not listened to", uid)
            connection.close()

    def _take(self, connection: socket.socket) -> bool:
        """One request; False when the other side has gone."""
        try:
            data, fds, flags, _ = socket.recv_fds(
                connection, REQUEST_MAX, 2, socket.MSG_CMSG_CLOEXEC
            )
        except BlockingIOError:
            return True
        except OSError:
            return False
        if len(fds) != 1 or flags & (socket.MSG_CTRUNC | socket.MSG_TRUNC):
            for fd in fds:
                os.close(fd)
            return bool(data)  # nobody to answer to
        reply = _socket_of(fds[0])
        if reply is None:
            return True
        if self._room.acquire(blocking=False):
            threading.Thread(target=self._work, args=(data, reply), daemon=True).start()
        else:
            _send(reply, Refused("busy", f"mounter: {AT_ONCE} requests are being answered"))
        return True

    def _work(self, data: bytes, reply: socket.socket) -> None:
        try:
            _send(reply, self._outcome(data))
        finally:
            self._room.release()

    def _outcome(self, data: bytes) -> Refused | int:
        try:
            request = decode(data)
            connection = places.answer(self._allowed(), request)
        except Refused as refused:
            log.warning("%s", refused)
            return refused
        except ValueError as error:
            log.error("%s", error)
            return Refused("permission_denied", str(error))
        except Exception as error:  # a bug costs this request
            log.exception("request")
            return Refused("internal", repr(error))
        log.info("%s %r", request.verb, request.path)
        return connection


def handed_over() -> socket.socket | None:
    """The listening socket that systemd gave this process, if it gave one."""
    if os.environ.get("LISTEN_PID") == str(os.getpid()) and os.environ.get("LISTEN_FDS") == "1":
        return socket.socket(fileno=_FIRST)
    return None


def listening(path: str) -> socket.socket:
    """A listening socket at a path; what lies there is replaced."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    # Anybody may connect; who it is decides. A change of its owner afterwards would follow whatever is there then.
    mask = os.umask(0o111)
    try:
        listener.bind(path)
    finally:
        os.umask(mask)
    listener.listen()
    return listener


def _socket_of(fd: int) -> socket.socket | None:
    """What is to be answered to, whatever was sent; None when it is no socket."""
    try:
        return socket.socket(fileno=fd)
    except OSError:
        os.close(fd)
        return None


def _send(reply: socket.socket, outcome: Refused | int) -> None:
    fds = []
    if isinstance(outcome, Refused):
        answer = {"ok": False, "kind": outcome.kind, "message": str(outcome)}
    else:
        answer = {"ok": True}
        fds = [outcome] if outcome >= 0 else []
    with (
        reply,
        contextlib.suppress(OSError),
    ):  # gone: what was mounted is then dead, and seen as such
        socket.send_fds(
            reply, [json.dumps(answer).encode()], fds, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL
        )
    for fd in fds:
        os.close(fd)
