"""Rig ``crash-points``: the power fails at every call that changes something, and the disk keeps what it likes.

A session is recorded by strace (``trace``), replayed into a model of the disk (``disk``), and cut everywhere; what each
cut may leave is made, opened, checked and compared with what had been acknowledged (``account``).  Some of these
states are opened under strace again: a recovery is cut too.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from engine.errors import HoldfastError
from tools.torture import bugs
from tools.torture.bugs import plant_chosen
from tools.torture.crash import trace
from tools.torture.crash.account import Account, Expected, judged
from tools.torture.crash.disk import STYLES, Disk, State, Style
from tools.torture.crash.session import Plan, small_limits
from tools.torture.crash.trace import Event
from tools.torture.rig import Job, Rig

STATES = 10_000
FROM_ONE = 1_400  # states taken from one session: more sessions are more variety
OPERATIONS = 140  # of a session
SECOND = 0.02  # part of the states of which the recovery is cut as well
OF_SECOND = 40  # states of such a recovery
OVER = 1.3 / (1 + SECOND * OF_SECOND)  # of those drawn, some are equal to others
FURTHER = 0.05  # part of the states that are gone on with, collected, and rebuilt
FURTHER_TORN = (
    0.4  # the same of states in which some data is there and some is not: what is gone on behind
)
CORES = 2
MEMORY = "/dev/shm"


class SessionError(AssertionError):
    """A session ended with an error."""


@dataclass
class Finding:
    """A state that broke a promise. It is kept: a session's threads never run in quite the same order again."""

    case: str
    text: str


@dataclass
class Tally:
    """What one process has done."""

    digests: set[bytes] = field(default_factory=set)
    cuts: int = 0
    recoveries: int = 0
    finding: Finding | None = None


@dataclass(frozen=True)
class Recording:
    """A session as it was recorded."""

    plan: Plan
    events: list[Event]
    start: State | None = None  # what was there before
    first: Expected | None = None  # of a recovery: what was expected before it


def record(plan: Plan, folder: Path) -> list[Event]:
    """Run a session under strace. Raises SessionError when it fails of itself: nothing was cut yet."""
    output = folder / "trace"
    wrong = trace.record(plan.command(), output, {})
    if wrong:
        raise SessionError(wrong)
    events = trace.read(output, plan.store, plan.marks)
    output.unlink()
    return events


def cuts(recording: Recording) -> Iterator[tuple[int, Disk, Expected]]:
    """Every moment at which a cut can make a difference: its number, the disk, what is expected."""
    disk = Disk(recording.start)
    account = Account(recording.plan.random("script"))
    recovered = False
    for number, event in enumerate(recording.events):
        changed = disk.feed(event)
        if event.kind == "mark":
            recovered = recovered or event.path == "done recovery"
            if recording.first is None:
                account.feed(event.path)
        elif not changed:
            continue
        if recording.first is None:
            yield number, disk, account.expected()
        else:
            yield number, disk, replace(recording.first, recovered=recovered)


