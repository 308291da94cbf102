"""Small stores with everything in them that can be damaged, made from a seed, and kept in memory byte by byte.

Three mounts share content: ``disk`` (fixed slots; deltas of deltas, dictionaries, a sparse file whose tree has inner
nodes), ``dump`` (content-defined pieces, sketches) and ``home`` (many small files, directories of several nodes, hard
links, symbolic links, small and large extended attributes).  One point is deleted, one live tree is ahead of its
points.  Packs are small, so that several are sealed and segments are left open.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from unittest.mock import patch

from engine import Store, home, limits
from engine.live import ROOT, Ctx
from engine.live import tree as live
from engine.live.state import Clock
from engine.live.tree import LiveTree
from engine.seam import Os

CTX = Ctx(0, 0)
PACK = 150_000  # bytes of a pack here, so that there are several


@dataclass
class Files:
    """A store's files by their path below it. ``packs``: packs and segments; ``index``: LMDB's data."""

    packs: dict[str, bytes] = field(default_factory=dict)
    index: bytes = b""
    other: dict[str, bytes] = field(default_factory=dict)


INDEX = "index/data.mdb"


def read_files(store: Path) -> Files:
    """All of a closed store."""
    files = Files()
    for path in sorted(store.rglob("*")):
        name = str(path.relative_to(store))
        if not path.is_file() or name == "index/lock.mdb":
            continue
        if name == INDEX:
            files.index = path.read_bytes()
        elif name.startswith(("packs/", "segments/")):
            files.packs[name] = path.read_bytes()
        else:
            files.other[name] = path.read_bytes()
    return files


def write_files(store: Path, files: Files) -> None:
    """Make the store again from its files, whatever was there."""
    shutil.rmtree(store, ignore_errors=True)
    for folder in ("packs", "segments", "workers", "run", "quarantine", "index"):
        (store / folder).mkdir(parents=True)
    for name, data in [*files.packs.items(), *files.other.items(), (INDEX, files.index)]:
        (store / name).parent.mkdir(exist_ok=True)
        (store / name).write_bytes(data)


class _Seeded(Os):
    """Time and chance of the seed, so that the same store is made again."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._now = 1_700_000_000_000_000_000

    def time_ns(self) -> int:
        self._now += 1_000_000
        return self._now

    def random(self, count: int) -> bytes:
        return self._chance.randbytes(count)


@contextmanager
def _small_and_seeded(system: Os) -> Iterator[None]:
    """Packs, and data that is worth a dictionary, in small; one thread that seals; live trees with the seed's clock."""
    defaults = LiveTree.__init__.__kwdefaults__
    assert defaults is not None
    clock = partial(Clock, now_ns=system.time_ns, monotonic=lambda: 0.0)
    with (
        patch.object(limits, "PACK_MAX", PACK), patch.object(limits, "DICTIONARY_MIN", 200_000),
        patch.object(live, "Clock", clock), patch.dict(defaults, {"seal_threads": 1}),
    ):  # fmt: skip
        yield


def make(store: Path, chance: random.Random) -> list[str]:
    """A new store at a path; the ids of its points, oldest first."""
    content = random.Random(chance.random())
    system = _Seeded(chance)
    with _small_and_seeded(system):
        home.init(str(store), system=system)
        with Store(home.OpenStore(str(store), system=system)) as opened:
            points = write(opened, content)
            opened.remove_point(points.pop(0))
    return points


def write_again(store: Path, chance: random.Random, run: str) -> None:
    """What ``make`` wrote with this chance, in the same order and manner, into new mounts of the store."""
    content = random.Random(chance.random())
    with _small_and_seeded(_Seeded(chance)), Store.open(str(store)) as opened:
        write(opened, content, run)


def write(store: Store, chance: random.Random, run: str = "") -> list[str]:
    """Everything of the three mounts, whose names end in ``run``; their points."""
    for name, chunking in (("disk", "fixed"), ("dump", "cdc"), ("home", "auto")):
        store.create_mount(name + run, None, chunking)
    rows = _rows(chance, 6000)
    points = _disk(store, "disk" + run, chance, rows)
    points += _dump(store, "dump" + run, chance, rows)
    return points + _home(store, "home" + run, chance, rows)


