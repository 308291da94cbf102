"""The values file content is made of: spans, their layers, extent lists, and looking through them.

A span is, from the newest layer to the oldest: fragments (``fragments``), fragments a seal thread works on
(``sealing``), extents (sealed, or as the index has them).  Reading looks through the layers in this order; what no
layer covers is a hole.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from operator import itemgetter

from engine import limits
from engine.live import rows
from engine.live.fragments import Data, Fragments
from engine.live.lineage import Lineage
from engine.live.ports import Hold
from engine.nodes.extents import Extent

SPAN = limits.SPAN
Extents = list[Extent]
Piece = Data | int | tuple[bytes, int, int]
"""Of a read plan: bytes, a number of zeros, or (chunk id, offset in chunk, length)."""

_offset = itemgetter(0)


def clip(extents: Extents, end: int) -> Extents:
    """The part of a span's extents before ``end``; the same object when nothing is cut off."""
    if not extents or extents[-1][0] + extents[-1][1] <= end:
        return extents
    kept = []
    for offset, length, cid, inside in extents:
        if offset >= end:
            break
        kept.append((offset, min(length, end - offset), cid, inside))
    return kept


def covered(extents: Extents) -> int:
    """Bytes that are not hole."""
    return sum([extent[1] for extent in extents])


class Span:
    """One span that memory knows better than the index.

    ``taken``/``done``: how often its fragments were handed to a seal thread / came back; ``cut``: truncated to this
    while being sealed; ``dropped``: truncated away or its file removed; ``again``: seal once more when it is back.
    """

    __slots__ = (
        "again",
        "cut",
        "done",
        "dropped",
        "encoded",
        "extents",
        "failed",
        "fragments",
        "holds",
        "number",
        "queued",
        "sealing",
        "taken",
    )

    def __init__(self, number: int) -> None:
        self.number = number
        self.fragments: Fragments | None = None
        self.sealing: Fragments | None = None
        self.extents: Extents | None = None
        self.encoded: bytes | None = None  # of exactly these extents
        self.holds: list[Hold] = []
        self.cut = SPAN
        self.taken = 0
        self.done = 0
        self.dropped = False
        self.queued = False
        self.again = False
        self.failed = False


class Content:
    """Memory's knowledge of one file's content.

    ``unsealed``: spans with fragments in either layer; ``sealed``: spans whose extents are newer than the index.
    ``void``/``void_flight``: committed rows from this span number on mean nothing (truncated), since the last
    collection / in the commit in progress.  ``unsealed_new``: bytes of fragments over nothing, for st_blocks.
    """

    __slots__ = ("lineage", "sealed", "spans", "unsealed", "unsealed_new", "void", "void_flight")

    def __init__(self) -> None:
        self.spans: dict[int, Span] = {}
        self.unsealed: dict[int, Span] = {}
        self.sealed: dict[int, Span] = {}
        self.void = rows.NOWHERE
        self.void_flight = rows.NOWHERE
        self.unsealed_new = 0
        self.lineage: Lineage | None = None


class Cut:
    """Fragments being sealed of which the end was truncated away meanwhile."""

    __slots__ = ("_cut", "_fragments")

    def __init__(self, fragments: Fragments, cut: int) -> None:
        self._fragments = fragments
        self._cut = cut

    def within(self, start: int, end: int) -> Iterator[tuple[int, int, Data]]:
        return self._fragments.within(start, max(start, min(end, self._cut)))


def look_through(
    layers: list[Fragments | Cut], extents: Extents, start: int, end: int, pieces: list[Piece]
) -> None:
    """Append what start..end of a span is made of: the first layer's runs, beneath its gaps the next layer's."""
    if not layers:
        _from_extents(extents, start, end, pieces)
        return
    for low, high, data in layers[0].within(start, end):
        if low > start:
            look_through(layers[1:], extents, start, low, pieces)
        pieces.append(data)
        start = high
    if start < end:
        look_through(layers[1:], extents, start, end, pieces)


def _from_extents(extents: Extents, start: int, end: int, pieces: list[Piece]) -> None:
    at = max(0, bisect_right(extents, start, key=_offset) - 1)
    while start < end and at < len(extents):
        offset, length, cid, inside = extents[at]
        at += 1
        if offset + length <= start:
            continue
        if offset >= end:
            break
        if offset > start:
            pieces.append(offset - start)
            start = offset
        size = min(offset + length, end) - start
        pieces.append((cid, inside + start - offset, size))
        start += size
    if start < end:
        pieces.append(end - start)
