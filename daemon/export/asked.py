"""The ``Exports`` port for a daemon that is not root: the exporter is asked."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from daemon.export.plan import Wanted
from engine.errors import Busy, HoldfastError, NotFound
from fsmount.remote import revived

LIMIT = 60.0  # s for an answer: a server is stopped and started within it


def spawn(config: str, folder: str = "") -> socket.socket:
    """Start an exporter as a child, by root, before it becomes somebody else; it ends with the socket. ``folder``:
    where the files of the server are, if not where they usually are."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    here = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    with theirs:
        child = subprocess.Popen(
            # -P: nothing is imported from the working directory
            [sys.executable, "-P", "-m", "daemon.export", f"--config={config}", f"--fd={theirs.fileno()}",
             *([f"--folder={folder}"] if folder else [])],
            stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()], start_new_session=True, cwd="/",
            env={"PATH": os.environ.get("PATH", os.defpath), "PYTHONPATH": here},
        )  # fmt: skip
    child.returncode = 0  # it ends after us
    return ours


def connected(path: str) -> socket.socket:
    """To an exporter that is a unit of its own. Raises NotFound."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
    try:
        connection.connect(path)
    except OSError:
        connection.close()
        raise NotFound(
            f"exporter at {path}", expected="that it runs", found="nobody there",
            do="systemctl enable --now holdfast-exporter.socket",
        ) from None  # fmt: skip
    return connection


class AskedExports:
    """Thread-safe; every call may block."""

    def __init__(
        self, connect: Callable[[], socket.socket], wanted: Callable[[], Sequence[Wanted]]
    ) -> None:
        """``connect`` gives a connection, which is taken over; it is asked again when that one has ended, and may raise
        NotFound. ``wanted`` as for ``GaneshaExports``."""
        self._connect = connect
        self._connection: socket.socket | None = None
        self._wanted = wanted
        self._lock = threading.Lock()

    def apply(self) -> None:
        """As ``GaneshaExports.apply``."""
        self._ask({"op": "apply", "wanted": [asdict(one) for one in self._wanted()]})

    def state(self, mount: str, client: str) -> str:
        """As ``GaneshaExports.state``."""
        try:
            return self._ask({"op": "state", "mount": mount, "client": client})
        except HoldfastError as error:
            return f"failed: {error}"

    def close(self) -> None:
        """As ``GaneshaExports.close``; hangs up."""
        try:
            self._ask({"op": "close"})
        finally:
            with self._lock:
                self._hang_up()

    def _hang_up(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _ask(self, request: dict[str, Any]) -> str:
        with self._lock:
            kept = self._connection is not None
            reply = self._reply(request)
            if (
                reply is None and kept
            ):  # it was started again since; every request may be made twice
                reply = self._reply(request)
        match reply:
            case {"ok": True, "state": str(state)}:
                return state
            case {"ok": False, "kind": str(kind), "message": str(message)}:
                raise revived(kind, message)
        raise NotFound("exporter", expected="an answer", found="that it has ended")

    def _reply(self, request: dict[str, Any]) -> Any:
        """What it answers; None when it has ended, which hangs up."""
        if self._connection is None:
            self._connection = self._connect()
        try:
            self._connection.settimeout(LIMIT)
            self._connection.sendall(json.dumps(request).encode())
            reply = json.loads(self._connection.recv(1 << 16) or b"null")
        except TimeoutError:
            self._hang_up()  # its answer must not be taken for the next one's
            raise Busy("exporter", expected="an answer", found="none in time") from None
        except (OSError, ValueError):
            reply = None
        if reply is None:
            self._hang_up()
        return reply
