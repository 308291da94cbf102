"""A mount that is served, the API beside it, and the scripts of tools/scripts as they are shipped."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsmount
from daemon.config import Config
from daemon.contract import MountSpec, PointQuery
from daemon.http import phoenix
from daemon.http.phoenix_access import settings_of
from daemon.service import alone
from daemon.service.service import Service
from engine import Store
from tests.daemon.http.serving import serving

ROOT = Path(__file__).resolve().parents[3]
SCRIPTS = ROOT / "tools" / "scripts"


@dataclass
class Rig:
    """A mount ``db`` that is served, and what the scripts get."""

    service: Service
    url: str
    live: Path
    place: Path
    scripts: Path
    environment: dict[str, str]

    def start(
        self,
        script: str,
        *words: object,
        user: int | None = None,
        group: int | None = None,
        **variables: str,
    ) -> subprocess.Popen[str]:
        command = [
            str(self.scripts / script),
            "--mount",
            "db",
            "--api",
            self.url,
            "--pause",
            "1",
            *map(str, words),
        ]
        return subprocess.Popen(
            command, env=self.environment | variables, text=True, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True, user=user, group=group,
        )  # fmt: skip

    def run(self, script: str, *words: object, **variables: str) -> tuple[int, str, str]:
        process = self.start(script, *words, **variables)
        out, err = process.communicate(timeout=90)
        return process.returncode, out, err

    def points(self) -> list[Any]:
        return self.service.points(PointQuery("db")).items

    def point_of(self, out: str) -> str:
        """The id of the point a script named; it is the newest."""
        name = out.strip().splitlines()[-1]
        point = max(self.points(), key=lambda one: one.seq)
        assert name == f"{point.id}_{point.seq}"
        return str(point.id)

    def logs(self, point: str = "") -> dict[str, bytes]:
        attachments = self.service.state.attachments
        session = self.service.sessions("db")[0].id
        found = attachments.of(point=point) if point else attachments.of(session=session)
        return {one.name: b"".join(self.service.attachment(one.id)[1]) for one in found}

    def content(self, point: str, path: str) -> bytes:
        return b"".join(self.service.file(point, path)[1])

    def names(self, point: str, path: str = "") -> list[str]:
        return [one.name for one in self.service.entries(point, path).items]

    def open_session(self) -> str:
        return self.service.mount("db").session


@contextmanager
def served(place: Path) -> Iterator[Rig]:
    """A store below ``place`` with the mount ``db`` at ``place/live``, and the API."""
    store, live = str(place / "store"), place / "live"
    Store.init(store)
    # Where an ordinary user can come to them; the tree may be in a directory that is closed to it.
    scripts = Path(shutil.copytree(SCRIPTS, place / "scripts"))
    live.mkdir()
    service = alone.service(store, Config(store=store), places={"db": str(live)})
    try:
        service.create_mount(MountSpec("db"))
        service.start_mount("db")
        config = Config(store=store)
        app = phoenix.app(service, lambda: settings_of(config))
        with serving(app, tell=phoenix.refused) as listener:
            kept = {key: os.environ[key] for key in ("PATH", "HOME") if key in os.environ}
            yield Rig(
                service,
                f"http://127.0.0.1:{listener.port}",
                live,
                place,
                scripts,
                kept | {"LC_ALL": "C"},
            )
    finally:
        service.close()
        service.state.close()
        fsmount.unmount(str(live))


def wait_for(true: Any, every: float = 0.05, limit: float = 60) -> None:
    end = time.monotonic() + limit
    while not true():
        assert time.monotonic() < end
        time.sleep(every)
