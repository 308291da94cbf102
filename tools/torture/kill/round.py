"""One round: what runs, what of it is killed when, and what is compared afterwards."""

from __future__ import annotations

import os
import random
import shutil
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from engine import Store
from engine.errors import NotFound
from engine.store import PointInfo
from tools.torture.crash.engine_files import observe_point
from tools.torture.history import Seen
from tools.torture.kill import leaks
from tools.torture.kill.book import Book, Taking, fingerprint
from tools.torture.kill.commands import BUSY, LONGEST, Command
from tools.torture.kill.served import Broken, Served
from tools.torture.rig import Job
from tools.torture.workload import observe

_LOOK = 0.003  # s between looks at what has ended
_PAUSE = 0.012  # s a writer rests after an operation, at most
POINTS_MAX = 6  # of a mount; more are removed
Again = Callable[[Served, random.Random], None]


class Round:
    """See the module."""

    def __init__(
        self, job: Job, home: Path, served: list[Served], book: Book, rng: random.Random, number: int
    ) -> None:  # fmt: skip
        self._job = job
        self._home = home
        self._store = home / "store"
        self._served = served
        self._book = book
        self._rng = rng
        self._number = number
        self._running: list[tuple[Command, Callable[[Command], None]]] = []
        self._removing = ""
        self._dead_readers: list[str] = []  # points that a killed restore was reading

    def run(self, mounted: Again) -> None:
        """Raises Broken."""
        rng = self._rng
        for served in self._served:
            served.write(rng, _PAUSE)
        self._storm()
        for served in self._served:
            served.rest()
        for taking in self._book.takings:
            taking.ended()  # where it has not: whatever it will hold was begun by now
        for served in self._served:
            if served.died:
                mounted(served, rng)
        self._finish()
        for served in self._served:
            served.let_go()
            served.compare()
        self._judge()
        left = leaks.while_served(self._home, {one.name: one.pid for one in self._served})
        if left:
            raise Broken(left)

    # --- what happens at once -------------------------------------------------------------------------------

    def _storm(self) -> None:
        """Commands begin and processes die, each at its moment."""
        rng = self._rng
        span = rng.uniform(0.25, 0.7)
        todo: list[tuple[float, Callable[[], object]]] = []
        for begin in self._commands():
            at = rng.uniform(0, span)
            todo.append((at, begin))
        if not self._number:
            todo.append((span, self._words))
        for served in self._victims():
            at = rng.uniform(0.1, span) if self._number else span
            todo.append((at, partial(self._kill_worker, served)))
        todo.sort(key=lambda item: item[0])
        began = time.monotonic()
        while todo:
            if time.monotonic() - began >= todo[0][0]:
                todo.pop(0)[1]()
            self._look()
            time.sleep(_LOOK)
        doomed = [one for one, _ in self._running if rng.random() < 0.6]
        ends = {id(one): time.monotonic() + rng.uniform(0, 0.35) for one in doomed}
        while doomed:
            for one in [one for one in doomed if time.monotonic() >= ends[id(one)] or one.ended]:
                doomed.remove(one)
                if not one.ended:
                    one.kill()
                    self._job.count(f"kills of {one.arguments[0]}", one.killed)
            self._look()
            time.sleep(_LOOK)

    def _words(self) -> None:
        """In the first round workers die when the snapshots have said their words, and were killed for it."""
        end = time.monotonic() + LONGEST
        while any(not one.command.ended for one in self._book.takings) and time.monotonic() < end:
            self._look()
            time.sleep(_LOOK)

    def _victims(self) -> list[Served]:
        """Workers that die in this round. In the first one, all."""
        if not self._number:
            return list(self._served)
        return [one for one in self._served if self._rng.random() < 0.6]

    def _kill_worker(self, served: Served) -> None:
        served.kill()
        self._job.count("kills of a worker")

    def _commands(self) -> list[Callable[[], object]]:
        """What runs beside the writers."""
        rng = self._rng
        chosen: list[Callable[[], object]] = [
            partial(self._take, served)
            for served in self._served
            if not self._number or rng.random() < 0.6
        ]
        points = sorted(self._book.prints.keys() - self._book.gone)
        if points and (len(points) > POINTS_MAX or rng.random() < 0.5):
            self._removing = rng.choice(points)
            chosen.append(lambda: self._remove(self._removing))
        if points and rng.random() < 0.5:
            point = self._removing if self._removing and rng.random() < 0.4 else rng.choice(points)
            chosen.append(lambda: self._restore(point))
        if rng.random() < 0.6:
            chosen.append(lambda: self._begin(self._collected, "gc"))
        if rng.random() < 0.3:
            chosen.append(lambda: self._begin(self._checked, "check", "--read-data"))
        return chosen

    def _begin(self, then: Callable[[Command], None], *words: str) -> Command:
        command = Command(self._home / "said", self._store, *words)
        self._running.append((command, then))
        self._job.count(f"{words[0]} commands")
        return command

    def _look(self) -> None:
        """See what has ended. A snapshot that said its word is killed at that moment, every other time."""
        for taking in self._book.takings:
            if not taking.pictures and not taking.command.ended and taking.point:
                taking.ended()
                if not self._number or self._rng.random() < 0.5:
                    taking.command.kill()
                    self._job.count("kills at the word of a snapshot", taking.command.killed)
        for command, then in list(self._running):
            if command.ended:
                self._running.remove((command, then))
                for taking in self._book.takings:
                    if taking.command is command:
                        taking.ended()
                wrong = command.wrong()
                if wrong:
                    raise Broken(wrong)
                then(command)

    def _finish(self) -> None:
        """Wait for what was not killed."""
        end = time.monotonic() + LONGEST
        while self._running:
            self._look()
            if time.monotonic() > end:
                stuck = self._running[0][0]
                stuck.ask_where()
                raise Broken(f"'{' '.join(stuck.arguments)}' does not end: {stuck.complained}")
            time.sleep(_LOOK)

    # --- commands and what their end must be ----------------------------------------------------------------

    def _take(self, served: Served) -> None:
        label = f"round {self._number} of {served.name}"

        def begin(text: str) -> Command:
            return self._begin(lambda _: None, "snapshot", served.name, "--label", text)

        self._book.takings.append(Taking(served, label, begin))

    def _remove(self, point: str) -> None:
        self._begin(partial(self._book.removal_ended, point), "rm", point)

    def _collected(self, command: Command) -> None:
        if not command.killed and command.status not in (0, BUSY):
            raise Broken(f"the collection failed: {command.complained}")

    def _checked(self, command: Command) -> None:
        if not command.killed and command.status:
            raise Broken(f"the check found damage: {command.said}{command.complained}")

    def _restore(self, point: str) -> None:
        target = self._home / f"restored-{self._number}"

        def ended(command: Command) -> None:
            if command.killed:
                self._dead_readers.append(point)
                if point in self._book.gone | self._book.going or point == self._removing:
                    shutil.rmtree(target, ignore_errors=True)
                else:  # again, over what the dead one has left
                    self._begin(ended, "restore", "--force", point, str(target))
                return
            if command.status in (NotFound.kind.exit, BUSY) and point == self._removing:
                return
            if command.status:
                raise Broken(f"restoring {point} failed: {command.complained}")
            if fingerprint(observe(os.fsencode(target))) != self._book.prints[point]:
                raise Broken(f"what was restored of {point} is not what it held")
            shutil.rmtree(target)

        self._begin(ended, "restore", point, str(target))

    # --- afterwards -----------------------------------------------------------------------------------------

    def _judge(self) -> None:
        """Points are what they may be, and the store is sound beside its living mounts."""
        rng = self._rng
        where = {one.name: os.fsencode(one.where) for one in self._served}
        with Store.open(str(self._store)) as store:

            def look(point: PointInfo) -> dict[bytes, Seen]:
                if rng.random() < 0.5:
                    return observe_point(store.glance(point.id))
                try:
                    folder = os.path.join(where[point.mount], b".snapshots", point.id.encode())
                    return observe(folder)
                except OSError as error:
                    raise Broken(f"point {point.id} cannot be read: {error!r}") from None

            self._job.count("points compared", self._book.compare(store.points(), look, 1))
            report = store.check(read_data=True)
        if report.problems:
            found = [f"{p.code} {p.thing} {p.text}" for p in report.problems[:5]]
            raise Broken(f"the check finds {found}")
        self._job.count("checks clean")
        self._remove_again()

    def _remove_again(self) -> None:
        """A point that a dead restore was reading can be removed."""
        for point in dict.fromkeys(self._dead_readers):
            if point not in self._book.gone:
                self._begin(partial(self._book.removal_ended, point), "rm", point)
                self._finish()
                if point not in self._book.gone:
                    raise Broken(f"point {point} cannot be removed, though nobody reads it any more")  # fmt: skip
