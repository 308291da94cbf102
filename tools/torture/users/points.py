"""Writers against recovery points: whatever they do through the mount, root too, no point changes or goes.

Random operations on live paths and on paths in points, between them new points and collections; after each round every
point is read from the store and compared, byte by byte and attribute by attribute, with what it was when it was made.
"""

from __future__ import annotations

import ctypes
import errno
import hashlib
import mmap
import os
import random
import stat
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from engine import Store
from engine.points.view import PointView
from tools.torture.rig import Job, Rig
from tools.torture.users.agents import ROOT, Child
from tools.torture.users.ground import Ground, Mounted, ground
from tools.torture.users.model import ALICE, BOB

FULL = 40_000  # operations
ROUNDS = 4
ACTORS = (ROOT, ALICE, BOB)
NAMES = ("a", "b", "c", "d/a", "d/b", "d/e/a", "d", "d/e", "s", "new", "d/new")
SOON = os.O_NONBLOCK  # a fifo must not hold a writer up
_libc = ctypes.CDLL(None, use_errno=True)


def _write(path: str, other: str, chance: random.Random) -> None:
    fd = os.open(path, chance.choice((os.O_WRONLY, os.O_RDWR, os.O_WRONLY | os.O_TRUNC)) | SOON)
    try:
        os.pwrite(fd, chance.randbytes(chance.choice((1, 5000, 70_000))), chance.randrange(200_000))
        if chance.random() < 0.2:
            os.fsync(fd)
    finally:
        os.close(fd)


def _map(path: str, other: str, chance: random.Random) -> None:
    fd = os.open(path, chance.choice((os.O_RDWR, os.O_RDONLY)) | SOON)
    try:
        with mmap.mmap(fd, 0) as pages, tempfile.TemporaryFile(buffering=0) as source:
            source.write(chance.randbytes(len(pages)))
            # The kernel copies: what another writer has cut off meanwhile is EFAULT then, where a store of our own
            # would be SIGBUS and end the writer.
            os.preadv(source.fileno(), [pages], 0)
            pages.flush()
    except (TypeError, ValueError):
        raise PermissionError(errno.EACCES, "no shared mapping") from None  # read-only, or empty
    finally:
        os.close(fd)


def _exchange(path: str, other: str, chance: random.Random) -> None:
    if _libc.renameat2(-100, os.fsencode(path), -100, os.fsencode(other), 2):
        raise OSError(ctypes.get_errno(), "exchange")


def _copy_range(path: str, other: str, chance: random.Random) -> None:
    source, target = os.open(other, os.O_RDONLY | SOON), os.open(path, os.O_WRONLY | SOON)
    try:
        os.copy_file_range(source, target, 10_000)
    finally:
        os.close(source)
        os.close(target)


def _reopen(path: str, other: str, chance: random.Random) -> None:
    """A read-only descriptor, asked for more."""
    given = os.open(path, os.O_RDONLY | SOON)
    try:
        fd = os.open(f"/proc/self/fd/{given}", os.O_RDWR | os.O_TRUNC | SOON)
        os.close(fd)
    finally:
        os.close(given)


def _create(path: str, other: str, chance: random.Random) -> None:
    with open(path, "xb") as file:
        file.write(chance.randbytes(chance.choice((0, 100, 30_000))))


Operation = Callable[[str, str, random.Random], object]
OPERATIONS: tuple[Operation, ...] = (
    _write, _write, _map, _exchange, _copy_range, _reopen, _create, _create,
    lambda path, other, chance: os.truncate(path, chance.randrange(100_000)),
    lambda path, other, chance: os.unlink(path),
    lambda path, other, chance: os.rmdir(path),
    lambda path, other, chance: os.mkdir(path),
    lambda path, other, chance: os.symlink(other, path),
    lambda path, other, chance: os.link(other, path),
    lambda path, other, chance: os.rename(other, path),
    lambda path, other, chance: os.rename(path, other),
    lambda path, other, chance: os.chmod(path, chance.choice((0o777, 0o600, 0o755))),
    lambda path, other, chance: os.chown(path, chance.choice((0, ALICE.uid, BOB.uid)), -1),
    lambda path, other, chance: os.utime(path, ns=(1, 1)),
    lambda path, other, chance: os.setxattr(path, "user.k", chance.randbytes(50)),
    lambda path, other, chance: os.removexattr(path, "user.k"),
    lambda path, other, chance: os.mkfifo(path),
)  # fmt: skip


