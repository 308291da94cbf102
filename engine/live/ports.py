"""What a live tree needs of the rest of the engine, as small interfaces.

The engine's own parts fit them; tests run the same tree over parts kept in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from engine import codec
from engine.incidents import Journal
from engine.index import Index, Txn
from engine.ingest.jobs import Mode, SealJob
from engine.nodes.extents import Extent


class Reader(Protocol):
    """Verified chunk reads (engine.chunks.ChunkReader)."""

    def read(self, cid: bytes) -> bytes: ...

    def read_parts(self, parts: Sequence[tuple[bytes, int, int]]) -> list[codec.Bytes]: ...

    def cached(self, cid: bytes) -> bytes | None: ...


class Hold(Protocol):
    """Keeps chunks that work refers to from being collected (engine.chunks.Hold)."""

    def release(self) -> None: ...


class Writer(Protocol):
    """The barrier (engine.chunks.ChunkWriter)."""

    def commit(self, extra: Callable[[Txn], None] | None = None) -> None: ...

    def wants_commit(self) -> bool: ...


@dataclass
class Ports:
    """Everything below and beside the live tree.

    ``seal(job)``: new extents of a span, ``job.hold`` set; CPU heavy, called in seal threads; raises StoreFull …
    ``seal_small(jobs)``: does those of several jobs that are better done together, setting ``extents`` and ``hold``.
    ``flush()``: store what the sealer has gathered beside chunks, before a barrier that matters.
    ``choose_mode(path, first bytes, override, mode of the predecessor)``.
    ``last_point_entry(path)``: what the mount's last recovery point has at a path, or None;
    ``entry_span(entry, number)``: extents of one of its spans; ``entry_mode(entry)``: how it was chunked.
    ``space_left()``: bytes writers may still use on the store's file system, its reserve taken off.
    ``heartbeat()``: called every tick. ``quota()``: (bytes, inodes) as they are now, None when they never change.
    ``incidents``: where conditions that want attention are noted; ``name``: how they call the mount.
    """

    index: Index
    reader: Reader
    writer: Writer
    seal: Callable[[SealJob], list[Extent]]
    choose_mode: Callable[[bytes, bytes, str, int], Mode]
    space_left: Callable[[], int]
    last_point_entry: Callable[[bytes], Any] = field(default=lambda path: None)
    entry_span: Callable[[Any, int], list[Extent]] = field(default=lambda entry, number: [])
    entry_mode: Callable[[Any], int] = field(default=lambda entry: 0)
    flush: Callable[[], None] = field(default=lambda: None)
    seal_small: Callable[[list[SealJob]], None] = field(default=lambda jobs: None)
    heartbeat: Callable[[], None] = field(default=lambda: None)
    quota: Callable[[], tuple[int, int]] | None = None
    incidents: Journal = field(default_factory=Journal)
    name: str = "mount"
