"""Ingest: plaintext runs become extents of chunks."""

from engine.ingest.jobs import Mode, SealJob
from engine.ingest.mode import choose_mode
from engine.ingest.sealer import Sealer

__all__ = ["Mode", "SealJob", "Sealer", "choose_mode"]
