"""Random lives of a store with a storage location: points sent, bytes given up here, space freed there, all cut off.

Each case is a store, a location and some twenty steps.  Sending, giving up and freeing run in a process of their own,
which is killed at a call chosen by chance, or whose server goes wrong there.  After every step all that must be there
is read and compared: bytes that are only there come from there.  Then a store is made from the location alone: it has
every point that was called verified, each with its content, and none that was not sent.  Now and then it takes over,
and the case goes on with it; the old one must be refused.
"""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from engine import HoldfastError, Store, limits
from engine.copies import bare, connect, outbox
from engine.copies.connect import Wanted, add
from engine.errors import Busy, LocationUnavailable
from engine.home import OpenStore
from engine.index import Index, Txn
from engine.keys import Passphrase
from engine.keys.primitives import Cost
from engine.locations import Bandwidth, Location, Retry, open_location
from engine.maintain.adopt import adopt
from engine.progress import silent
from engine.seam import Os
from tools.torture.copies.struck import Strike, Struck
from tools.torture.rig import Job, Rig
from tools.torture.space.child import MortalOs, UnsyncedOs, every
from tools.torture.space.content import Contents, edited
from tools.torture.space.world import Files, World

CASES, STEPS = 120, 16
SECRET = Passphrase("a word or two")
_CHEAP = Cost(memory_kib=64, passes=1, lanes=1)
_NAMES = (b"disk.img", b"users.dbf", b"set.tar", b"notes.txt", b"d/a.txt", b"d/data.dbf")
_BROKEN = 3  # exit code of a child whose server went wrong


