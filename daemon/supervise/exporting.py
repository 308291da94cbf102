"""The ``Exports`` port of the daemon: the NFS server that the configuration names, or none."""

from __future__ import annotations

import json
import os
import socket
from typing import TYPE_CHECKING, Protocol

from daemon.export import AskedExports, GaneshaExports, KernelExports, Wanted, connected
from daemon.export import Settings as GaneshaSettings
from daemon.supervise.settings import Settings
from engine.errors import HoldfastError, Unsupported

if TYPE_CHECKING:
    from daemon.service.service import Service
    from daemon.supervise.workers import Workers

FOLDER = os.path.join(
    "daemon", "nfs"
)  # in the store: what handles are made of is kept over restarts of the host
EXPORTER = "exporter.sock"  # in run_dir: where one that is root is asked, by a daemon that is not


class _Server(Protocol):
    def apply(self) -> None: ...
    def state(self, mount: str, client: str) -> str: ...
    def close(self) -> None: ...


class Exporting:
    """Thread-safe; every call may block. ``active``: whether there is a server."""

    def __init__(
        self, settings: Settings, workers: Workers, exporter: socket.socket | None = None
    ) -> None:
        """``exporter``: the connection to a child that is root; without it one that listens is asked."""
        self._exporter = exporter
        self._settings = settings
        self._workers = workers
        self.active = settings().nfs.server != "off"
        self._server: _Server | None = None
        self._identity = ""
        self._service: Service

    def open(self, service: Service) -> None:
        """There is a service now. Raises what keeps the server's files from being made."""
        self._service = service
        config = self._settings()
        with open(os.path.join(service.path, "format.json"), encoding="utf-8") as file:
            self._identity = str(json.load(file)["store_id"])
        if config.nfs.server == "off":
            return
        if os.geteuid() != 0:
            given, path = self._exporter, os.path.join(config.run_dir, EXPORTER)
            self._server = AskedExports(lambda: given or connected(path), self._wanted)
        elif config.nfs.server == "kernel":
            self._server = KernelExports(config.nfs.exports_d, self._wanted)
        else:
            folder = os.path.join(service.path, FOLDER)
            settings = GaneshaSettings(config.nfs.port, config.nfs.bind)
            self._server = GaneshaExports(folder, settings, self._wanted)

    def _wanted(self) -> list[Wanted]:
        mounted = self._workers.mounted()
        found = []
        for mount in self._service.store.mounts():
            exports = tuple(self._service.wanted_exports(mount.name))
            if exports:
                identity = f"{self._identity}/{mount.id}"
                found.append(Wanted(mount.name, identity, mounted.get(mount.name, ""), exports))
        return found

    def apply(self) -> None:
        """Make the server agree with what is wanted."""
        if self._server is None:
            raise Unsupported("exports", expected="an NFS server", found="none",
                              do="set server in [nfs] of the configuration and restart the daemon")  # fmt: skip
        try:
            self._server.apply()
        except OSError as error:
            raise HoldfastError("exports", found=str(error)) from None

    def state(self, mount: str, client: str) -> str:
        """active, pending, or failed: why."""
        return (
            "pending: no NFS server" if self._server is None else self._server.state(mount, client)
        )

    def close(self) -> None:
        """End the server."""
        if self._server is not None:
            self._server.close()
