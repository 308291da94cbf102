"""A daemon for the command line's tests: real, in a process of its own, with one mount that nobody serves."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import warm
from tests.cli.support import good, holdfast, new_store, noise, write
from tests.daemon.cli.support import Served, asked

START_LIMIT = 60.0


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A daemon and its store, in which ``m`` has two points."""
    base = tmp_path_factory.mktemp("d")
    store = new_store(base / "store")
    write(store, {b"same": b"same", b"changed": noise(200_000, 1), b"na\x1b[31mme": b"\xff"})
    good(holdfast(store, "snapshot", "m", "--label", "one"))
    write(store, {b"changed": noise(250_000, 2), b"added": b"added"})
    good(holdfast(store, "snapshot", "m"))
    config, port = _config(base, store)
    with (base / "log").open("wb") as log:
        daemon = warm.start(["serve", "--config", config], stdout=log.fileno(), stderr=log.fileno())
    try:
        until = time.monotonic() + START_LIMIT
        while not (store / "daemon" / "endpoint").exists():
            assert daemon.poll() is None and time.monotonic() < until, (base / "log").read_text()
            time.sleep(0.05)
        token = base / "token"
        token.write_text(good(holdfast(store, "token", "create", "--role", "admin")))
        token.chmod(0o600)
        one = Served(base, store, f"http://127.0.0.1:{port}", token)
        assert good(asked(one, "points")) == good(holdfast(store, "points"))
        yield one
    finally:
        daemon.send_signal(signal.SIGTERM)
        daemon.wait(60)
    assert daemon.returncode == 0, (base / "log").read_text()


def _config(base: Path, store: Path) -> tuple[Path, int]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    for name in ("run", "mnt", "out"):
        (base / name).mkdir()
    path = base / "holdfast.toml"
    path.write_text(
        f'store = "{store}"\nmount_root = "{base}/mnt"\nrun_dir = "{base}/run"\n'
        f'[api]\nlisten = ["127.0.0.1:{port}"]\n[phoenix]\nenabled = false\n'
        f'[maintenance]\ncollect = ""\nscrub = ""\n[restore_targets]\nout = "{base}/out"\n'
        "[mounts.m]\nstart = false\n"
    )
    os.chmod(path, 0o600)
    return path, port
