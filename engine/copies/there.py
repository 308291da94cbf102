"""Reading a point as it lies at one location, whatever of it is here: the same index, other places of its chunks."""

from __future__ import annotations

import logging

from engine.chunks import ChunkReader, Context
from engine.copies import outbox, rows
from engine.copies.rows import VERIFIED
from engine.errors import HoldfastError, NotFound
from engine.home import OpenStore
from engine.index import Table
from engine.index.rows import KIND_DATA, ChunkRow, chunk_row

log = logging.getLogger("holdfast.engine")


def reader(store: OpenStore, point: str, location: str) -> ChunkReader:
    """Reads a point, by its whole id, from a location that has it whole. Raises NotFound; reads raise what the location
    raises."""
    with store.context.index.read() as txn:
        place = outbox.location(txn, location)
        row = outbox.get(txn, place.id, point)
    if row is None or row.state != VERIFIED:
        raise NotFound(
            f"copy of point {point} at location {location!r}", expected="one that was verified",
            found="none" if row is None else row.state, do="see 'holdfast uploads'",
        )  # fmt: skip
    return _Reader(store.context, place.id, location)


class _Reader(ChunkReader):
    """Takes what the location has from there. What is damaged there is not damaged here."""

    def __init__(self, context: Context, place: int, name: str) -> None:
        super().__init__(context)
        self._place = place
        self._name = name
        self.attach(self._there, lambda pack, upto: None)

    def _there(self, cid: bytes) -> ChunkRow | None:
        with self._context.index.read() as txn:
            raw = txn.get(Table.COPIES, rows.copy_key(self._place, cid))
            here = txn.get(Table.CHUNKS, cid)
        if raw is None:
            return None
        copy = rows.copy_row(raw)
        if here is not None and rows.form_of(known := chunk_row(here)) == copy.form:
            return known._replace(pack=copy.pack, offset=copy.offset, stored=copy.stored)
        return ChunkRow(copy.pack, copy.offset, copy.stored, 0, KIND_DATA, 0, 0, 0)

    def _suspect(self, cid: bytes, error: HoldfastError) -> None:
        log.warning("chunk %s cannot be read at location %s: %s", cid.hex(), self._name, error)
        self._context.incidents.note("corrupt", f"location {self._name}", str(error))
