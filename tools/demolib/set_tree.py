"""The source tree: one stream by tar and a mirror by rsync, with edits between the days."""

from __future__ import annotations

import hashlib
import random
import re
import subprocess
import time
from pathlib import Path

from tools.demolib import sourcetree
from tools.demolib.commands import Argument, Runner, stop_process
from tools.demolib.console import DemoError, size_text
from tools.demolib.dataset import DataSet, Written
from tools.demolib.witness import Tree, below, compare, content_bytes, note

MIRROR = "source"
STREAM = "source.tar"
# All that makes two streams of one tree differ is fixed: the order of names, times of access and
# change, and the process id in the names of extended headers.
_TAR = (
    "tar", "--create", "--format=posix", "--xattrs", "--sort=name",
    "--pax-option=exthdr.name=%d/PaxHeaders/%f,delete=atime,delete=ctime",
)  # fmt: skip
# -1: times are compared to the nanosecond. Without it, what changed within one second and kept
# its size would be left out.
_RSYNC = ("rsync", "-aHXS", "--inplace", "--delete", "--modify-window=-1", "--stats")
_TRANSFERRED = re.compile(r"^Total transferred file size: ([0-9,]+) bytes$", re.MULTILINE)
_PIECE = 1 << 20


class TreeSet(DataSet):
    """The tree set; the tree lives on the local disk, below `place`."""

    name = "tree"
    title = "a source tree, by tar and by rsync --inplace --delete"

    def __init__(self, runner: Runner, place: Path, scale: float) -> None:
        self._runner = runner
        self._root = place / "tree"
        self._scale = scale
        self._random = random.Random("the demonstration's tree")
        self._truth: dict[int, Tree] = {}
        self._stream: dict[int, tuple[int, str]] = {}

    @property
    def proof(self) -> str:
        return "modes, owners, times, xattrs, links, odd names"

    def prepare(self) -> str:
        files, size = sourcetree.make(self._root, self._scale)
        return f"{files:,} files, {size_text(size)}, and every awkward thing a tree can hold"

    def change(self, day: int) -> str:
        counts = sourcetree.edit(self._root, day, self._random)
        return "files " + ", ".join(f"{word} {count}" for word, count in counts.items())

    def write(self, day: int, into: Path) -> Written:
        stream = into / STREAM
        started = time.monotonic()
        self._runner.run([*_TAR, "--file", stream, "--directory", self._root, "."])
        said = self._runner.run([*_RSYNC, f"{self._root}/", f"{into / MIRROR}/"]).out
        seconds = time.monotonic() - started
        match = _TRANSFERRED.search(said)
        if not match:
            raise DemoError(f"rsync --stats did not say what it transferred:\n{said}")
        handed = stream.stat().st_size + int(match[1].replace(",", ""))
        return Written("tar, and rsync --inplace --delete", handed, seconds)

    def verify_live(self, day: int, live: Tree) -> list[str]:
        self._truth[day] = note(self._root)
        self._stream[day] = self._stream_digest()
        return self._differences(day, live)

    def prove(self, day: int, restored: Path, found: Tree) -> list[str]:
        return self._differences(day, found)

    def logical(self, day: int) -> int:
        return self._stream[day][0] + content_bytes(self._truth[day])

    def close(self) -> None:
        """Nothing runs between the calls."""

    def _differences(self, day: int, tree: Tree) -> list[str]:
        """In which ways a mount or a restored point differs from the source of that day."""
        lines = compare(self._truth[day], below(tree, MIRROR.encode()))
        stream = tree.get(STREAM.encode())
        if stream is None or (stream.size, stream.sha256) != self._stream[day]:
            lines.append(f"{STREAM} is not the stream that tar makes of the source")
        return lines

    def _stream_digest(self) -> tuple[int, str]:
        """Size and SHA-256 of today's stream, made again and kept nowhere."""
        argv: list[Argument] = [*_TAR, "--file", "-", "--directory", self._root, "."]
        # What tar has to say goes to our own standard error: only the stream is read.
        process = self._runner.start(argv, output=subprocess.PIPE, stderr=2)
        size, digest = 0, hashlib.sha256()
        try:
            assert process.stdout is not None
            with process.stdout as pipe:
                while piece := pipe.read(_PIECE):
                    size += len(piece)
                    digest.update(piece)
            status = self._runner.wait(process, "tar")
        finally:
            stop_process(process)
        if status:
            raise DemoError(f"tar: exit status {status}")
        return size, digest.hexdigest()
