"""The daemon's end of the mounter. Synchronous, may block up to its limit, may be used by several threads at once."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Sequence

from daemon.mounter.wire import Refused, Request, encode
from engine.errors import Busy, HoldfastError, InvalidRequest, LocationUnavailable
from fsmount.remote import Place, revived

LIMIT = 60.0  # s: an unmount waits until the worker has taken what the kernel still holds
_ANSWER_MAX = 8192


class Mounter:
    """Asks a mounter. Raises LocationUnavailable when it is gone, Busy when it takes too long, and what it answers."""

    def __init__(self, connection: socket.socket, *, limit: float = LIMIT) -> None:
        """``connection``: of ``child.spawn``, or see ``connect``."""
        self._connection = connection
        self._connection.settimeout(limit)
        self._limit = limit

    @classmethod
    def connect(cls, path: str, *, limit: float = LIMIT) -> Mounter:
        """To the mounter that listens at this path."""
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
        try:
            with Place(os.path.dirname(path), os.path.basename(path)) as short:
                connection.connect(short)
        except OSError as error:
            connection.close()
            raise _gone(f"{error.strerror} at {path}") from None
        return cls(connection, limit=limit)

    def close(self) -> None:
        """Hang up. A mounter that is a child ends with the last who could ask."""
        self._connection.close()

    def mount(self, path: str, source: str, options: Sequence[str] = ()) -> int:
        """Mount at ``path``, shown as ``source``; returns the connection, which is then the caller's to close.

        ``options``: "ro", "max_read=N".  What is mounted is dead until somebody serves it, and when nobody does any
        more: unmount it then.
        """
        fds = self._ask(Request("mount", path, source, tuple(options)))
        if len(fds) != 1:
            raise HoldfastError("mounter", expected="a connection", found=f"{len(fds)} descriptors")
        return fds[0]

    def unmount(self, path: str, *, lazy: bool) -> str:
        """Take the mount away; returns "" or why that did not work. ``lazy``: out of the tree at once, used or not."""
        try:
            self._ask(Request("unmount-lazy" if lazy else "unmount", path))
        except Busy as error:
            return str(error)
        return ""

    def readahead(self, path: str, size: int) -> None:
        """What the kernel reads ahead there, bytes."""
        self._ask(Request("readahead", path, bytes=size))

    def _ask(self, request: Request) -> list[int]:
        try:
            data = encode(request)
        except Refused as refused:
            raise InvalidRequest(str(refused)) from None
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ours:
            ours.settimeout(self._limit)
            try:
                with theirs:
                    socket.send_fds(
                        self._connection, [data], [theirs.fileno()], socket.MSG_NOSIGNAL
                    )
                raw, fds, _, _ = socket.recv_fds(ours, _ANSWER_MAX, 1, socket.MSG_CMSG_CLOEXEC)
            except TimeoutError:
                raise Busy(
                    f"{request.verb} of {request.path!r}", expected="an answer of the mounter",
                    found=f"none within {self._limit:.0f} s", do="look at the worker of that mount",
                ) from None  # fmt: skip
            except OSError as error:
                raise _gone(error.strerror or str(error)) from None
        if not raw:
            raise _gone("no answer: it has ended")
        answer = json.loads(raw)
        if not answer["ok"]:
            raise revived(answer["kind"], answer["message"])
        return fds


def _gone(found: str) -> LocationUnavailable:
    return LocationUnavailable(
        "mounter", expected="a running one", found=found,
        do="start it (systemctl start holdfast-mounter, or start the daemon as root)",
    )  # fmt: skip
