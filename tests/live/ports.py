"""A live tree's ports over chunks kept in memory, with the durability of the real ones: what is not committed is lost.

The index is a real one, in a temporary directory: its transactions are part of what is tested.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from hashlib import blake2b

from engine import limits
from engine.codec import Bytes
from engine.errors import Corrupt, HoldfastError
from engine.index import Index, Txn
from engine.ingest.jobs import Mode, SealJob
from engine.ingest.splice import replace
from engine.live import Ports
from engine.nodes.extents import Extent, encode_extents


class MemoryHold:
    """Counts itself, so that a test can see that none is forgotten."""

    def __init__(self, chunks: Chunks) -> None:
        self._chunks = chunks
        chunks.holds.add(self)

    def release(self) -> None:
        self._chunks.holds.remove(self)


class Chunks:
    """Reader, writer and sealer in one. ``fail_seal``/``fail_commit``: raised by the next calls, as long as set."""

    def __init__(self, index: Index) -> None:
        self.index = index
        self.committed: dict[bytes, bytes] = {}
        self.pending: dict[bytes, bytes] = {}
        self.holds: set[MemoryHold] = set()
        self.fail_seal: HoldfastError | None = None
        self.fail_commit: HoldfastError | None = None
        self.fail_late: HoldfastError | None = (
            None  # the transaction is durable, and yet reported as failed
        )
        self.commits = 0
        self.seals = 0
        self.jobs: list[SealJob] = []
        self.before_seal: Callable[[SealJob], None] = lambda job: None
        self.before_commit: Callable[[], None] = lambda: None
        self.crowded = False
        self.nothing_cached = False
        self._lock = threading.Lock()

    # --- reader

    def read(self, cid: bytes) -> bytes:
        found = self.pending.get(cid) or self.committed.get(cid)
        if found is None:
            raise Corrupt(f"chunk {cid.hex()}", expected="its content", found="nothing")
        return found

    def read_parts(self, parts: Sequence[tuple[bytes, int, int]]) -> list[Bytes]:
        found = [(self.read(cid), start, length) for cid, start, length in parts]
        for (cid, _, _), (data, start, length) in zip(parts, found, strict=True):
            if start + length > len(data):
                raise Corrupt(f"chunk {cid.hex()}", found="a shorter one")
        return [data[start : start + length] for data, start, length in found]

    def cached(self, cid: bytes) -> bytes | None:
        return None if self.nothing_cached else self.read(cid)

    # --- writer

    def commit(self, extra: Callable[[Txn], None] | None = None) -> None:
        self.before_commit()
        with self._lock:
            batch = dict(self.pending)
        if self.fail_commit is not None:
            raise self.fail_commit
        with self.index.write() as txn:
            if extra is not None:
                extra(txn)
        with self._lock:
            self.committed.update(batch)
            for cid in batch:
                self.pending.pop(cid, None)
        self.commits += 1
        if self.fail_late is not None:
            raise self.fail_late

    def wants_commit(self) -> bool:
        return self.crowded

    # --- sealer

    def seal(self, job: SealJob) -> list[Extent]:
        self.before_seal(job)
        if self.fail_seal is not None:
            raise self.fail_seal
        extents = list(job.old)
        for start, data in job.fragments:
            view = memoryview(data)
            for at in range(0, len(view), limits.SLOT):
                part = bytes(view[at : at + limits.SLOT])
                cid = blake2b(part, digest_size=32).digest()
                with self._lock:
                    if cid not in self.committed:
                        self.pending[cid] = part
                low = start + at
                extents = replace(extents, low, low + len(part), [(low, len(part), cid, 0)])
        if len(encode_extents(extents)) > limits.SPAN_ROW_MAX:
            extents = self._slots(extents)
        job.hold = MemoryHold(self)  # type: ignore[assignment]
        with self._lock:
            self.seals += 1
            self.jobs.append(job)
        return extents

    def _slots(self, extents: list[Extent]) -> list[Extent]:
        """The same bytes in whole slots, so that the list fits its row."""
        data = bytearray(limits.SPAN)
        for offset, length, cid, start in extents:
            data[offset : offset + length] = self.read(cid)[start : start + length]
        result: list[Extent] = []
        for at in range(0, extents[-1][0] + extents[-1][1], limits.SLOT):
            part = bytes(data[at : at + limits.SLOT])
            cid = blake2b(part, digest_size=32).digest()
            self.pending[cid] = part
            result.append((at, len(part), cid, 0))
        end = extents[-1][0] + extents[-1][1]
        offset, _, cid, start = result[-1]
        return [*result[:-1], (offset, end - offset, cid, start)]

    def lose_uncommitted(self) -> None:
        """What a crash does."""
        self.pending = {}
        self.holds = set()


def memory_ports(chunks: Chunks, space_left: Callable[[], int] | None = None) -> Ports:
    """Ports over ``chunks``; a file system that never fills unless told otherwise."""
    return Ports(
        index=chunks.index,
        reader=chunks,
        writer=chunks,
        seal=chunks.seal,
        choose_mode=lambda path, first, override, before: Mode.FIXED,
        space_left=space_left or (lambda: 1 << 40),
    )
