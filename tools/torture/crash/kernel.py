"""A power cut of a whole kernel, FUSE included: a User-Mode Linux is killed while it serves and uses a mount.

The guest (``guest``) runs the host's own files; its disk is an image of ext4, which is mounted here after the kill and
judged like every other.
"""

from __future__ import annotations

import os
import random
import shlex
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from tools.torture.bugs import VARIABLE, chosen
from tools.torture.crash import loopfs
from tools.torture.crash.guest import MARK, READY, TROUBLE, scale
from tools.torture.crash.local import judge, make, memory
from tools.torture.crash.story import BEGUN, DONE, Story
from tools.torture.rig import Job, Rig
from tools.torture.run import scratch

CUTS = 10
BOOT = 90  # s until the guest must have its mount, on a busy machine
WORDS = {b"b": BEGUN, b"d": DONE}
ROOT = Path(__file__).resolve().parents[3]


def unneeded(place: Path) -> Path:
    """A directory of this machine that nothing of ours is in: the guest puts its own things there."""
    ours = (ROOT, place, Path(sys.prefix), Path(sys.base_prefix), Path(sys.executable).resolve())
    for path in map(Path, ("/mnt", "/media", "/srv", "/opt")):
        if path.is_dir() and not any(one.is_relative_to(path) for one in ours):
            return path
    raise RuntimeError("no directory for the guest: /mnt, /media, /srv and /opt are all in use")


class Machine:
    """A User-Mode Linux at work on a disk. ``words``: what it told."""

    def __init__(self, place: Path, image: Path, seed: float) -> None:
        self.words: list[bytes] = []
        init = place / "init"
        init.write_text(
            "#!/bin/sh\n"
            f"export PATH={shlex.quote(os.environ['PATH'])} PYTHONPATH={shlex.quote(str(ROOT))}\n"
            f"export PYTHONDONTWRITEBYTECODE=1 {VARIABLE}={shlex.quote(chosen())}\n"
            f"exec {shlex.quote(sys.executable)} -m tools.torture.crash.guest {seed} {unneeded(place)}\n"
        )
        init.chmod(0o755)
        command = [
            "linux.uml", "mem=320M", "root=/dev/root", "rootfstype=hostfs", "rootflags=/", "ro", f"init={init}",
            f"ubd0={image}", f"uml_dir={place}/uml", "con=null", "con0=fd:0,fd:1", "quiet",
        ]  # fmt: skip
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            start_new_session=True, env={**os.environ, "TMPDIR": memory() or str(place)},
        )  # fmt: skip
        assert self._process.stdin and self._process.stdout
        self._pipes = self._process.stdin, self._process.stdout
        self._to, self._from = (pipe.fileno() for pipe in self._pipes)
        self._said = b""

    def boot(self) -> None:
        """Until its mount is there."""
        end = time.monotonic() + BOOT
        while MARK + READY not in self._said:
            more = os.read(self._from, 4096)
            self._said += more
            if not more or MARK + TROUBLE in self._said or time.monotonic() > end:
                raise RuntimeError(f"no machine: {self._rest()}")
        self._said = self._said.partition(MARK + READY)[2]

    def listen(self, count: int) -> None:
        """Until it told so many words in all."""
        while len(self.words) < count:
            self._take()
            if len(self.words) < count:
                more = os.read(self._from, 4096)
                if not more:
                    raise RuntimeError("the machine ended")
                self._said += more

    def _take(self) -> None:
        while MARK in self._said[:-1]:
            at = self._said.index(MARK)
            word, self._said = self._said[at + 1 : at + 2], self._said[at + 2 :]
            if word == TROUBLE:
                raise RuntimeError(f"the guest: {self._rest()}")
            self.words.append(WORDS[word])
            if WORDS[word] == BEGUN:
                with suppress(BrokenPipeError):
                    os.write(self._to, b".")

    def _rest(self) -> str:
        time.sleep(0.5)
        os.set_blocking(self._from, False)
        with suppress(BlockingIOError):
            while more := os.read(self._from, 4096):
                self._said += more
        return self._said.decode(errors="replace")

    def cut(self) -> None:
        """The power goes; what it told before is heard."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        os.set_blocking(self._from, True)
        while more := os.read(self._from, 4096):
            self._said += more
        self._take()
        self._process.wait()
        for pipe in self._pipes:
            pipe.close()


def run(job: Job) -> None:
    """So many cuts, each of a new store."""
    for number in range(job.size(CUTS)):
        if job.wants(number):
            with scratch() as place, scratch(memory()) as fast:
                _cut(job, place, fast, number)


def _cut(job: Job, place: Path, fast: Path, number: int) -> None:
    rng = job.random(number)
    seed = rng.random()
    image, mounted = fast / "disk", fast / "mounted"
    mounted.mkdir()
    loopfs.make_image("ext4", image, 4)
    with loopfs.attached(image) as device, loopfs.mounted(device, mounted, "ext4"):
        make(str(mounted / "store"))
    machine = Machine(place, image, seed)
    try:
        machine.boot()
        machine.listen(rng.randrange(60, 400))
        time.sleep(rng.random() * 0.1)
    finally:
        machine.cut()
    story = Story(random.Random(str(seed)), scale())
    for word in machine.words:
        story.word(word)
    with (
        loopfs.attached(image) as device,
        loopfs.mounted(device, mounted, "ext4"),
    ):
        wrong = judge(str(mounted / "store"), story.expected())[0]
    if wrong:
        job.fail(number, f"the kernel was cut after {story.done} steps: {wrong}")
    job.count("kernels cut")
    job.count("steps done", story.done)


RIGS = (
    Rig(
        "crash-kernel",
        "a whole kernel is cut off while it serves a mount through FUSE and programs write in it",
        run,
        needs=("kernel", "loop", "fuse"),
        bugs=("mount-not-laundered",),
        test=0.1,
    ),
)
