"""A live tree made again from a point: the rows of every inode, name, attribute and span, as they were.

What of the point cannot be read is left out and told.
"""

from __future__ import annotations

import stat
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

from engine import limits, registry
from engine.chunks import ChunkReader, Context
from engine.errors import UNREADABLE, Corrupt
from engine.index import Table
from engine.index.rows import U64
from engine.live import create_tree, lookup, rows
from engine.live.rows import F_INLINE, F_LINKS, F_XATTRS, ROOT, Meta
from engine.nodes import Entry
from engine.nodes.extents import encode_extents
from engine.nodes.point import Point
from engine.points.view import PointView
from engine.registry import Mount

_BATCH = 10_000  # rows per transaction


def regrow_all(
    context: Context, reader: ChunkReader, mounts: Sequence[tuple[Mount, Point]]
) -> Iterator[tuple[Mount, Point, int, list[str]]]:
    """Make mounts in a fresh index, each with the tree of a point; of each: how many inodes, and what was lost."""
    with context.index.write() as txn:
        top = max((mount.id for mount, _ in mounts), default=0)
        txn.put(Table.META, b"next_mount", U64.pack(top + 1))
        for mount, _ in mounts:
            registry.save(txn, mount)
            create_tree(
                txn, mount.id, secret=context.system.random(16), now_ns=context.system.time_ns()
            )
    for mount, point in mounts:
        view = PointView(reader, point.root)
        regrower = Regrower(context, reader, mount.id, view, most=point.files + 1)
        yield mount, point, regrower.run(), regrower.lost