def _rows(chance: random.Random, count: int) -> bytes:
    """Something like the rows of a table: compresses, and gains from a dictionary."""
    words = [chance.randbytes(chance.randrange(3, 9)).hex().encode() for _ in range(120)]
    lines = (
        b"%08d|%s|%s|%s\n" % (n, chance.choice(words), chance.choice(words), chance.randbytes(4))
        for n in range(count)
    )
    return b"".join(lines)


def put(tree: LiveTree, parent: int, name: bytes, data: bytes) -> int:
    """A file of that content; its inode."""
    ino = tree.create(parent, name, 0o644, CTX).ino
    tree.write(ino, 0, data)
    return ino


def _disk(store: Store, mount: str, chance: random.Random, rows: bytes) -> list[str]:
    tree = store.open_live(mount)
    points = []
    image = bytearray(rows + chance.randbytes(100_000))
    ino = put(tree, ROOT, b"image", bytes(image))
    sparse = put(tree, ROOT, b"sparse", b"first")
    tree.setattr(sparse, size=9 << 20, now_ns=1)
    tree.write(sparse, 4 << 20, chance.randbytes(5000))
    tree.write(sparse, (8 << 20) + 70_000, b"last leaf")
    gone = put(tree, ROOT, b"gone", chance.randbytes(30_000))
    for day in range(4):
        for _ in range(6):
            at = chance.randrange(len(image) - 300)
            image[at : at + 200] = chance.randbytes(200)
            tree.write(ino, at, bytes(image[at : at + 200]))
        for slot in (0, limits.SLOT):  # whole ones, again and again: deltas of deltas
            at = slot + chance.randrange(limits.SLOT - 40)
            image[at : at + 40] = chance.randbytes(40)
            tree.write(ino, slot, bytes(image[slot : slot + limits.SLOT]))
        tree.barrier()
        points.append(store.snapshot(mount, f"day {day}").id)
        if not day:
            tree.unlink(ROOT, b"gone")
            assert gone
    tree.write(ino, 1000, b"after the last point")
    put(tree, ROOT, b"unkept", chance.randbytes(20_000))
    tree.close()
    return points


def _dump(store: Store, mount: str, chance: random.Random, rows: bytes) -> list[str]:
    tree = store.open_live(mount)
    points = []
    text = rows[:150_000] + chance.randbytes(60_000)
    for day in range(2):
        cut = chance.randrange(len(text))
        text = text[:cut] + b"a few bytes more move all that follows" + text[cut:]
        put(tree, ROOT, b"day%d.sql" % day, text)
        tree.barrier()
        points.append(store.snapshot(mount).id)
    tree.close()
    return points


def _home(store: Store, mount: str, chance: random.Random, rows: bytes) -> list[str]:
    tree = store.open_live(mount)
    many = tree.mkdir(ROOT, b"many", 0o755, CTX).ino
    deep = tree.mkdir(tree.mkdir(ROOT, b"a", 0o700, CTX).ino, b"b", 0o711, CTX).ino
    for number in range(
        220
    ):  # fewer files than are sealed together in the background: the same store each time
        if number % 4:
            tree.symlink(many, b"%04d" % number, b"to %d" % number, CTX)
        else:
            at = chance.randrange(len(rows) - 3000)
            put(tree, many, b"%04d" % number, rows[at : at + chance.randrange(3000)])
    one = put(tree, deep, b"one", chance.randbytes(9000))
    tree.link(one, ROOT, b"other name")
    put(tree, ROOT, b"copy of rows", rows[: 3 * limits.SLOT])  # what disk has, too
    put(tree, ROOT, b"empty", b"")
    tree.setxattr(one, b"user.small", b"value")
    tree.setxattr(one, b"user.large", chance.randbytes(3000))
    tree.setxattr(deep, b"user.large", chance.randbytes(700))
    tree.barrier()
    points = [store.snapshot(mount).id]
    put(tree, deep, b"two", chance.randbytes(5000))
    tree.unlink(many, b"0007")
    tree.barrier()
    points.append(store.snapshot(mount).id)
    tree.close()
    return points
