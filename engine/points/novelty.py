"""What is new in a point against the one before it, and how small it could be stored.

Equal subtrees are skipped by their ids, so the cost follows the change.  How well the new content compresses is told by
the index's rows of a sample of its chunks: ids are hashes, so those that begin with zeros are drawn without a bias.
"""

from __future__ import annotations

import stat
from typing import NamedTuple

from engine.chunks import ChunkReader
from engine.nodes import Entry, dirdiff, files

SAMPLE = 8192  # chunks that are looked up, at most


class Novelty(NamedTuple):
    """``files``: regular files whose content is new or changed; ``bytes``: of it, those that were not at their place
    before; ``plain``, ``stored``: of chunks drawn from these, what they hold and what they take."""

    files: int
    bytes: int
    plain: int
    stored: int


def novelty(reader: ChunkReader, old: Entry | None, new: Entry) -> Novelty:
    """From one root directory to another, or of all of one. Raises Corrupt, LocationUnavailable."""
    found = _Sample()
    count = size = 0
    inside = [(old.root if old is not None else b"", new.root)]
    while inside:
        for _, before, after in dirdiff.diff(reader, *inside.pop()):
            if after is None:
                continue
            was = before.root if before and _same_kind(before, after) else b""
            if stat.S_ISDIR(after.mode):
                inside.append((was, after.root))
            elif stat.S_ISREG(after.mode) and after.root != was:
                count += 1
                for _, there, here in files.diff(reader, was, after.root):
                    known = {extent[2] for extent in there}
                    for _, length, cid, _ in here:
                        if cid not in known:
                            size += length
                            found.add(cid)
    return Novelty(count, size, *found.sums(reader))


def _same_kind(one: Entry, other: Entry) -> bool:
    return stat.S_IFMT(one.mode) == stat.S_IFMT(other.mode)


class _Sample:
    """Ids below a bound, which is halved whenever there are too many."""

    def __init__(self) -> None:
        self._bits = 0
        self._ids: set[bytes] = set()

    def add(self, cid: bytes) -> None:
        if self._drawn(cid):
            self._ids.add(cid)
            while len(self._ids) > SAMPLE:
                self._bits += 1
                self._ids = {one for one in self._ids if self._drawn(one)}

    def _drawn(self, cid: bytes) -> bool:
        return not int.from_bytes(cid[:8], "big") >> (64 - self._bits)

    def sums(self, reader: ChunkReader) -> tuple[int, int]:
        """(plain bytes, stored bytes) of those that the index knows."""
        plain = stored = 0
        for cid in sorted(self._ids):
            row = reader.row(cid)
            if row is not None:
                plain += row.plain
                stored += row.stored
        return plain, stored
