"""Which records a rebuilt index names: one of several of a chunk, and none that cannot be used.

Packs keep records that no row pointed to any more: a chunk that was collected and stored again later, or was damaged
and written anew.  The base of such a delta may be gone by now.  Its record must not stand for the chunk when there is
another, nor be taken for a chunk at all when there is none: content written later would be found in it.  The same
holds for what nobody vouches for: records of a file without a trailer, of which a power cut may have kept the head
and not the rest.
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
        self._doubted: dict[bytes, ChunkRow] = {}
        self._chosen: set[bytes] = set()  # those with several records, of which one can be read

    def put(self, txn: Txn, cid: bytes, row: ChunkRow, *, vouched: bool) -> None:
        """One record that was found. ``vouched``: its file was whole when sealed, and lists it."""
        if not vouched:
            self._doubted[cid] = row
        raw = txn.get(Table.CHUNKS, cid)
        if raw is not None:
            self.again(cid, chunk_row(raw), row)
        txn.put(Table.CHUNKS, cid, row.pack_bytes())

    def again(self, cid: bytes, known: ChunkRow, row: ChunkRow) -> int:
        """Another record of a chunk that has a row; how many chunks have several."""
        self._more.setdefault(cid, [known]).append(row)
        return len(self._more)

    def settle(self) -> int:
        """When all are put: choose among records, drop those of no use; returns how many chunks were dropped."""
        for cid, rows in sorted(self._more.items(), key=lambda one: min(map(_rank, one[1]))):
            self._choose(cid, rows)
        dropped = self._drop_unreadable()
        while lost := self._without_bases():
            with self._index.write() as txn:
                for cid in lost:
                    txn.delete(Table.CHUNKS, cid)
            dropped += len(lost)
        return dropped

    def _choose(self, cid: bytes, rows: list[ChunkRow]) -> None:
        """The first that can be read: those that need no other chunk, and the newest packs, first."""
        for row in sorted(rows, key=lambda row: (_rank(row), -row.pack, -row.offset)):
            if not self._readable(cid, row):
                continue
            with self._index.write() as txn:
                txn.put(Table.CHUNKS, cid, row.pack_bytes())
                txn.delete(
                    Table.SUSPECTS, cid
                )  # it may have been looked at by way of another record
            self._chosen.add(cid)
            return

    def _readable(self, cid: bytes, row: ChunkRow) -> bool:
        try:
            self._reader.load_at(cid, row)
        except HoldfastError:
            return False
        return True

    def _drop_unreadable(self) -> int:
        dropped = 0
        for cid, row in sorted(self._doubted.items(), key=lambda one: _rank(one[1])):
            if cid in self._chosen or self._readable(cid, row):
                continue
            with self._index.write() as txn:
                txn.delete(Table.CHUNKS, cid)
                txn.delete(Table.SUSPECTS, cid)
            dropped += 1
        return dropped

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
