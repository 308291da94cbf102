"""Chunks: verified reads, deduplicating writes, the barrier."""

from engine.chunks.context import Context
from engine.chunks.hold import Hold, Holds
from engine.chunks.reader import ChunkReader, Part
from engine.chunks.workers import Worker, alive, reap
from engine.chunks.writer import ChunkWriter

__all__ = [
    "ChunkReader",
    "ChunkWriter",
    "Context",
    "Hold",
    "Holds",
    "Part",
    "Worker",
    "alive",
    "reap",
]
