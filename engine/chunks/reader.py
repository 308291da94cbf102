"""Reading chunks: look up, read the record, decode it with its bases, verify, cache.

Every byte returned hashes to the chunk's name; anything else raises Corrupt, and the chunk is remembered as
suspect, so that the next writer of the same content stores it again.  A pack that is gone is looked up once more
(a collection may have moved its records).  Thread-safe.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from engine import codec, limits
from engine.chunks.bring import Brought, Seen, Want, bring
from engine.chunks.cache import ByteCache
from engine.chunks.context import Context
from engine.chunks.gather import Loaded, Stored, ahead, gather, records, unpacked
from engine.errors import Corrupt, HoldfastError, NotFound
from engine.index import Table
from engine.index.rows import ENC_DICT, ENC_RAW, FLAG_SUSPECT, KIND_NODE, ChunkRow, chunk_row
from engine.packs.records import Record, decode_record_head

log = logging.getLogger("holdfast.engine.chunks")


Part = tuple[bytes, int, int]
"""(chunk id, first byte, length)."""


class ChunkReader:
    """Verified reads of chunks and nodes, with bounded caches."""

    def __init__(self, context: Context, cache_bytes: int = limits.CHUNK_CACHE) -> None:
        self._context = context
        self._cache: ByteCache[Loaded] = ByteCache(cache_bytes)
        self._nodes: ByteCache[Loaded] = ByteCache(limits.NODE_CACHE)
        self._dictionaries: ByteCache[codec.Dictionary] = ByteCache(limits.DICTIONARY_CACHE)
        self._overlay: Callable[[bytes], ChunkRow | None] | None = None
        self._make_readable: Callable[[int, int], None] | None = None

    def attach(
        self, overlay: Callable[[bytes], ChunkRow | None], make_readable: Callable[[int, int], None]
    ) -> None:
        """Let a writer of this process offer its chunks that are not committed yet."""
        self._overlay = overlay
        self._make_readable = make_readable

    @contextmanager
    def roomy(self) -> Iterator[None]:
        """Keep more chunks while a restore goes on: a set that was multiplexed anew each day took 0.57 of the time."""
        before = self._cache.resize(limits.RESTORE_CACHE)
        try:
            yield
        finally:
            self._cache.resize(before)

    def name_of(self, data: bytes) -> bytes:
        """The id that a chunk of this plaintext has in this store."""
        return codec.chunk_id(self._context.key, data)

    def read(self, cid: bytes) -> bytes:
        """The plaintext of a chunk. Raises Corrupt (damaged, missing, or not what its name says)."""
        return self.load(cid).data

    def read_parts(
        self, parts: Sequence[Part], brought: Sequence[memoryview] = ()
    ) -> list[codec.Bytes]:
        """Parts of chunks, many at once (see ``gather``). Raises Corrupt for the first that cannot be had.

        What is used in part only is kept in the cache: the rest of it may be asked for next. ``brought``: records that
        need not be read; nothing refers to them afterwards.
        """
        result: list[codec.Bytes] = []
        here = unpacked(self._context, brought)
        at = 0
        while at < len(parts):
            group: set[bytes] = set()
            last = at
            while last < len(parts) and len(group) < limits.GATHER_CHUNKS:
                group.add(parts[last][0])
                last += 1
            found = {}
            if here:
                found = {cid: one for cid in group if (one := self._cache.get(cid)) is not None}
            if here or len(group) > 1:
                found |= self._gather(group - found.keys(), here)
            for cid, start, length in parts[at:last]:
                loaded = found.get(cid)
                if loaded is None:
                    loaded = found[cid] = self.load(cid)
                elif length < len(loaded.data):
                    self._cache.put(cid, loaded, len(loaded.data) + 150)
                data = loaded.data
                if start + length > len(data):
                    raise Corrupt(
                        f"chunk {cid.hex()}", expected=f"{start + length} bytes", found=str(len(data)),
                        do="run 'holdfast check'",
                    )  # fmt: skip
                result.append(
                    data if length == len(data) else memoryview(data)[start : start + length]
                )
            at = last
        return result

    def _gather(self, cids: set[bytes], here: Stored) -> dict[bytes, Loaded]:
        return gather(
            self._context,
            cids,
            self.cached,
            lambda cid: self._dictionary(cid, 0, here),
            self._overlay,
            self._make_readable,
            here,
        )

    def bring(self, wants: Sequence[Want], room: memoryview, seen: Seen) -> Brought | None:
        """Have chunks that are at a location only, and what they are deltas of, in ``room``; None when none is.

        Raises what a location raises.
        """
        return bring(self._context, wants, self._overlay, room, seen)

    def ahead(self, cids: Sequence[bytes]) -> bool:
        """Have chunks be near when they are read soon that are at a location only; whether any is.

        Raises what a location raises.
        """
        return ahead(self._context, cids, self.cached, self._overlay)

    def records(self, cids: Sequence[bytes]) -> Stored:
        """Records without the store's seal, many at once, each of a chunk whose content was found to be right in it.

        Raises Corrupt for the first chunk that cannot be had.
        """
        found = records(
            self._context, cids, lambda cid: self._dictionary(cid, 0), self._overlay, self._make_readable
        )  # fmt: skip
        for cid in cids:
            if cid not in found:
                raw = self._checked(cid, 0)[0]
                found[cid] = (decode_record_head(raw), memoryview(raw))
        return found

    def read_node(self, cid: bytes) -> bytes:
        """The plaintext of a manifest node; kept in a cache of its own."""
        return self.load_node(cid).data

    def load_node(self, cid: bytes, level: int = 0) -> Loaded:
        """Like ``read_node``, with the depth of the node's delta chain."""
        found = self._nodes.get(cid)
        if found is None:
            found = self._checked(cid, level)[1]
            self._nodes.put(cid, found, len(found.data) + 150)
        return found

    def cached(self, cid: bytes) -> bytes | None:
        """The plaintext if it is in memory (or a moment away), else None. Never reads a file."""
        found = self._cache.get(cid)
        return None if found is None else found.data

    def load(self, cid: bytes, level: int = 0) -> Loaded:
        """Like ``read``, with the depth of the chunk's delta chain."""
        found = self._cache.get(cid)
        if found is None:
            found = self._checked(cid, level)[1]
            self._cache.put(cid, found, len(found.data) + 150)
        return found

    def forget(self, cid: bytes) -> None:
        """Drop a chunk from the caches (its stored form is being judged anew)."""
        self._cache.drop(cid)
        self._nodes.drop(cid)
        self._dictionaries.drop(cid)

    def row(self, cid: bytes) -> ChunkRow | None:
        """Where the chunk is, uncommitted ones of this process included; None when the store has none."""
        if self._overlay is not None:
            row = self._overlay(cid)
            if row is not None:
                return row
        with self._context.index.read() as txn:
            raw = txn.get(Table.CHUNKS, cid)
        return None if raw is None else chunk_row(raw)

    def _checked(self, cid: bytes, level: int) -> tuple[codec.Bytes, Loaded]:
        try:
            return self._found(cid, level)
        except (Corrupt, NotFound) as error:
            self._suspect(cid, error)
            raise Corrupt(
                f"chunk {cid.hex()}", expected="its content", found=str(error),
                do="run 'holdfast check'; writing the same content again repairs it",
            ) from None  # fmt: skip

    def _found(self, cid: bytes, level: int) -> tuple[codec.Bytes, Loaded]:
        row = self.row(cid)
        if row is None:
            raise NotFound("index", expected="a row for the chunk", found="none")
        try:
            return self._take(cid, row, level)
        except NotFound:
            self._context.files.forget(row.pack)
            moved = self.row(cid)
            if moved is None or (moved.pack, moved.offset) == (row.pack, row.offset):
                raise
            return self._take(cid, moved, level)

    def load_at(
        self, cid: bytes, row: ChunkRow, level: int = 0, *, raw: bytes | None = None
    ) -> Loaded:
        """Read, decode and verify the chunk that lies at ``row``; nothing is cached or marked. ``raw``: its record,
        where it was read already."""
        return self._take(cid, row, level, raw)[1]

    def _take(
        self, cid: bytes, row: ChunkRow, level: int, raw: bytes | None = None
    ) -> tuple[codec.Bytes, Loaded]:
        """The record without the store's seal, and what it holds."""
        if level > limits.DELTA_DEPTH_MAX + 1 or row.stored > limits.RECORD_MAX:
            raise Corrupt(
                "index row of a chunk", expected="a record within its limits", found="another"
            )
        if raw is None:
            if self._make_readable is not None:
                self._make_readable(row.pack, row.offset + row.stored)
            raw = self._context.files.read(row.pack, row.offset, row.stored)
        record = decode_record_head(raw)
        if record.id != cid or record.size != row.stored:
            raise Corrupt(
                f"pack {row.pack} at {row.offset}", expected="the chunk's record", found="another"
            )
        record, bare = self._context.bare(record, raw)
        data = self._decode(record, memoryview(bare)[record.head :], level)
        if codec.chunk_id(self._context.key, data) != cid:
            raise Corrupt(f"pack {row.pack} at {row.offset}", expected="content that hashes to its name",
                          found="other content")  # fmt: skip
        return bare, Loaded(data, record.depth)

    def _decode(self, record: Record, payload: memoryview, level: int) -> bytes:
        if record.encoding == ENC_RAW:
            return bytes(payload)
        if not record.bases:
            return codec.decompress(payload, record.plain)
        node = record.kind == KIND_NODE
        if record.encoding == ENC_DICT:
            return self._dictionary(record.bases[0].id, level).decompress(payload, record.plain)
        parts = []
        for base in record.bases:
            data = (self.load_node if node else self.load)(base.id, level + 1).data
            if base.offset + base.length > len(data):
                raise Corrupt(
                    "delta chunk", expected="a part inside its base", found="one beyond it"
                )
            whole = base.length == len(data)
            parts.append(
                data if whole else memoryview(data)[base.offset : base.offset + base.length]
            )
        return codec.decompress(payload, record.plain, codec.join(parts))

    def _dictionary(self, cid: bytes, level: int, here: Stored | None = None) -> codec.Dictionary:
        found = self._dictionaries.get(cid)
        if found is None:
            content = self._whole(cid, here) if here else None
            if content is None:
                content = self.load(cid, level + 1).data
            found = codec.Dictionary(content)
            self._dictionaries.put(cid, found, 4 * len(content))
        return found

    def _whole(self, cid: bytes, here: Stored) -> bytes | None:
        """A chunk that is no delta, of a record that was read already, where it is right."""
        found = here.get(cid)
        if found is None or found[0].bases:
            return None
        try:
            data = self._decode(found[0], found[1][found[0].head :], 0)
        except Corrupt:
            return None
        return data if codec.chunk_id(self._context.key, data) == cid else None

    def _suspect(self, cid: bytes, error: HoldfastError) -> None:
        log.warning("chunk %s is suspect: %s", cid.hex(), error)
        self._context.incidents.note("corrupt", f"chunk {cid.hex()}", str(error))
        try:
            mark_suspect(self._context, cid, str(error))
        except HoldfastError as second:
            log.warning("chunk %s could not be marked: %s", cid.hex(), second)


def mark_suspect(context: Context, cid: bytes, reason: str) -> None:
    """Record durably that a chunk is damaged or missing; deduplication then stores it again."""
    with context.index.write() as txn:
        raw = txn.get(Table.CHUNKS, cid)
        if raw is not None:
            row = chunk_row(raw)
            txn.put(Table.CHUNKS, cid, row._replace(flags=row.flags | FLAG_SUSPECT).pack_bytes())
        txn.put(Table.SUSPECTS, cid, reason.encode()[:400])


def take_back(context: Context, cid: bytes, row: ChunkRow) -> bool:
    """Record that a chunk marked suspect was read whole at ``row``; False when its row is another by now."""
    with context.index.write() as txn:
        raw = txn.get(Table.CHUNKS, cid)
        if raw is None or chunk_row(raw) != row:
            return False
        txn.put(Table.CHUNKS, cid, row._replace(flags=row.flags & ~FLAG_SUSPECT).pack_bytes())
        txn.delete(Table.SUSPECTS, cid)
        return True