class Examiner:
    """Makes states in a directory and judges them, in one process."""

    def __init__(self, folder: Path, chance: random.Random, only: str) -> None:
        self.tally = Tally()
        self._folder = folder
        self._chance = chance
        self._only = only
        self._known: dict[int, tuple[bytes, bytes]] = {}

    def state(self, case: str, state: State, expected: Expected, further: float) -> bool:
        """Judge one state; False when it was seen before."""
        digest = state.digest(self._known)
        if len(self._known) > 2_000:
            self._known.clear()  # they keep their contents
        if digest in self.tally.digests and not self._only:
            return False
        self.tally.digests.add(digest)
        place = self._folder / "state"
        place.mkdir()
        state.write(str(place))
        try:
            wrong = judged(
                str(place), expected, further=bool(self._only) or self._chance.random() < further
            )
        except (HoldfastError, AssertionError, OSError) as error:
            wrong = f"{type(error).__name__}: {error}"
        shutil.rmtree(place)
        if wrong:
            if not bugs.chosen():  # a planted bug is found again whenever it is wanted
                kept = tempfile.mkdtemp(prefix="holdfast-torn-")
                state.write(kept)
                wrong = f"{wrong} (that disk is kept in {kept})"
            self.tally.finding = Finding(case, wrong)
        return True

    def session(self, recording: Recording, share: tuple[int, int], wanted: int, name: str) -> None:
        """Judge this process's share of the states of a recording, about ``wanted`` of them in all."""
        moments = sum(event.kind != "mark" for event in recording.events)
        # Some states are equal to others; those of cut recoveries come on top.
        share_of_all = OVER * wanted / max(1, moments * len(STYLES))
        each, rate = max(1, round(share_of_all)), min(1.0, share_of_all)
        for number, disk, expected in cuts(recording):
            self.tally.cuts += number % share[1] == share[0]
            for style in STYLES:
                for turn in range(each):
                    case = f"{name}/{number}/{style.name}/{turn}"
                    rng = random.Random(case)
                    if self._only:
                        if not self._only.startswith(case):
                            continue
                    elif number % share[1] != share[0] or rng.random() >= rate:
                        continue
                    self._one(case, disk, style, rng, expected, recording)
                    if self.tally.finding:
                        return

    def _one(
        self,
        case: str,
        disk: Disk,
        style: Style,
        rng: random.Random,
        expected: Expected,
        recording: Recording,
    ) -> None:
        state = disk.state(style, rng)
        partly = style.torn or style.name in ("pages", "mixed")
        fresh = self.state(case, state, expected, FURTHER_TORN if partly else FURTHER)
        second = recording.first is None and expected.made and fresh and rng.random() < SECOND
        if self.tally.finding or not (second or len(self._only) > len(case)):
            return
        self.tally.recoveries += 1
        self._recovery(case, state, expected, recording.plan)

    def _recovery(self, case: str, state: State, expected: Expected, plan: Plan) -> None:
        """Cut the recovery of a state."""
        with tempfile.TemporaryDirectory(dir=self._folder) as folder:
            store = Path(folder, "store")
            store.mkdir()
            state.write(str(store))
            again = replace(plan, store=str(store), marks=f"{folder}/marks", again=True)
            events = record(again, Path(folder))
        recording = Recording(again, events, state, expected)
        self.session(recording, (0, 1), OF_SECOND, f"{case}/again")


def _work(
    recording: Recording, share: tuple[int, int], wanted: int, name: str, only: str, folder: str
) -> Tally:
    small_limits()
    plant_chosen()
    place = Path(tempfile.mkdtemp(dir=folder))
    examiner = Examiner(place, random.Random(name), only)
    examiner.session(recording, share, wanted, name)
    return examiner.tally


def run(job: Job) -> None:
    """Sessions until there are as many distinct states as wanted."""
    wanted = job.size(STATES, 20)
    with tempfile.TemporaryDirectory(dir=MEMORY if os.path.isdir(MEMORY) else None) as folder:
        done: set[bytes] = set()
        number = 0
        while len(done) < wanted:
            number += 1
            if job.case and job.case.split("/")[0] != str(number):
                continue
            _session(job, number, max(100, min(FROM_ONE, wanted - len(done))), done, folder)
            if job.case:
                return


def _session(job: Job, number: int, wanted: int, done: set[bytes], folder: str) -> None:
    began = time.monotonic()
    place = Path(folder, f"session-{number}")
    place.mkdir()
    plan = Plan(
        str(place / "store"),
        str(place / "marks"),
        job.random("session", number).randrange(10**9),
        OPERATIONS,
    )
    try:
        events = record(plan, place)
    except SessionError as error:
        job.fail(number, f"without any power cut: {error}")
    shutil.rmtree(place / "store")
    recording = Recording(plan, events)
    job.count("sessions")
    job.count("calls recorded", len(events))
    context = multiprocessing.get_context("fork")
    with context.Pool(CORES) as pool:
        shares = [
            (recording, (share, CORES), wanted, str(number), job.case, folder)
            for share in range(CORES)
        ]
        tallies = pool.starmap(_work, shares)
    before = len(done)
    for tally in tallies:
        done |= tally.digests
        job.count("cuts", tally.cuts)
        job.count("recoveries cut", tally.recoveries)
        if tally.finding:
            job.fail(tally.finding.case, tally.finding.text)
    job.count("distinct states", len(done) - before)
    job.say(
        f"session {number}: {len(events)} calls, {len(done) - before} states, {time.monotonic() - began:.0f} s"
    )


RIGS = (
    Rig(
        "crash-points",
        "power cut at every call, unsynced writes and names lost, mixed or torn",
        run,
        ("strace",),
        bugs=(
            "data-sync-skipped",
            "file-sync-skipped",
            "directory-sync-skipped",
            "new-folder-sync-skipped",
            "index-sync-off",
            "index-metasync-off",
            "commit-before-data",
            "nodes-not-synced",
            "fsync-without-commit",
            "barrier-without-seal",
            "early-size",
            "tail-trusted",
            "write-cut-short",
        ),
        teeth=0.05,
        test=0.02,  # one recorded session, every style of cut
    ),
)
