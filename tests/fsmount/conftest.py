"""Mounted in-memory trees for tests; always unmounted, whatever the test did."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fsmount.remote import Client
from tests import warm

ROOT = Path(__file__).resolve().parents[2]


class Host:
    """A worker process over an in-memory tree."""

    def __init__(self, base: Path, **request: Any) -> None:
        self.path = base / "m"
        self.folder = base / "run"
        if not os.path.lexists(base / "run"):
            self.path.mkdir()
        self.folder.mkdir(exist_ok=True)
        self.log = base / "log"
        line = {"where": str(self.path), "folder": str(self.folder), **request}
        with self.log.open("ab") as log:
            theirs, ours = os.pipe()
            self._asked = os.fdopen(ours, "w")
            ours, its = os.pipe()
            self._answered = os.fdopen(ours)
            self.process = warm.start(
                [json.dumps(line)], stdin=theirs, stdout=its, stderr=log.fileno(),
                program="tests.fsmount.host:main",
            )  # fmt: skip
            os.close(theirs)
            os.close(its)
        self.ready = self._answer() == "ready"

    def _answer(self) -> Any:
        line = self._answered.readline()
        return ast.literal_eval(line) if line else None

    def tell(self, *command: Any) -> Any:
        print(repr(command), file=self._asked, flush=True)
        return self._answer()

    def said(self) -> str:
        return self.log.read_text()

    def closed(self) -> bool:
        return (self.folder / "closed").exists()

    def unmount(self) -> int:
        subprocess.run(["fusermount3", "-u", str(self.path)], check=True, capture_output=True)
        return self.process.wait(30)

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._asked.close()
        self._answered.close()
        while os.path.ismount(self.path) or stale(self.path):
            subprocess.run(["fusermount3", "-uz", str(self.path)], check=True, capture_output=True)


def stale(path: Path) -> bool:
    try:
        os.stat(path)
    except OSError:
        return True
    return False


def until(condition: Callable[[], bool], what: str) -> None:
    """Wait for something another process does."""
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.01)


def client_of(host: Host) -> Client:
    return Client(str(host.folder), "mem")


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[Callable[..., Host]]:
    started: list[Host] = []

    def start(**request: Any) -> Host:
        started.append(Host(tmp_path, **request))
        return started[-1]

    yield start
    for one in started:
        one.end()


@pytest.fixture
def host(hosts: Callable[..., Host]) -> Host:
    one = hosts()
    assert one.ready, one.said()
    return one


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """One worker for all tests of a module that leave it as it was."""
    one = Host(tmp_path_factory.mktemp("shared"))
    assert one.ready, one.said()
    yield one
    one.end()


@pytest.fixture
def mounted(shared: Host, request: pytest.FixtureRequest) -> Path:
    """A directory of its own in the shared mount."""
    path = shared.path / request.node.name
    path.mkdir()
    return path
