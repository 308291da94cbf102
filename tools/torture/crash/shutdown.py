"""Loss of everything a kernel had in memory, on a live stack: the shutdown ioctl of ext4 and xfs.

A worker goes through a ``Story``, telling of its steps on a pipe.  At some moment the file system beneath it is shut
down: nothing that was not written yet will be.  The worker is killed, the file system unmounted and mounted again,
and the store is judged.  The next worker goes on in what was found, so that a store lives through many losses.
"""

from __future__ import annotations

import fcntl
import logging
import os
import random
import signal
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tools.torture.crash import loopfs
from tools.torture.crash.local import judge, make, memory, worker
from tools.torture.crash.story import BEGUN, DONE, Found, Scale, Story
from tools.torture.needs import missing
from tools.torture.rig import Job, Rig
from tools.torture.run import scratch

SHUTDOWN = 0x8004587D  # FS_IOC_SHUTDOWN, the same for both
DEFAULT, LOGFLUSH, NOLOGFLUSH = 0, 1, 2  # flush all, flush the journal, flush nothing
CYCLES = 500
LIFE = 12  # cycles a store lives through
WORDS = {b"b": BEGUN, b"d": DONE}
STEPS = 400  # more than any worker gets to


class Worker:
    """A child at work; what it told is in ``words``."""

    def __init__(self, path: str, story: Story) -> None:
        self.words: list[bytes] = []
        self.trouble = b""
        self._ours, theirs = os.pipe()
        self._child = os.fork()
        if not self._child:
            os.close(self._ours)
            _live(path, story, theirs)
        os.close(theirs)

    def wait_for(self, count: int) -> None:
        """Until it told so many words, or ended."""
        while len(self.words) < count and self._read():
            pass

    def _read(self) -> bool:
        said = os.read(self._ours, 1 if not self.trouble else 65536)
        if self.trouble or said == b"!":
            self.trouble += said
        elif said:
            self.words.append(WORDS[said])
        return bool(said)

    def killed(self) -> None:
        """End it and hear the rest."""
        with suppress(ProcessLookupError):
            os.kill(self._child, signal.SIGKILL)
        while self._read():
            pass
        os.close(self._ours)
        os.waitpid(self._child, 0)


def _live(path: str, story: Story, pipe: int) -> None:
    """[child] Never returns."""
    logging.disable()  # it says a lot when it loses its disk
    try:
        worker(path, story, lambda word: _tell(pipe, word), STEPS)
    except BaseException as error:  # noqa: BLE001  (the parent hears of it)
        with suppress(OSError):
            os.write(pipe, f"!{type(error).__name__}: {error}".encode()[:4000])
    finally:
        os._exit(0)


def _tell(pipe: int, word: bytes) -> None:
    os.write(pipe, word[:1])


def shut_down(place: Path, mode: int) -> None:
    """The file system mounted there stops, as it is."""
    fd = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.ioctl(fd, SHUTDOWN, struct.pack("I", mode))
    finally:
        os.close(fd)


@contextmanager
def fresh(place: Path, kind: str) -> Iterator[tuple[str, Path]]:
    """(loop device, place to mount it) of a new file system; nothing is mounted yet."""
    image, mounted = place / "disk", place / "mounted"
    mounted.mkdir(exist_ok=True)
    loopfs.make_image(kind, image, 2)
    with loopfs.attached(image) as device:
        yield device, mounted
    image.unlink()


def run(job: Job) -> None:
    """So many cycles; a new store after every LIFE of them, every third on xfs."""
    cycles = job.size(CYCLES)
    with scratch(memory()) as place:
        for life, first in enumerate(range(0, cycles, LIFE)):
            numbers = range(first, min(first + LIFE, cycles))
            if job.case and int(job.case) not in numbers:
                continue
            kind = "xfs" if life % 3 == 1 and not missing(("xfs",)) else "ext4"
            with fresh(place, kind) as (device, mounted):
                _life(job, kind, device, mounted, numbers)


def _life(job: Job, kind: str, device: str, mounted: Path, numbers: range) -> None:
    store = str(mounted / "store")
    found: Found | None = None
    with loopfs.mounted(device, mounted, kind):
        make(store)
    for number in numbers:
        rng = job.random(number)
        mode = rng.choice((NOLOGFLUSH, NOLOGFLUSH, NOLOGFLUSH, LOGFLUSH, DEFAULT))
        seed = rng.random()
        before = Story(random.Random(seed), Scale(), found)
        with loopfs.mounted(device, mounted, kind):
            words = _lose(rng, mounted, mode, store, before)
        story = Story(random.Random(seed), Scale(), found)
        for word in words:
            story.word(word)
        with loopfs.mounted(device, mounted, kind):
            wrong, found = judge(store, story.expected())
        if wrong:
            job.fail(number, f"{kind}, shut down in mode {mode} after {story.done} steps: {wrong}")
        job.count("losses")
        job.count("steps done", story.done)
        job.count(f"of {kind}")


def _lose(rng: random.Random, mounted: Path, mode: int, store: str, story: Story) -> list[bytes]:
    """What a worker told before the file system was shut down beneath it."""
    working = Worker(store, story)
    try:
        working.wait_for(rng.randrange(60))
        time.sleep(rng.choice((0, 0, rng.random() * 0.01)))
        if working.trouble:
            raise RuntimeError(f"the worker: {working.trouble.decode()}")
        shut_down(mounted, mode)
    finally:
        working.killed()
    return working.words


RIGS = (
    Rig(
        "crash-shutdown",
        "the file system beneath a store loses everything not yet written, again and again",
        run,
        needs=("loop",),
        bugs=("data-sync-skipped", "index-sync-off", "index-metasync-off"),
    ),
)
