"""What a collection has done."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class CollectReport:
    """``freed_bytes``: record bytes of dead chunks (of a dry run: would-be); ``removed_bytes``: of files removed."""

    dead_chunks: int = 0
    freed_bytes: int = 0
    removed_bytes: int = 0
    packs_removed: int = 0
    packs_rewritten: int = 0
    finished: bool = True
