"""What a collection has done."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class CollectReport:
    """``freed_bytes``: record bytes of dead chunks (of a dry run: would-be); ``removed_bytes``: of packs removed;
    ``returned_bytes``: of these, less what was written anew of them: what the file system has got back.

    ``packs_mended``: rows of packs whose sealing was cut short, or that are shorter than they were;
    ``packs_left``: packs that could not be read and were left as they are;
    ``files_quarantined``: files without a row. ``finished``: False when the time was over before
    every pack was looked at.
    """

    dead_chunks: int = 0
    freed_bytes: int = 0
    removed_bytes: int = 0
    returned_bytes: int = 0
    packs_removed: int = 0
    packs_rewritten: int = 0
    packs_mended: int = 0
    packs_left: int = 0
    files_quarantined: int = 0
    finished: bool = True
