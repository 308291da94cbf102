"""The demonstration's scratch directory: made, described by a marker file, and removed safely.

Invariant: nothing is removed while a file system is mounted below the directory, and no directory
is removed that does not carry the marker; so a removal can never reach through a mount, nor hit
something else because of a wrong path.
"""

from __future__ import annotations

import json
import os
import shutil
import stat
import tempfile
import time
from pathlib import Path

from tools.demolib.commands import Argument, Runner
from tools.demolib.console import DemoError, size_text
from tools.demolib.holdfast import Holdfast
from tools.demolib.mountinfo import mounts_below

MARKER = "holdfast-demo.json"
# A worker that is going away may still write a last file while its directory is removed.
_REMOVE_TRIES = 5
_REMOVE_PAUSE_S = 0.5


class Scratch:
    """One scratch directory and the places in it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.store = path / "store"
        self.mounts = path / "mnt"
        self.sources = path / "sources"
        self.restored = path / "restored"

    @classmethod
    def make(cls, parent: Path | None, need: int) -> Scratch:
        """A new directory below `parent` (the system's place for large temporary files unless
        told), with room for `need` bytes. Others may pass through it, not list it: PostgreSQL
        may run as another user. Raises DemoError when there is no room or no such place.
        """
        place = parent if parent is not None else Path(os.environ.get("TMPDIR") or "/var/tmp")
        try:
            free = shutil.disk_usage(place).free
            if free < need:
                raise DemoError(
                    f"{place} has {size_text(free)} free, and {size_text(need)} are needed: "
                    "choose another place with --dir, or do less with --scale"
                )
            # A mount point may hold no symlink: the kernel lists it by its real path.
            path = Path(os.path.realpath(tempfile.mkdtemp(prefix="holdfast-demo-", dir=place)))
        except OSError as error:
            raise DemoError(f"no scratch directory in {place}: {error.strerror}") from None
        path.chmod(0o711)
        self = cls(path)
        (path / MARKER).write_text(json.dumps({"made_by": "holdfast demo"}) + "\n")
        for folder in (self.mounts, self.sources, self.restored):
            folder.mkdir()
        return self

    @classmethod
    def find(cls, path: Path) -> Scratch:
        """The scratch directory that an earlier run left at `path`. Raises DemoError when it is
        none.
        """
        real = Path(os.path.realpath(path))
        if not (real / MARKER).is_file():
            raise DemoError(f"{path} was not made by the demonstration: it has no {MARKER}")
        return cls(real)

    def release(self, runner: Runner, holdfast: Holdfast) -> list[str]:
        """Unmount everything below; what could not be unmounted, one line each."""
        for point in mounts_below(self.path):
            try:
                holdfast.umount(point)
            except DemoError as error:
                runner.console.detail(f"{error}\n    taking {point} off by force")
            if point in mounts_below(self.path):
                _detach(runner, point)
        return [f"{point} is still mounted" for point in mounts_below(self.path)]

    def remove(self) -> None:
        """Remove the directory. Raises DemoError when something is mounted below it, or when it
        cannot be removed.
        """
        if mounts_below(self.path):
            raise DemoError(f"{self.path} is kept: something is still mounted below it")
        if not (self.path / MARKER).is_file():
            raise DemoError(f"{self.path} is kept: it has no {MARKER}")
        for last in (False,) * (_REMOVE_TRIES - 1) + (True,):
            try:
                remove_tree(self.path)
                return
            except OSError as error:
                if last:
                    raise DemoError(f"{self.path} cannot be removed: {error}") from None
            time.sleep(_REMOVE_PAUSE_S)


def remove_tree(path: Path) -> None:
    """Remove a directory and all below it, also directories that their owner may not write."""
    if os.geteuid() != 0:
        for folder, _, _ in os.walk(os.fsencode(path)):
            os.chmod(folder, stat.S_IMODE(os.lstat(folder).st_mode) | stat.S_IRWXU)
            # os.walk lists a directory before it hands it out; one that could not be listed
            # comes without members.
            for member in os.scandir(folder):
                if member.is_dir(follow_symlinks=False):
                    os.chmod(member.path, 0o700)
    shutil.rmtree(path)


def _detach(runner: Runner, point: Path) -> None:
    """Take a mount off although something uses it, or its worker does not answer."""
    ways: list[list[Argument]] = [["fusermount3", "-uz", point]]
    if os.geteuid() == 0:
        ways.append(["umount", "-l", point])
    for way in ways:
        try:
            runner.run(way, limit=30.0)
        except DemoError:
            continue
        return