class Life:
    """One case."""

    def __init__(self, job: Job, case: int) -> None:
        self._job = job
        self._rng = rng = job.random("life", case)
        self._top = job.scratch / f"life-{case}"
        self._top.mkdir()
        (self._top / "there").mkdir()
        self._url = f"file://{self._top}/there"
        self._world = World(job, case, self._top / "store", mounts=rng.randint(1, 2))
        self._contents = Contents(rng, rng.choice((20_000, 60_000)))
        self._ever: dict[str, Files] = {}  # every point there ever was
        self._name = "far"
        self._children = 0
        self._local = rng.choice(("keep", "drop", "drop"))
        wanted = Wanted(self._url, [SECRET], verify=rng.choice((0.0, 0.1, 1.0)), local=self._local)
        with self._world.open() as store:
            add(store._open.context, self._name, wanted, cost=_CHEAP).location.close()

    def run(self) -> None:
        self._write()
        steps: list[tuple[Callable[[], None], int]] = [
            (self._write, 3), (self._snapshot, 5), (self._remove, 3), (self._collect, 2), (self._send, 8),
            (self._give_up, 4), (self._free, 5), (self._otherwise, 2), (self._adopted, 3), (self._taken_over, 1),
        ]  # fmt: skip
        calls, weights = zip(*steps, strict=True)
        for step in range(STEPS):
            (call,) = self._rng.choices(calls, weights)
            if self._job.case:
                self._job.say(f"{step}: {call.__name__.strip('_')}")
            call()
            self._job.count("steps")
            self._world.verify(self._rng)
        self._settle()
        self._adopted()
        with self._world.open() as store:
            freed = store.copies.reclaim(self._name)
        if not freed.done:
            self._world.fail("what is not needed at the location could not be freed")
        self._adopted()
        self._taken_over()
        self._world.verify(self._rng)

    # --- steps here -------------------------------------------------------------------------------------------

    def _write(self) -> None:
        rng = self._rng
        mount = rng.choice(list(self._world.live))
        with self._world.open() as store, self._world.tree(store, mount) as tree:
            files = self._world.live[mount]
            for _ in range(rng.randint(1, 4)):
                path = rng.choice(_NAMES)
                if path in files and rng.random() < 0.2:
                    self._world.remove(tree, mount, path)
                    continue
                data = self._contents.next()
                if path in files and rng.random() < 0.5:
                    data = edited(rng, files[path][0], 2)
                if self._ever and rng.random() < 0.3:  # as it was, so that it is found again
                    path, (data, _) = rng.choice(
                        [*rng.choice(list(self._ever.values())).items()] or [(path, (data, b""))]
                    )
                self._world.put(tree, mount, path, data)

    def _snapshot(self) -> None:
        if self._rng.random() < 0.7:
            self._write()
        self._point_of(self._rng.choice(list(self._world.live)))

    def _remove(self) -> None:
        points = list(self._world.points)
        chosen = self._rng.sample(points, min(len(points), self._rng.randint(0, 2)))
        with self._world.open() as store:
            store.remove_points(chosen)
        for point in chosen:
            del self._world.points[point]
        self._job.count("deleted points", len(chosen))

    def _collect(self) -> None:
        with self._world.open() as store:
            store.collect()
        self._job.count("collections")

    # --- steps between here and there -------------------------------------------------------------------------

    def _send(self) -> None:
        if self._rng.random() < 0.6:
            self._snapshot()
        self._cut_off("sent", lambda store: store.copies.send(self._name))

    def _free(self) -> None:
        if self._rng.random() < 0.6:
            self._remove()
        # Killed between what it says and what it does.
        soon = Strike("killed", self._rng.randrange(4), reads=False, again=False)
        strike = soon if self._rng.random() < 0.5 else None
        self._cut_off("freed", lambda store: store.copies.reclaim(self._name), strike)

    def _give_up(self) -> None:
        if self._rng.random() < 0.5:
            self._send()
        self._cut_off("given up", lambda store: store.copies.drop_local())
        if self._rng.random() < 0.5:
            self._collect()

    def _otherwise(self) -> None:
        """Content that is there, gone here, comes again as a delta of something else; then its bytes are given up."""
        rng = self._rng
        mount = rng.choice(list(self._world.live))
        data = rng.randbytes(rng.randrange(20_000, 50_000))
        with self._world.open() as store, self._world.tree(store, mount) as tree:
            self._world.put(tree, mount, b"one", data)
        self._point_of(mount)
        self._settle()
        with self._world.open() as store:
            with self._world.tree(store, mount) as tree:
                self._world.remove(tree, mount, b"one")
            for point in [one for one, files in self._world.points.items() if b"one" in files]:
                store.remove_point(point)
                del self._world.points[point]
        self._collect()
        with self._world.open() as store, self._world.tree(store, mount) as tree:
            self._world.put(tree, mount, b"one", edited(rng, data, 2))
        self._point_of(mount)
        with self._world.open() as store, self._world.tree(store, mount) as tree:
            self._world.remove(tree, mount, b"one")
            self._world.put(tree, mount, b"one", data)
        self._point_of(mount)
        with self._world.open() as store, self._world.tree(store, mount) as tree:
            self._world.remove(tree, mount, b"one")
        self._point_of(mount)
        self._settle()
        with self._world.open() as store:
            store.copies.drop_local()

    def _point_of(self, mount: str) -> None:
        with self._world.open() as store:
            point = self._world.snapshot(store, mount)
        self._ever[point] = self._world.points[point]
        self._job.count("points")

    def _cut_off(
        self, what: str, work: Callable[[Store], object], strike: Strike | None = None
    ) -> None:
        """Do it in a child, which often does not come to its end."""
        rng = self._rng
        if strike is None and rng.random() < 0.8:
            strike = Strike.chosen(rng)
        self._children += 1
        system: Os = UnsyncedOs(self._job.random("child", self._world.case, self._children))
        steps = rng.randrange(20) if rng.random() < 0.3 else -1
        if rng.random() < 0.2:
            system = MortalOs(rng.choice(MortalOs.KINDS), rng.choice((0, 0, 1, 2, 4)))
        pid = os.fork()
        if not pid:
            try:
                if steps >= 0:
                    _die_at_transaction(steps)
                os._exit(self._child(work, strike, system))
            except BaseException:  # noqa: BLE001  (this process is a copy of another)
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(1)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        if status not in (0, _BROKEN, -signal.SIGKILL):
            self._world.fail(f"what was to be {what} ended with status {status}, struck: {strike}")
        self._job.count(what)
        self._job.count("killed", int(status < 0))
        self._job.count("broken off", int(status == _BROKEN))
        if status and rng.random() < 0.7:
            self._adopted()

    def _child(self, work: Callable[[Store], object], strike: Strike | None, system: Os) -> int:
        if strike is not None:
            _strike(strike)
        try:
            with Store(OpenStore(str(self._world.home), system=system)) as store:
                work(store)
        except LocationUnavailable:
            return _BROKEN if strike is not None else 1
        return 0

    def _settle(self) -> None:
        """Everything is sent, whatever failed before."""
        with self._world.open() as store:
            store.copies.retry(self._name)
            store.copies.send(self._name)
            waiting = [one for one in store.copies.uploads() if one.state != "verified"]
        if waiting:
            self._world.fail(f"point {waiting[0].point} is {waiting[0].state}: {waiting[0].reason}")

    # --- what is there alone ----------------------------------------------------------------------------------

    def _adopted(self) -> None:
        """Who has nothing but the location has every point that was called verified, and its content."""
        home = self._top / "adopted"
        self._adopt(home, take_over=False)
        self._compare(home)
        shutil.rmtree(home)
        self._job.count("stores made from the location")

    def _adopt(self, home: Path, *, take_over: bool) -> None:
        with self._world.open() as store:
            known = {one.point for one in store.copies.uploads() if one.state == "verified"}
        self._must = known & self._world.points.keys()
        try:
            report = adopt(
                str(home), self._url, SECRET, credentials="environment", name="origin", take_over=take_over,
                report=silent, system=self._world.system,
            )  # fmt: skip
        except HoldfastError as error:
            self._job.fail(self._world.case, f"adopting: {type(error).__name__}: {error}")
        if report.left_out:
            self._world.fail(f"adopting: {report.done}")

    def _compare(self, home: Path) -> None:
        ours, points, live = self._world.home, self._world.points, self._world.live
        with Store.open(str(home)) as store:
            there = {one.id for one in store.points()}
            newest = {one.mount: one.id for one in store.points()}
        lost, strange = self._must - there, there - self._ever.keys()
        if lost or strange:
            self._world.fail(
                f"at the location {sorted(lost)} are missing, {sorted(strange)} strange"
            )
        self._world.home = home
        self._world.points = {one: self._ever[one] for one in there}
        self._world.live = {mount: dict(self._ever[one]) for mount, one in newest.items()}
        try:
            self._world.verify(self._rng)
        finally:
            self._world.home, self._world.points, self._world.live = ours, points, live

    def _taken_over(self) -> None:
        """The machine is gone: its heir goes on, and it may not any more."""
        self._settle()
        if not self._world.points:
            return
        heir = self._top / f"heir-{self._job.figures['heirs']}"
        self._adopt(heir, take_over=True)
        self._compare(heir)
        with self._world.open() as store:
            self._must_be_refused(store)
        shutil.rmtree(self._world.home)
        self._world.home, self._name = heir, "origin"
        with self._world.open() as store:
            with store._open.context.index.write() as txn:
                row = outbox.location(txn, self._name)
                outbox.save(txn, self._name, replace(row, local=self._local))
            for mount in set(self._world.live) - {one.name for one in store.mounts()}:
                store.create_mount(mount)
                self._world.live[mount] = {}
            for point in store.points():
                self._world.live[point.mount] = dict(self._ever[point.id])
            self._world.points = {one.id: self._ever[one.id] for one in store.points()}
        self._job.count("heirs")

    def _must_be_refused(self, store: Store) -> None:
        point = store.snapshot(next(iter(self._world.live))).id
        try:
            store.copies.send(self._name)
        except Busy:
            return
        self._world.fail(f"who was replaced could still send point {point}")


