"""Many processes on one store under scheduling fuzz: nothing is lost, nothing dangles, nobody waits for ever.

Children rest by chance at every seam, and are stopped and continued by chance.  A child that does nothing for a
minute hangs: its stacks are shown.
"""

from __future__ import annotations

import faulthandler
import mmap
import os
import random
import signal
import socket
import struct
import time
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path

from engine import Store
from engine.errors import HoldfastError
from engine.index import Table
from engine.index.rows import chunk_row
from tools.torture import bugs
from tools.torture.crash.engine_files import observe_point, observe_tree
from tools.torture.kill import crew
from tools.torture.kill.book import fingerprint
from tools.torture.kill.fuzz import Fuzz
from tools.torture.kill.heard import heard
from tools.torture.kill.place import quick
from tools.torture.kill.small import shrink
from tools.torture.rig import Job, Rig

SECONDS = 300
STEPS = 60  # of each child for each second; on a busy machine they may take …
PATIENCE_FOR_STEPS = 4  # … so many times as long
PATIENCE = 60.0  # s without a step of a child
_SLOT = struct.Struct("<Q")
_STOPS = 0.4  # s between two stops of a child
Work = Callable[[crew.Part], None]


class Board:
    """Memory that all children share: whether to go on, and a count of steps for each."""

    def __init__(self, places: int) -> None:
        self._memory = mmap.mmap(-1, 8 * (places + 1))

    def beat(self, place: int) -> None:
        _SLOT.pack_into(self._memory, 8 * place + 8, self.steps(place) + 1)

    def steps(self, place: int) -> int:
        return int(_SLOT.unpack_from(self._memory, 8 * place + 8)[0])

    def going(self) -> bool:
        return self._memory[0] == 0

    def stop(self) -> None:
        self._memory[0] = 1


class Child:
    """One process of the crew."""

    def __init__(self, job: Job, home: Path, board: Board, place: int, name: str, work: Work) -> None:  # fmt: skip
        self.name = name
        self.place = place
        self.seen = (0, time.monotonic())
        self.status: int | None = None
        self._said = home / f"said-{name}"
        self.stacks = home / f"stacks-{name}"
        self.pid = os.fork()
        if not self.pid:
            self._live(job, home, board, work)

    def _live(self, job: Job, home: Path, board: Board, work: Work) -> None:
        try:
            with self.stacks.open("w") as stacks, self._said.open("w") as said:
                faulthandler.register(signal.SIGUSR1, stacks)
                os.dup2(said.fileno(), 2)
                shrink()
                bugs.plant_chosen()
                Fuzz(job.random(self.name, "rest"), lambda: board.beat(self.place)).install()

                def going() -> bool:
                    board.beat(self.place)
                    return board.going()

                work(crew.Part(home, self.name, job.random(self.name), going))
            os._exit(0)
        except BaseException:  # noqa: BLE001  (nothing may get out into the run this is a copy of)
            with self._said.open("a") as said:
                traceback.print_exc(file=said)
        finally:
            os._exit(70)

    def ended(self) -> bool:
        if self.status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.status = os.waitstatus_to_exitcode(status)
        return self.status is not None

    def said(self) -> str:
        return self._said.read_text(errors="replace")[-4000:]

    def kill(self) -> None:
        if not self.ended():
            os.kill(self.pid, signal.SIGKILL)
            self.status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def run(job: Job) -> None:
    """One store, one crew."""
    with quick(job) as place:
        _run(job, place / "crew")


def _run(job: Job, home: Path) -> None:
    (home / "expected").mkdir(parents=True)
    store = str(home / "store")
    Store.init(store)
    with Store.open(store) as opened:
        for mount, chunking in crew.MOUNTS.items():
            opened.create_mount(mount, chunking=chunking)
    parts: list[tuple[str, Work]] = []
    sockets: list[socket.socket] = []
    for mount in crew.MOUNTS:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        sockets += [ours, theirs]
        parts.append((f"worker {mount}", partial(crew.worker, mount=mount, maker=ours)))
        parts.append((f"snapshots {mount}", partial(crew.snapshots, mount=mount, asked=theirs)))
    parts += [("collector", crew.collector), ("reader", crew.reader), ("checker", crew.checker),
              ("remover", crew.remover)]  # fmt: skip
    board = Board(len(parts))
    children: list[Child] = []
    try:
        for place, (name, work) in enumerate(parts):
            children.append(Child(job, home, board, place, name, _alone(work, name, sockets)))
        for one in sockets:
            one.close()
        _watch(job, board, children)
    finally:
        for child in children:
            child.kill()
    for child in children:
        job.count(f"steps of the {child.name}", board.steps(child.place))
    with heard() as said:
        try:
            _judge(job, home)
        except HoldfastError as error:
            job.fail("all", f"at the end: {error}")
    if said:
        job.fail("all", f"at the end the store complains: {said}")


