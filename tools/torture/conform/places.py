"""Where the rigs work: a real mount of a real store, and beside it the control, a directory on ext4.

The worker is the ``holdfast mount`` command in a process of its own, with the bug of this run planted in it; the store
is made, snapshotted and checked by a second process (``steward``), so that the rig itself never opens an index.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tools.torture.rig import Found

NAME = "m"
MODES: tuple[tuple[str, ...], ...] = (
    (),
    (),
    ("--write-through",),
)  # how rigs mount: mostly as everybody does
START_LIMIT = 120.0  # s for a worker to come up, or to end
# A reply to a request that the kernel has given up, as it does with RELEASE while a file system is unmounted.
TOO_LATE = re.compile(r"fuse_reply_\* failed with No such file or directory")
CONTROL_SIZE = 64 << 30  # bytes, sparse: room for every offset a rig writes at


class Broken(Exception):
    """The rig's own surroundings do not work: no find."""


def quiet(*command: str | Path) -> str:
    """Run a program that must succeed; what it printed."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    if done.returncode:
        raise Broken(f"{' '.join(map(str, command))}: {done.stderr.strip()}")
    return done.stdout


class Steward:
    """The process that opens the store: makes it, its points, and checks it. See ``steward``."""

    def __init__(self, store: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tools.torture.conform.steward", store],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, what: str, *arguments: str) -> Any:
        """The answer to one request. Raises Found when the store refused it."""
        assert self._process.stdin is not None and self._process.stdout is not None
        print(json.dumps([what, *arguments]), file=self._process.stdin, flush=True)
        line = self._process.stdout.readline()
        if not line:
            raise Found(f"{what} ended with status {self._process.wait()}")
        ok, answer = json.loads(line)
        if not ok:
            raise Found(f"{what} {' '.join(arguments)}: {answer}")
        return answer

    def end(self) -> None:
        """Close it; harmless when it is gone already."""
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            with suppress(BrokenPipeError):
                pipe.close()
        self._process.wait(START_LIMIT)


class Mounted:
    """A new store with one mount, mounted at ``path``. A context manager; leaving it unmounts."""

    def __init__(self, scratch: Path, *options: str) -> None:
        self.store = scratch / "store"
        self.path = scratch / "mount"
        self.path.mkdir(parents=True)
        self.options = options
        self._log = scratch / "worker.log"
        self._worker: subprocess.Popen[bytes] | None = None
        self.steward = Steward(self.store)

    def __enter__(self) -> Self:
        try:
            self.steward.ask("make")
            self.mount()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self.unmount()
        finally:
            self._end()

    def mount(self) -> None:
        """Start a worker, and return when the directory can be used."""
        command = ["--store", str(self.store), "mount", NAME, str(self.path), *self.options]
        before = os.stat(self.path).st_dev
        with self._log.open("ab") as log:
            self._worker = subprocess.Popen(
                [sys.executable, "-m", "tools.torture.planted", *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        end = time.monotonic() + START_LIMIT
        while self._worker.poll() is None and time.monotonic() < end:
            with suppress(OSError):
                if os.stat(self.path).st_dev != before:
                    return
            time.sleep(0.01)
        raise Found(f"no mount: {self.said()}")

    def unmount(self) -> None:
        """Unmount and wait until the worker has written everything down. Raises Found when it did not end well."""
        assert self._worker is not None
        end = time.monotonic() + 30
        while True:
            done = subprocess.run(
                ["fusermount3", "-u", self.path], capture_output=True, text=True, check=False
            )
            if done.returncode == 0:
                break
            if time.monotonic() > end:
                raise Broken(done.stderr.strip())
            time.sleep(0.02)  # a closed descriptor or mapping may still be on its way out
        status = self._worker.wait(START_LIMIT)
        self._worker = None
        if status:
            raise Found(f"the worker ended with status {status}: {self.said()}")

    def remount(self, *options: str) -> None:
        """Unmount and mount again, with these options: the kernel has forgotten everything, and so has the worker."""
        self.unmount()
        self.options = options
        self.mount()

    @property
    def alive(self) -> bool:
        """Whether the worker still serves."""
        return self._worker is not None and self._worker.poll() is None

    def said(self) -> str:
        """The worker's messages: none when all is well."""
        lines = self._log.read_text(errors="replace").splitlines() if self._log.exists() else []
        return "\n".join(line for line in lines if not TOO_LATE.search(line)).strip()

    def snapshot(self) -> str:
        """A new recovery point's id."""
        return str(self.steward.ask("snapshot"))

    def verify(self) -> None:
        """Raise Found unless the worker lives, has said nothing, and every stored byte is what it should be."""
        if not self.alive:
            raise Found(f"the worker is gone: {self.said()}")
        if self.said():
            raise Found(f"the worker complained: {self.said()[:2000]}")
        problems = self.steward.ask("check")
        if problems:
            raise Found(f"check --read-data: {problems[:5]}")

    def _end(self) -> None:
        if self._worker is not None:
            subprocess.run(["fusermount3", "-uz", self.path], capture_output=True, check=False)
            try:
                self._worker.wait(10)
            except subprocess.TimeoutExpired:
                self._worker.kill()
                self._worker.wait()
            self._worker = None
        self.steward.end()


@contextmanager
def control(scratch: Path, options: str = "noatime,nosuid,nodev") -> Iterator[Path]:
    """An empty directory on ext4, mounted as a Holdfast mount is; not root: a directory of the scratch's own system."""
    path = scratch / "control"
    path.mkdir(parents=True)
    if os.geteuid() != 0:
        yield path
        return
    image = scratch / "control.img"
    with image.open("wb") as file:
        file.truncate(CONTROL_SIZE)
    lazy = "lazy_itable_init=1,lazy_journal_init=1,root_owner=0:0"
    quiet("mkfs.ext4", "-q", "-E", lazy, "-J", "size=32", "-N", "500000", image)
    quiet("mount", "-o", f"loop,{options}", image, path)
    try:
        os.rmdir(path / "lost+found")
        yield path
    finally:
        subprocess.run(["umount", "-l", path], capture_output=True, check=False)
        image.unlink()
