"""What reading and writing chunks needs of a store, in one small bundle."""

from __future__ import annotations

from dataclasses import dataclass

from engine.incidents import Journal
from engine.index import Index
from engine.packs.files import PackFiles
from engine.seam import Os


@dataclass(frozen=True)
class Context:
    """One store as one process sees it. ``key``: 32 secret bytes that key all chunk ids of the store."""

    root: str
    store_id: bytes
    key: bytes
    index: Index
    files: PackFiles
    system: Os

    @property
    def incidents(self) -> Journal:
        """Where incidents are noted: one for all who have the store open in this process."""
        return self.index.journal
