"""Which chunks of one moment are reached: a position for every row of CHUNKS, and one state byte each.

Memory is 9 bytes a chunk (10^7 chunks: 90 MB), whatever is reached.  Ids are told apart by their first 8 bytes; the
few that share them (one pair among 10^9 chunks is to be expected) are kept whole, so the answer is always exact.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator

from engine.index import Table, Txn
from engine.index.rows import FLAG_CONDEMNED, KIND_TOMBSTONE, U64, ChunkRow, chunk_row

DEAD, KEPT, WALKED, CONDEMNED = 0, 1, 2, 3
"""States: not reached; reached as bytes (data, or the base of a delta); reached as a node; flagged by this run."""

_STATE, _FLAGGED = 3, 0x80


class Marks:
    """States of the chunks that have a row in ``txn``. Kept open by the caller: it is looked at again."""

    def __init__(self, txn: Txn) -> None:
        self.txn = txn
        self._heads = array("Q")
        self._states = bytearray()
        self._twins: dict[int, list[bytes]] = {}
        self._new: dict[bytes, int] = {}  # ids without a row in ``txn``
        self.tombs: list[bytes] = []  # ids of tombstones: kept, though nothing refers to them
        last = b""
        for cid, raw in txn.scan(Table.CHUNKS):
            head = U64.unpack_from(cid)[0]
            if last[:8] == cid[:8]:
                self._twins.setdefault(head, [last]).append(cid)
            last = cid
            row = chunk_row(raw)
            self._heads.append(head)
            state = DEAD
            if row.kind == KIND_TOMBSTONE:
                self.tombs.append(cid)
                state = KEPT
            self._states.append(state | (_FLAGGED if row.flags & FLAG_CONDEMNED else 0))

    def __len__(self) -> int:
        return len(self._states)

    def raise_to(self, cid: bytes, state: int, *, strange: bool = False) -> int:
        """Give the chunk at least this state; returns the one it had. ``strange``: it may be newer than ``txn``."""
        at = self._find(cid)
        if at >= 0 and strange and self.txn.get(Table.CHUNKS, cid) is None:
            at = -1
        if at < 0:
            before = self._new.get(cid, DEAD)
            self._new[cid] = max(before, state)
            return before
        whole = self._states[at]
        before = whole & _STATE
        if before < state:
            self._states[at] = whole & _FLAGGED | state
        return before

    def _find(self, cid: bytes) -> int:
        head = U64.unpack_from(cid)[0]
        at = bisect_left(self._heads, head)
        if at == len(self._heads) or self._heads[at] != head:
            return -1
        twins = self._twins.get(head)
        if twins is None:
            return at
        return at + twins.index(cid) if cid in twins else -1

    def alive(self, at: int) -> bool:
        """Is the chunk at this position reached?"""
        return self._states[at] & _STATE in (KEPT, WALKED)

    def lives(self, cid: bytes) -> bool:
        """Is this chunk reached, and has a row?"""
        at = self._find(cid)
        return at >= 0 and self.alive(at)

    def let_go(self, cids: Iterable[bytes]) -> None:
        """Take tombstones that are not needed any more for dead."""
        for cid in cids:
            self._states[self._find(cid)] &= _FLAGGED

    def reached(self) -> int:
        """How many chunks with a row are reached."""
        return sum(self.alive(at) for at in range(len(self)))

    def dead(self) -> Iterator[int]:
        """Positions of chunks nothing reaches."""
        return (at for at, state in enumerate(self._states) if not state & _STATE)

    def flagged(self) -> Iterator[int]:
        """Positions of chunks that are reached and condemned by an earlier run."""
        return (at for at, state in enumerate(self._states) if state > _FLAGGED)

    def condemned(self) -> Iterator[int]:
        """Positions given to ``condemn``."""
        return (at for at, state in enumerate(self._states) if state & _STATE == CONDEMNED)

    def condemn(self, at: int) -> None:
        self._states[at] = CONDEMNED

    def row(self, txn: Txn, at: int) -> tuple[bytes, ChunkRow] | None:
        """Id and row of the chunk at a position, as ``txn`` has them."""
        for cid, raw in txn.scan(Table.CHUNKS, prefix=U64.pack(self._heads[at])):
            if self._find(cid) == at:
                return cid, chunk_row(raw)
        return None
