"""Writing chunks: put, pending, barrier.

Threads: ``put`` and ``known`` may be called from any thread at once; one ``commit`` runs at a time (others wait).
Lock order: ``_commit_lock`` → ``_lock`` → a segment's own lock. No lock is held while compressing or hashing.

Invariants
 W1  A row reaches the index only in a transaction that begins after the record's segment was synced.
 W2  A chunk in ``_pending`` or ``_batch`` is readable in this process and in no other.
 W3  Encoded records are kept in memory until their commit: when a segment fails, they are written again to another
     segment. If that fails too, ``commit`` raises and nothing of it is acknowledged.
 W4  A commit during a collection protects every id of every open hold (hold.py); the epoch it reports was read
     before it gathered them, so every look-up it does not cover saw the condemned flags.

What a crash leaves of a commit: FORMAT.md, "Crash tables".
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from engine import codec, limits
from engine.chunks import encode
from engine.chunks.context import Context
from engine.chunks.hold import Hold, Holds
from engine.chunks.protect import protect, report_epoch, seen_epoch
from engine.chunks.reader import ChunkReader
from engine.chunks.segments import Segments
from engine.errors import HoldfastError
from engine.index import Table, Txn
from engine.index.gcstate import Phase
from engine.index.gcstate import load as load_gc
from engine.index.rows import (
    ENC_DELTA,
    ENC_DICT,
    ENC_RAW,
    KIND_DATA,
    KIND_NODE,
    U32,
    ChunkRow,
    chunk_row,
    usable,
)
from engine.packs.records import KIND_SKETCH, Base, Entry, decode_record_head

Extra = Callable[[Txn], None]


class Dictionary(NamedTuple):
    """A dictionary that chunks of one make share: itself a chunk, named ``cid``, of ``size`` bytes."""

    digest: codec.Dictionary
    cid: bytes
    size: int


class ChunkWriter:
    """The one writer of chunks of a process. Attach it to the process's reader once."""

    def __init__(self, context: Context, reader: ChunkReader, worker: int) -> None:
        self._context = context
        self._reader = reader
        self._worker = worker
        self._lock = threading.RLock()
        self._segments = Segments(context, worker, self._lock)
        self._commit_lock = threading.Lock()
        self._pending: dict[bytes, ChunkRow] = {}
        self._batch: dict[bytes, ChunkRow] = {}
        self._side: dict[tuple[Table, bytes], bytes] = {}
        self._moves: dict[bytes, tuple[ChunkRow, ChunkRow]] = {}  # (row before, row after)
        self.holds = Holds()
        # By this process, for progress and statistics: record bytes appended, chunks that were there, deltas stored.
        self.stored_bytes = self.dedupe_hits = self.delta_hits = 0
        reader.attach(self.pending, self._segments.make_readable)

    # --- looking up ---------------------------------------------------------------------------------------

    def pending(self, cid: bytes) -> ChunkRow | None:
        """The row of a chunk that is stored but not committed, or None."""
        return self._pending.get(cid) or self._batch.get(cid)

    def known(self, cids: Iterable[bytes], hold: Hold) -> set[bytes]:
        """Those of ``cids`` that may be referred to without storing them; they are held from now on."""
        result = set()
        wanted = list(cids)
        for cid in wanted:
            hold.add(cid)  # before the transaction that sees the row begins: see hold.py
        with self._context.index.read() as txn:
            for cid in wanted:
                if self.pending(cid) is None:
                    raw = txn.get(Table.CHUNKS, cid)
                    if raw is None or not usable(raw):
                        continue
                hold.refer(cid)
                result.add(cid)
        self.dedupe_hits += len(result)
        return result

    # --- storing ------------------------------------------------------------------------------------------

    def put(
        self,
        cid: bytes,
        data: codec.Bytes,
        hold: Hold,
        *,
        kind: int = KIND_DATA,
        bases: Sequence[Base] = (),
        dictionary: Dictionary | None = None,
        level: int = limits.ZSTD_LEVEL,
    ) -> None:
        """Store a chunk that ``known`` did not report, as a delta of ``bases`` when that pays.

        Bases whose chunk cannot be read, is condemned, or is too deep are passed over.  Raises StoreFull or
        LocationUnavailable; then nothing refers to the chunk.
        """
        hold.add(cid)
        if (bases or dictionary is not None) and self._has_row(cid):
            # Suspect or condemned, and perhaps a base: as a delta of what is a delta of it nobody could read either,
            # and a longer chain would make the deltas of it too deep.
            bases, dictionary = (), None
        depth, parts, prefix = self._prefix(bases, hold, kind) if bases else (0, (), b"")
        digest = None if dictionary is None else dictionary.digest
        if parts:
            chosen = encode.with_prefix(data, prefix, 40 * len(parts), digest, level)
        else:
            chosen = encode.plain(data, digest, level)
        if chosen.encoding != ENC_DELTA:
            depth, parts = 0, ()
        elif kind == KIND_DATA:
            self.delta_hits += 1
        if chosen.encoding == ENC_DICT:
            assert dictionary is not None
            hold.refer(dictionary.cid)
            parts = (Base(dictionary.cid, 0, dictionary.size),)
        self._append(cid, len(data), kind, depth, chosen, parts)
        hold.refer(cid)

    def _has_row(self, cid: bytes) -> bool:
        with self._context.index.read() as txn:
            return txn.get(Table.CHUNKS, cid) is not None

    def _append(
        self,
        cid: bytes,
        plain: int,
        kind: int,
        depth: int,
        chosen: encode.Encoded,
        parts: tuple[Base, ...],
    ) -> None:
        head, payload = self._context.record(
            kind, chosen.encoding, depth, plain, chosen.payload, cid, parts
        )
        ids = tuple(dict.fromkeys(base.id for base in parts))
        entry = Entry(cid, 0, 0, plain, kind, chosen.encoding, depth, ids)
        with self._lock:
            if cid in self._pending:  # another thread stored the same content meanwhile
                return
            pack, offset, stored = self._segments.append(kind, head, payload, entry)
            self.stored_bytes += stored
            if kind != KIND_SKETCH:
                self._pending[cid] = ChunkRow(
                    pack, offset, stored, plain, kind, chosen.encoding, depth, 0, ids
                )

    def put_node(self, data: bytes, hold: Hold, like: bytes | None = None) -> bytes:
        """Store a manifest node (deduplicated); ``like`` names a node with similar bytes. Returns its id."""
        cid = codec.chunk_id(self._context.key, data)
        if not self.known((cid,), hold):
            bases: tuple[Base, ...] = ()
            if like is not None and like != cid:
                old = self._reader.row(like)
                if old is not None and old.plain:
                    bases = (Base(like, 0, old.plain),)
            self.put(cid, data, hold, kind=KIND_NODE, bases=bases)
        return cid

    def put_record(self, kind: int, data: bytes, hold: Hold) -> bytes:
        """Store a point record or tombstone in a metadata pack, so that packs alone tell of it. Returns its id."""
        cid = codec.chunk_id(self._context.key, data)
        self.put(cid, data, hold, kind=kind)
        return cid

    def move(self, cid: bytes, row: ChunkRow, raw: bytes) -> None:
        """Copy a record as it is into this worker's segment; the next commit moves the row, if it is still ``row``."""
        head = decode_record_head(raw).head
        entry = Entry(cid, 0, 0, row.plain, row.kind, row.encoding, row.depth, row.bases)
        with self._lock:
            pack, offset, stored = self._segments.append(row.kind, raw[:head], raw[head:], entry)
            self._moves[cid] = (row, row._replace(pack=pack, offset=offset, stored=stored))

    def put_sketch(self, data: bytes, hooks: Iterable[bytes]) -> None:
        """Store a sketch record beside the data it describes, and hooks that lead to its pack."""
        cid = codec.chunk_id(self._context.key, data)
        head, payload = self._context.record(KIND_SKETCH, ENC_RAW, 0, len(data), data, cid)
        entry = Entry(cid, 0, 0, len(data), KIND_SKETCH, ENC_RAW, 0, ())
        with self._lock:
            pack, _, stored = self._segments.append(KIND_DATA, head, payload, entry)
            self.stored_bytes += stored
            for hook in hooks:
                self._side[Table.HOOKS, hook] = U32.pack(pack)

    def note(self, table: Table, key: bytes, value: bytes) -> None:
        """A row about pending chunks (an aid, not a reference), written with the next commit."""
        with self._lock:
            self._side[table, key] = value

    def data_pack(self) -> int | None:
        """Number of the segment data is being appended to, if there is one."""
        return self._segments.number(KIND_DATA)

    def _prefix(
        self, bases: Sequence[Base], hold: Hold, kind: int
    ) -> tuple[int, tuple[Base, ...], codec.Bytes]:
        parts: list[Base] = []
        data: list[codec.Bytes] = []
        depth = total = 0
        for base in bases[: limits.DELTA_BASES_MAX]:
            if total + base.length > limits.DELTA_PREFIX_MAX or not self.known((base.id,), hold):
                continue
            try:
                loaded = (
                    self._reader.load_node(base.id)
                    if kind == KIND_NODE
                    else self._reader.load(base.id)
                )
            except HoldfastError:
                continue  # the reader has logged and marked it
            if loaded.depth >= limits.DELTA_DEPTH_MAX or base.offset + base.length > len(
                loaded.data
            ):
                continue
            depth = max(depth, loaded.depth + 1)
            whole = base.length == len(loaded.data)
            data.append(
                loaded.data if whole else memoryview(loaded.data)[base.offset :][: base.length]
            )
            parts.append(base)
            total += base.length
        if total < limits.DELTA_PREFIX_MIN:
            return 0, (), b""
        return depth, tuple(parts), codec.join(data)

    # --- barrier ------------------------------------------------------------------------------------------

    def wants_commit(self) -> bool:
        """True when so much is uncommitted that a barrier should not wait."""
        return (
            self._segments.unsafe_bytes > limits.UNCOMMITTED_MAX
            or len(self._pending) > limits.PENDING_MAX
        )

    def commit(self, extra: Extra | None = None) -> None:
        """The barrier: everything put before the call, and what ``extra`` writes, is durable when it returns.

        On an error nothing of ``extra`` is written, and the chunks stay pending for the next try.
        """
        with self._commit_lock:
            with self._context.index.read() as txn:
                seen = load_gc(txn)
            with self._lock:
                self._batch, self._pending = self._pending, {}
                side, self._side = self._side, {}
            moves: dict[bytes, tuple[ChunkRow, ChunkRow]] = {}
            try:
                lengths = self._segments.sync(self._moved)
                moves, self._moves = (
                    self._moves,
                    {},
                )  # only now: a failed segment changes them; one thread moves
                with self._context.index.write() as txn:
                    self._write_rows(txn, side)
                    _move_rows(txn, moves)
                    self._segments.write_rows(txn, lengths)
                    if extra is not None:
                        extra(txn)
                    protect(txn, self.holds.ids() | self._batch.keys(), self._must_be_there)
                    report_epoch(txn, self._worker, seen)
            except BaseException:
                with self._lock:
                    self._pending = {**self._batch, **self._pending}
                    self._side = {**side, **self._side}
                    self._moves = {**moves, **self._moves}
                    self._batch = {}
                raise
            with self._lock:
                self._batch = {}
            self._segments.committed(lengths)

    def _must_be_there(self, cid: bytes) -> bool:
        """Whether the index must have the chunk in the commit of ``_batch``."""
        return cid in self._batch or (self.holds.is_referred(cid) and cid not in self._pending)

    def _write_rows(self, txn: Txn, side: dict[tuple[Table, bytes], bytes]) -> None:
        for cid in sorted(self._batch):  # in key order: neighbours share leaf pages
            row = self._batch[cid]
            raw = txn.get(Table.CHUNKS, cid)
            if raw is not None and usable(raw):
                continue  # another process stored it first; our record is garbage of its pack
            txn.put(Table.CHUNKS, cid, row.pack_bytes())
            if raw is not None:
                txn.delete(Table.SUSPECTS, cid)
        for (table, key), value in side.items():
            txn.put(table, key, value)

    def _moved(self, old: int, moves: dict[int, tuple[int, int]]) -> None:
        """Records of a failed segment were written again: (old offset) -> (pack, offset)."""
        with self._lock:
            for rows in (self._batch, self._pending):
                for cid, row in rows.items():
                    if row.pack == old and row.offset in moves:
                        pack, offset = moves[row.offset]
                        rows[cid] = row._replace(pack=pack, offset=offset)
            for cid, (before, after) in self._moves.items():
                if after.pack == old and after.offset in moves:
                    pack, offset = moves[after.offset]
                    self._moves[cid] = (before, after._replace(pack=pack, offset=offset))

    def acknowledge(self) -> None:
        """When a collection waits for this worker to have seen its condemned flags: commit, which says so."""
        with self._context.index.read() as txn:
            state = load_gc(txn)
            if state.phase != Phase.CONDEMNED or seen_epoch(txn, self._worker) == state.epoch:
                return
        self._segments.roll()
        self.commit()

    def close(self) -> None:
        """Commit what is pending, then let go of the segments (sealed when worth it)."""
        self.commit()
        with self._commit_lock:
            self._segments.close()


def _move_rows(txn: Txn, moves: dict[bytes, tuple[ChunkRow, ChunkRow]]) -> None:
    for cid in sorted(moves):
        before, after = moves[cid]
        raw = txn.get(Table.CHUNKS, cid)
        if raw is not None:
            row = chunk_row(raw)
            if (row.pack, row.offset) == (before.pack, before.offset):
                txn.put(Table.CHUNKS, cid, after._replace(flags=row.flags).pack_bytes())
