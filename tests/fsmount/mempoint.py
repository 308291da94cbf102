"""A recovery point in memory: a frozen copy of a ``MemTree`` with the interface of the engine's view."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from tests.fsmount.memtree import Inode, MemTree


@dataclass(frozen=True)
class MemEntry:
    """An entry with everything below it."""

    name: bytes
    mode: int
    ino: int
    uid: int = 0
    gid: int = 0
    nlink: int = 1
    generation: int = 1
    rdev: int = 0
    size: int = 0
    allocated: int = 0
    mtime_ns: int = 0
    ctime_ns: int = 0
    atime_ns: int = 0
    btime_ns: int = 0
    target: bytes = b""
    data: bytes = b""
    below: dict[bytes, MemEntry] = field(default_factory=dict)
    kept: dict[bytes, bytes] = field(default_factory=dict)


class MemView:
    """See ``fsmount.pointfs.View``."""

    def __init__(self, root: MemEntry) -> None:
        self.root_entry = root

    @staticmethod
    def of(tree: MemTree) -> MemView:
        def entry(name: bytes, node: Inode) -> MemEntry:
            below = {
                child: entry(child, tree.inodes[ino]) for child, (ino, _) in node.names.items()
            }
            return MemEntry(
                name, node.mode, node.ino, node.uid, node.gid, node.nlink, size=node.size,
                allocated=node.blocks * 512, mtime_ns=node.mtime_ns, ctime_ns=node.ctime_ns,
                target=node.target, data=bytes(node.data), below=below, kept=dict(node.xattrs),
            )  # fmt: skip

        return MemView(entry(b"", tree.inodes[1]))

    def get(self, directory: MemEntry, name: bytes) -> MemEntry | None:
        return directory.below.get(name)

    def scan(self, directory: MemEntry, after: bytes) -> Iterator[MemEntry]:
        for name in sorted(directory.below):
            if name > after:
                yield directory.below[name]

    def read(self, entry: MemEntry, offset: int, size: int) -> bytes:
        return entry.data[offset : offset + size]

    def xattrs(self, entry: MemEntry) -> dict[bytes, bytes]:
        return entry.kept