def work(root: Path, points: list[str], count: int, chance: random.Random) -> Callable[[], int]:
    """What a child does: so many operations; returns how many succeeded."""

    def place() -> str:
        point = chance.choice(points) if points and chance.random() < 0.6 else ""
        name = chance.choice(NAMES) if chance.random() < 0.97 else ""
        return str(root / ".snapshots" / point / name if point else root / (name or "a"))

    def done() -> int:
        worked = 0
        for point in points:  # chance hits these too seldom
            for act in (os.rmdir, os.unlink, lambda path: os.rename(path, root / "stolen")):
                with suppress(OSError):
                    act(str(root / ".snapshots" / point))
        for _ in range(count):
            try:
                chance.choice(OPERATIONS)(place(), place(), chance)
                worked += 1
            except OSError:
                continue
        return worked

    return done


def digest(store: Store, point: str) -> str:
    """Everything of a point that can be seen, in one number; every byte is read and verified."""
    view: PointView = store.glance(point)
    hashed = hashlib.blake2b()
    todo = [(b"", view.root_entry)]
    while todo:
        path, entry = todo.pop()
        told = (
            path, entry.mode, entry.uid, entry.gid, entry.nlink, entry.size, entry.mtime_ns, entry.ctime_ns,
            entry.target, entry.rdev, sorted(view.xattrs(entry).items()),
        )  # fmt: skip
        hashed.update(repr(told).encode())
        if stat.S_ISREG(entry.mode):
            hashed.update(view.read(entry, 0, entry.size))
        elif stat.S_ISDIR(entry.mode):
            todo.extend((path + b"/" + child.name, child) for child in view.scan(entry))
    return hashed.hexdigest()


def _compare(job: Job, place: Ground, known: dict[str, str], when: str) -> None:
    with Store.open(str(place.store)) as store:
        there = {point.id for point in store.points("shared")}
        if there != known.keys():
            job.fail("0", f"{when} there are {len(there)} points instead of {len(known)}")
        for point, before in known.items():
            job.count("points compared")
            if digest(store, point) != before:
                job.fail("0", f"{when} point {point} is not what it was")


def _fill(mounted: Mounted, chance: random.Random) -> None:
    root = mounted.where
    os.makedirs(root / "d" / "e", exist_ok=True)
    for name in ("a", "b", "c", "d/a", "d/b", "d/e/a"):
        if not (root / name).exists():
            (root / name).write_bytes(chance.randbytes(chance.choice((100, 40_000, 150_000))))
        os.chmod(root / name, 0o666)
    for name in ("d", "d/e", "."):
        os.chmod(root / name, 0o777)


def run(job: Job) -> None:
    """Rounds of: a new point, operations of all actors at once, comparison, collection, comparison."""
    each = max(1, job.size(FULL) // ROUNDS // len(ACTORS))
    known: dict[str, str] = {}
    with ground(job.scratch / "points") as place:
        place.create("shared")
        mounted = place.mount("shared")
        for number in range(ROUNDS):
            _clear(mounted.where)
            _fill(mounted, job.random("fill", number))
            made = mounted.snapshot()
            with Store.open(str(place.store)) as store:
                known[made] = digest(store, made)
            children = [
                Child(who, work(mounted.where, list(known), each, job.random(number, who.uid)))
                for who in ACTORS
            ]
            for child in children:
                job.count("operations", each)
                job.count("changes", child.result())
            _compare(job, place, known, "after the writers")
            with Store.open(str(place.store)) as store:
                store.collect()
            _compare(job, place, known, "after a collection")
        mounted.end()
        problems = place.problems()
        if problems:
            job.fail("0", f"check finds {problems[:3]}")


def _clear(root: Path) -> None:
    """Things that were put in the way of the names."""
    for name in ("s", "new", "d/new", *NAMES):
        path = root / name
        wanted = name in ("d", "d/e")
        if os.path.lexists(path) and path.is_dir() != wanted and not path.is_symlink():
            os.rename(
                path, root / f"away{random.Random(str(path)).getrandbits(40)}-{os.urandom(3).hex()}"
            )
        elif path.is_symlink():
            path.unlink()


RIGS = (
    Rig(
        "users-points",
        "no writer, not even root, changes or removes a recovery point through the mount",
        run,
        needs=("root", "fuse"),
        bugs=("points can be removed",),
        teeth=0.01,
        test=0.05,
    ),
)
