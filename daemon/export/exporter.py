"""The exporter: the process that is root and has Ganesha, or tells the kernel's server, for a daemon that is not.
``asked.AskedExports`` is its client.

It takes lists of mounts with their exports, checks them as if a stranger had sent them (names, addresses and paths by
their allow-lists; paths also by what the configuration, which root owns, allows), writes the server's configuration
itself, in a directory of its own, and exports nothing but live mounts of ours.
"""

from __future__ import annotations

import json
import os
import select
import socket
import stat
import struct
from collections.abc import Callable
from typing import Any

from daemon.contract import ExportInfo
from daemon.export.ganesha import Settings
from daemon.export.kernel import KernelExports
from daemon.export.plan import Wanted
from daemon.export.served import GaneshaExports
from daemon.mounter.places import Allowed
from engine.errors import HoldfastError, InvalidRequest, PermissionDenied

MESSAGE_MAX = 128 << 10  # bytes of a request, which a socket's buffer holds; some hundred mounts
IDENTITY_MAX = 200
_PEER = struct.Struct("3i")
_GONE = select.POLLHUP | select.POLLERR | select.POLLNVAL


class Exporter:
    """Answers one request at a time: there is one server, and one daemon."""

    def __init__(
        self,
        folder: str,
        settings: Settings,
        allowed: Callable[[], Allowed],
        *,
        exports_d: str = "",
    ) -> None:
        """``folder``: root's alone; ``exports_d``: where the kernel's server is told instead. Raises PermissionDenied
        when the folder is not."""
        os.makedirs(folder, mode=0o700, exist_ok=True)
        status = os.lstat(folder)
        if not stat.S_ISDIR(status.st_mode) or status.st_uid or status.st_mode & 0o022:
            raise PermissionDenied(f"directory {folder}", expected="one that only root may change")
        self._allowed = allowed
        self._wanted: list[Wanted] = []
        self._exports: GaneshaExports | KernelExports
        if exports_d:
            self._exports = KernelExports(exports_d, lambda: self._wanted)
        else:
            self._exports = GaneshaExports(folder, settings, lambda: self._wanted)

    def serve(
        self, *, listener: socket.socket | None = None, given: socket.socket | None = None
    ) -> None:
        """Until there is nobody left who could ask: for ever with a listener, else until ``given`` ends. The server
        goes on."""
        poll = select.poll()
        connections = {} if given is None else {given.fileno(): given}
        for one in (listener, given):
            if one is not None:
                poll.register(one, select.POLLIN)
        while listener is not None or connections:
            for fd, event in poll.poll():
                if listener is not None and fd == listener.fileno():
                    if one := self._accepted(listener):
                        connections[one.fileno()] = one
                        poll.register(one, select.POLLIN)
                elif (event & _GONE and not event & select.POLLIN) or not self._take(
                    connections[fd]
                ):
                    poll.unregister(fd)
                    connections.pop(fd).close()

    def _accepted(self, listener: socket.socket) -> socket.socket | None:
        connection, _ = listener.accept()
        _, uid, _ = _PEER.unpack(
            connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size)
        )
        try:
            welcome = uid in (0, self._allowed().uid)
        except ValueError:
            welcome = False
        if welcome:
            return connection
        connection.close()
        return None

    def _take(self, connection: socket.socket) -> bool:
        """One request; False when the other side has gone."""
        try:
            data = connection.recv(MESSAGE_MAX)
            if not data:
                return False
            connection.send(json.dumps(self.answer(data)).encode())
        except OSError:
            return False
        return True

    def answer(self, data: bytes) -> dict[str, Any]:
        """What to reply to a request, whatever it is."""
        try:
            return {"ok": True, "state": self._done(_decoded(data))}
        except HoldfastError as error:
            return {"ok": False, "kind": error.kind.slug, "message": str(error)}
        except (OSError, ValueError) as error:
            return {"ok": False, "kind": HoldfastError.kind.slug, "message": str(error)}

    def _done(self, request: dict[str, Any]) -> str:
        match request:
            case {"op": "apply", "wanted": list(wanted)}:
                self._wanted = self._checked(wanted)
                self._exports.apply()
            case {"op": "state", "mount": str(mount), "client": str(client)}:
                return self._exports.state(mount, client)
            case {"op": "close"}:
                self._exports.close()
            case _:
                raise InvalidRequest("exporter", expected="apply, state or close")
        return ""

    def _checked(self, wanted: list[Any]) -> list[Wanted]:
        allowed = self._allowed()
        found = []
        for one in wanted:
            match one:
                case {
                    "mount": str(mount),
                    "identity": str(identity),
                    "path": str(path),
                    "exports": list(exports),
                }:
                    pass
                case _:
                    raise InvalidRequest("exporter", expected="mounts with their exports")
            if len(identity) > IDENTITY_MAX or not identity.isprintable():
                raise InvalidRequest("identity of a mount", found=repr(identity[:IDENTITY_MAX]))
            if path and not allowed.covers(path):
                raise PermissionDenied(
                    f"path to export {path!r}", expected="one at or below what the configuration names for mounts"
                )  # fmt: skip
            found.append(
                Wanted(mount, identity, path, tuple(_export(mount, export) for export in exports))
            )
        return found


def _export(mount: str, export: object) -> ExportInfo:
    match export:
        case {
            "client": str(client),
            "read_only": bool(read_only),
            "squash": "root" | "all" | "none" as squash,
        }:
            return ExportInfo(mount, client, read_only, squash)
    raise InvalidRequest(f"export of {mount!r}", expected="client, read_only and squash")


def _decoded(data: bytes) -> dict[str, Any]:
    try:
        request = json.loads(data)
    except (ValueError, RecursionError):
        raise InvalidRequest("exporter", expected="JSON") from None
    if not isinstance(request, dict):
        raise InvalidRequest("exporter", expected="a JSON object")
    return request
