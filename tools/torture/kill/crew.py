"""Processes that meet in one store, each with its part: two workers, snapshots, collection, restores, checks, removals.

Each part runs until it is told to stop and raises when the store broke a promise.  Points and what they hold are
passed on as files in ``expected``.
"""

from __future__ import annotations

import os
import pickle
import random
import shutil
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

from engine import Store
from engine.errors import Busy, NotFound
from engine.live import LiveTree
from tools.torture.crash.engine_files import TreeFiles, observe_point, observe_tree
from tools.torture.history import History, Op
from tools.torture.kill.book import Print, fingerprint, fingerprint_of
from tools.torture.workload import Script, observe

MOUNTS = {"a": "auto", "b": "fixed"}  # and how files are cut in them
POINTS_MAX = 5
POOL = 4  # contents that come and go all the time, in both mounts
_TICK = 0.05
_LOOK_EVERY = 80  # operations between two looks at the whole tree
_SNAPSHOT_EVERY = 40


class Wrong(Exception):
    """The store broke a promise."""


class Part:
    """What a part needs: where, chance of its own, and whether it is to go on."""

    def __init__(
        self, home: Path, name: str, rng: random.Random, going: Callable[[], bool]
    ) -> None:
        self.home = home
        self.store = str(home / "store")
        self.name = name
        self.rng = rng
        self.going = going

    def expected(self) -> list[str]:
        """Points that are known to be there, or to have been removed a moment ago."""
        return sorted(name for name in os.listdir(self.home / "expected") if "." not in name)

    def print_of(self, point: str) -> Print | None:
        """What a point must hold; None when it was removed."""
        try:
            found: Print = pickle.loads((self.home / "expected" / point).read_bytes())
        except FileNotFoundError:
            return None
        return found

    def expect(self, name: str, holds: Print) -> None:
        """Tell everybody."""
        temporary = self.home / "expected" / f"{name}.tmp"
        temporary.write_bytes(pickle.dumps(holds))
        temporary.rename(self.home / "expected" / name)

    def rest(self, most: float) -> None:
        time.sleep(self.rng.uniform(0, most))


class Returning(Script):
    """The shared script, and contents that are written, changed a little, synced, removed and written again.

    So ids die and return, and so do deltas without what they are deltas of.
    """

    def __init__(self, rng: random.Random, history: History) -> None:
        super().__init__(rng, history, files=10, size=200_000)
        pool = random.Random(1)
        self._pool = []
        for _ in range(POOL):
            one = pool.randbytes(pool.choice((5000, 65_536, 131_072)))
            self._pool.append((one, one[:2000] + b"changed" + one[2007:]))

    def next(self) -> Op:
        """The next operation."""
        if self._rng.random() < 0.45:
            number = self._rng.randrange(POOL)
            path, state = b"pool%d" % number, self._history.now
            if path not in state.paths:
                return Op("create", path, number=0o644)
            if state.metas[state.paths[path]].kind == "f":
                kind = self._rng.choice(("write", "write", "fsync", "fsync", "unlink"))
                empty = not self._history.contents[state.paths[path]].now
                if kind == "write" or empty:
                    data = self._rng.choice(self._pool[number])
                    return Op("write", path, number=0, data=data)
                return Op(kind, path)
        return super().next()

    def returning(self) -> list[bytes]:
        """The files of such contents that are there."""
        state = self._history.now
        names = [path for path in state.paths if path.rpartition(b"/")[2].startswith(b"pool")]
        return [path for path in names if state.metas[state.paths[path]].kind == "f"]


# --- parts ----------------------------------------------------------------------------------------------------


def worker(part: Part, mount: str, maker: socket.socket) -> None:
    """Serves a mount and writes into it; now and then it stands still for a snapshot that another process makes."""
    history = History()
    script = Returning(part.rng, history)
    with Store.open(part.store) as store:
        tree = store.open_live(mount)
        files = TreeFiles(tree)
        ended = threading.Event()
        ticker = threading.Thread(target=_tick, args=(tree, ended), daemon=True)
        ticker.start()
        holds: Print | None = None  # of the snapshot being made
        count = 0
        while part.going() or holds is not None:
            if holds is not None and (point := _answer(maker, wait=not part.going())):
                part.expect(point, holds)
                holds = None
            _do(history, files, script.next())
            count += 1
            if count % _LOOK_EVERY == 0:
                _same(history, tree)
            if holds is None and part.going() and part.rng.random() < 1 / _SNAPSHOT_EVERY:
                for (
                    path
                ) in script.returning():  # no point keeps them: they live and die with the trees
                    _do(history, files, Op("unlink", path))
                tree.freeze()
                tree.barrier()
                history.all_settled()
                holds = fingerprint_of(history)
                maker.sendall(b"snapshot")
                if maker.recv(16) != b"thaw":
                    raise Wrong("the process that makes snapshots has ended")
                tree.thaw()
        _same(history, tree)
        part.expect(f"live-{mount}.end", fingerprint_of(history))
        ended.set()
        ticker.join()
        tree.close()


