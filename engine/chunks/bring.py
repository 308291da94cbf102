"""Fetching many chunks that are at a location into memory that several processes share, opened and ready to decode.

A restore knows for some MiB of files at once what they need.  One process looks that up, fetches it in few large
requests and opens it; who decodes, verifies and writes takes the records from there and asks nobody.

What is wanted whole, for itself and for the first time goes by: most of a point is read once, and to write it into the
cache on disk and read it again cost as much as to decode it.  What may be wanted again is kept there as well: what
others are deltas of, what is used in part, small records (their neighbours are wanted next), and what was wanted
before: it is fetched a second time, and never a third.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from engine import limits
from engine.chunks.context import Context
from engine.chunks.gather import Overlay, look_up
from engine.index.rows import ChunkRow

Want = tuple[bytes, int]
"""(chunk id, bytes of it that are used)."""
Place = tuple[int, int]
"""(start, length) of a record in the memory it was brought to."""

_MARKS = 1 << 23  # bits


class Seen:
    """Which chunks were asked for before, roughly: one in so many that were not is taken for one that was.

    1 MiB; with a million chunks (some 100 GB of files) that is one in nine. Used by several threads: what is lost to
    that is a mark.
    """

    def __init__(self) -> None:
        self._bits = bytearray(_MARKS // 8)

    def before(self, cid: bytes) -> bool:
        """Whether it was; from now on it is. Ids are hashes already."""
        place, bit = int.from_bytes(cid[:4], "little") % (_MARKS // 8), 1 << (cid[4] & 7)
        found = self._bits[place] & bit
        self._bits[place] |= bit
        return found != 0


class Brought(NamedTuple):
    """What lies where in the memory, and which chunks each of them needs to be decoded."""

    places: dict[bytes, Place]
    rows: dict[bytes, ChunkRow]

    def of(self, cids: Iterable[bytes]) -> list[Place]:
        """Where the records of chunks are, and those of all they need; what is not there is left out."""
        found: dict[bytes, Place] = {}
        todo = list(cids)
        while todo:
            cid = todo.pop()
            place = self.places.get(cid)
            if place is not None and cid not in found:
                found[cid] = place
                todo += self.rows[cid].bases
        return list(found.values())


def bring(
    context: Context, wants: Sequence[Want], overlay: Overlay | None, room: memoryview, seen: Seen
) -> Brought | None:
    """Have chunks, and what they are deltas of, that are elsewhere in ``room``; None when none is.

    What there is no room for, and what was asked for before, is in the cache on disk then: who decoded that has it in
    memory, most often. Raises what a location raises.
    """
    rows: dict[bytes, ChunkRow] = {}
    look_up(
        context,
        [cid for cid, _ in wants],
        lambda cid: None,
        overlay,
        {},
        rows,
        {},
        dictionaries=True,
    )
    used = dict(wants)
    packs: dict[int, list[tuple[int, int, bytes]]] = {}
    for cid, row in rows.items():
        packs.setdefault(row.pack, []).append((row.offset, row.stored, cid))
    places: dict[bytes, Place] = {}
    at = 0
    far = False
    for pack, here in packs.items():
        here.sort()
        fits: list[tuple[int, int, bool]] = []
        rest: list[tuple[int, int]] = []
        end = at
        for offset, size, cid in here:
            if seen.before(cid) or end + size > len(room):
                rest.append((offset, size))
                continue
            end += size
            fits.append(
                (offset, size, size < limits.SMALL_RECORD or used.get(cid) != rows[cid].plain)
            )
        lengths = context.files.bring(pack, fits, room[at:end])
        if lengths is None:
            continue
        far = True
        left = set(rest)
        ids = (cid for offset, size, cid in here if (offset, size) not in left)
        for cid, length in zip(ids, lengths, strict=True):
            if length:
                places[cid] = (at, length)
                at += length
        if rest:
            context.files.ahead(pack, rest)
    return Brought(places, rows) if far else None
