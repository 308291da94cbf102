"""What the tests of restoring share: a mount's tree made by paths, and what can be seen of a tree on disk."""

from __future__ import annotations

import os
import random
import stat

from engine import Store
from engine.live import ROOT, Ctx
from engine.live.tree import LiveTree
from engine.restore import RestoreReport

MTIME = 1_700_000_000_123_456_789
Seen = dict[bytes, tuple[object, ...]]


class Maker:
    """Makes things in a mount's live tree, named by their path. Owners, modes and times are set as given."""

    def __init__(self, tree: LiveTree) -> None:
        self.tree = tree
        self.inodes: dict[bytes, int] = {b"": ROOT}

    def _place(self, path: bytes) -> tuple[int, bytes]:
        parent, _, name = path.rpartition(b"/")
        return self.inodes[parent], name

    def _made(self, path: bytes, ino: int, mode: int) -> int:
        self.inodes[path] = ino
        self.tree.setattr(ino, mode=mode, atime_ns=MTIME - 5, mtime_ns=MTIME + ino, now_ns=1)
        return ino

    def file(self, path: bytes, data: bytes = b"", mode: int = 0o644) -> int:
        parent, name = self._place(path)
        ino = self.tree.create(parent, name, 0o600, Ctx(0, 0)).ino
        if data:
            self.tree.write(ino, 0, data)
        return self._made(path, ino, mode)

    def folder(self, path: bytes, mode: int = 0o755) -> int:
        parent, name = self._place(path)
        return self._made(path, self.tree.mkdir(parent, name, 0o700, Ctx(0, 0)).ino, mode)

    def symlink(self, path: bytes, target: bytes) -> int:
        parent, name = self._place(path)
        ino = self.tree.symlink(parent, name, target, Ctx(0, 0)).ino
        self.tree.setattr(ino, mtime_ns=MTIME + ino, now_ns=1)
        self.inodes[path] = ino
        return ino

    def special(self, path: bytes, mode: int, rdev: int = 0) -> int:
        parent, name = self._place(path)
        ino = self.tree.mknod(parent, name, mode, rdev, Ctx(0, 0)).ino
        return self._made(path, ino, stat.S_IMODE(mode))

    def link(self, old: bytes, new: bytes) -> None:
        parent, name = self._place(new)
        self.tree.link(self.inodes[old], parent, name)
        self.inodes[new] = self.inodes[old]

    def point(self, store: Store) -> str:
        """A point of what was made, directories with times of their own."""
        for path, ino in self.inodes.items():
            if stat.S_ISDIR(self.tree.getattr(ino).mode) and path:
                self.tree.setattr(ino, mtime_ns=MTIME + ino, atime_ns=MTIME - 5, now_ns=1)
        self.tree.barrier()
        return store.snapshot("m").id


def noise(size: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(size)


def wanted(tree: LiveTree, ino: int = ROOT, path: bytes = b"") -> Seen:
    """What a restored copy of a live tree must show, by path."""
    found: Seen = {}
    for name, attr, _ in list(tree.readdir(ino, 0)):
        here = path + b"/" + name if path else name
        content: object = None
        if stat.S_ISREG(attr.mode):
            content = tree.read(attr.ino, 0, attr.size)
        elif stat.S_ISLNK(attr.mode):
            content = tree.readlink(attr.ino)
        elif stat.S_ISCHR(attr.mode) or stat.S_ISBLK(attr.mode):
            content = attr.rdev
        links = 0 if stat.S_ISDIR(attr.mode) else attr.nlink
        xattrs = {n: tree.getxattr(attr.ino, n) for n in tree.listxattr(attr.ino)}
        found[here] = (attr.mode, attr.uid, attr.gid, attr.mtime_ns, links, content, xattrs)
        if stat.S_ISDIR(attr.mode):
            found |= wanted(tree, attr.ino, here)
    return found


def seen(root: bytes, path: bytes = b"") -> Seen:
    """The same of a directory on disk."""
    found: Seen = {}
    for entry in os.scandir(os.path.join(root, path)):
        status = entry.stat(follow_symlinks=False)
        here = path + b"/" + entry.name if path else entry.name
        content: object = None
        if stat.S_ISREG(status.st_mode):
            with open(entry.path, "rb") as file:
                content = file.read()
        elif stat.S_ISLNK(status.st_mode):
            content = os.readlink(entry.path)
        elif stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode):
            content = status.st_rdev
        folder = stat.S_ISDIR(status.st_mode)
        names = os.listxattr(entry.path, follow_symlinks=False)
        xattrs = {os.fsencode(n): os.getxattr(entry.path, n, follow_symlinks=False) for n in names}
        links = 0 if folder else status.st_nlink
        found[here] = (
            status.st_mode, status.st_uid, status.st_gid, status.st_mtime_ns, links, content, xattrs,
        )  # fmt: skip
        if folder:
            found |= seen(root, here)
    return found


def damage(store: Store, cid: bytes) -> None:
    """Overwrite some bytes near the end of a chunk's record."""
    row = store._open.reader.row(cid)
    assert row is not None
    files = store._open.context.files
    path = files.segment_path(row.pack)
    with open(path if os.path.exists(path) else files.pack_path(row.pack), "r+b") as file:
        file.seek(row.offset + row.stored - 20)
        file.write(b"\x00\xff" * 5)


def restored(store: Store, point: str, out: bytes) -> RestoreReport:
    """Restore the whole point with a reader that has nothing in its memory."""
    with Store.open(store.path) as other:
        return other.restore(point, b"", out)


def found(report: RestoreReport) -> list[tuple[bytes, str]]:
    """What is damaged, without the reasons."""
    return sorted((d.path, d.text.split(" cannot be read: ")[0]) for d in report.damaged)


def without(content: Seen, path: bytes, start: int, end: int) -> Seen:
    """The same with zeros in one range of one file."""
    row = list(content[path])
    data = row[5]
    assert isinstance(data, bytes)
    row[5] = data[:start] + bytes(end - start) + data[end:]
    return {**content, path: tuple(row)}
