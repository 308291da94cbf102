"""Collection under load, through real mounts: writers, points, deletions, collections that are killed; all in a loop.

Files are replaced as programs do it (another name, then rename), with content that was there before and may be dead by
now: what a collection must not take.  A point must hold, of every file, a version that was there between the beginning
and the end of its making.  At the end everything is deleted, and the space must be the file system's again.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from hashlib import blake2b
from pathlib import Path

import fsmount
from engine import PointView, Store
from engine.chunks import segments
from engine.errors import HoldfastError
from engine.index import Table
from engine.index.rows import FLAG_CONDEMNED, chunk_row
from engine.live import ROOT
from tools.torture.rig import Job, Rig
from tools.torture.space.child import apart
from tools.torture.space.content import KIB

ROUNDS = 150
MOUNTS = 2
POINTS = 4  # kept while the load lasts
_NAMES = tuple(f"file{number}" for number in range(6))
_LIMIT = 90.0  # s for one command; a collection that hangs so long has failed
_BUSY = 12
Key = tuple[str, str]  # mount, file


class Writer(threading.Thread):
    """Replaces and removes the files of one mount, and writes down what it began and what was done."""

    def __init__(self, mount: str, top: Path, contents: list[bytes], rng: random.Random) -> None:
        super().__init__(daemon=True)
        self._mount = mount
        self._top = top
        self._contents = contents
        self._rng = rng
        self._ending = threading.Event()
        self.begun: dict[str, list[int | None]] = {name: [None] for name in _NAMES}
        self.done: dict[str, int] = dict.fromkeys(_NAMES, 0)
        self.error = ""

    def run(self) -> None:
        try:
            while not self._ending.is_set():
                self._replace(self._rng.choice(_NAMES))
                time.sleep(self._rng.uniform(0, 0.02))
        except OSError as error:
            self.error = f"{self._mount}: {error}"

    def _replace(self, name: str) -> None:
        rng = self._rng
        which = None if rng.random() < 0.1 else rng.randrange(len(self._contents))
        if which is None:
            self.begun[name].append(None)
            with contextlib.suppress(FileNotFoundError):
                (self._top / name).unlink()
        else:
            passing = self._top / f".{name}.tmp"
            with passing.open("wb", buffering=0) as file:
                data = memoryview(self._contents[which])
                while data:
                    data = data[file.write(data[: rng.randint(1, 40 * KIB)]) :]
                if rng.random() < 0.3:
                    os.fsync(file.fileno())
            self.begun[name].append(which)
            passing.rename(self._top / name)
        self.done[name] = len(self.begun[name]) - 1

    def stop(self) -> None:
        self._ending.set()
        self.join(_LIMIT)


class Load:
    """One run."""

    def __init__(self, job: Job, home: Path) -> None:
        self._job = job
        self._home = home
        self._rng = job.random("load")
        self._contents = _contents(job.random("contents"))
        self._names = [_digest(data) for data in self._contents]
        self._points: dict[str, dict[str, bytes]] = {}  # what was in them when they were made
        self._writers: dict[str, Writer] = {}

    def fail(self, text: str) -> None:
        self._job.fail("load", text)

    def run(self, rounds: int) -> None:
        Store.init(str(self._home))
        empty = _blocks(self._home)
        with Store.open(str(self._home)) as store:
            for number in range(MOUNTS):
                store.create_mount(f"m{number}")
        with contextlib.ExitStack() as mounted:
            for number in range(MOUNTS):
                name, top = f"m{number}", self._home.parent / f"live{number}"
                mounted.enter_context(self._mounted(name, top))
                writer = Writer(name, top, self._contents, self._job.random("writer", number))
                mounted.callback(writer.stop)
                self._writers[name] = writer
                writer.start()
            for _ in range(rounds):
                self._round()
                self._job.count("rounds")
            for writer in self._writers.values():
                writer.stop()
                self._job.count("files replaced", sum(writer.done.values()))
            self._collect(killed=False)
        self._settled()
        self._returned(empty)

    # --- under load -------------------------------------------------------------------------------------------

    def _round(self) -> None:
        for writer in self._writers.values():
            if writer.error:
                self.fail(f"a writer was refused: {writer.error}")
        mount = self._rng.choice(list(self._writers))
        self._snapshot(mount)
        old = list(self._points)[:-POINTS]
        if old:
            chosen = self._rng.sample(list(self._points), len(old))
            with self._open() as store:
                store.remove_points(chosen)
            for name in chosen:
                del self._points[name]
            self._job.count("points deleted", len(chosen))
        self._collect(killed=self._rng.random() < 0.6)

    def _snapshot(self, mount: str) -> None:
        writer = self._writers[mount]
        before = dict(writer.done)
        with self._open() as store:
            with fsmount.client(str(self._home), mount) as client:
                client.request("freeze")
                made = store.snapshot(mount, thaw=_thaw(client)).id
            after = {name: len(writer.begun[name]) for name in _NAMES}
            found = _files(store.glance(made))
        for name in _NAMES:
            versions = writer.begun[name][before[name] : after[name]]
            allowed = {None if which is None else self._names[which] for which in versions}
            if found.get(name) not in allowed:
                self.fail(
                    f"point of {mount}: {name} is none of the {len(versions)} versions it may be"
                )
        self._points[made] = {name: found[name] for name in _NAMES if name in found}
        self._job.count("points")

    def _collect(self, *, killed: bool) -> None:
        """A collection in a process of its own, killed at a moment of chance."""
        process = self._start("gc")
        assert process.stdout is not None
        process.stdout.readline()
        if killed:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(self._rng.uniform(0, 0.25))
            process.send_signal(signal.SIGKILL)
        try:
            _, said = process.communicate(timeout=_LIMIT)
        except subprocess.TimeoutExpired:
            process.kill()
            self.fail("a collection did not end")
            return
        if process.returncode == -signal.SIGKILL:
            self._job.count("collections killed")
        elif process.returncode in (0, _BUSY):
            self._job.count("collections" if not process.returncode else "collections put off")
        else:
            self.fail(f"gc ended with {process.returncode}: {said}")

    # --- processes --------------------------------------------------------------------------------------------

    def _start(self, *words: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "tools.torture.space.command", "--store", str(self._home)]
        return subprocess.Popen(
            [*command, *words], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    @contextlib.contextmanager
    def _mounted(self, name: str, top: Path) -> Iterator[None]:
        top.mkdir()
        worker = self._start("mount", name, str(top))
        try:
            end = time.monotonic() + _LIMIT
            while not top.is_mount():
                if worker.poll() is not None or time.monotonic() > end:
                    raise RuntimeError(f"mount {name}: {worker.communicate()[1]}")
                time.sleep(0.02)
            yield
            fsmount.unmount(str(top))
            if worker.wait(_LIMIT):
                self.fail(f"the worker of {name} ended with {worker.returncode}")
        finally:
            if worker.poll() is None:
                subprocess.run(["fusermount3", "-uz", str(top)], capture_output=True, check=False)
                worker.kill()
            worker.communicate()

    @contextlib.contextmanager
    def _open(self) -> Iterator[Store]:
        try:
            with Store.open(str(self._home)) as store:
                yield store
        except HoldfastError as error:
            self.fail(f"{type(error).__name__}: {error}")

    # --- afterwards -------------------------------------------------------------------------------------------

    def _settled(self) -> None:
        """Everything is there, nothing else, and what was killed has left nothing to do."""
        with self._open() as store:
            again = store.collect()
            rest = store.collect()
            if (
                rest.dead_chunks
                or rest.packs_mended
                or rest.files_quarantined + again.files_quarantined
            ):
                self.fail(f"a collection after the last one: {again}, then {rest}")
        with self._open() as store:
            with store._open.context.index.read() as txn:
                flags = [chunk_row(raw).flags for _, raw in txn.scan(Table.CHUNKS)]
            if any(flag & FLAG_CONDEMNED for flag in flags):
                self.fail("chunks are still condemned")
            problems = store.check(read_data=True).problems
            if problems:
                self.fail(
                    f"check: {problems[0].thing}: {problems[0].text} ({len(problems)} problems)"
                )
            if {point.id for point in store.points()} != self._points.keys():
                self.fail("the points are not those that were made and kept")
            for name, files in self._points.items():
                if _files(store.glance(name)) != files:
                    self.fail(f"point {name} is not what it was when it was made")
            for mount, writer in self._writers.items():
                self._live(store, mount, writer)

    def _live(self, store: Store, mount: str, writer: Writer) -> None:
        tree = store.open_live(mount)
        try:
            for name in _NAMES:
                which = writer.begun[name][-1]
                found = None
                with contextlib.suppress(HoldfastError):
                    attr = tree.lookup(ROOT, name.encode())
                    found = _digest(tree.read(attr.ino, 0, attr.size))
                if found != (None if which is None else self._names[which]):
                    self.fail(f"{name} of {mount} is not what was written last")
        finally:
            tree.close()

    def _returned(self, empty: int) -> None:
        """All points and files deleted: what is left is an index and the beginnings of segments."""
        full = _blocks(self._home)
        with self._open() as store:
            for mount in self._writers:
                tree = store.open_live(mount)
                for name, *_ in list(tree.readdir(ROOT, 0)):
                    if name not in (b".", b".."):
                        tree.unlink(ROOT, name)
                tree.close()
            if self._points:
                store.remove_points(list(self._points))
        for _ in range(2):  # the first may have gone on with a segment that it then sealed
            with self._open() as store:
                store.collect()
        left = _blocks(self._home)
        # A data and a metadata segment of each process that wrote at the same time: workers, snapshot, collection.
        slack = 2 * (MOUNTS + 2) * segments.SEAL_ON_CLOSE + 64 * KIB
        self._job.note(
            f"{full:,} bytes on the disk with all, {left:,} with nothing, {empty:,} when it was new"
        )
        if left > empty + slack:
            self.fail(
                f"everything was deleted, and {left - empty:,} bytes are not the disk's again"
            )


def _thaw(client: fsmount.Client) -> Callable[[], None]:
    def thaw() -> None:
        client.request("thaw")

    return thaw


def _contents(rng: random.Random) -> list[bytes]:
    """Chains of versions, each near the one before."""
    made: list[bytes] = []
    for _ in range(4):
        data = rng.randbytes(rng.randint(5 * KIB, 90 * KIB))
        for _ in range(3):
            made.append(data)
            at = rng.randrange(len(data))
            data = data[:at] + rng.randbytes(100) + data[at + 100 :]
    return made


def _digest(data: bytes) -> bytes:
    return blake2b(data, digest_size=16).digest()


def _files(view: PointView) -> dict[str, bytes]:
    entries = view.scan(view.root_entry)
    return {
        e.name.decode(): _digest(view.read(e, 0, e.size)) for e in entries if e.name[:1] != b"."
    }


def _blocks(home: Path) -> int:
    """Bytes allocated to a store's files, but for the index, which keeps its pages for later rows."""
    total = 0
    for folder, _, names in os.walk(home):
        if os.path.basename(folder) != "index":
            total += sum(os.lstat(os.path.join(folder, name)).st_blocks * 512 for name in names)
    return total


def run(job: Job) -> None:
    """As many rounds as the job's size asks for."""
    home = job.scratch / "store"
    apart(job, lambda one: Load(one, home).run(one.size(ROUNDS, least=3)), "load")
    shutil.rmtree(home)


RIGS = (
    Rig(
        "space-load",
        "collections under load through mounts, many killed: nothing is lost, all space comes back",
        run,
        needs=("fuse",),
        bugs=("packs-are-not-unlinked",),
        teeth=0.02,
        test=0.04,
    ),
)
