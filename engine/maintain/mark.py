"""Marking: every chunk that a point, a live tree, or a tree's memory of its last snapshot reaches.

The marks are a set of ids in memory, about 110 bytes each: 10^7 chunks take about 1.1 GB.
"""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterator

from engine import codec
from engine.chunks import ChunkReader
from engine.index import Table, Txn
from engine.index.rows import KIND_TOMBSTONE, chunk_row
from engine.live import rows
from engine.nodes import walk
from engine.nodes.extents import extent_ids
from engine.nodes.point import decode_point
from engine.nodes.ports import Ref

_ID = 32
Reference = tuple[Ref, bytes]


def roots(txn: Txn, key: bytes) -> Iterator[Reference]:
    """Everything the index itself refers to. ``key``: the store's id key."""
    for _, raw in txn.scan(Table.POINTS):
        yield (
            Ref.NODE,
            codec.chunk_id(key, raw),
        )  # the record, kept so that packs alone tell of the point
        root = decode_point(raw).root
        yield from walk.of_entry(stat.S_IFDIR, root.xattrs, root.root)
    for _, root_bytes in txn.scan(Table.ROOTS):
        mode = stat.S_IFDIR if len(root_bytes) == _ID else stat.S_IFREG
        yield from walk.of_entry(mode, b"", root_bytes)
    for _, raw in txn.scan(Table.SPANS):
        yield from ((Ref.DATA, cid) for cid in extent_ids(raw))
    for _, raw in txn.scan(Table.INODES):
        row = rows.decode_inode(raw)
        if row.flags & rows.F_INLINE:
            yield from ((Ref.DATA, cid) for cid in extent_ids(row.tail))


class Marker:
    """Collects the ids reached. ``lost(cid)`` is called for what is referred to and has no row."""

    def __init__(
        self, txn: Txn, reader: ChunkReader, key: bytes, lost: Callable[[bytes], None]
    ) -> None:
        self._txn = txn
        self._reader = reader
        self._key = key
        self._lost = lost
        self.marked: set[bytes] = set()

    def run(self, step: Callable[[int], None]) -> set[bytes]:
        """Mark; raises Corrupt when a node cannot be read: what it reaches cannot be known then."""
        for reference in roots(self._txn, self._key):
            self._from(reference)
            if not len(self.marked) % 1024:
                step(len(self.marked))
        for cid, raw in self._txn.scan(Table.CHUNKS):
            if chunk_row(raw).kind == KIND_TOMBSTONE:
                self.marked.add(cid)
        return self.marked

    def _from(self, reference: Reference) -> None:
        todo = [reference]
        while todo:
            kind, cid = todo.pop()
            if cid in self.marked:
                continue
            self.marked.add(cid)
            self._bases(cid)
            if kind == Ref.NODE:
                todo.extend(walk.children(self._reader.read_node(cid), cid))

    def _bases(self, cid: bytes) -> None:
        """A base lives as long as its deltas."""
        todo = [cid]
        while todo:
            one = todo.pop()
            raw = self._txn.get(Table.CHUNKS, one)
            if raw is None:
                self._lost(one)
                continue
            for base in chunk_row(raw).bases:
                if base not in self.marked:
                    self.marked.add(base)
                    todo.append(base)
