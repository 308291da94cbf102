"""Every order in which a writer takes up dying content while a collection goes through its steps, one by one.

The content of a file that was removed returns.  A case says what kind of content that is, before which step of the
collection it is looked up, and before which step the reference is committed: all pairs are played.  Afterwards the
content is there, byte for byte, and the store is sound.  Kinds:

whole     a chunk of its own
delta     a chunk that is a delta of one which nothing else refers to
snapshot  what a point that is being built refers to, and nothing else any more: cut, and finished

Before that, an earlier collection may have died: when it had condemned the content, or in the middle of its sweep.
"""

from __future__ import annotations

import os
import shutil
import signal
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from engine import Store, limits
from engine.errors import HoldfastError
from engine.live import ROOT, Ctx, LiveTree
from engine.maintain import collect
from engine.maintain.waiting import Patience
from engine.progress import Progress
from tools.torture import bugs
from tools.torture.crash.engine_files import observe_point, observe_tree
from tools.torture.kill.place import quick
from tools.torture.rig import Job, Rig

KINDS = ("delta", "whole", "snapshot")
# Steps of a collection: (where the function is, its name). A moment is before a step, in the sweep, or at the end.
STEPS: tuple[tuple[Any, str], ...] = (
    (collect, "_begin"), (collect, "_marker"), (Patience, "older_readers"), (collect, "_unflag"),
    (collect, "_condemn"), (Patience, "writers"),
)  # fmt: skip
SWEEP, END = len(STEPS), len(STEPS) + 1
MOMENTS = END + 1
_LONGEST = 30.0  # s for the snapshot's thread


class Game:
    """One case on a store of its own: ``takes_up`` at the moment ``look``, ``settles`` at the moment ``commit``."""

    def __init__(self, store: Store, kind: str, look: int, commit: int, content: bytes) -> None:
        self.content = content
        self._store = store
        self._kind = kind
        self._todo = [(look, self._takes_up), (commit, self._settles)]
        self._go_on = threading.Event()
        self._builder: threading.Thread | None = None
        self._failed: list[BaseException] = []
        self.points: list[str] = []
        self.tree: LiveTree = store.open_live("m")

    def moment(self, number: int) -> None:
        """The collection is about to take its step of that number."""
        while self._todo and self._todo[0][0] <= number:
            self._todo.pop(0)[1]()

    def reports(self, progress: Progress) -> None:
        """The first of its rows are swept."""
        if progress.stage == "sweep":
            self.moment(SWEEP)

    def waits(self, _: float) -> None:
        """The collection waits for others: they go on."""
        self.tree.tick()
        if self._builder is not None:
            self.moment(END)

    def _takes_up(self) -> None:
        tree = self.tree
        if self._kind != "snapshot":
            ino = tree.create(ROOT, b"again", 0o644, Ctx(0, 0)).ino
            tree.write(ino, 0, self.content)
            tree._sealing.seal_now([tree._state.get(ino)])
            return
        cut = threading.Event()

        def thaw() -> None:
            cut.set()
            self._go_on.wait(_LONGEST)

        def build() -> None:
            try:
                self.points.append(self._store.snapshot("m", thaw=thaw).id)
            except BaseException as error:  # noqa: BLE001  (told to the thread that asked)
                self._failed.append(error)
                cut.set()

        self._builder = threading.Thread(target=build, daemon=True)
        self._builder.start()
        cut.wait(_LONGEST)
        remove(tree, b"file")

    def _settles(self) -> None:
        if self._builder is not None:
            self._go_on.set()
            self._builder.join(_LONGEST)
            self._builder = None
            if self._failed:
                raise self._failed[0]
        self.tree.barrier()


def prepare(store: Store, kind: str, content: bytes) -> bytes:
    """Content that is about to die, and nothing else in the mount; what will return of it."""
    store.create_mount("m", chunking="fixed")
    tree = store.open_live("m")
    ino = tree.create(ROOT, b"file", 0o644, Ctx(0, 0)).ino
    tree.write(ino, 0, content)
    tree.fsync(ino)
    if kind == "delta":
        content = content[:30_000] + b"changed" + content[30_007:]
        tree.write(ino, 0, content)
        tree.fsync(ino)
    if kind != "snapshot":
        remove(tree, b"file")
    tree.close()
    return content