def _alone(work: Work, name: str, sockets: list[socket.socket]) -> Work:
    """With its own end of its socket alone: the others' ends would keep it from seeing theirs close."""
    kind, _, mount = name.partition(" ")
    keep = -1
    if mount:
        keep = 2 * list(crew.MOUNTS).index(mount) + (kind == "snapshots")

    def begin(part: crew.Part) -> None:
        for number, one in enumerate(sockets):
            if number != keep:
                one.close()
        work(part)

    return begin


def _watch(job: Job, board: Board, children: list[Child]) -> None:
    """Stop and continue children by chance, until the time is over and all have ended."""
    rng = job.random("stops")
    seconds = job.size(SECONDS, 4)
    end = time.monotonic() + seconds
    last = end + (PATIENCE_FOR_STEPS - 1) * seconds
    while not all(child.ended() for child in children):
        _failed(job, children)
        for child in children:
            steps, since = child.seen
            if board.steps(child.place) != steps:
                child.seen = (board.steps(child.place), time.monotonic())
            elif not child.ended() and time.monotonic() - since > PATIENCE and _waited_for(child, board):  # fmt: skip
                _hangs(job, children)
        slow = any(board.steps(child.place) < STEPS * seconds for child in children)
        if time.monotonic() > (last if slow else end):
            board.stop()
            time.sleep(0.05)
        else:
            _interrupt(rng, children)
            time.sleep(rng.uniform(0, _STOPS))
    _failed(job, children)


def _failed(job: Job, children: list[Child]) -> None:
    """A child has ended with an error: those of all that follow it a moment later are told, too."""
    if any(child.ended() and child.status for child in children):
        time.sleep(0.3)
        ended = [one for one in children if one.ended() and one.status]
        said = [f"{one.name} ended with {one.status}: {one.said()}" for one in ended]
        job.fail("all", "\n".join(said))


def _waited_for(child: Child, board: Board) -> bool:
    """A process that makes snapshots waits to be asked; only while going on is that no hang."""
    return not child.name.startswith("snapshots") or not board.going()


def _interrupt(rng: random.Random, children: list[Child]) -> None:
    child = rng.choice(children)
    if not child.ended():
        os.kill(child.pid, signal.SIGSTOP)
        time.sleep(rng.uniform(0, 0.15) if rng.random() < 0.9 else rng.uniform(0.2, 0.6))
        os.kill(child.pid, signal.SIGCONT)


def _hangs(job: Job, children: list[Child]) -> None:
    for child in children:
        if not child.ended():
            os.kill(child.pid, signal.SIGUSR1)
    time.sleep(0.5)
    stacks = "\n".join(f"--- {child.name}\n{child.stacks.read_text()[:6000]}" for child in children)
    job.fail("all", f"nothing moves:\n{stacks}")


def _judge(job: Job, home: Path) -> None:
    """At the end everything is there and whole, before and after one more collection."""
    part = crew.Part(home, "judge", job.random("judge"), lambda: False)
    with Store.open(part.store) as store:
        for _ in range(2):
            known = set(part.expected())
            there = {point.id for point in store.points()}
            if known != there:
                job.fail("all", f"points: missing {known - there}, unexpected {there - known}")
            for point in sorted(there):
                if fingerprint(observe_point(store.glance(point))) != part.print_of(point):
                    job.fail("all", f"point {point} is not what it was")
                job.count("points compared")
            for mount in crew.MOUNTS:
                tree = store.open_live(mount)
                if fingerprint(observe_tree(tree)) != part.print_of(f"live-{mount}.end"):
                    job.fail("all", f"the live tree of {mount} is not what it was")
                tree.close()
            _no_dangling_base(job, store)
            problems = store.check(read_data=True).problems
            if problems:
                told = [f"{p.code} {p.thing} {p.text}" for p in problems[:5]]
                job.fail("all", f"the check finds {told}")
            store.collect()
    left = os.listdir(home / "store" / "workers") + os.listdir(home / "store" / "quarantine")
    if left:
        job.fail("all", f"left behind: {left}")


def _no_dangling_base(job: Job, store: Store) -> None:
    """Every row's record decodes, and so does every base."""
    opened = store._open
    with opened.context.index.read() as txn:
        rows = {cid: chunk_row(raw) for cid, raw in txn.scan(Table.CHUNKS)}
    for cid, row in rows.items():
        for base in row.bases:
            if base not in rows:
                job.fail("all", f"chunk {cid.hex()} needs {base.hex()}, which is gone")
        opened.reader.load_at(cid, row)
        job.count("deltas" if row.bases else "chunks", 1)


RIGS = (
    Rig(
        "kill-concurrent",
        "workers, snapshots, collection, restores, checks and removals meet under scheduling fuzz",
        run,
        bugs=("pins-ignored", "worker-lock-let-go"),
        teeth=0.015,
        test=0.04,
    ),
)
