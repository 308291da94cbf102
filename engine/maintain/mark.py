"""Marking: every chunk that a point, a live tree, or a tree's memory of its last snapshot reaches."""

from __future__ import annotations

import stat
from collections.abc import Callable, Collection, Iterable, Iterator

from engine import codec
from engine.chunks import ChunkReader
from engine.errors import HoldfastError
from engine.index import Table, Txn
from engine.index.rows import chunk_row
from engine.live import rows
from engine.maintain.marks import DEAD, KEPT, WALKED, Marks
from engine.nodes import walk
from engine.nodes.extents import extent_ids
from engine.nodes.point import decode_point
from engine.nodes.ports import Ref

_ID = 32
_STEP = 1024
Reference = tuple[Ref, bytes]


def point_roots(txn: Txn, key: bytes, wanted: Callable[[str], bool]) -> Iterator[Reference]:
    """What the wanted points (by id) refer to. ``key``: the store's id key."""
    for name, raw in txn.whole(Table.POINTS):
        if not wanted(name.decode()):
            continue
        # The record itself is kept too, so that packs alone tell of the point.
        yield Ref.NODE, codec.chunk_id(key, raw)
        root = decode_point(raw).root
        yield from walk.of_entry(stat.S_IFDIR, root.xattrs, root.root)


def memory_roots(txn: Txn, without: Collection[bytes] = ()) -> Iterator[Reference]:
    """What trees' memories of their last snapshot refer to, but for those of some mounts (the first bytes of keys)."""
    for key, root_bytes in txn.whole(Table.ROOTS):
        if key[:4] in without:
            continue
        mode = stat.S_IFDIR if len(root_bytes) == _ID else stat.S_IFREG
        yield from walk.of_entry(mode, b"", root_bytes)


def live_roots(txn: Txn) -> Iterator[Reference]:
    """What the live trees refer to."""
    for _, raw in txn.whole(Table.SPANS):
        yield from ((Ref.DATA, cid) for cid in extent_ids(raw))
    for _, raw in txn.whole(Table.INODES):
        row = rows.decode_inode(raw)
        if row.flags & rows.F_INLINE:
            yield from ((Ref.DATA, cid) for cid in extent_ids(row.tail))


class Marker:
    """Raises the states of what is reached.

    ``lost(cid)`` is called for what is referred to and has no row; ``unreadable(cid, error)`` for a node that cannot
    be read.  Without the latter ``run`` raises: what such a node reaches cannot be known, so nothing may be freed.
    """

    def __init__(
        self, marks: Marks, reader: ChunkReader, key: bytes, lost: Callable[[bytes], None],
        unreadable: Callable[[bytes, HoldfastError], None] | None = None,
    ) -> None:  # fmt: skip
        self.marks = marks
        self._txn = marks.txn
        self._reader = reader
        self._key = key
        self._lost = lost
        self._unreadable = unreadable

    def run(
        self, step: Callable[[int], None], without: Collection[str] = (),
        forgotten: Collection[bytes] = (),
    ) -> None:  # fmt: skip
        """Mark from everything the index refers to. Raises Corrupt.

        As if the points ``without`` were deleted, and trees of the mounts ``forgotten`` remembered nothing.
        """
        self._all(point_roots(self._txn, self._key, lambda name: name not in without), step)
        self._all(memory_roots(self._txn, forgotten), step)
        self._all(live_roots(self._txn), step)

    def points(self, step: Callable[[int], None], names: Collection[str]) -> None:
        """Mark from these points. Raises Corrupt."""
        self._all(point_roots(self._txn, self._key, names.__contains__), step)

    def memories(self, step: Callable[[int], None], forgotten: Collection[bytes]) -> None:
        """Mark from what trees remember, but for those of these mounts. Raises Corrupt."""
        self._all(memory_roots(self._txn, forgotten), step)

    def again(self, txn: Txn, step: Callable[[int], None]) -> None:
        """Mark what points and memories of a later moment reach. Raises Corrupt."""
        self._txn = txn
        self._all(point_roots(txn, self._key, lambda name: True), step)
        self._all(memory_roots(txn), step)

    def _all(self, roots: Iterable[Reference], step: Callable[[int], None]) -> None:
        done = 0
        for root in roots:
            todo = [root]
            while todo:
                kind, cid = todo.pop()
                done += 1
                if not done % _STEP:
                    step(done)
                if kind is not Ref.NODE:
                    self._reach(cid, KEPT)
                elif self._reach(cid, WALKED):
                    todo.extend(self._children(cid))

    def _children(self, cid: bytes) -> list[Reference]:
        try:
            return list(walk.children(self._reader.read_node(cid), cid))
        except HoldfastError as error:
            if self._unreadable is None:
                raise
            self._unreadable(cid, error)
            return []

    def _reach(self, cid: bytes, state: int) -> bool:
        """True when the chunk had a lower state. A base that was only kept is still walked when it is met as a node."""
        before = self._raise(cid, state)
        if before == DEAD:
            self._bases(cid)
        return before < state

    def _raise(self, cid: bytes, state: int) -> int:
        return self.marks.raise_to(cid, state, strange=self._txn is not self.marks.txn)

    def _bases(self, cid: bytes) -> None:
        """A base lives as long as its deltas."""
        todo = [cid]
        while todo:
            one = todo.pop()
            raw = self._txn.get(Table.CHUNKS, one)
            if raw is None:
                self._lost(one)
                continue
            todo += [base for base in chunk_row(raw).bases if self._raise(base, KEPT) == DEAD]
