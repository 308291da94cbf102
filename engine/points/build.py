"""From a live tree, as one read transaction sees it, to manifest nodes: only what changed is written anew.

What changed is told by the live tree's rows: CHANGED (an inode's attributes or content), CHANGED_NAMES (an entry came,
went or was replaced), CHANGED_SPANS.  From them: file roots first, then every directory that has a changed member,
deepest first, up to the root.  ROOTS remembers the root each file and directory had last time, and where there is
none, the whole is built from the rows.

Done again, the same rows give the same nodes, so a snapshot that died half way costs nothing: ROOTS may be ahead of
the last point, as applying a change twice changes nothing.  Where the root directory has no root, none of the others is
believed: they are of a first snapshot that died, and what changed since is not looked at when the whole is built.
"""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterator
from typing import NamedTuple

from engine import limits
from engine.chunks import ChunkReader, ChunkWriter, Hold
from engine.errors import Corrupt
from engine.index import Table, Txn
from engine.live import lookup, rows
from engine.live.rows import InodeRow
from engine.nodes import Entry, Extent, dirs, files, xattrs
from engine.nodes.extents import decode_extents

ROOT = rows.ROOT
_BATCH = 4000  # rows of ROOTS per transaction
Report = Callable[[int], None]


class HeldWriter:
    """The chunk writer as nodes want it, with the hold of the snapshot."""

    def __init__(self, writer: ChunkWriter, hold: Hold) -> None:
        self._writer = writer
        self._hold = hold

    def put_node(self, data: bytes, like: bytes | None = None) -> bytes:
        return self._writer.put_node(data, self._hold, like)


class Seen(NamedTuple):
    """Change marks this snapshot takes account of: (table, key, value as read)."""

    table: Table
    key: bytes
    value: bytes


