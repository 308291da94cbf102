"""Listening sockets: TCP addresses, unix sockets with a mode, and those systemd hands over.

A bind is text: ``127.0.0.1:9091``, ``[::1]:9091``, ``host.example:9091``, ``unix:/run/holdfast/api.sock``.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple

from engine.errors import (
    AlreadyExists,
    Busy,
    HoldfastError,
    InvalidRequest,
    LocationUnavailable,
    NotFound,
    PermissionDenied,
)

BACKLOG = 128
_FIRST = 3  # the first descriptor systemd hands over
_CONNECT_S = 1.0


class Listening(NamedTuple):
    """A socket that listens. ``path``: of a unix socket that is ours to remove, "" for others."""

    socket: socket.socket
    path: str = ""
    inode: int = 0

    @property
    def is_unix(self) -> bool:
        return self.socket.family == socket.AF_UNIX

    @property
    def name(self) -> str:
        """As a bind is written."""
        found = self.socket.getsockname()
        if self.is_unix:
            return f"unix:{found}"
        return f"[{found[0]}]:{found[1]}" if ":" in found[0] else f"{found[0]}:{found[1]}"

    def close(self) -> None:
        """Stop listening; the file of a unix socket goes too, if it is still this socket's."""
        self.socket.close()
        if self.path:
            with suppress(OSError):
                if os.lstat(self.path).st_ino == self.inode:
                    os.unlink(self.path)


def inherited() -> list[Listening]:
    """The sockets systemd listens on for this process; asked once, the environment is then cleared."""
    pid = os.environ.pop("LISTEN_PID", "")
    count = os.environ.pop("LISTEN_FDS", "")
    os.environ.pop("LISTEN_FDNAMES", None)
    if pid != str(os.getpid()) or not count.isdigit():
        return []
    found = []
    for number in range(_FIRST, _FIRST + int(count)):
        os.set_inheritable(number, False)
        sock = socket.socket(fileno=number)
        if sock.type != socket.SOCK_STREAM:
            raise InvalidRequest(
                f"descriptor {number} of systemd", expected="a stream socket", found=sock.type.name,
                do="use ListenStream= in the socket unit",
            )  # fmt: skip
        found.append(Listening(sock))
    return found


def listen(
    binds: Sequence[str], *, mode: int = 0o660, ready: list[Listening] | None = None
) -> list[Listening]:
    """Listen at every bind, or at none of them. What is in ``ready`` already is taken from there.

    ``mode`` is that of unix sockets; a stale one is replaced.  Raises Busy, InvalidRequest, PermissionDenied,
    AlreadyExists.
    """
    found: list[Listening] = []
    try:
        for bind in binds:
            mine = next((one for one in ready or [] if one.name == bind), None)
            if mine is not None and ready is not None:
                ready.remove(mine)
                found.append(mine)
            elif bind.startswith("unix:"):
                found.append(_unix(bind[5:], mode))
            else:
                found.extend(_tcp(bind))
    except BaseException:
        for one in found:
            one.close()
        raise
    return found


def split(bind: str) -> tuple[str, int]:
    """Host and port of a TCP bind. Raises InvalidRequest."""
    host, colon, port = bind.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        host = ""
    if not colon or not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise InvalidRequest(
            f"address to listen at {bind!r}", expected="HOST:PORT, [ADDRESS]:PORT or unix:PATH"
        )
    return host, int(port)


def _tcp(bind: str) -> list[Listening]:
    host, port = split(bind)
    try:
        known = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise InvalidRequest(f"address to listen at {bind!r}", found=str(error)) from None
    found: list[Listening] = []
    try:
        for family, kind, protocol, _, address in known:
            sock = socket.socket(family, kind, protocol)
            found.append(Listening(sock))
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.bind(address)
            sock.listen(BACKLOG)
    except OSError as error:
        for one in found:
            one.close()
        raise _why_not(error, bind) from None
    return found


def _why_not(error: OSError, bind: str) -> HoldfastError:
    what = f"address to listen at {bind}"
    found = os.strerror(error.errno) if error.errno else str(error)
    match error.errno:
        case errno.EADDRINUSE:
            return Busy(
                what, found="another process listens there", do="stop it, or configure another"
            )
        case errno.EACCES | errno.EPERM:
            local = "give its directory to the service's user, or choose another"
            far = "choose a port of 1024 or above"
            return PermissionDenied(
                what, found=found, do=local if bind.startswith("unix:") else far
            )
        case errno.ENOENT | errno.ENOTDIR:
            return NotFound(what, found=found, do="make its directory")
        case _:
            return InvalidRequest(what, expected="an address of this machine", found=found)


def _unix(path: str, mode: int) -> Listening:
    bind = f"unix:{path}"
    if not path or len(os.fsencode(path)) > 107 or "\0" in path:
        raise InvalidRequest(f"unix socket {path!r}", expected="a path of 1 to 107 bytes")
    _replace(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # The file gets the mode of the socket's own inode: at no moment is it more open than it shall be.
        os.fchmod(sock.fileno(), mode)
        sock.bind(path)
        os.chmod(path, mode)
        sock.listen(BACKLOG)
        return Listening(sock, path, os.lstat(path).st_ino)
    except OSError as error:
        sock.close()
        raise _why_not(error, bind) from None


def _replace(path: str) -> None:
    """Remove the socket file a process left that is gone. Raises Busy, AlreadyExists."""
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise AlreadyExists(
                f"unix socket {path}", found="a file that is no socket", do="move it away"
            )
    except FileNotFoundError:
        return
    except OSError as error:
        raise _why_not(error, f"unix:{path}") from None
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(_CONNECT_S)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            with suppress(FileNotFoundError):
                os.unlink(path)
            return
        except FileNotFoundError:
            return
        except OSError as error:
            raise LocationUnavailable(f"unix socket {path}", found=str(error)) from None
    raise Busy(f"unix socket {path}", found="another process answers there", do="stop it")
