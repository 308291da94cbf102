"""A mount of the store under attack: its worker, which is killed and started again, and who writes through it."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from pathlib import Path

import fsmount
from engine.errors import HoldfastError
from tools.torture.history import History, Seen
from tools.torture.kill.commands import LONGEST, Command, processes
from tools.torture.kill.writers import KINDS, Writer
from tools.torture.workload import observe

_LOOK = 0.004  # s between looks at whether a worker answers


class Broken(Exception):
    """A promise about mounts was broken."""


class Served:
    """One mount. ``pid`` is its worker's, 0 while there is none."""

    def __init__(self, home: Path, name: str, kinds: tuple[str, ...] = tuple(KINDS)) -> None:
        self.name = name
        self.where = home / name
        self.where.mkdir()
        self.writers = [Writer(f"{name}-{kind}", kind) for kind in kinds]
        self.pid = 0
        self.died = False  # in this round
        self._home = home
        self._store = home / "store"
        self._command: Command | None = None
        self._held: list[int] = []

    # --- the worker -----------------------------------------------------------------------------------------

    def command(self, *, background: bool) -> Command:
        """Begin to mount."""
        extra = ("--background",) if background else ()
        return Command(
            self._home / "said", self._store, "mount", self.name, str(self.where), *extra
        )

    def start(self, *, background: bool = False) -> float:
        """Mount; returns the seconds until it can be used."""
        began = time.monotonic()
        command = self.command(background=background)
        while not self._answers():
            if command.ended and (command.status or not background):
                raise Broken(f"mounting {self.name} again failed: {command.complained}")
            if time.monotonic() - began > LONGEST:
                command.ask_where()
                raise Broken(f"mounting {self.name} has not ended: {command.complained}")
            time.sleep(_LOOK)
        self._command = None if background else command
        return time.monotonic() - began

    def _answers(self) -> bool:
        try:
            found = fsmount.request(str(self._store), self.name, "status")
        except HoldfastError:
            return False
        self.pid = int(found["pid"]) if found["state"] == "serving" else 0
        return self.pid != 0

    def kill_while_starting(self, after: float, *, background: bool) -> None:
        """Begin to mount and kill that after some seconds: a worker that it left behind may serve all the same."""
        command = self.command(background=background)
        time.sleep(after)
        command.kill()
        wrong = command.wrong()
        if wrong:
            raise Broken(wrong)
        end = time.monotonic() + LONGEST
        while processes(self.where) and not self._answers():
            if time.monotonic() > end:
                raise Broken(f"left behind, and not serving: {processes(self.where)}")
            time.sleep(_LOOK)

    def kill(self) -> None:
        """Kill the worker, and wait until it is gone."""
        pid, self.pid = self.pid, 0
        self.died = True
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        if self._command is not None:
            self._command.kill()
            self._command = None
        end = time.monotonic() + LONGEST
        while os.path.exists(f"/proc/{pid}") and _alive(pid):
            if time.monotonic() > end:
                raise Broken(f"worker {pid} survives kill -9")
            time.sleep(_LOOK)

    def complained(self) -> str:
        """The worker's errors so far, if it runs in the foreground."""
        return "" if self._command is None else self._command.complained

    # --- who writes -----------------------------------------------------------------------------------------

    def top(self, writer: Writer) -> bytes:
        return os.fsencode(self.where / writer.name)

    def make_places(self) -> None:
        """A durable directory for each writer."""
        for writer in self.writers:
            os.mkdir(self.top(writer), 0o755)
        fd = os.open(self.where, os.O_RDONLY)
        os.fsync(fd)
        os.close(fd)

    def write(self, rng: random.Random, pause: float) -> None:
        """Start the writers; one more descriptor stays open until ``rest``, as those of a program do."""
        self.died = False
        self._held.append(os.open(self.where, os.O_RDONLY))
        for writer in self.writers:
            writer.start(self.top(writer), random.Random(rng.random()), pause)

    def rest(self) -> None:
        """Stop the writers. Raises Broken when one met an error while its worker lived."""
        for writer in self.writers:
            writer.stop()
            if writer.error is not None and not self.died:
                said = self.complained()[-2000:]
                raise Broken(f"{writer.name}: {writer.error!r} from a living worker: {said}")

    def let_go(self) -> None:
        """Close what was held open, dead or alive."""
        while self._held:
            os.close(self._held.pop())

    def compare(self) -> None:
        """What is there is what may be there. Raises Broken; writers then go on from what was found."""
        for writer in self.writers:
            try:
                seen = observe(self.top(writer))
            except OSError as error:
                raise Broken(f"the tree of {writer.name} cannot be read: {error!r}") from None
            floor = None if self.died else writer.history.finished
            wrong = writer.history.picture(floor).misfit(seen)
            if wrong:
                kind = "after a crash" if self.died else "of a living worker"
                raise Broken(f"the tree of {writer.name}, {kind}: {wrong}")
            if self.died:
                writer.history = History.of(seen)


def _alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
            return file.read().rpartition(")")[2].split()[0] not in ("Z", "X")
    except OSError:
        return False


def split(seen: dict[bytes, Seen], name: str) -> dict[bytes, Seen]:
    """One writer's part of a whole tree."""
    prefix = os.fsencode(name) + b"/"
    return {path[len(prefix) :]: one for path, one in seen.items() if path.startswith(prefix)}