class TreeBuilder:
    """Builds the manifest of one mount. Used by one thread, inside one read transaction."""

    def __init__(
        self,
        txn: Txn,
        mount: int,
        reader: ChunkReader,
        writer: ChunkWriter,
        hold: Hold,
        report: Report,
    ) -> None:
        self._txn = txn
        self._mount = mount
        self._reader = reader
        self._writer = writer
        self._nodes = HeldWriter(writer, hold)
        self._report = report
        self._roots: dict[bytes, bytes] = {}  # ROOTS rows not written yet
        self._fresh: dict[int, bytes] = {}  # roots made by this snapshot
        self.seen: list[Seen] = []
        self._remembers = True
        self._done = 0
        raw = txn.get(Table.LIVE_META, rows.meta_key(mount))
        if raw is None:
            raise Corrupt(
                f"mount {mount}", expected="a live tree", found="none", do="run 'holdfast check'"
            )
        self.meta = rows.decode_meta(raw)
        self._secret = self.meta.secret

    def build(self) -> Entry:
        """The root directory's entry; its nodes and ROOTS rows are stored, the last of them perhaps not committed."""
        changed = self._changed_inodes()
        names = self._changed_names()
        if self._old_root(ROOT) is None:
            self._remembers = False
            root = self._whole_directory(ROOT)
        else:
            root = self._changed_tree(changed, names)
        row = self._row(ROOT)
        assert row is not None, "a live tree has a root"
        return self._entry(b"", ROOT, row, root)

    def write_roots(self, txn: Txn) -> None:
        """The ROOTS rows that are left, for the transaction that commits the point."""
        for key, value in self._roots.items():
            txn.put(Table.ROOTS, key, value)
        self._roots = {}

    # --- what changed -------------------------------------------------------------------------------------

    def _changed_inodes(self) -> dict[int, rows.Changed]:
        result = {}
        for key, value in self._txn.scan(Table.CHANGED, prefix=rows.meta_key(self._mount)):
            result[rows.split_inode_key(key)] = rows.decode_changed(value)
            self.seen.append(Seen(Table.CHANGED, key, value))
        return result

    def _changed_names(self) -> dict[int, set[bytes]]:
        result: dict[int, set[bytes]] = {}
        prefix = rows.meta_key(self._mount)
        head = len(rows.inode_key(0, 0))
        for key, value in self._txn.scan(Table.CHANGED_NAMES, prefix=prefix):
            result.setdefault(rows.split_inode_key(key[:head]), set()).add(key[head:])
            self.seen.append(Seen(Table.CHANGED_NAMES, key, value))
        return result

    def _changed_spans(self, ino: int, first: int) -> set[int]:
        """Numbers of spans that may differ from the file's last root."""
        numbers = set()
        prefix = rows.inode_key(self._mount, ino)
        for key, value in self._txn.scan(Table.CHANGED_SPANS, prefix=prefix):
            numbers.add(rows.split_span_key(key))
            self.seen.append(Seen(Table.CHANGED_SPANS, key, value))
        if first != rows.NOWHERE:
            if not first:
                numbers.add(0)  # it may be inline
            start = rows.span_key(self._mount, ino, first)
            for key, _ in self._txn.scan(Table.SPANS, start=start, prefix=prefix):
                numbers.add(rows.split_span_key(key))
            old = self._old_root(ino)
            if old:
                numbers.update(number for number, _ in files.spans(self._reader, old, first))
        return numbers

    # --- the changed part of a tree -----------------------------------------------------------------------

    def _changed_tree(
        self, changed: dict[int, rows.Changed], names: dict[int, set[bytes]]
    ) -> bytes:
        touched: dict[int, set[bytes]] = {}
        for directory, some in names.items():
            touched.setdefault(directory, set()).update(some)
        for ino, mark in changed.items():
            row = self._row(ino)
            if row is None:
                continue
            if stat.S_ISREG(row.mode):
                self._file_root(ino, row, mark)
            elif stat.S_ISDIR(row.mode):
                touched.setdefault(ino, set())
            for parent, name in self._places(ino, row):
                touched.setdefault(parent, set()).add(name)
        depths = self._depths(touched)
        for directory in sorted(depths, key=lambda ino: -depths[ino]):
            self._directory(directory, touched.get(directory, set()), touched)
        found = self._fresh.get(ROOT)
        return found if found is not None else self._old_root(ROOT) or b""

    def _depths(self, touched: dict[int, set[bytes]]) -> dict[int, int]:
        """Depth of every touched directory that still exists and of all directories above it."""
        depths: dict[int, int] = {ROOT: 0}

        for start in list(touched):
            chain: list[int] = []
            ino = start
            while ino not in depths:
                row = self._row(ino)
                if row is None or not stat.S_ISDIR(row.mode):
                    chain = []  # gone: its parent's changed names tell the rest
                    break
                chain.append(ino)
                ino = row.parent
            for above in reversed(chain):
                row = self._row(above)
                assert row is not None
                depths[above] = depths[row.parent] + 1
                if len(depths) > 50_000_000:
                    raise Corrupt("live tree", expected="a tree", found="a cycle of directories")
        return depths

    def _directory(self, ino: int, names: set[bytes], touched: dict[int, set[bytes]]) -> None:
        """Make the directory's new root and tell its parent."""
        row = self._row(ino)
        assert row is not None
        if ino in self._fresh:
            return  # already built as part of a new directory
        old = self._old_root(ino)
        if old is None:
            self._whole_directory(ino)
        else:
            changes = {name: self._member(ino, name) for name in names}
            root = dirs.update(self._reader, self._nodes, old, changes)
            self._keep(ino, root, old)
        if ino != ROOT:
            for parent, name in self._places(ino, row):
                touched.setdefault(parent, set()).add(name)

    def _member(self, directory: int, name: bytes) -> Entry | None:
        child = lookup.find_name(self._txn, self._mount, self._secret, directory, name)
        return None if child is None else self._child(name, child)

    def _child(self, name: bytes, ino: int) -> Entry | None:
        row = self._row(ino)
        if row is None:
            raise Corrupt(
                f"entry {name!r}", expected=f"inode {ino}", found="none", do="run 'holdfast check'"
            )
        if stat.S_ISDIR(row.mode):
            root = self._fresh.get(ino)
            if root is None:
                root = self._old_root(ino)
            if root is None:
                root = self._whole_directory(ino)
        elif stat.S_ISREG(row.mode):
            root = self._file_root(ino, row, None)
        else:
            root = b""
        return self._entry(name, ino, row, root)

    # --- whole parts --------------------------------------------------------------------------------------

    def _whole_directory(self, top: int) -> bytes:
        """Build a directory and everything below it that has no root yet, without recursion."""
        stack: list[tuple[int, Iterator[int]]] = [(top, self._new_subdirectories(top))]
        while True:
            ino, below = stack[-1]
            following = next(below, None)
            if following is not None:
                stack.append((following, self._new_subdirectories(following)))
                continue
            stack.pop()
            members = sorted((row.name, row.ino) for row in self._dirents(ino))
            entries = (
                entry for name, child in members if (entry := self._child(name, child)) is not None
            )
            root = dirs.build(self._nodes, entries)
            self._keep(ino, root, None)
            if not stack:
                return root

    def _new_subdirectories(self, ino: int) -> Iterator[int]:
        for row in list(self._dirents(ino)):
            if (
                row.kind == stat.S_IFDIR >> 12
                and row.ino not in self._fresh
                and self._old_root(row.ino) is None
            ):
                yield row.ino

    def _dirents(self, ino: int) -> Iterator[rows.DirentRow]:
        for _, value in self._txn.scan(Table.DIRENTS, prefix=rows.inode_key(self._mount, ino)):
            yield rows.decode_dirent(value)

    # --- files and entries --------------------------------------------------------------------------------

    def _file_root(self, ino: int, row: InodeRow, mark: rows.Changed | None) -> bytes:
        found = self._fresh.get(ino)
        if found is not None:
            return found
        if row.flags & rows.F_INLINE and row.size <= limits.SPAN:
            root = files.build(self._nodes, row.size, [(0, decode_extents(row.tail))])
            old = self._old_root(ino)
            if old is not None:  # it was larger once: the row must not outlive that content
                self._keep(ino, root, old)
            return root
        old = self._old_root(ino)
        if old is not None and mark is None:
            return old
        if old is None or mark is None:
            root = files.build(self._nodes, row.size, self._spans(ino, row))
        else:
            numbers = self._changed_spans(ino, mark.first)
            changes = {number: self._extents(ino, row, number) for number in numbers}
            root = files.update(self._reader, self._nodes, old, row.size, changes)
        self._keep(ino, root, old)
        return root

    def _spans(self, ino: int, row: InodeRow) -> Iterator[tuple[int, list[Extent]]]:
        if row.flags & rows.F_INLINE:  # span 0 has no row of its own
            yield 0, decode_extents(row.tail)
        for key, value in self._txn.scan(Table.SPANS, prefix=rows.inode_key(self._mount, ino)):
            yield rows.split_span_key(key), decode_extents(value)

    def _extents(self, ino: int, row: InodeRow, number: int) -> list[Extent]:
        if not number and row.flags & rows.F_INLINE:
            return decode_extents(row.tail)
        raw = self._txn.get(Table.SPANS, rows.span_key(self._mount, ino, number))
        return [] if raw is None else decode_extents(raw)

    def _entry(self, name: bytes, ino: int, row: InodeRow, root: bytes) -> Entry:
        self._done += 1
        if not self._done % 256:
            self._report(self._done)
        packed = xattrs.pack(self._nodes, self._xattrs(ino)) if row.flags & rows.F_XATTRS else b""
        link = stat.S_ISLNK(row.mode)
        return Entry(
            name=name, mode=row.mode, uid=row.uid, gid=row.gid, nlink=row.nlink, rdev=row.rdev, ino=ino,
            size=row.size, allocated=row.alloc, mtime_ns=row.mtime, ctime_ns=row.ctime, atime_ns=row.atime,
            btime_ns=row.btime, chunking=row.hint, xattrs=packed, target=row.tail if link else b"", root=root,
        )  # fmt: skip

    def _xattrs(self, ino: int) -> dict[bytes, bytes]:
        return lookup.read_xattrs(self._txn, self._mount, ino)

    # --- rows ---------------------------------------------------------------------------------------------

    def _row(self, ino: int) -> InodeRow | None:
        raw = self._txn.get(Table.INODES, rows.inode_key(self._mount, ino))
        return None if raw is None else rows.decode_inode(raw)

    def _places(self, ino: int, row: InodeRow) -> Iterator[tuple[int, bytes]]:
        """(directory, name) of every link to an inode."""
        places = [(row.parent, row.cookie)] if ino != ROOT else []
        if row.flags & rows.F_LINKS:
            prefix = rows.inode_key(self._mount, ino)
            places += [
                rows.split_link_key(key) for key, _ in self._txn.scan(Table.PARENTS, prefix=prefix)
            ]
        for parent, cookie in places:
            raw = self._txn.get(Table.DIRENTS, rows.dirent_key(self._mount, parent, cookie))
            if raw is not None:
                found = rows.decode_dirent(raw)
                if found.ino == ino:
                    yield parent, found.name

    def _old_root(self, ino: int) -> bytes | None:
        key = rows.inode_key(self._mount, ino)
        pending = self._roots.get(key)
        if pending is not None or not self._remembers:
            return pending
        return self._txn.get(Table.ROOTS, key)

    def _keep(self, ino: int, root: bytes, old: bytes | None) -> None:
        self._fresh[ino] = root
        if root == old:
            return
        self._roots[rows.inode_key(self._mount, ino)] = root
        if len(self._roots) >= _BATCH or self._writer.wants_commit():
            self._writer.commit(self.write_roots)
