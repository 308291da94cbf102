"""Everything that listens, as the daemon starts and stops it: the native API and the Phoenix-compatible one.

All sockets are bound before any is served: a port in use leaves nothing half started.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from functools import partial
from importlib import metadata
from typing import Any, Protocol

import trio

from daemon.config import Config
from daemon.contract import Backend
from daemon.http import listen, native, phoenix, phoenix_access, problem, sockets
from daemon.http.gate import AuditLog, Gate, Tokens
from daemon.http.guard import Limits, Tell
from daemon.http.listen import Tls
from daemon.http.native.base import Changes, Keys, Metrics
from daemon.http.sockets import Listening


class Kept(Protocol):
    """What is needed of the state."""

    @property
    def tokens(self) -> Tokens: ...
    @property
    def keys(self) -> Keys: ...


class Front:
    """Made with what it serves; ``start`` and ``stop`` once each, ``check`` from any thread."""

    def __init__(
        self, config: Callable[[], Config], backend: Backend, kept: Kept, audit: AuditLog, metrics: Metrics,
        clock: Callable[[], int], changes: Changes,
    ) -> None:  # fmt: skip
        self._config = config
        now = config()
        self._gate = Gate(
            kept.tokens, audit, clock=clock, failures_per_minute=now.api.failures_per_minute
        )
        self._tls = (
            Tls(now.api.tls_cert, now.api.tls_key, now.api.client_ca) if now.api.tls_cert else None
        )
        self._native = native.app(
            backend, self._gate, metrics, kept.keys, version=metadata.version("holdfast"),
            max_upload=lambda: config().api.max_upload, changes=changes,
        )  # fmt: skip
        self._phoenix = phoenix.app(
            backend, lambda: phoenix_access.settings_of(config()), gate=self._gate
        )
        self._stop = trio.Event()
        self._running: list[trio.Event] = []
        self.listening: list[str] = []

    def check(self, config: Config) -> None:
        """Take a new configuration's certificates and limits. Raises InvalidRequest, and goes on with those it had."""
        if self._tls is not None:
            self._tls.take(config.api.tls_cert, config.api.tls_key, config.api.client_ca)
        self._gate.failures_per_minute = config.api.failures_per_minute

    async def start(self, nursery: trio.Nursery) -> None:
        """Listen everywhere, or raise and listen nowhere."""
        config = self._config()
        ready = sockets.inherited()
        own = [*config.api.listen, f"unix:{config.api_socket()}"]
        theirs = config.phoenix.listen if config.phoenix.enabled else []
        native_ = await trio.to_thread.run_sync(partial(sockets.listen, own, ready=ready))
        try:
            phoenix_ = await trio.to_thread.run_sync(partial(sockets.listen, theirs, ready=ready))
        except BaseException:
            for one in native_:
                one.close()
            raise
        await self._serve(nursery, native_, self._native, self._tls, problem.answer)
        if phoenix_:
            await self._serve(nursery, phoenix_, self._phoenix, None, phoenix.refused)

    def _limits(self) -> Limits:
        """Of a request, by the configuration as it is now."""
        api = self._config().api
        return Limits(body=api.max_body, upload=api.max_upload, request_s=api.request_limit_s)

    async def _serve(
        self, nursery: trio.Nursery, listening: list[Listening], app: Any, tls: Tls | None, tell: Tell
    ) -> None:  # fmt: skip
        over = trio.Event()
        names = frozenset({socket.gethostname(), *self._config().api.names})

        async def run(task_status: trio.TaskStatus[Any]) -> None:
            try:
                await listen.serve(
                    listening, app, tls=tls, asked=self._limits, tell=tell, names=names,
                    stop=self._stop, task_status=task_status,
                )  # fmt: skip
            finally:
                over.set()

        await nursery.start(run)
        self._running.append(over)
        self.listening += [one.name for one in listening]

    async def stop(self) -> None:
        """Take no more requests; those under way may end, for a while."""
        self._stop.set()
        for one in self._running:
            await one.wait()
