"""Damaged chunks put together again from the pieces of what is being written.

A chunk is known by the hash of all of it, and pieces of a stream, or small files, are gathered into chunks by what the
store lacks at that moment: the same content written again makes other chunks where more, or less, is lacking, and a
damaged one would stay so for the points that have it.  But a sketch tells which pieces a chunk is made of.  So a chunk
that was found damaged, or whose piece is met and cannot be referred to any more, is waited for: every piece of it that
comes by is kept, and once all are there and hash to its name it is stored again; every point that shares it is whole.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence

from engine import codec
from engine.chunks import ChunkWriter, Context

WAITING_MAX = 64  # chunks waited for, of at most 256 KiB each; the oldest is given up


class _Torn:
    """A chunk that is being put together."""

    def __init__(self, pieces: Sequence[tuple[bytes, int]]) -> None:
        self.missing: dict[bytes, list[int]] = {}
        at = 0
        for name, length in pieces:
            self.missing.setdefault(name, []).append(at)
            at += length
        self.data = bytearray(at)

    def put(self, name: bytes, data: codec.Bytes) -> None:
        for at in self.missing.pop(name, ()):
            self.data[at : at + len(data)] = data


class Mender:
    """The chunks a worker waits for. Thread-safe."""

    def __init__(self, context: Context, writer: ChunkWriter) -> None:
        self._context = context
        self._writer = writer
        self._lock = threading.Lock()
        self._torn: OrderedDict[bytes, _Torn] = OrderedDict()

    @property
    def waits(self) -> bool:
        """Whether there is a chunk that pieces are wanted for."""
        return bool(self._torn)

    def wait_for(self, cid: bytes, pieces: Sequence[tuple[bytes, int]]) -> None:
        """Gather this chunk's pieces (fingerprint, length; in order) from now on."""
        with self._lock:
            if cid not in self._torn:
                self._torn[cid] = _Torn(pieces)
                while len(self._torn) > WAITING_MAX:
                    self._torn.popitem(last=False)

    def offer(self, names: Sequence[bytes], pieces: Sequence[codec.Bytes]) -> None:
        """Pieces that are written. Raises StoreFull, LocationUnavailable."""
        if not self._torn:
            return
        whole: list[tuple[bytes, bytes]] = []
        with self._lock:
            for cid, torn in list(self._torn.items()):
                for name, data in zip(names, pieces, strict=True):
                    if name in torn.missing:
                        torn.put(name, data)
                if not torn.missing:
                    del self._torn[cid]
                    whole.append((cid, bytes(torn.data)))
        for cid, data in whole:
            if codec.chunk_id(self._context.key, data) == cid:
                with self._writer.holds.open() as hold:
                    if not self._writer.known((cid,), hold):
                        self._writer.put(cid, data, hold)
