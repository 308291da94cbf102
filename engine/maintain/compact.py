"""Giving space back: packs without a live record are removed, packs mostly dead are rewritten first.

A rewritten pack's live records are copied as they are into this process's own segment; their rows are moved in the
commit that makes the copies durable, and only where they still point to the old place.  The old pack is then removed:

 | died after            | found                                       | done about it                        |
 | copies appended       | bytes past a committed length               | cut off by the segment's next owner  |
 | rows moved            | a pack no row points to                     | removed by the next collection       |
 | pack marked doomed    | a doomed pack                               | the same                             |
 | file unlinked         | a doomed row without a file                 | the row is deleted                   |
"""

from __future__ import annotations

import contextlib
import os
from collections import Counter

from engine.errors import from_os
from engine.home import OpenStore
from engine.index import Table
from engine.index.rows import PACK_DOOMED, PACK_SEALED, U32, PackRow, chunk_row, pack_row
from engine.ingest import sketches
from engine.maintain.report import CollectReport
from engine.packs.records import KIND_SKETCH, decode_record_head
from engine.progress import Progress, Report

REWRITE_BELOW = (
    0.5  # a sealed pack with less than this part live is rewritten: costs at most what it gains
)


class Compactor:
    """One pass over all sealed packs."""

    def __init__(self, store: OpenStore, report: Report) -> None:
        self._store = store
        self._context = store.context
        self._report = report

    def run(self, result: CollectReport, deadline: float | None) -> None:
        """Remove and rewrite until done or ``deadline`` (monotonic s)."""
        live: Counter[int] = Counter()
        with self._context.index.read() as txn:
            for _, raw in txn.scan(Table.CHUNKS):
                row = chunk_row(raw)
                live[row.pack] += row.stored
            packs = {U32.unpack(key)[0]: pack_row(raw) for key, raw in txn.scan(Table.PACKS)}
        done = 0
        for number, pack in packs.items():
            if pack.state not in (PACK_SEALED, PACK_DOOMED):
                continue
            if deadline is not None and self._context.system.monotonic() > deadline:
                result.finished = False
                return
            if live[number] == 0:
                self._remove(number, pack, result)
            elif live[number] < pack.length * REWRITE_BELOW:
                self._rewrite(number)
                self._remove(number, pack, result)
                result.packs_rewritten += 1
            done += 1
            self._report(Progress("compact", done, None, "packs"))

    def _rewrite(self, number: int) -> None:
        writer = self._store.session.writer
        with self._context.index.read() as txn:
            for entry in self._context.files.trailer(number):
                raw = self._context.files.read(number, entry.offset, entry.stored)
                if entry.kind == KIND_SKETCH:
                    self._copy_sketch(raw)
                    continue
                value = txn.get(Table.CHUNKS, entry.id)
                row = None if value is None else chunk_row(value)
                if row is not None and (row.pack, row.offset) == (number, entry.offset):
                    writer.move(entry.id, row, raw)
        writer.commit()

    def _copy_sketch(self, raw: bytes) -> None:
        data = raw[decode_record_head(raw).head :]
        hooks = [h for _, pieces in sketches.decode(data) for h in sketches.hooks_of(pieces)]
        self._store.session.writer.put_sketch(data, hooks)

    def _remove(self, number: int, pack: PackRow, result: CollectReport) -> None:
        key = U32.pack(number)
        with self._context.index.write() as txn:
            # A writer may have committed a chunk row into it only while it was open: sealed packs gain none.
            txn.put(Table.PACKS, key, pack._replace(state=PACK_DOOMED).pack_bytes())
        path = self._context.files.pack_path(number)
        self._context.files.forget(number)
        try:
            with contextlib.suppress(FileNotFoundError):
                self._context.system.unlink(path)
                self._context.system.fsync_dir(os.path.dirname(path))
        except OSError as error:
            raise from_os(error, f"pack {number}") from None
        with self._context.index.write() as txn:
            txn.delete(Table.PACKS, key)
        result.packs_removed += 1
        result.removed_bytes += pack.length