def _strike(strike: Strike) -> None:
    """In a child: every location that is opened is struck, all as one."""
    struck: list[Struck] = []

    def opened(
        url: str, credentials: str, system: Os, bandwidth: Callable[[], Bandwidth] = Bandwidth
    ) -> Location:
        del credentials, bandwidth
        if not struck:
            struck.append(Struck(open_location(url, None, system=system), strike))
        return Retry(struck[0], sleep=lambda _: None) if strike.again else struck[0]

    connect.opened = opened
    bare.opened = opened  # type: ignore[attr-defined]


def _die_at_transaction(left: int) -> None:
    """In a child: it is killed before it changes the index for so many more times."""
    real = Index.write
    count = itertools.count()

    @contextmanager
    def write(index: Index) -> Iterator[Txn]:
        if next(count) == left:
            os.kill(os.getpid(), signal.SIGKILL)
        with real(index) as txn:
            yield txn

    Index.write = write  # type: ignore[method-assign,assignment]


def _small() -> None:
    """A location of a megabyte has dozens of packs."""
    limits.SEALED_PACK = 60_000
    limits.UPLOADS = 2


def run(job: Job) -> None:
    _small()
    every(job, CASES, "life", "lives", lambda one, case: Life(one, case).run())


RIGS = (
    Rig(
        "copies-lives",
        "points sent to a location, given up here, freed there, adopted, all of it cut off: what was verified is there",
        run,
        bugs=(
            "copies-named-before-they-are-there",
            "copies-needers-first",
            "copies-put-is-believed",
            "copies-reclaim-forgets-bases",
            "copies-removed-before-it-is-said",
            "copies-dropped-in-any-form",
            "copies-fence-ignored",
        ),
        teeth=0.3,
        test=0.02,
    ),
)
