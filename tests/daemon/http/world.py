"""A daemon's HTTP side for tests: a real store, service, state and audit log behind a real listener."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from daemon.contract import MountSpec, Role
from daemon.http import native
from daemon.http.gate import Gate
from daemon.http.guard import Limits
from daemon.http.listen import Tls
from daemon.http.native.base import Changes
from daemon.observe.audit import Audit
from daemon.observe.metrics import Metrics
from daemon.service import Service
from engine import Store
from tests.daemon.http.serving import Served, serving
from tests.daemon.service.support import Clock, fill, settings
from tests.daemon.service.support import served as service_of

ROLES: tuple[Role, ...] = ("admin", "operator", "writer", "restorer", "auditor")
FILES = {"a.txt": b"first", "d/b.bin": bytes(range(256)) * 5000, "d/\udcff name": b"x"}


@dataclass
class World:
    """What stands behind the listener, and clients of it."""

    path: str
    service: Service
    gate: Gate
    audit: Audit
    clock: Any
    app: native.Application
    served: Served
    scheme: str = "http"
    ca: str = ""
    _open: ExitStack = field(default_factory=ExitStack)

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.served.port}"

    def token(self, role: Role = "admin", *mounts: str, lifetime_s: float = 0) -> str:
        """The text of a new token."""
        return self.service.create_token(role, list(mounts), lifetime_s=lifetime_s)[1]

    def client(self, role: Role = "admin", *mounts: str) -> httpx.Client:
        """A client with a new token; closed at the end."""
        headers = {"Authorization": f"Bearer {self.token(role, *mounts)}"}
        return self._open.enter_context(
            httpx.Client(base_url=self.url, headers=headers, timeout=30)
        )

    def local(self) -> httpx.Client:
        """A client at the unix socket."""
        transport = httpx.HTTPTransport(uds=self.served.socket)
        return self._open.enter_context(
            httpx.Client(base_url="http://localhost", transport=transport)
        )

    def fill(self, mount: str, files: dict[str, bytes] | None = None) -> str:
        """A point of a mount with these files; its id."""
        if mount not in {one.name for one in self.service.mounts()}:
            self.service.create_mount(MountSpec(mount))
        fill(self.path, mount, FILES if files is None else files)
        return self.service.snapshot(mount, label="full").point.id

    def acts(self) -> list[tuple[str, str, str, str]]:
        """What the audit log has: (who, act, about, result)."""
        return [(one.who, one.act, one.about, one.result) for one in self.audit.lines(0, 10_000)]


@contextmanager
def world(
    place: Path, *, limits: Limits | None = None, tls: Tls | None = None, own_uid: int | None = None,
    clock: Callable[[], int] | None = None, changes: Changes | None = None, **ports: Any,
) -> Iterator[World]:  # fmt: skip
    """A world in an empty directory."""
    path = str(place / "store")
    Store.init(path)
    os.makedirs(place / "target", exist_ok=True)
    clock = clock or Clock()
    config = settings(path, restore_targets={"aside": str(place / "target")})
    with service_of(path, config, clock=clock, **ports) as service, ExitStack() as stack:
        audit = service.audit_log
        gate = Gate(service.state.tokens, audit, clock=clock, own_uid=own_uid)
        app = native.app(
            service,
            gate,
            Metrics(),
            service.state.keys,
            max_upload=lambda: 300_000,
            changes=changes,
        )  # type: ignore[arg-type]
        binds = ["127.0.0.1:0", f"unix:{place}/s"]
        served = stack.enter_context(serving(app, binds, limits=limits, tls=tls))
        yield World(
            path, service, gate, audit, clock, app, served, "https" if tls else "http", _open=stack
        )
