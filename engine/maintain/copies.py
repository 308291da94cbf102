"""Several records of one chunk: which of them a rebuilt index names, and which records it cannot use.

Packs keep records that no row pointed to any more: a chunk that was collected and stored again later, or was damaged
and written anew.  The base of such a delta may be gone by now.  Its record must not stand for the chunk when there is
another, nor be taken for a chunk at all when there is none: content written later would be found in it.
"""

from __future__ import annotations

from engine import limits
from engine.chunks import ChunkReader
from engine.errors import HoldfastError
from engine.index import Index, Table, Txn
from engine.index.rows import ChunkRow, chunk_row


class Copies:
    """Puts the rows of chunks into a fresh index, one for each, and sets right what the packs' order got wrong."""

    def __init__(self, index: Index, reader: ChunkReader) -> None:
        self._index = index
        self._reader = reader
        self._more: dict[bytes, list[ChunkRow]] = {}  # of chunks with several records: all of them

    def put(self, txn: Txn, cid: bytes, row: ChunkRow) -> None:
        """One record that was found."""
        raw = txn.get(Table.CHUNKS, cid)
        if raw is not None:
            self._more.setdefault(cid, [chunk_row(raw)]).append(row)
        txn.put(Table.CHUNKS, cid, row.pack_bytes())

    def settle(self) -> int:
        """When all are put: choose among records, drop rows without their bases; returns how many were dropped."""
        for cid, rows in sorted(self._more.items(), key=lambda one: min(map(_rank, one[1]))):
            self._choose(cid, rows)
        dropped = 0
        while lost := self._without_bases():
            with self._index.write() as txn:
                for cid in lost:
                    txn.delete(Table.CHUNKS, cid)
            dropped += len(lost)
        return dropped

    def _choose(self, cid: bytes, rows: list[ChunkRow]) -> None:
        """The first that can be read: those that need no other chunk, and the newest packs, first."""
        for row in sorted(rows, key=lambda row: (_rank(row), -row.pack, -row.offset)):
            try:
                self._reader.load_at(cid, row)
            except HoldfastError:
                continue
            with self._index.write() as txn:
                txn.put(Table.CHUNKS, cid, row.pack_bytes())
                txn.delete(
                    Table.SUSPECTS, cid
                )  # it may have been looked at by way of another record
            return

    def _without_bases(self) -> list[bytes]:
        lost = []
        with self._index.read() as txn:
            for cid, raw in txn.scan(Table.CHUNKS):
                if any(txn.get(Table.CHUNKS, base) is None for base in chunk_row(raw).bases):
                    lost.append(cid)
                    if len(lost) == limits.TXN_DELETES_MAX:
                        break
        return lost


def _rank(row: ChunkRow) -> int:
    return row.depth + bool(row.bases)
