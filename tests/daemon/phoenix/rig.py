"""A Backend in memory, with the states a real store is hard to bring into, and a listener for it."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import httpx

from daemon.contract import (
    Attachment,
    Committed,
    ExportInfo,
    JobInfo,
    MountInfo,
    PointDetail,
    SessionInfo,
)
from daemon.http import phoenix
from daemon.http import phoenix_rules as rules
from daemon.http.gate import Gate
from daemon.http.phoenix_access import Settings
from engine import PointInfo
from engine.errors import Busy, NotFound
from tests.daemon.http.serving import serving

BASE = "/druva-phoenix/v1"
MOUNT = f"{BASE}/mounts/testmount"
LOG = b"piece handle=/local/testmount/0a_1_1\n"


@contextmanager
def listening(app: Any) -> Iterator[str]:
    """Serve an application at a free port; its URL. Ends when the block does."""
    with serving(app, tell=phoenix.refused) as served:
        yield f"http://127.0.0.1:{served.port}"


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

    def begin(
        self, mount: str, *, holder: str = "", label: str = "", lease_s: float = 0
    ) -> SessionInfo:
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


class Rig:
    """A served API, its backend, its settings and a client."""

    def __init__(self) -> None:
        self.memory = Memory()
        self.memory.add("testmount", path="/Phoenix/testmount/oracle_data")
        self.settings = Settings(max_upload=1 << 20)
        self.store: rules.StoreState = "active"
        self.gate: Gate | None = None
        self.client = httpx.Client()

    def ask(self, method: str, path: str, **more: Any) -> tuple[int, int, str, dict[str, Any]]:
        """HTTP status, error_code, error_msg, result."""
        answer = self.client.request(method, path, **more)
        assert answer.headers["content-type"] == "application/json"
        found = json.loads(answer.text)
        assert list(found) == ["error_code", "error_msg", "result"]
        return answer.status_code, found["error_code"], found["error_msg"], found["result"]

    def log(
        self, content: bytes = LOG, name: str = "rman.log"
    ) -> tuple[int, int, str, dict[str, Any]]:
        return self.ask(
            "POST", f"{MOUNT}/uploadlog", files={"file": (name, content)},
            data={"mountpoint": "/local/testmount", "platform": "linux"},
        )  # fmt: skip


def as_it_is(
    rig: Rig, method: str, target: str, headers: dict[str, str] | None = None
) -> tuple[int, dict[str, Any]]:
    """A request that no client library has tidied."""
    line = http.client.HTTPConnection(
        rig.client.base_url.host, rig.client.base_url.port, timeout=20
    )
    try:
        line.request(method, target, headers=headers or {})
        answer = line.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        line.close()
