"""``kill -9`` of workers and commands at random moments, under a mixed load through real mounts.

One store lives for some rounds.  In each, writers work through two mounts; beside them run snapshots, a removal, a
collection, a check, a restore; at random moments some of all these processes are killed.  Then what is dead is
mounted again, and everything there is compared with what may be there.
"""

from __future__ import annotations

import contextlib
import os
import random
import statistics
import subprocess
import time
from pathlib import Path

from engine import Store
from engine.errors import HoldfastError
from tools.torture.kill import leaks
from tools.torture.kill.book import Book
from tools.torture.kill.commands import Command, end_all, mounts, processes
from tools.torture.kill.heard import heard
from tools.torture.kill.place import quick
from tools.torture.kill.round import Round
from tools.torture.kill.served import Broken, Served
from tools.torture.rig import Job, Rig

ROUNDS = 200
PER_STORE = 10
AGAIN = 2.0  # s in which a mount must be there again
TRIES = 3  # on a machine that does other things as well
COMMAND = 0.2  # s that a small command takes on an idle one


def run(job: Job) -> None:
    """Stores one after the other; a case is one store. At full size they lie on the disk."""
    if job.scale >= 1:
        _run(job, job.scratch)
        return
    with quick(job) as place:
        _run(job, place)


def _run(job: Job, place: Path) -> None:
    total = job.size(ROUNDS)
    times: list[float] = []
    mask = os.umask(0o022)
    try:
        for number, first in enumerate(range(0, total, PER_STORE)):
            if job.wants(number):
                home = place / f"store-{number}"
                home.mkdir()
                Life(job, number, home, times).run(min(PER_STORE, total - first))
    finally:
        os.umask(mask)
    if times:
        job.note(
            f"mounted again in {statistics.median(times):.2f} s (median), {max(times):.2f} s (worst)"
        )


class Life:
    """One store from its start to its end."""

    def __init__(self, job: Job, case: int, home: Path, times: list[float]) -> None:
        self.job = job
        self.case = case
        self.home = home
        self.times = times
        self.book = Book()
        self._at = -1

    def run(self, rounds: int) -> None:
        """Raises Found."""
        store = self.home / "store"
        Store.init(str(store))
        with Store.open(str(store)) as opened:
            for name in ("a", "b"):
                opened.create_mount(name)
        served = [Served(self.home, "a"), Served(self.home, "b", ("script", "pages"))]
        with heard() as said:
            try:
                self._live(served, rounds)
                if said:
                    raise Broken(f"the store complains: {said}")
            except (Broken, HoldfastError) as error:
                self.job.fail(self.case, f"round {self._at}: {error}")
            finally:
                clear(self.home, served)

    def _live(self, served: list[Served], rounds: int) -> None:
        for one in served:
            one.start()
            one.make_places()
        for self._at in range(rounds):
            rng = self.job.random(self.case, self._at)
            Round(self.job, self.home, served, self.book, rng, self._at).run(self.mounted)
            self.job.count("rounds")
            self.job.say(f"store {self.case} round {self._at}: {dict(self.job.figures)}")
        self.end(served)

    def mounted(self, served: Served, rng: random.Random) -> None:
        """Mount again what is dead, in time. Raises Broken."""
        background = rng.random() < 0.25
        if rng.random() < 0.2:
            served.kill_while_starting(rng.uniform(0, 0.4), background=rng.random() < 0.6)
            self.job.count("kills of a worker starting")
        if served.pid:
            return  # what was killed had done its work
        took = served.start(background=background)
        self.times.append(took)
        if took > AGAIN:
            self.job.count("mounts later than 2 s")
            self.quietly(served)

    def quietly(self, served: Served) -> None:
        """Once more, compared with how long this machine takes now to start a command. Raises Broken."""
        found = []
        for _ in range(TRIES):
            served.kill()
            began = time.monotonic()
            Command(self.home / "said", self.home / "store", "points").wait()
            busy = max(1.0, (time.monotonic() - began) / COMMAND)
            took = served.start()
            if took <= AGAIN * busy:
                return
            found.append(f"{took:.1f} s on a machine {busy:.1f} times as slow as an idle one")
        raise Broken(f"{served.name} was mounted again after {', '.join(found)}")

    def end(self, served: list[Served]) -> None:
        """Everything ends as it should: nothing is left of all the dead. Raises Broken."""
        for one in served:
            one.let_go()
        for words in (*(("umount", str(one.where)) for one in served), ("gc",), ("check", "--read-data")):  # fmt: skip
            command = Command(self.home / "said", self.home / "store", *words)
            command.wait()
            if command.status:
                raise Broken(f"'{' '.join(words)}' at the end: {command.complained}{command.said}")
        for one in served:
            one.pid = 0
        left = leaks.at_rest(self.home)
        if left:
            raise Broken(f"after the end: {left}")


def clear(home: Path, served: list[Served]) -> None:
    """Whatever happened: nothing runs and nothing is mounted."""
    for one in served:
        if one.pid:
            one.kill()
        for writer in one.writers:
            writer.stop()
        one.let_go()
    end_all()
    for pid in processes(home):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, 9)
    for place in mounts(home):
        subprocess.run(["fusermount3", "-uz", place], capture_output=True, check=False)


RIGS = (
    Rig(
        "kill-mounts",
        "workers and commands are killed at random moments under a mixed load through mounts",
        run,
        needs=("fuse",),
        bugs=(
            "dead-mount-stays",
            "snapshot-early-word",
            "fsync-without-commit",
            "adopted-too-short",
            "worker-lock-let-go",
        ),
        teeth=0.02,
        test=0.025,
        alone=True,
    ),
)