class Regrower:
    """Fills the empty live tree of one mount. Inode numbers are kept, so handles and hard links are too."""

    def __init__(
        self, context: Context, reader: ChunkReader, mount: int, view: PointView, *, most: int
    ) -> None:
        """``most``: inodes; a tree that is made of itself many times over has more than its point says."""
        self._context = context
        self._reader = reader
        self._mount = mount
        self._view = view
        self._puts: list[tuple[Table, bytes, bytes]] = []
        self._links: dict[
            int, tuple[Entry, int, int]
        ] = {}  # ino -> entry, first parent, first cookie
        self._more: Counter[int] = Counter()  # rows in PARENTS of each inode
        self.lost: list[str] = []  # what could not be made again, and why
        self._most = most
        self._used = 0
        self._inodes = 0
        self._top = ROOT
        with context.index.read() as txn:
            raw = txn.get(Table.LIVE_META, rows.meta_key(mount))
            assert raw is not None, "the tree was created before"
            self._meta = rows.decode_meta(raw)

    def run(self) -> int:
        """Write everything; returns the number of inodes."""
        self._directory(ROOT, ROOT, 0, self._view.root_entry)
        for ino, (entry, parent, cookie) in self._links.items():
            links = 1 + self._more[ino]
            flags = F_LINKS if links > 1 else 0
            self._inode(ino, entry._replace(nlink=links), parent, cookie, flags)
        meta = Meta(self._top + 1, self._meta.seq, self._used, self._inodes, self._meta.secret)
        self._put(Table.LIVE_META, rows.meta_key(self._mount), meta.encode())
        self._flush()
        return self._inodes

    def _directory(self, ino: int, parent: int, cookie: int, entry: Entry) -> None:
        todo = [(ino, parent, cookie, entry, b"")]
        while todo:
            number, above, place, folder, path = todo.pop()
            taken: set[int] = set()
            below = 0
            for child in self._view.scan(folder, b"", self._names_lost(path)):
                here = path + b"/" + child.name
                if not self._readable(child, here):
                    continue
                at = lookup.name_hash(self._meta.secret, child.name) * lookup.PLACES
                while at in taken:
                    at += 1
                taken.add(at)
                value = rows.encode_dirent(child.ino, stat.S_IFMT(child.mode) >> 12, child.name)
                self._put(Table.DIRENTS, rows.dirent_key(self._mount, number, at), value)
                if stat.S_ISDIR(child.mode):
                    todo.append((child.ino, number, at, child, here))
                    below += 1
                elif child.nlink > 1:
                    self._link(child, number, at)
                else:
                    self._inode(child.ino, child, number, at, 0)
            self._inode(number, folder._replace(size=len(taken), nlink=2 + below), above, place, 0)

    def _names_lost(self, path: bytes) -> Callable[[bytes, bytes, Exception], None]:
        def note(after: bytes, upto: bytes, error: Exception) -> None:
            names = f"names behind {after!r}" + (f" up to {upto!r}" if upto else "")
            self.lost.append(f"directory {path or b'/'!r}: {names} are missing: {error}")

        return note

    def _readable(self, entry: Entry, path: bytes) -> bool:
        """Whether it is known what a file consists of. Where it is not, zeros would be a lie: the file is left out.

        A damaged chunk is none of this: whoever reads it gets the error, and writing it again heals it.
        """
        if stat.S_ISREG(entry.mode):
            try:
                for _ in self._view.spans(entry):
                    pass
            except UNREADABLE as error:
                self.lost.append(f"file {path!r} is missing: {error}")
                return False
        return True

    def _link(self, entry: Entry, parent: int, cookie: int) -> None:
        if entry.ino not in self._links:
            self._links[entry.ino] = (entry, parent, cookie)
            return
        self._more[entry.ino] += 1
        self._put(Table.PARENTS, rows.link_key(self._mount, entry.ino, parent, cookie), b"")

    def _inode(self, ino: int, entry: Entry, parent: int, cookie: int, flags: int) -> None:
        tail = b""
        alloc = 0
        if stat.S_ISREG(entry.mode):
            for number, extents in self._view.spans(entry):
                encoded = encode_extents(extents)
                alloc += sum(extent[1] for extent in extents)
                if not number and len(encoded) <= limits.INLINE_CONTENT_MAX:
                    tail, flags = encoded, flags | F_INLINE
                else:
                    self._put(Table.SPANS, rows.span_key(self._mount, ino, number), encoded)
        elif stat.S_ISLNK(entry.mode):
            tail = entry.target
        elif stat.S_ISCHR(entry.mode) or stat.S_ISBLK(entry.mode):
            tail = rows.rdev_tail(entry.rdev)
        if entry.xattrs and self._xattrs(ino, entry):
            flags |= F_XATTRS
        raw = rows.encode_inode(
            flags, entry.chunking, entry.mode, entry.nlink, entry.uid, entry.gid, entry.size, alloc, entry.mtime_ns,
            entry.ctime_ns, entry.atime_ns, entry.btime_ns, parent, cookie, 1, tail,
        )  # fmt: skip
        self._put(Table.INODES, rows.inode_key(self._mount, ino), raw)
        self._used += alloc
        self._inodes += 1
        if self._inodes > self._most:
            raise Corrupt(
                "tree of a point", expected=f"at most {self._most} inodes", found="more",
                do="restore another point",
            )  # fmt: skip
        self._top = max(self._top, ino)

    def _xattrs(self, ino: int, entry: Entry) -> bool:
        """Whether there are any that can be read."""
        try:
            values = self._view.xattrs(entry)
        except UNREADABLE as error:
            self.lost.append(f"{entry.name!r}: its extended attributes are missing: {error}")
            return False
        for name, value in values.items():
            for part, at in enumerate(range(0, len(value) or 1, limits.XATTR_PART)):
                key = rows.xattr_key(self._mount, ino, name, part)
                self._put(Table.XATTRS, key, value[at : at + limits.XATTR_PART])
        return bool(values)

    def _put(self, table: Table, key: bytes, value: bytes) -> None:
        self._puts.append((table, key, value))
        if len(self._puts) >= _BATCH:
            self._flush()

    def _flush(self) -> None:
        with self._context.index.write() as txn:
            for table, key, value in self._puts:
                txn.put(table, key, value)
        self._puts = []
