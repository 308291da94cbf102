"""A listener in a thread, and a Backend in memory with the states a real store is hard to bring into."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import trio

from daemon.contract import (
    Attachment,
    Committed,
    ExportInfo,
    JobInfo,
    MountInfo,
    PointDetail,
    SessionInfo,
)
from daemon.http import listen, sockets
from engine import PointInfo
from engine.errors import Busy, NotFound

BASE = "/druva-phoenix/v1"


@contextmanager
def listening(app: Any) -> Iterator[str]:
    """Serve an application at a free port; its URL. Ends when the block does."""
    [bound] = sockets.listen(["127.0.0.1:0"])
    started = threading.Event()
    held: dict[str, Any] = {}

    async def main() -> None:
        held["token"], held["stop"] = trio.lowlevel.current_trio_token(), trio.Event()
        async with trio.open_nursery() as nursery:
            await nursery.start(_serve, bound, app, held["stop"])
            started.set()

    thread = threading.Thread(target=trio.run, args=(main,))
    thread.start()
    assert started.wait(10)
    try:
        yield f"http://{bound.name}"
    finally:
        held["token"].run_sync_soon(held["stop"].set)
        thread.join(20)
        assert not thread.is_alive()


async def _serve(bound: Any, app: Any, stop: trio.Event, task_status: Any) -> None:
    await listen.serve([bound], app, stop=stop, task_status=task_status)


@dataclass
class Memory:
    """The part of ``Backend`` that the Phoenix-compatible API asks; states are set from outside."""

    infos: dict[str, MountInfo] = field(default_factory=dict)
    known: dict[str, SessionInfo] = field(default_factory=dict)
    logs: list[tuple[str, str, bytes]] = field(default_factory=list)
    shared: list[ExportInfo] = field(default_factory=list)
    restores: dict[int, str] = field(default_factory=dict)
    made: int = 0
    renewed: int = 0
    trouble: Exception | None = None

    def add(self, name: str, **changes: Any) -> None:
        self.infos[name] = MountInfo(name, "auto", 0, 0, 0, "serving", f"/mnt/holdfast/{name}")
        self.infos[name] = replace(self.infos[name], **changes)

    def set(self, name: str, **changes: Any) -> None:
        self.infos[name] = replace(self.infos[name], **changes)

    def mount(self, name: str) -> MountInfo:
        if self.trouble is not None:
            raise self.trouble
        if name not in self.infos:
            raise NotFound(f"mount {name!r}")
        return self.infos[name]

    def exports(self, mount: str = "") -> list[ExportInfo]:
        return [one for one in self.shared if one.mount == mount]

    def begin(self, mount: str, *, holder: str = "", label: str = "", lease_s: float = 0) -> SessionInfo:
        if self.infos[mount].session:
            raise Busy(f"mount {mount}")
        found = SessionInfo(f"s{len(self.known) + 1}", mount, "open", 1, 2, holder=holder)
        self.known[found.id] = found
        self.set(mount, session=found.id)
        return found

    def session(self, session_id: str) -> SessionInfo:
        return self.known[session_id]

    def renew(self, session_id: str, lease_s: float = 0) -> SessionInfo:
        self.renewed += 1
        return self.known[session_id]

    def attach_log(self, session_id: str, name: str, content: Iterable[bytes]) -> Attachment:
        whole = b"".join(content)
        self.logs.append((session_id, name, whole))
        return Attachment(len(self.logs), "log", name, len(whole), 1)

    def commit(self, session_id: str, *, label: str = "") -> Committed:
        session = self.known[session_id]
        self.made += 1
        point = PointInfo(f"{self.made:032x}", session.mount, self.made, 1, label, 0, 0)
        self.set(session.mount, session="")
        return Committed(session, PointDetail(point), [], False)

    def delete_restore(self, mount: str, job_id: int) -> None:
        state = self.restores.get(job_id)
        if state is None:
            raise NotFound(f"restore {job_id}")
        if state == "running":
            raise Busy(f"restore {job_id}", found="that it is running")
        del self.restores[job_id]

    def job(self, job_id: int) -> JobInfo:
        return JobInfo(job_id, "restore", "done", 1)
