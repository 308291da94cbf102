"""A mount's tree that can be crashed and opened again, over memory or over the real engine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from engine import home
from engine.index import Index
from engine.ingest.mode import choose_mode
from engine.keys import Key
from engine.live import Clock, Ctx, LiveTree, Ports, Quota, create_tree, problems
from tests.live.ports import Chunks, memory_ports

MOUNT = 7
CTX = Ctx(uid=1000, gid=1000, pid=1, umask=0o022)
PLENTY = 1 << 40


class Ticking:
    """Time that moves when told."""

    def __init__(self) -> None:
        self.ns = 1_700_000_000_000_000_000
        self.seconds = 1000.0

    def clock(self) -> Clock:
        return Clock(self.now_ns, lambda: self.seconds)

    def now_ns(self) -> int:
        self.ns += 1000
        return self.ns

    def wait(self, seconds: float) -> None:
        self.seconds += seconds
        self.ns += int(seconds * 1e9)


class Rig:
    """``tree`` is the open tree. Subclasses say where chunks live."""

    index: Index

    def __init__(self, **options: Any) -> None:
        self.time = Ticking()
        self.options = {"seal_threads": 0, **options}
        self.left: Callable[[], int] = lambda: PLENTY
        with self.index.write() as txn:
            create_tree(txn, MOUNT, secret=b"s" * 16, now_ns=self.time.now_ns())
        self.tree = self.open()

    def space_left(self) -> int:
        return self.left()

    def ports(self) -> Ports:
        raise NotImplementedError

    def forget(self) -> None:
        """Lose what a dying process loses."""
        raise NotImplementedError

    def end(self) -> None:
        """Let go of everything."""
        raise NotImplementedError

    def open(self) -> LiveTree:
        return LiveTree(MOUNT, self.ports(), clock=self.time.clock(), **self.options)

    def crash(self) -> LiveTree:
        """Kill the process that serves the tree; open the tree again."""
        self.tree._stop()
        self.forget()
        self.tree = self.open()
        self.verify()
        return self.tree

    def reopen(self) -> LiveTree:
        """Close properly and open again."""
        self.tree.close()
        self.tree = self.open()
        self.verify()
        return self.tree

    def verify(self) -> None:
        """The rows fit each other."""
        with self.index.read() as txn:
            found = list(problems(txn, MOUNT))
        assert not found, found

    def set_quota(self, nbytes: int = 0, inodes: int = 0) -> LiveTree:
        self.options["quota"] = Quota(nbytes, inodes)
        return self.reopen()


class MemoryRig(Rig):
    def __init__(self, path: Path, **options: Any) -> None:
        self.index = Index(str(path / "index"), create=True, map_size=1 << 30)
        self.chunks = Chunks(self.index)
        super().__init__(**options)

    def ports(self) -> Ports:
        return memory_ports(self.chunks, self.space_left)

    def forget(self) -> None:
        self.chunks.lose_uncommitted()

    def end(self) -> None:
        self.tree._stop()
        self.index.close()


class EngineRig(Rig):
    seal: tuple[Key, ...] = ()

    def __init__(self, path: Path, **options: Any) -> None:
        self.path = str(path / "store")
        home.init(self.path, seal=self.seal)
        if self.seal:
            home.OpenStore(self.path, key=self.seal[0]).close()  # from here on it is known
        self.store = home.OpenStore(self.path)
        self.index = self.store.context.index
        self._dead: list[home.OpenStore] = []
        super().__init__(**options)

    def ports(self) -> Ports:
        session = self.store.session
        return Ports(
            index=self.index,
            reader=self.store.reader,
            writer=session.writer,
            seal=session.sealer.seal,
            choose_mode=choose_mode,
            space_left=self.space_left,
            flush=session.sealer.flush,
        )

    def forget(self) -> None:
        self._dead.append(self.store)  # a dead process closes nothing
        self.store = home.OpenStore(self.path)
        self.index = self.store.context.index

    def end(self) -> None:
        self.tree._stop()
        self.store.close()
        for store in self._dead:
            store.close()


class SealedRig(EngineRig):
    seal = (Key(b"k" * 32),)


def write_file(tree: LiveTree, parent: int, name: bytes, data: bytes) -> int:
    """Create, open, write, close; returns the inode number."""
    ino = tree.create(parent, name, 0o644, CTX).ino
    tree.opened(ino, 2)
    if data:
        tree.write(ino, 0, data)
    tree.released(ino)
    return ino


def names(tree: LiveTree, ino: int = 1) -> dict[bytes, int]:
    """A directory's entries: name -> inode."""
    return {name: attr.ino for name, attr, _ in tree.readdir(ino, 0)}


def content(tree: LiveTree, ino: int) -> bytes:
    """All bytes of a file, read in uneven pieces."""
    size = tree.getattr(ino).size
    parts, at = [], 0
    while at < size:
        part = tree.read(ino, at, 700_001)
        parts.append(part)
        at += len(part)
    return b"".join(parts)