def _do(history: History, files: TreeFiles, op: Op) -> None:
    history.begin(op)
    files.do(op)
    history.done(op)


def _tick(tree: LiveTree, ended: threading.Event) -> None:
    while not ended.wait(_TICK):
        tree.tick()


def _same(history: History, tree: LiveTree) -> None:
    wrong = history.picture(history.finished).misfit(observe_tree(tree))
    if wrong:
        raise Wrong(f"a live tree: {wrong}")


def _answer(maker: socket.socket, *, wait: bool) -> str:
    maker.setblocking(wait)
    try:
        said = maker.recv(64)
    except BlockingIOError:
        return ""
    finally:
        maker.setblocking(True)
    if not said:
        raise Wrong("the process that makes snapshots has ended")
    return said.decode()


def snapshots(part: Part, mount: str, asked: socket.socket) -> None:
    """Makes points of a mount that stands still; it goes on meanwhile."""
    store = Store.open(part.store)
    while asked.recv(16) == b"snapshot":
        if part.rng.random() < 0.3:
            store.close()
            store = Store.open(part.store)

        def thaw() -> None:
            asked.sendall(b"thaw")
            part.rest(0.05)

        asked.sendall(store.snapshot(mount, thaw=thaw).id.encode())
    store.close()


def collector(part: Part) -> None:
    """One collection after the other."""
    while part.going():
        with Store.open(part.store) as store:
            for _ in range(part.rng.randint(1, 4)):
                store.collect()
                part.rest(0.1)


def reader(part: Part) -> None:
    """Reads points, each kept from removal meanwhile, or restores them; every byte is what it was."""
    target = part.home / f"restored-{part.name}"
    reading: list[Path] = []
    while part.going():
        with Store.open(part.store) as store:
            for _ in range(part.rng.randint(1, 3)):
                points = part.expected()
                if not points:
                    part.rest(0.05)
                    continue
                point = part.rng.choice(points)
                holds = part.print_of(point)
                try:
                    if part.rng.random() < 0.5:
                        view = store.view(point)
                        reading.append(part.home / "expected" / f"{point}.read")
                        reading[-1].touch()
                        part.rest(0.3)
                        found = fingerprint(observe_point(view))
                    else:
                        report = store.restore(point, b"", os.fsencode(target))
                        if report.damaged:
                            raise Wrong(f"point {point}: {report.damaged}")
                        found = fingerprint(observe(os.fsencode(target)))
                        shutil.rmtree(target)
                except (NotFound, Busy):  # removed, or about to be
                    if part.print_of(point) is not None and not _going_away(part, point):
                        raise
                    continue
                if holds is not None and found != holds:
                    raise Wrong(f"point {point} is not what it was")
            while reading:
                reading.pop().unlink(
                    missing_ok=True
                )  # before the store is closed, which lets go of them


def _going_away(part: Part, point: str) -> bool:
    return (part.home / "expected" / f"{point}.going").exists()


def checker(part: Part) -> None:
    """The store is sound at every moment."""
    while part.going():
        with Store.open(part.store) as store:
            found = store.check(read_data=True).problems
        if found:
            raise Wrong(f"the check finds {[f'{p.code} {p.thing} {p.text}' for p in found[:5]]}")
        part.rest(0.1)


def remover(part: Part) -> None:
    """Removes points when there are many, and now and then mends what there is to be mended."""
    while part.going():
        with Store.open(part.store) as store:
            points = part.expected()
            read = [point for point in points if _read(part, point)]
            if read and part.rng.random() < 0.5:
                _remove(part, store, part.rng.choice(read))
            elif len(points) > POINTS_MAX or (points and part.rng.random() < 0.1):
                _remove(part, store, part.rng.choice(points))
            if part.rng.random() < 0.2:
                mended = store.repair().done
                wrong = [line for line in mended if "dead workers" not in line]
                if wrong:
                    raise Wrong(f"there was something to repair: {wrong}")
        part.rest(0.1)


def _remove(part: Part, store: Store, point: str) -> None:
    going = part.home / "expected" / f"{point}.going"
    going.touch()
    try:
        store.remove_point(point)
    except Busy:
        return  # somebody reads it
    if _read(part, point):
        raise Wrong(f"point {point} was removed while it was read")
    (part.home / "expected" / point).unlink()


def _read(part: Part, point: str) -> bool:
    return (part.home / "expected" / f"{point}.read").exists()
