"""``kill -9`` of the daemon and of all it looks after, at random and at named moments, while clients and writers work.

One store lives for some rounds. In each, programs write through two mounts, and clients of both interfaces begin
sessions, send logs, commit, abandon, take snapshots and restore. Then something is killed: the daemon right after an
answer, at a moment of its work or at any, a worker, the mounter, a job. What is dead is started again, what
had no answer is asked for again, and everything is compared with what may be there. All points go to a storage
location meanwhile, whose uploads die with the rest: at the end a store made from it alone has each that was called
verified, and after the rest was sent, all of them.
"""

from __future__ import annotations

import os
import random
import statistics
from pathlib import Path

from daemon.contract import LocationSpec
from engine.errors import HoldfastError
from engine.keys import Identity
from tools.torture.kill import leaks
from tools.torture.kill.clients import Book, Client
from tools.torture.kill.commands import Command, end_all
from tools.torture.kill.heard import heard
from tools.torture.kill.place import quick
from tools.torture.kill.running import USER, Running, interpreter
from tools.torture.kill.served import Broken
from tools.torture.kill.service import MOMENTS
from tools.torture.kill.strike import Strike
from tools.torture.kill.verdict import FAR, Verdict
from tools.torture.rig import Job, Rig

ROUNDS = 200
PER_STORE = 10
FIRST = ("point made", "answer log", "job begun", "answer begin", "commit planned")
OTHERS = (
    *MOMENTS, *(f"answer {act}" for act in ("renew", "commit", "abandon", "snapshot", "restore")),
    "daemon", "worker", "workers", "daemon and workers", "job", "mounter", "all", "start", "any",
)  # fmt: skip


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
    plans = [*FIRST, *(one for one in OTHERS if one not in FIRST)]
    job.random("plans").shuffle(rest := plans[len(FIRST) :])
    plans[len(FIRST) :] = rest
    mask = os.umask(0o022)
    try:
        for number, first in enumerate(range(0, total, PER_STORE)):
            if job.wants(number):
                home = place / f"s{number}"
                home.mkdir()
                count = min(PER_STORE, total - first)
                chosen = [plans[n % len(plans)] for n in range(first, first + count)]
                Life(job, number, home, times).run(chosen)
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
        self._at = -1
        # Every other store's daemon is a user's without privilege, and has a mounter.
        user = USER if case % 2 and os.geteuid() == 0 and interpreter(USER) else ""
        self.running = Running(home, f"127.{os.getpid() % 200 + 2}.{case % 250}.1:9090", user)
        self.book = Book()
        self.clients: list[Client] = []
        self.safe = Identity.new()

    def run(self, plans: list[str]) -> None:
        """Raises Found."""
        with heard() as said:
            try:
                self._live(plans)
                if said:
                    raise Broken(f"the store complains: {said}")
            except (Broken, HoldfastError) as error:
                plan = plans[self._at] if 0 <= self._at < len(plans) else ""
                self.job.fail(self.case, f"round {self._at} ({plan}): {error}")
            finally:
                self.running.clear()
                for client in self.clients:
                    client.close()
                end_all()

    def _live(self, plans: list[str]) -> None:
        running = self.running
        running.start()
        with running.remote() as api:
            to = self.safe.recipient.printed()
            api.add_location(LocationSpec(FAR, running.place, keys=[to], verify=0.5))
        for served in running.served:
            running.wait_usable(served)
            served.make_places()
            self.clients.append(Client(running, served, self.book))
        verdict = Verdict(self.job, running, self.book, self.clients)
        verdict.judge(random.Random(0), quiet=True)
        for self._at, plan in enumerate(plans):
            rng = self.job.random(self.case, self._at)
            strike = Strike(self.job, running, self.clients, rng, plan)
            strike.run()
            self.times += strike.times
            verdict.judge(rng, quiet=rng.random() < 0.6)
            self.job.count("rounds")
            again = ", ".join(f"{took:.2f} s" for took in strike.times)
            self.job.say(
                f"store {self.case} round {self._at} ({plan}): {dict(self.job.figures)}"
                + (f"; mounted again in {again}" if again else "")
            )
        verdict.judge(random.Random(0), quiet=True)
        self.end(verdict)

    def end(self, verdict: Verdict) -> None:
        """Everything ends as it should: nothing is left of all the dead. Raises Broken."""
        running = self.running
        running.stop()
        running.listen()
        verdict.bare()
        verdict.elsewhere(self.safe, all_of_them=False)
        self._command("upload", FAR)
        verdict.elsewhere(self.safe, all_of_them=True)
        for words in (("gc",), ("check", "--read-data")):
            self._command(*words)
        self.job.count("checks clean")
        left = leaks.at_rest(self.home)
        if left:
            raise Broken(f"after the end: {left}")
        verdict.connections()
        sockets = [str(one) for one in self.home.rglob("*") if one.is_socket()]
        if [one for one in sockets if not one.endswith("mounter.sock")]:
            raise Broken(f"after the end: sockets {sockets}")

    def _command(self, *words: str) -> None:
        command = Command(self.home / "said", self.running.store, *words)
        command.wait()
        if command.status:
            raise Broken(f"'{' '.join(words)}' at the end: {command.complained}{command.said}")


RIGS = (
    Rig(
        "kill-daemon",
        "the daemon, workers, the mounter and jobs are killed beside clients and writers",
        run,
        needs=("fuse",),
        bugs=(
            "session-after-its-answer",
            "log-after-its-answer",
            "committing-for-ever",
            "planned-point-forgotten",
            "jobs-run-for-ever",
        ),
        teeth=0.015,
        test=0.01,
        alone=True,
    ),
)
