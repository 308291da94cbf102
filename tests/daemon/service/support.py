"""What tests of the service share: a store with content, a service of it, a clock that is told the time."""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from daemon.config import Config, Mount
from daemon.service import Ports, Service, alone
from daemon.state import State
from engine import Store
from engine.errors import AlreadyExists
from engine.live import ROOT, Ctx, LiveTree
from engine.progress import silent

CTX = Ctx(0, 0)
MINUTE, HOUR, DAY = 60 * 10**9, 3600 * 10**9, 86400 * 10**9


class Clock:
    """A clock of wall time that stands still until it is moved."""

    def __init__(self, now: int = 1_700_000_000 * 10**9) -> None:
        self.now = now

    def __call__(self) -> int:
        return self.now


@functools.cache
def _template() -> str:
    place = tempfile.mkdtemp()
    atexit.register(shutil.rmtree, place)
    Store.init(os.path.join(place, "store"))
    return os.path.join(place, "store")


def new_store(path: str) -> None:
    """An empty store: a copy of one, for making one waits for the disk."""
    shutil.copytree(_template(), path)


def settings(path: str, mounts: Mapping[str, dict[str, Any]] | None = None, **more: Any) -> Config:
    """A configuration for a store; ``mounts``: name -> what its table says."""
    tables = {name: Mount.model_validate(table) for name, table in (mounts or {}).items()}
    return Config.model_validate({"store": path, "mounts": tables, **more})


@contextmanager
def served(path: str, config: Config, **ports: Any) -> Iterator[Service]:
    """A service with the ports of a store that has no daemon, but for those that are given."""
    jobs = alone.Jobs(silent)
    workers = ports.pop("workers", None) or alone.Workers(path, lambda: config, {})
    uploads = alone.Uploads()
    given = Ports(workers, jobs, alone.Exports(), alone.Reload(), uploads)
    clock = ports.pop("clock", None)
    since_boot = ports.pop("since_boot", None)
    more = {"clock": clock} if clock else {}
    times = {"since_boot": since_boot} if since_boot else {}
    with (
        State.open(path, **more) as state,
        Service(path, state, lambda: config, replace(given, **ports), **more, **times) as service,
    ):
        jobs.service = workers.service = uploads.service = service
        yield service


def fill(path: str, mount: str, files: Mapping[str, bytes]) -> None:
    """Write files into a mount that nobody serves, with the directories above them."""
    with Store.open(path) as store:
        tree = store.open_live(mount)
        try:
            for name, content in files.items():
                put(tree, name, content)
        finally:
            tree.close()


def put(tree: LiveTree, name: str, content: bytes) -> int:
    """Write one file; its inode."""
    at = ROOT
    *folders, last = name.encode("utf-8", "surrogateescape").split(b"/")
    for folder in folders:
        try:
            at = tree.mkdir(at, folder, 0o755, CTX).ino
        except AlreadyExists:
            at = tree.lookup(at, folder).ino
    try:
        ino = tree.create(at, last, 0o644, CTX).ino
    except AlreadyExists:
        ino = tree.lookup(at, last).ino
        tree.setattr(ino, size=0, now_ns=1)
    tree.write(ino, 0, content)
    return ino
