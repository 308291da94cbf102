"""Giving space back: packs without a live record are removed, packs mostly dead are rewritten first.

A rewritten pack's live records are copied as they are into this process's own segment; their rows are moved in the
commit that makes the copies durable, and only where they still point to the old place.  The old pack is then removed:
marked doomed, unlinked, its row deleted.

What a crash leaves of it: FORMAT.md, "Crash tables".
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections import Counter
from collections.abc import Callable

from engine import codec
from engine.chunks import Context
from engine.errors import Corrupt, HoldfastError, NotFound, from_os
from engine.home import OpenStore
from engine.index import Table, Txn
from engine.index.rows import PACK_DOOMED, PACK_SEALED, U32, PackRow, chunk_row, pack_row
from engine.ingest import sketches
from engine.maintain import settle
from engine.maintain.report import CollectReport
from engine.packs.records import KIND_SKETCH, RECORD_HEAD, Entry, decode_record_head
from engine.progress import Progress, Report

log = logging.getLogger("holdfast.engine.maintain")

# A sealed pack with less than this part live is rewritten: it costs at most what it gains.
REWRITE_BELOW = 0.5


def worth(pack: PackRow, live: int) -> bool:
    """Whether a sealed pack with so many live bytes is removed, after what lives in it was written anew."""
    return live < pack.length * REWRITE_BELOW


def gain(
    context: Context, number: int, pack: PackRow, live: int, lives: Callable[[bytes], bool]
) -> int | None:
    """Bytes the file system gets back by removing a pack; None when it would have to be left as it is."""
    try:
        anew = 0
        for entry in context.files.trailer(number):
            if entry.kind == KIND_SKETCH and live:
                raw = context.files.read(number, entry.offset, entry.stored)
                data, _ = _kept_sketch(context, raw, lives)
                anew += RECORD_HEAD + len(data) + context.added if data else 0
    except HoldfastError as error:
        left = live or not isinstance(error, (Corrupt, NotFound))
        return None if left else pack.length
    return pack.length - live - anew


def _kept_sketch(
    context: Context, raw: bytes, lives: Callable[[bytes], bool]
) -> tuple[bytes, list[bytes]]:
    """The parts of a sketch that are about chunks which still live, and their hooks."""
    head, bare = context.bare(decode_record_head(raw), raw)
    data = bytes(bare[head.head :])
    parts: list[bytes] = []
    hooks: list[bytes] = []
    if codec.chunk_id(context.key, data) == head.id:  # else damaged: an aid is lost, no data
        for cid, pieces in sketches.decode(data):
            if lives(cid):
                parts.append(sketches.encode(cid, pieces))
                hooks += sketches.hooks_of(pieces)
    return b"".join(parts), hooks


class Compactor:
    """One pass over all sealed packs: dead ones first, which need no room to be removed."""

    def __init__(self, store: OpenStore, report: Report) -> None:
        self._store = store
        self._context = store.context
        self._report = report

    def run(self, result: CollectReport, deadline: float | None) -> None:
        """Remove and rewrite until done or ``deadline`` (monotonic s)."""
        # Listed before the rows are read: a row is there before its file.
        files = list(settle.pack_files(self._context))
        live: Counter[int] = Counter()
        with self._context.index.read() as txn:
            for _, raw in txn.scan(Table.CHUNKS):
                row = chunk_row(raw)
                live[row.pack] += row.stored
            packs = {U32.unpack(key)[0]: pack_row(raw) for key, raw in txn.scan(Table.PACKS)}
            suspect = {
                U32.unpack(key)[0] for key in txn.keys(Table.SUSPECTS) if len(key) == U32.size
            }
        for number, path in files:
            if number not in packs and number not in live:
                settle.quarantine(self._context, number, path)
                result.files_quarantined += 1
        for done, (number, pack) in enumerate(sorted(packs.items(), key=lambda one: live[one[0]])):
            if pack.state not in (PACK_SEALED, PACK_DOOMED):
                continue
            if deadline is not None and self._context.system.monotonic() > deadline:
                result.finished = False
                break
            if worth(pack, live[number]) or number in suspect:
                self._empty(number, pack, live[number], result)
            self._report(Progress("compact", done + 1, len(packs), "packs"))
        if result.packs_removed:
            settle.hooks(self._context)

    def _empty(self, number: int, pack: PackRow, live: int, result: CollectReport) -> None:
        """Rewrite if need be, and remove. A pack that cannot be read is left for ``check`` to speak of."""
        anew = 0
        try:
            entries = self._context.files.trailer(number)
            if live:
                anew = self._rewrite(number, entries)
        except HoldfastError as error:
            if live or not isinstance(error, (Corrupt, NotFound)):
                log.warning("pack %d is left as it is: %s", number, error)
                result.packs_left += 1
                return
            entries = []
        if self._remove(number, pack, entries):
            result.packs_rewritten += bool(live)
            result.packs_removed += 1
            result.removed_bytes += pack.length
            result.returned_bytes += pack.length - anew

    def _rewrite(self, number: int, entries: list[Entry]) -> int:
        """Returns the bytes written."""
        anew = 0
        writer = self._store.session.writer
        with self._context.index.read() as txn:
            for entry in entries:
                raw = self._context.files.read(number, entry.offset, entry.stored)
                if entry.kind == KIND_SKETCH:
                    anew += self._copy_sketch(txn, raw)
                    continue
                value = txn.get(Table.CHUNKS, entry.id)
                row = None if value is None else chunk_row(value)
                if row is not None and (row.pack, row.offset) == (number, entry.offset):
                    writer.move(entry.id, row, raw)
                    anew += entry.stored
        writer.commit()
        return anew

    def _copy_sketch(self, txn: Txn, raw: bytes) -> int:
        data, hooks = _kept_sketch(
            self._context, raw, lambda cid: txn.get(Table.CHUNKS, cid) is not None
        )
        if not data:
            return 0
        self._store.session.writer.put_sketch(data, hooks)
        return RECORD_HEAD + len(data) + self._context.added

    def _remove(self, number: int, pack: PackRow, entries: list[Entry]) -> bool:
        """Doom, unlink, forget. False when a row still points into the pack: nothing is done then."""
        key = U32.pack(number)
        with self._context.index.write() as txn:
            # Sealed packs gain no rows. Looked at all the same: after this the bytes are gone.
            for entry in entries:
                raw = txn.get(Table.CHUNKS, entry.id)
                if raw is not None and chunk_row(raw).pack == number:
                    log.warning("pack %d is kept: chunk %s is still in it", number, entry.id.hex())
                    return False
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
            txn.delete(Table.SUSPECTS, key)
        return True