def remove(tree: LiveTree, name: bytes) -> None:
    """A file goes, durably."""
    ino = tree.lookup(ROOT, name).ino
    tree.unlink(ROOT, name)
    tree.forgotten(ino)
    tree.barrier()


@contextmanager
def stepped(moment: Callable[[int], None]) -> Iterator[None]:
    """``moment(n)`` is called before step n of every collection."""
    real = [getattr(place, name) for place, name in STEPS]

    def before(number: int) -> Callable[..., Any]:
        def step(*arguments: Any, **named: Any) -> Any:
            moment(number)
            return real[number](*arguments, **named)

        return step

    for number, (place, name) in enumerate(STEPS):
        setattr(place, name, before(number))
    try:
        yield
    finally:
        for (place, name), function in zip(STEPS, real, strict=True):
            setattr(place, name, function)


def die(path: str, moment: int) -> None:
    """A collection by a process that is killed before it goes on."""

    def reached(number: int) -> None:
        if number == moment:
            os.kill(os.getpid(), signal.SIGKILL)

    def swept(progress: Progress) -> None:
        if progress.stage == "sweep":
            reached(SWEEP)

    child = os.fork()
    if not child:
        try:
            with Store.open(path) as store, stepped(reached):
                store.collect(report=swept)
        finally:
            os._exit(0)
    os.waitpid(child, 0)


def play(home: Path, kind: str, earlier: int, look: int, commit: int, content: bytes) -> str:
    """What is wrong afterwards; empty when nothing is. ``content``: of a slot."""
    path = str(home)
    Store.init(path)
    try:
        with Store.open(path) as store:
            content = prepare(store, kind, content)
        if earlier:
            die(path, earlier)
        with Store.open(path) as store:
            game = Game(store, kind, look, commit, content)
            with Store.open(path) as other, stepped(game.moment):
                collect.collect(
                    other._open, dry_run=False, budget_s=None, report=game.reports, sleep=game.waits
                )
            game.moment(END)
            game.tree.close()
        with Store.open(path) as store:
            store.collect()
            if kind == "snapshot":
                found = observe_point(store.glance(game.points[0]))[b"file"].data
            else:
                tree = store.open_live("m")
                found = observe_tree(tree)[b"again"].data
                tree.close()
            if found != game.content:
                return "the content is not what was written"
            problems = [f"{p.thing} {p.text}" for p in store.check(read_data=True).problems]
            return f"the check finds {problems}" if problems else ""
    except HoldfastError as error:
        return repr(error)


def cases(job: Job) -> list[tuple[str, int, int, int]]:
    """All there are at full size, by chance some of them at less."""
    every = [
        (kind, earlier, look, commit)
        for kind in KINDS
        for earlier in ((0,) if kind == "snapshot" else (0, SWEEP - 1, SWEEP))
        for look in range(MOMENTS)
        for commit in range(look, MOMENTS)
    ]
    chosen = job.random("cases").sample(every, job.size(len(every)))
    return [one for one in chosen if job.wants(":".join(map(str, one)))]


def run(job: Job) -> None:
    """In a child, which may have a bug planted."""
    with quick(job) as place:
        _run(job, place)


def _run(job: Job, place: Path) -> None:
    told = place / "told"
    chosen = cases(job)
    child = os.fork()
    if not child:
        try:
            bugs.plant_chosen()
            limits.GC_SWEEP_ROWS = 1
            for kind, earlier, look, commit in chosen:
                home = place / "store"
                content = job.random(kind, earlier, look, commit).randbytes(limits.SLOT)
                wrong = play(home, kind, earlier, look, commit, content)
                shutil.rmtree(home)
                if wrong:
                    told.write_text(f"{kind}:{earlier}:{look}:{commit} {wrong}")
                    break
        except BaseException:  # noqa: BLE001  (nothing may get out into the run this is a copy of)
            told.write_text(f"rig {traceback.format_exc()}")
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    if told.exists():
        case, _, wrong = told.read_text().partition(" ")
        assert case != "rig", wrong
        job.fail(case, wrong)
    job.count("orders", len(chosen))


RIGS = (
    Rig(
        "kill-races",
        "content returns in every order of its look-up, its commit, and the steps of a collection",
        run,
        bugs=(
            "bases-unprotected",
            "bases-unmarked",
            "commit-touches-nothing",
            "sweep-before-condemning",
            "sweep-without-waiting",
            "old-readers-forgotten",
        ),
        teeth=0.4,
        test=0.6,
    ),
)
