"""What the tests of maintenance share: stores with points, seeded content, restoring, a system that fails."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from engine import Store
from engine.errors import HoldfastError
from engine.index import Index, Txn
from engine.live import ROOT, Ctx
from engine.live.tree import LiveTree
from engine.seam import Os

CTX = Ctx(0, 0)


class MortalOs(Os):
    """Kills its process, as ``kill -9`` does, before the ``left``-th step that changes something.

    Steps are the calls of the operating system that change what is on disk, and the transactions of the index once
    ``watch_transactions`` was called: in a child process, as this is for all of them.  Nothing is synced: what was
    written outlives the process without that.
    """

    def __init__(self, left: int = 1 << 60) -> None:
        self._left = left

    def _step(self) -> None:
        self._left -= 1
        if self._left < 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def watch_transactions(self) -> None:
        real = Index.write

        @contextmanager
        def write(index: Index) -> Iterator[Txn]:
            self._step()
            with real(index) as txn:
                yield txn

        Index.write = write  # type: ignore[method-assign]

    def open(self, path: str, flags: int, mode: int = 0o600) -> int:
        if flags & os.O_CREAT and not os.path.exists(path):
            self._step()
        return super().open(path, flags, mode)

    def pwritev(self, fd: int, parts: Sequence[bytes | memoryview], offset: int) -> int:
        self._step()
        return super().pwritev(fd, parts, offset)

    def truncate(self, fd: int, size: int) -> None:
        self._step()
        super().truncate(fd, size)

    def fdatasync(self, fd: int) -> None:
        self._step()

    def fsync(self, fd: int) -> None:
        self._step()

    def fsync_dir(self, path: str) -> None:
        self._step()

    def rename(self, old: str, new: str) -> None:
        self._step()
        super().rename(old, new)

    def unlink(self, path: str) -> None:
        self._step()
        super().unlink(path)

    def mkdir(self, path: str, mode: int = 0o700) -> None:
        self._step()
        super().mkdir(path, mode)


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
