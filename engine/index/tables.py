"""The tables of the index: which there are, what their keys and values are. Integers in keys are big-endian."""

from __future__ import annotations

import enum


class Table(enum.Enum):
    """name -> (number used in row checks, LMDB database name). Values carry a check added by the transaction."""

    META = 1  # name -> small values: format, gc state, counters
    CHUNKS = 2  # chunk id (32) -> ChunkRow
    PACKS = 3  # pack number u32 -> PackRow
    HOOKS = 4  # sampled fingerprint (8) -> pack number u32: where similar streams lie
    TOUCHED = 5  # chunk id (32) -> epoch u64: references taken while a collection runs
    WORKERS = 6  # worker id u64 -> WorkerRow
    PINS = 7  # worker id u64, point id -> "": points open for reading; "rm": about to be deleted
    POINTS = 8  # point id -> encoded point record
    MOUNTS = 9  # mount name -> mount row
    INODES = 10  # mount u32, ino u64 -> inode row
    DIRENTS = 11  # mount, parent ino, cookie u64 -> ino, type, name
    SPANS = 13  # mount, ino, span u32 -> encoded extents; number 12 is not used
    XATTRS = 14  # mount, ino, name, part -> value
    ORPHANS = 15  # mount, ino -> "": unlinked, still open
    CHANGED = 16  # mount, ino -> commit sequence, first span
    CHANGED_NAMES = 17  # mount, dir ino, name -> commit sequence
    CHANGED_SPANS = 18  # mount, ino, span -> commit sequence
    ROOTS = 19  # mount, ino -> root of the last snapshot
    LIVE_META = 20  # mount -> counters
    PARENTS = 21  # mount, ino, parent ino, cookie -> "": hard links beyond the first
    SUSPECTS = 22  # chunk id -> reason: damaged or missing, wanted again; pack number u32 -> reason: to be rewritten
    DICTS = 23  # group of similar files -> chunk id of its dictionary
    LOCATIONS = 24  # name -> a storage location
    OUTBOX = 25  # location u16, point id -> how far its copy there is
    COPIES = 26  # location u16, chunk id -> where it lies there
    AWAY = 27  # pack number u32 -> a sealed pack at a location

    # By identity: members are singletons, and the inherited one is a Python call at every look-up of a row.
    __hash__ = object.__hash__

    @property
    def late(self) -> bool:
        """Not in the first stores of this format: made where it is missing, once."""
        return self.value >= Table.LOCATIONS.value

    @property
    def db(self) -> bytes:
        return self.name.lower().encode()
