"""Content-defined pieces: streams whose content moves (tar, backup sets, dumps, anything of unknown make).

A run of bytes is cut into pieces of about 8 KiB by content.  Pieces that lie in the store already, in whichever
chunk, become extents into those chunks; only the others are gathered, in order, into new chunks of about 128 KiB.
A new chunk is stored as a delta of what stood between the known neighbours of its pieces: the previous version of
the changed page.  So a set whose pages come in another order under other names costs what changed.

Runs are cut at span borders, so that a span's extents depend on its bytes alone and spans are sealed in parallel.
"""

from __future__ import annotations

import threading
from typing import NamedTuple

from engine import codec, limits
from engine.chunks import ChunkWriter, Context, Dictionary, Hold
from engine.ingest.groups import Groups
from engine.ingest.sketches import Place, Sketches
from engine.ingest.splice import Extent, merged
from engine.packs.records import Base

_SLACK = 4 * limits.KIB  # bytes around a changed place that are offered as prefix too
_ALIGN = 2 * limits.KIB


class Fresh(NamedTuple):
    """A maximal run of pieces that the store lacks: pieces[first:last] of the run being sealed."""

    first: int
    last: int


class StreamSealer:
    """Seals runs. Thread-safe: the cutter is per thread."""

    def __init__(
        self, context: Context, writer: ChunkWriter, sketches: Sketches, groups: Groups
    ) -> None:
        self._context = context
        self._writer = writer
        self._sketches = sketches
        self._groups = groups
        self._local = threading.local()

    def seal_run(self, start: int, data: codec.Bytes, name: bytes, hold: Hold) -> list[Extent]:
        """Extents of ``data`` at ``start`` of its span. Raises StoreFull, LocationUnavailable."""
        view = memoryview(data)
        ends = self._cutter().cuts(view)
        starts = [0, *ends[:-1]]
        key = self._context.key
        names = [codec.fingerprint(key, view[a:b]) for a, b in zip(starts, ends, strict=True)]
        places = self._usable(self._sketches.match(names), hold)
        self._sketches.mender.offer(names, [view[a:b] for a, b in zip(starts, ends, strict=True)])
        lacking = [
            view[a:b] for a, b, place in zip(starts, ends, places, strict=True) if place is None
        ]
        dictionary = self._groups.get(name, lacking, hold)
        extents: list[Extent] = []
        group: list[Fresh] = []
        size = 0
        for i in range(len(names) + 1):
            place = places[i] if i < len(names) else None
            if place is not None:
                extents.append((start + starts[i], ends[i] - starts[i], place.cid, place.offset))
                continue
            if i == len(names):
                break
            length = ends[i] - starts[i]
            if group and size + length > limits.STREAM_CHUNK:
                extents += self._store(
                    start, view, starts, ends, names, places, group, dictionary, hold
                )
                group, size = [], 0
            if group and group[-1].last == i:
                group[-1] = Fresh(group[-1].first, i + 1)
            else:
                group.append(Fresh(i, i + 1))
            size += length
        if group:
            extents += self._store(
                start, view, starts, ends, names, places, group, dictionary, hold
            )
        extents.sort()
        return merged(extents)

    def _cutter(self) -> codec.Cutter:
        cutter = getattr(self._local, "cutter", None)
        if cutter is None:
            cutter = self._local.cutter = codec.Cutter()
        return cutter

    def _usable(self, places: list[Place | None], hold: Hold) -> list[Place | None]:
        wanted = {place.cid for place in places if place is not None}
        if not wanted:
            return places
        known = self._writer.known(wanted, hold)
        lost = wanted - known
        if not lost:
            return places
        self._sketches.lose(lost, places)
        return [None if place is None or place.cid in lost else place for place in places]

    def _store(
        self, start: int, view: memoryview, starts: list[int], ends: list[int], names: list[bytes],
        places: list[Place | None], group: list[Fresh], dictionary: Dictionary | None, hold: Hold,
    ) -> list[Extent]:  # fmt: skip
        data = codec.join([view[starts[f.first] : ends[f.last - 1]] for f in group])
        cid = codec.chunk_id(self._context.key, data)
        if not self._writer.known((cid,), hold):
            bases = _bases(places, group, ends, starts)
            # Runs that end a span early belong to files of modest size, or to the end of a large one.
            level = limits.ZSTD_LEVEL if len(view) == limits.SPAN else limits.ZSTD_LEVEL_MODEST
            self._writer.put(cid, data, hold, bases=bases, dictionary=dictionary, level=level)
            pieces = [
                (names[i], ends[i] - starts[i]) for f in group for i in range(f.first, f.last)
            ]
            self._sketches.add(cid, len(data), pieces)
        extents = []
        inner = 0
        for fresh in group:
            length = ends[fresh.last - 1] - starts[fresh.first]
            extents.append((start + starts[fresh.first], length, cid, inner))
            inner += length
        return extents


def _bases(
    places: list[Place | None], group: list[Fresh], ends: list[int], starts: list[int]
) -> list[Base]:
    """What stood in the earlier stream where the fresh runs are now: between their known neighbours."""
    ranges: dict[bytes, list[tuple[int, int]]] = {}
    for fresh in group:
        want = ends[fresh.last - 1] - starts[fresh.first] + _SLACK
        left = places[fresh.first - 1] if fresh.first else None
        right = places[fresh.last] if fresh.last < len(places) else None
        if left is not None:
            low = left.offset + ends[fresh.first - 1] - starts[fresh.first - 1]
            high = min(left.size, low + want)
            if right is not None and right.cid == left.cid and low < right.offset:
                high = min(right.offset + _SLACK, low + 2 * want, left.size)
            ranges.setdefault(left.cid, []).append((low, high))
        if right is not None and (left is None or right.cid != left.cid):
            ranges.setdefault(right.cid, []).append((max(0, right.offset - want), right.offset))
    return _rounded(ranges, {p.cid: p.size for p in places if p is not None})


def _rounded(ranges: dict[bytes, list[tuple[int, int]]], sizes: dict[bytes, int]) -> list[Base]:
    bases = []
    for cid, parts in ranges.items():
        last = -1
        for low, high in sorted(parts):
            low = max(low - low % _ALIGN, last)
            high = min(-(-high // _ALIGN) * _ALIGN, sizes[cid])
            if high > low:
                bases.append(Base(cid, low, high - low))
                last = high
    # The largest parts help most when there are too many; order among those kept is free.
    bases.sort(key=lambda base: -base.length)
    return bases[: limits.DELTA_BASES_MAX]
