"""The caller's end of a worker's control socket (``control.py`` has the words that are spoken).

Nothing here imports trio: a command that makes a snapshot must not wait for what it does not need.
"""

from __future__ import annotations

import json
import os
import socket
from typing import Any

from engine.errors import (
    TABLE,
    Busy,
    HoldfastError,
    InvalidRequest,
    LocationUnavailable,
    NotFound,
)
from engine.incidents import Incident, Line, folded, lines

FOLDER = "run"
REPLY_MAX = 1 << 20  # bytes of an answer, which are few
_ANSWER = 2.0  # s: a worker that is asked for its incidents has them at hand, or is stuck
Reply = dict[str, Any]


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

    def request(self, operation: str, **arguments: object) -> Reply:
        """One request, its reply. An error reply is raised as what it was."""
        try:
            self._socket.sendall(json.dumps({"op": operation, **arguments}).encode() + b"\n")
            while b"\n" not in self._rest:
                if len(self._rest) > REPLY_MAX:
                    raise _nonsense()
                more = self._socket.recv(1 << 16)
                if not more:
                    raise ConnectionResetError
                self._rest += more
        except TimeoutError:
            raise Busy("worker", expected="an answer", found="none in time") from None
        except ConnectionError:
            raise NotFound("worker", expected="an answer", found="that it has ended") from None
        line, _, self._rest = self._rest.partition(b"\n")
        try:
            reply = json.loads(line)
        except (ValueError, RecursionError):
            raise _nonsense() from None
        if not isinstance(reply, dict) or not isinstance(ok := reply.pop("ok", None), bool):
            raise _nonsense()
        if not ok:
            raise revived(str(reply.get("kind")), str(reply.get("message")))
        return reply

    def close(self) -> None:
        """Hang up; a freeze held by this connection ends."""
        self._socket.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _nonsense() -> HoldfastError:
    return LocationUnavailable(
        "worker", expected="an answer", found="other bytes", do="mount again"
    )


def revived(slug: str, message: str) -> HoldfastError:
    """An error that another process reported, as the class it was there."""
    for one in TABLE:
        if one.kind.slug == slug:
            return one(message)
    return HoldfastError(message)


def request(
    store_path: str, mount: str, operation: str, *, timeout: float = 120.0, **arguments: object
) -> Reply:
    """One request to the worker of a mount. Raises NotFound when it is not mounted, and what the worker reports."""
    with client(store_path, mount, timeout=timeout) as connection:
        return connection.request(operation, **arguments)


def client(store_path: str, mount: str, *, timeout: float = 120.0) -> Client:
    """A connection to the worker of a mount, for freeze and thaw, which belong together. Raises NotFound."""
    if "/" in mount:
        raise InvalidRequest("mount name", found=repr(mount))
    return Client(os.path.join(store_path, FOLDER), mount, timeout=timeout)


def incidents(store_path: str) -> tuple[list[Incident], list[str]]:
    """Incidents in the store and in the memory of its workers, and the mounts whose workers do not answer.

    The index is not needed. Raises NotFound.
    """
    met, silent = [], []
    try:
        names = sorted(os.listdir(os.path.join(store_path, FOLDER)))
    except OSError:
        raise NotFound(f"store {store_path}", expected="a store", found="none") from None
    for name in (name.removesuffix(".sock") for name in names if name.endswith(".sock")):
        try:
            reply = request(store_path, name, "incidents", timeout=_ANSWER)
        except NotFound:
            continue  # it has ended
        except (HoldfastError, OSError):
            silent.append(name)
            continue
        met += [Line(**line) for line in reply["incidents"]]
    return folded([*lines(store_path), *met]), silent
