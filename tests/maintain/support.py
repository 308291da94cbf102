"""What the tests of maintenance share: stores with points, seeded content, restoring, a system that fails."""

from __future__ import annotations

import os
import random
from collections.abc import Sequence
from pathlib import Path

from engine import Store
from engine.errors import HoldfastError
from engine.live import ROOT, Ctx
from engine.live.tree import LiveTree
from engine.seam import Os

CTX = Ctx(0, 0)


class Killed(BaseException):
    """Stands for the end of the process: nothing may catch it."""


class MortalOs(Os):
    """Dies at the ``left``-th step that changes something, and at every one after it."""

    def __init__(self) -> None:
        self.left = 1 << 60
        self.steps: list[str] = []

    def _step(self, what: str) -> None:
        self.steps.append(what)
        self.left -= 1
        if self.left < 0:
            raise Killed(what)

    def pwritev(self, fd: int, parts: Sequence[bytes | memoryview], offset: int) -> int:
        self._step("pwritev")
        return super().pwritev(fd, parts, offset)

    def fdatasync(self, fd: int) -> None:
        self._step("fdatasync")
        super().fdatasync(fd)

    def fsync_dir(self, path: str) -> None:
        self._step("fsync_dir")
        super().fsync_dir(path)

    def rename(self, old: str, new: str) -> None:
        self._step("rename")
        super().rename(old, new)

    def unlink(self, path: str) -> None:
        self._step("unlink")
        super().unlink(path)


def noise(size: int, seed: int) -> bytes:
    return random.Random(seed).randbytes(size)


def put(tree: LiveTree, name: bytes, data: bytes) -> int:
    try:
        ino = tree.lookup(ROOT, name).ino
        tree.setattr(ino, size=0, now_ns=1)
    except HoldfastError:
        ino = tree.create(ROOT, name, 0o644, CTX).ino
    tree.write(ino, 0, data)
    return ino


def three_points(store: Store) -> list[str]:
    """Three days of a file that changes a little, one that is new every day, and links."""
    tree = store.open_live("m")
    ids = []
    base = noise(400_000, 1)
    for day in range(3):
        changed = base[:1000] + bytes([day]) * 100 + base[1100:]
        put(tree, b"db.dbf", changed)
        put(tree, b"only", noise(300_000, 10 + day))
        tree.symlink(ROOT, b"link%d" % day, b"db.dbf", CTX)
        tree.barrier()
        ids.append(store.snapshot("m", f"day {day}").id)
    tree.close()
    return ids


def sound(store: Store) -> None:
    assert store.check(read_data=True).problems == []


def restored(store: Store, point: str, target: Path) -> dict[str, bytes]:
    store.restore(point, b"", os.fsencode(target))
    return {p.name: p.read_bytes() for p in target.iterdir() if not p.is_symlink()}


def pack_path(home: Path, number: int) -> Path:
    return next(
        iter([*home.glob(f"packs/*/{number:08d}.pack"), *home.glob(f"segments/{number:08d}.seg")])
    )


def damage(store: Store, home: Path, cid: bytes) -> None:
    """Overwrite some bytes near the end of a chunk's record."""
    row = store._open.reader.row(cid)
    assert row is not None
    with pack_path(home, row.pack).open("r+b") as file:
        file.seek(row.offset + row.stored - 20)
        file.write(b"\x00\xff" * 5)
