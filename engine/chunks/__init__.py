"""Chunks: verified reads, deduplicating writes, the barrier."""

from engine.chunks.bring import Brought, Place, Seen, Want
from engine.chunks.context import Context
from engine.chunks.hold import Hold, Holds
from engine.chunks.reader import ChunkReader, Part
from engine.chunks.workers import Worker, alive, reap
from engine.chunks.writer import ChunkWriter, Dictionary

__all__ = [
    "Brought",
    "ChunkReader",
    "ChunkWriter",
    "Context",
    "Dictionary",
    "Hold",
    "Holds",
    "Part",
    "Place",
    "Seen",
    "Want",
    "Worker",
    "alive",
    "reap",
]
