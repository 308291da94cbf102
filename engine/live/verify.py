"""Checks a live tree's rows against each other, in one read transaction. The oracle of the tests, a part of check.

Every rule of FORMAT-live.md that can be broken without a row failing its own check is looked at here; chunks are not.
"""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterator

from engine.errors import Corrupt
from engine.index import Table, Txn
from engine.live import lookup, rows
from engine.live.rows import F_INLINE, F_LINKS, F_XATTRS, ROOT, SPAN, InodeRow
from engine.nodes.extents import decode_extents

NameHash = Callable[[bytes], int]


def problems(txn: Txn, mount: int, name_hash: NameHash | None = None) -> Iterator[str]:
    """What is wrong with the mount's rows, one sentence each; nothing when all is well."""
    raw = txn.get(Table.LIVE_META, rows.meta_key(mount))
    if raw is None:
        yield f"mount {mount} has no live tree"
        return
    try:
        checker = _Checker(txn, mount, rows.decode_meta(raw), name_hash)
        yield from checker.run()
    except Corrupt as error:
        yield f"live tree of mount {mount} cannot be read further: {error}"


class _Checker:
    def __init__(self, txn: Txn, mount: int, meta: rows.Meta, name_hash: NameHash | None) -> None:
        self._txn = txn
        self._mount = mount
        self._prefix = rows.meta_key(mount)
        self._meta = meta
        self._hash = name_hash or (lambda name: lookup.name_hash(meta.secret, name))
        self._orphans = {
            rows.split_inode_key(key) for key, _ in txn.scan(Table.ORPHANS, prefix=self._prefix)
        }
        # Kept for every inode: type, links, entries, subdirectories, then what the rows add up to.
        self._links: dict[int, int] = {}
        self._entries: dict[int, int] = {}
        self._subdirectories: dict[int, int] = {}
        self._rooted = {ROOT}  # directories known to lead up to the root: each way is gone once

    def run(self) -> Iterator[str]:
        yield from self._names()
        used = count = 0
        for key, raw in self._txn.scan(Table.INODES, prefix=self._prefix):
            ino = rows.split_inode_key(key)
            row = rows.decode_inode(raw)
            if ino in self._orphans:
                continue
            count += 1
            used += row.alloc
            for problem in self._inode(ino, row):
                yield f"inode {ino}: {problem}"
            self._links.pop(ino, None)
            self._entries.pop(ino, None)
        for ino in self._links:
            yield f"an entry names inode {ino}, which does not exist"
        for ino in self._entries:
            yield f"entries lie in directory {ino}, which does not exist"
        if (used, count) != (self._meta.used_bytes, self._meta.used_inodes):
            yield (
                f"counters say {self._meta.used_bytes} bytes and {self._meta.used_inodes} inodes in use,"
                f" the rows {used} and {count}"
            )
        yield from self._strays()

    def _names(self) -> Iterator[str]:
        for key, raw in self._txn.scan(Table.DIRENTS, prefix=self._prefix):
            parent = rows.split_inode_key(key[:12])
            cookie = rows.split_dirent_key(key)
            row = rows.decode_dirent(raw)
            self._entries[parent] = self._entries.get(parent, 0) + 1
            self._links[row.ino] = self._links.get(row.ino, 0) + 1
            if row.kind == stat.S_IFDIR >> 12:
                self._subdirectories[parent] = self._subdirectories.get(parent, 0) + 1
            if cookie // lookup.PLACES != self._hash(row.name):
                yield f"entry {row.name!r} of directory {parent} lies at a wrong place"

    def _inode(self, ino: int, row: InodeRow) -> Iterator[str]:
        if ino >= self._meta.next_ino:
            yield "has a number that was not given yet"
        if row.born > self._meta.seq:
            yield "was born after the last commit"
        if stat.S_ISDIR(row.mode):
            yield from self._directory(ino, row)
        else:
            yield from self._places(ino, row)
            if row.nlink != self._links.get(ino, 0):
                yield f"has {self._links.get(ino, 0)} names, its link count says {row.nlink}"
        if stat.S_ISREG(row.mode):
            yield from self._content(ino, row)
        elif row.alloc:
            yield "is no file and has content"
        xattrs = lookup.read_xattrs(self._txn, self._mount, ino)
        if bool(xattrs) != bool(row.flags & F_XATTRS):
            yield "its flag does not tell whether it has extended attributes"

    def _directory(self, ino: int, row: InodeRow) -> Iterator[str]:
        entries = self._entries.get(ino, 0)
        if row.size != entries:
            yield f"is a directory of {entries} entries and counts {row.size}"
        links = 2 + self._subdirectories.get(ino, 0)
        if row.nlink != links:
            yield f"is a directory with {links} links and counts {row.nlink}"
        if ino == ROOT:
            if row.parent != ROOT:
                yield "is the root and has a parent"
            return
        if self._links.get(ino, 0) != 1:
            yield f"is a directory with {self._links.get(ino, 0)} names"
        if not self._is_at(ino, row.parent, row.cookie):
            yield "is not where its row says"
        above, way = row.parent, {ino}
        while above not in self._rooted:
            if above in way:
                yield "does not lead up to the root"
                return
            way.add(above)
            raw = self._txn.get(Table.INODES, rows.inode_key(self._mount, above))
            if raw is None:
                yield f"has an ancestor {above} that does not exist"
                return
            above = rows.decode_inode(raw).parent
        self._rooted |= way

    def _is_at(self, ino: int, parent: int, cookie: int) -> bool:
        raw = self._txn.get(Table.DIRENTS, rows.dirent_key(self._mount, parent, cookie))
        return raw is not None and rows.decode_dirent(raw).ino == ino

    def _places(self, ino: int, row: InodeRow) -> Iterator[str]:
        places = [(row.parent, row.cookie)]
        prefix = rows.inode_key(self._mount, ino)
        extra = [
            rows.split_link_key(key) for key, _ in self._txn.scan(Table.PARENTS, prefix=prefix)
        ]
        if bool(extra) != bool(row.flags & F_LINKS):
            yield "its flag does not tell whether it has more links"
        places += extra
        if len(set(places)) != row.nlink:
            yield f"knows {len(set(places))} places of its {row.nlink} links"
        for parent, cookie in places:
            if not self._is_at(ino, parent, cookie):
                yield f"is not at its place in directory {parent}"

    def _content(self, ino: int, row: InodeRow) -> Iterator[str]:
        prefix = rows.inode_key(self._mount, ino)
        spans = [
            (rows.split_span_key(key), raw)
            for key, raw in self._txn.scan(Table.SPANS, prefix=prefix)
        ]
        if row.flags & F_INLINE:
            if any(number == 0 for number, _ in spans):
                yield "has its first span twice"
            spans.insert(0, (0, row.tail))
        total = 0
        for number, raw in spans:
            extents = decode_extents(raw)
            total += sum(extent[1] for extent in extents)
            if not extents:
                yield f"span {number} is a row without extents"
            elif number * SPAN + extents[-1][0] + extents[-1][1] > row.size:
                yield f"span {number} has bytes behind the end of the file"
        if total != row.alloc:
            yield f"{total} bytes are not hole, its row says {row.alloc}"

    def _strays(self) -> Iterator[str]:
        """Rows of inodes that do not exist (a row in ORPHANS that has none is but removed in vain)."""
        for table in (Table.SPANS, Table.XATTRS, Table.PARENTS, Table.CHANGED):
            last = 0
            for key, _ in self._txn.scan(table, prefix=self._prefix):
                ino = rows.split_inode_key(key[:12])
                if ino != last:
                    last = ino
                    if self._txn.get(Table.INODES, key[:12]) is None:
                        yield f"{table.name.lower()} has rows of inode {ino}, which does not exist"
