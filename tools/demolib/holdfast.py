"""The holdfast command as a person uses it, and what the demonstration reads from its answers."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

from tools.demolib.commands import Finished, Runner
from tools.demolib.console import DemoError
from tools.demolib.mountinfo import mounts_below


class Holdfast:
    """One store, reached through the holdfast command only."""

    def __init__(self, runner: Runner, command: Path, store: Path) -> None:
        self.command = command
        self.store = store
        self._runner = runner

    def init(self) -> None:
        """Make the store."""
        self._run("init")

    def create(self, name: str) -> None:
        """Make a mount (the named tree; nothing is mounted yet)."""
        self._run("create", name)

    def mount(self, name: str, path: Path) -> None:
        """Mount `name` at `path` in the background.

        Raises DemoError when the command fails, or says that it mounted and did not.
        """
        self._run("mount", name, str(path), "--background")
        if path not in mounts_below(path):
            raise DemoError(f"holdfast mount said it mounted {name}, but nothing is at {path}")

    def umount(self, path: Path) -> None:
        """Unmount; the worker writes down what it holds first."""
        self._run("umount", str(path))

    def snapshot(self, name: str, label: str) -> str:
        """Make a recovery point of a mount; its id."""
        words = self._run("snapshot", name, "--label", label).out.split()
        if not words:
            raise DemoError("holdfast snapshot printed nothing, so the point's id is not known")
        return words[-1]

    def points(self, name: str) -> list[str]:
        """The ids of a mount's recovery points, in the order the command lists them."""
        listed = self._json("points", name)
        if isinstance(listed, dict):
            listed = listed.get("points")
        if not isinstance(listed, list) or not all(isinstance(row, dict) for row in listed):
            raise DemoError("holdfast points --json: a list of objects was expected")
        return [str(row.get("id")) for row in listed]

    def restore(self, point: str, target: Path) -> float:
        """Restore a whole point to a directory that does not exist yet; the seconds it took."""
        return self._run("restore", point, str(target)).seconds

    def check(self) -> float:
        """Verify every stored byte; the seconds it took. Raises DemoError when it finds damage."""
        return self._run("check", "--read-data").seconds

    def stats(self) -> dict[str, float]:
        """The store's own numbers (its `stats --json`), those that are numbers."""
        answer = self._json("stats")
        if not isinstance(answer, dict):
            raise DemoError("holdfast stats --json: one object was expected")
        return {key: value for key, value in answer.items() if isinstance(value, int | float)}

    def _run(self, *words: str) -> Finished:
        return self._runner.run(
            [self.command, *words], variables={"HOLDFAST_STORE": str(self.store)}
        )

    def _json(self, *words: str) -> object:
        answer = self._run(*words, "--json").out
        try:
            return json.loads(answer)
        except ValueError as error:
            raise DemoError(f"holdfast {' '.join(words)} --json is not JSON: {error}") from None


def stored_bytes(store: Path) -> int:
    """Bytes a store occupies on disk: everything in its directory, the index included.

    Allocated blocks, so that files with holes (the index is one) count for what they take.
    """
    total = 0
    seen: set[tuple[int, int]] = set()
    for folder, _, files in os.walk(store):
        for name in files:
            try:
                found = os.lstat(os.path.join(folder, name))
            except FileNotFoundError:  # removed by a worker between listing and looking
                continue
            if (found.st_dev, found.st_ino) not in seen:
                seen.add((found.st_dev, found.st_ino))
                total += found.st_blocks * 512
    return total


def forget_cached(store: Path) -> None:
    """Ask the kernel to drop the store's files from the page cache, so that a restore reads them
    from the disk. It drops what is durable and not mapped, which a snapshot's data is.
    """
    for folder, _, files in os.walk(store):
        for name in files:
            path = os.path.join(folder, name)
            try:
                if not stat.S_ISREG(os.lstat(path).st_mode):
                    continue
                descriptor = os.open(path, os.O_RDONLY)
            except FileNotFoundError:  # removed by a worker between listing and looking
                continue
            try:
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            finally:
                os.close(descriptor)
