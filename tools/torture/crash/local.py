"""A store at work in this process, without FUSE; and a store looked at after a crash, in a child."""

from __future__ import annotations

import faulthandler
import logging
import os
import pickle
import signal
import traceback
from collections.abc import Callable
from typing import TypeVar

import engine.maintain.check  # noqa: F401  (here once, not in every child)
from engine import Store, limits
from engine.errors import HoldfastError, NotFound
from engine.live import LiveTree
from tools.torture import bugs
from tools.torture.crash.engine_files import TreeFiles, observe_point, observe_tree
from tools.torture.crash.story import Expected, Found, Step, Story, work
from tools.torture.workload import Files

MOUNT = "m"
T = TypeVar("T")
UNSOUND = (HoldfastError, OSError, AssertionError)  # what looking at a store may raise
PATIENCE = 60  # s until a child that looks at a store is taken for hung


def memory() -> str | None:
    """A place for disks: in memory, where there is some."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def small_limits() -> None:
    """Small packs, batches and waits: what happens once in gigabytes and minutes happens in kilobytes and steps."""
    limits.PACK_MAX = 120_000
    limits.GC_SWEEP_ROWS = 7
    limits.APPEND_BUFFER = 16 * limits.KIB
    limits.WRITE_BEHIND = 64 * limits.KIB
    limits.COMMIT_INTERVAL = 0.01
    limits.TICK = 0.0


class LocalPlace:
    """A store with its one mount open in this process."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._open()

    def _open(self) -> None:
        self._store = Store.open(self._path)
        self._tree = self._store.open_live(MOUNT)
        self._files = TreeFiles(self._tree)

    @property
    def tree(self) -> LiveTree:
        return self._tree

    def files(self) -> Files:
        return self._files

    def close(self) -> None:
        self._tree.close()
        self._store.close()

    def own(self, step: Step) -> None:
        match step.kind:
            case "tick":
                self._tree.tick()
            case "snapshot":
                self._tree.barrier()
                self._store.snapshot(MOUNT, step.label)
            case "remove":
                self._store.remove_point(_id(self._store, step.label))
            case "collect":
                self._store.collect()
            case "reopen":
                self.close()
                self._open()


def _id(store: Store, label: str) -> str:
    return next(point.id for point in store.points() if point.label == label)


def make(path: str) -> None:
    """A store with an empty mount."""
    Store.init(path)
    with Store.open(path) as store:
        store.create_mount(MOUNT)


def worker(path: str, story: Story, tell: Callable[[bytes], None], steps: int) -> None:
    """The life of a worker process, to be called in a child: the chosen bug is planted in it."""
    faulthandler.disable()  # what lies on a disk that is lost may end it by SIGBUS, and no word is due then
    bugs.plant_chosen()
    small_limits()
    place = LocalPlace(path)
    work(story, place, tell, steps)
    place.close()


def look(path: str) -> Found:
    """Everything in a store; raises what is wrong with it."""
    with Store.open(path) as store:
        tree = store.open_live(MOUNT)
        try:
            seen = observe_tree(tree)
            points = {p.label: observe_point(store.view(p.id)) for p in store.points()}
        finally:
            tree.close()
        report = store.check(read_data=True)
    if report.problems:
        raise AssertionError(f"check: {report.problems}")
    return Found(seen, points)


def judge(path: str, expected: Expected) -> tuple[str, Found | None]:
    """[child] What is wrong with the store at ``path`` (empty: nothing), and what is in it."""

    def judged() -> tuple[str, Found | None]:
        try:
            found = look(path)
        except UNSOUND as error:
            return f"{type(error).__name__}: {error}", None
        return expected.misfit(found), found

    return in_child(judged, lambda how: (how, None))


def unfinished(path: str) -> str:
    """[child] A store whose making was cut off is one, or can be made again. What is wrong."""

    def tried() -> str:
        try:
            try:
                with Store.open(path) as store:
                    if not store.mounts():
                        store.create_mount(MOUNT)
            except NotFound:
                make(path)
            found = look(path)
            return f"there is something in a new store: {found}" if found.tree else ""
        except UNSOUND as error:
            return f"{type(error).__name__}: {error}"

    return in_child(tried, lambda how: how)


def in_child(work: Callable[[], T], died: Callable[[str], T]) -> T:
    """Run in a fork; ``died`` says what it means when that is killed, by a bad index for instance, or hangs."""
    ours, theirs = os.pipe()
    child = os.fork()
    if not child:
        status = 70
        try:
            os.close(ours)
            logging.disable()  # what is wrong is told by the answer
            faulthandler.disable()
            signal.alarm(PATIENCE)
            with open(theirs, "wb") as out:
                pickle.dump(work(), out)
            status = 0
        except BaseException:  # noqa: BLE001  (nothing may get out into the run this is a copy of)
            traceback.print_exc()
        finally:
            os._exit(status)
    os.close(theirs)
    with open(ours, "rb") as answer:
        raw = answer.read()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code < 0:
        return died(f"whoever opened it was killed by signal {signal.Signals(-code).name}")
    if code:
        raise RuntimeError(f"a child of the rig ended with {code}")
    result: T = pickle.loads(raw)
    return result
