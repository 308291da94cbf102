"""A store with mounts served by worker processes, as an administrator would set them up; bugs are planted in them."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import fsmount
from engine import Store
from engine.errors import HoldfastError

READY_LIMIT = 60.0  # s for a worker to mount
END_LIMIT = 60.0


class Mounted:
    """A worker process and its mount."""

    def __init__(self, ground: Ground, name: str, where: Path, options: tuple[str, ...]) -> None:
        self.ground, self.name, self.where = ground, name, where
        self.log = where.with_suffix(".log")
        where.mkdir(exist_ok=True)
        program = [sys.executable, "-m", "tools.torture.planted"]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*program, "--store", str(ground.store), "mount", name, str(where), *options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        end = time.monotonic() + READY_LIMIT
        while not os.path.ismount(where) or not self._serving():
            if self.process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"{name} does not mount: {self.log.read_text()[-2000:]}")
            time.sleep(0.02)

    def _serving(self) -> bool:
        if "@" in self.name:
            return True
        try:
            state = fsmount.request(str(self.ground.store), self.name, "status")["state"]
        except HoldfastError:
            return False
        return bool(state == "serving")

    def request(self, operation: str) -> None:
        """One word to the worker."""
        fsmount.request(str(self.ground.store), self.name, operation)

    def snapshot(self) -> str:
        """A new point, made while the mount is in use; its id."""
        with (
            Store.open(str(self.ground.store)) as store,
            fsmount.client(str(self.ground.store), self.name) as client,
        ):
            client.request("freeze")
            return store.snapshot(self.name, thaw=lambda: _ignore(client.request("thaw"))).id

    def end(self) -> None:
        """Unmount and wait for the worker. Raises RuntimeError when it ended badly."""
        end = time.monotonic() + END_LIMIT
        while True:  # a descriptor of a child that has ended may still be on its way out
            done = subprocess.run(
                ["fusermount3", "-u", str(self.where)], capture_output=True, text=True
            )
            if done.returncode == 0:
                break
            if time.monotonic() > end:
                raise RuntimeError(f"{self.name} stays mounted: {done.stderr.strip()}")
            time.sleep(0.05)
        if self.process.wait(END_LIMIT):
            raise RuntimeError(f"{self.name} ended badly: {self.log.read_text()[-2000:]}")

    def kill(self) -> None:
        """At once, whatever state it is in; harmless afterwards."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        while os.path.ismount(self.where) or _stale(self.where):
            subprocess.run(["fusermount3", "-uz", str(self.where)], check=True)


def _ignore(_: object) -> None:
    return None


def _stale(path: Path) -> bool:
    try:
        os.stat(path)
    except OSError:
        return True
    return False


class Ground:
    """One store in a directory that others may pass through, not list."""

    def __init__(self, base: Path, name: str = "store") -> None:
        self.base = base
        base.mkdir(exist_ok=True)
        os.chmod(base, 0o711)
        self.store = base / name
        Store.init(str(self.store))
        self._mounts: list[Mounted] = []

    def create(self, name: str, quota: int | None = None, files: int | None = None) -> None:
        """A mount's row."""
        with Store.open(str(self.store)) as store:
            store.create_mount(name, quota, files=files)

    def mount(self, name: str, *options: str) -> Mounted:
        """Serve a mount from a process of its own."""
        one = Mounted(self, name, self.base / f"at-{name}", options)
        self._mounts.append(one)
        return one

    def close(self) -> None:
        """Nothing stays mounted."""
        for one in self._mounts:
            one.kill()

    def problems(self) -> list[str]:
        """What ``check --read-data`` finds."""
        with Store.open(str(self.store)) as store:
            return [f"{p.code}: {p.thing}: {p.text}" for p in store.check(read_data=True).problems]


@contextmanager
def ground(base: Path, name: str = "store") -> Iterator[Ground]:
    """A store that is gone afterwards as far as mounts go; the directory is the caller's."""
    os.chmod(base.parent, 0o711)
    one = Ground(base, name)
    try:
        yield one
    finally:
        one.close()
