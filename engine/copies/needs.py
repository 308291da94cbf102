"""Which sealed packs at a location points need: those of every chunk that is reached, and of what it is a delta of.

Nodes that were met are remembered, so of the next point only what is new in it is looked at. Memory: their ids.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from engine import limits
from engine.chunks import ChunkReader
from engine.copies import rows
from engine.errors import Corrupt
from engine.index import Index, Table
from engine.index.rows import chunk_row
from engine.nodes import walk
from engine.nodes.ports import Ref


class Needs:
    """Of one location. ``unsure``: a chunk lies there in another form than here, so that what that is a delta of is not
    known: then every pack may be needed."""

    def __init__(
        self, reader: ChunkReader, index: Index, location_id: int, step: Callable[[int], None]
    ) -> None:
        self._reader = reader
        self._index = index
        self._place = location_id
        self._step = step
        self._nodes: set[bytes] = set()
        self.unsure = False

    def know(self, top: bytes) -> None:
        """Take what this point reaches as looked at. Raises Corrupt."""
        self._walk(top, lambda cids: None)

    def packs(self, top: bytes, extras: Iterable[bytes] = ()) -> set[int]:
        """Packs that a point needs, by its record, and these chunks; without those that only what was met before needs.
        Raises Corrupt for what is not there."""
        found: set[int] = set()
        self._walk(top, lambda cids: self._places(cids, found))
        self._places(list(extras), found)
        return found

    def _walk(self, top: bytes, take: Callable[[list[bytes]], None]) -> None:
        todo = [top]
        while todo:
            cid = todo.pop()
            if cid in self._nodes:
                continue
            if len(self._nodes) >= limits.WALKED_NODES_MAX:
                self._nodes.clear()  # looked at again where they are met again
            self._nodes.add(cid)
            self._step(len(self._nodes))
            here = [cid]
            for kind, child in walk.children(self._reader.read_node(cid), cid):
                if kind is Ref.DATA:
                    here.append(child)
                elif child not in self._nodes:
                    todo.append(child)
            take(here)

    def _places(self, cids: list[bytes], found: set[int]) -> None:
        done: set[bytes] = set()
        with self._index.read() as txn:
            while cids:
                cid = cids.pop()
                if cid in done:
                    continue
                done.add(cid)
                raw = txn.get(Table.COPIES, rows.copy_key(self._place, cid))
                if raw is None:
                    raise Corrupt(f"chunk {cid.hex()}", expected="to be at the location", found="no row of it there",
                                  do="run 'holdfast check'")  # fmt: skip
                copy = rows.copy_row(raw)
                found.add(copy.pack)
                here = txn.get(Table.CHUNKS, cid)
                if here is None:
                    # The service's own are deltas of nothing.
                    self.unsure = self.unsure or not copy.flags & rows.EXTRA
                elif rows.form_of(row := chunk_row(here)) == copy.form:
                    cids += row.bases
                else:
                    self.unsure = True
