"""Fixed slots: files written in place. Each slot is one chunk, stored as a delta of what was there before.

Per slot, what is dirty and what is there are joined into regions without holes.  A region that is wholly new is one
chunk; one that mixes old and new bytes is read, merged and stored again when much of it changed or it is in too
many pieces, else only the new bytes are stored, as small chunks spliced in (a 4 KiB overwrite costs 4 KiB).
Slots of zeros become holes.
"""

from __future__ import annotations

from typing import NamedTuple

from engine import codec, limits
from engine.chunks import ChunkReader, ChunkWriter, Context, Dictionary, Hold
from engine.errors import Corrupt
from engine.ingest.groups import Groups
from engine.ingest.jobs import Fragment, SealJob
from engine.ingest.splice import Extent, cut, regions, replace
from engine.packs.records import Base

_ZEROS = bytes(limits.SLOT)
_MERGE_PART = 4  # merge when at least one byte in so many of a region is new


class Piece(NamedTuple):
    """Bytes to be stored as one chunk at ``start`` of the span."""

    start: int
    data: codec.Bytes
    before: list[Extent]  # what the file, or its previous version, has there


def seal_fixed(
    context: Context,
    reader: ChunkReader,
    writer: ChunkWriter,
    groups: Groups,
    job: SealJob,
    hold: Hold,
) -> list[Extent]:
    """New extents of the span. Raises StoreFull, LocationUnavailable."""
    extents = job.old
    earlier: list[Extent] | None = None
    pieces: list[Piece] = []
    for slot, parts in _by_slot(job.fragments):
        there = cut(extents, slot, slot + limits.SLOT)
        if not there and job.predecessor is not None:
            if earlier is None:
                earlier = job.predecessor(job.span_no)
            before = cut(earlier, slot, slot + limits.SLOT)
        else:
            before = there
        pieces.extend(_slot_pieces(reader, parts, there, before))
    fresh = [piece.data for piece in pieces if not piece.before]
    dictionary = groups.get(job.group, fresh, hold)
    return _store(context, reader, writer, dictionary, extents, pieces, hold)


def _by_slot(fragments: list[Fragment]) -> list[tuple[int, list[Fragment]]]:
    """Fragments cut at slot borders, grouped by slot; touching ones joined."""
    slots: dict[int, list[Fragment]] = {}
    for offset, data in fragments:
        at = 0
        view = memoryview(data)
        while at < len(view):
            start = offset + at
            slot = start - start % limits.SLOT
            size = min(slot + limits.SLOT - start, len(view) - at)
            slots.setdefault(slot, []).append((start, view[at : at + size]))
            at += size
    return [(slot, _joined(parts)) for slot, parts in sorted(slots.items())]


def _joined(parts: list[Fragment]) -> list[Fragment]:
    if len(parts) == 1:
        return parts
    result: list[tuple[int, list[codec.Bytes], int]] = []
    for start, data in parts:
        if result and result[-1][2] == start:
            result[-1] = (result[-1][0], [*result[-1][1], data], start + len(data))
        else:
            result.append((start, [data], start + len(data)))
    return [
        (start, b"".join(datas)) if len(datas) > 1 else (start, datas[0])
        for start, datas, _ in result
    ]


def _slot_pieces(
    reader: ChunkReader, parts: list[Fragment], there: list[Extent], before: list[Extent]
) -> list[Piece]:
    whole = len(parts) == 1 and (
        len(parts[0][1]) == limits.SLOT
        or not cut_outside(there, parts[0][0], parts[0][0] + len(parts[0][1]))
    )
    if whole:
        start, data = parts[0]
        return [Piece(start, data, cut(before, start, start + len(data)))]
    ranges = [(start, start + len(data)) for start, data in parts]
    result: list[Piece] = []
    for low, high in regions(ranges + [(e[0], e[0] + e[1]) for e in there]):
        inside = [part for part in parts if low <= part[0] < high]
        if not inside:
            continue
        old = cut(there, low, high)
        fresh = sum(len(data) for _, data in inside)
        many = len(old) + 2 * len(inside) > limits.SLOT_MAX_EXTENTS * 2
        if old and (fresh * _MERGE_PART >= high - low or many):
            merged = _merge(reader, low, high, old, inside)
            if merged is not None:
                result.append(Piece(low, merged, old))
                continue
        result.extend(
            Piece(start, data, cut(before, start, start + len(data))) for start, data in inside
        )
    return result


def cut_outside(extents: list[Extent], start: int, end: int) -> bool:
    """True when some extent has bytes outside ``[start, end)``."""
    return any(e[0] < start or e[0] + e[1] > end for e in extents)


def _merge(
    reader: ChunkReader, low: int, high: int, old: list[Extent], parts: list[Fragment]
) -> bytes | None:
    """Old bytes overlaid by new ones; None when an old chunk that still matters cannot be read."""
    buffer = bytearray(high - low)
    try:
        for offset, length, cid, inner in old:
            if any(
                start <= offset and offset + length <= start + len(data) for start, data in parts
            ):
                continue
            buffer[offset - low : offset - low + length] = memoryview(reader.read(cid))[
                inner : inner + length
            ]
    except Corrupt:
        return None  # the reader has logged and marked it; the new bytes are stored by themselves
    for start, data in parts:
        buffer[start - low : start - low + len(data)] = data
    return bytes(buffer)


def _store(
    context: Context,
    reader: ChunkReader,
    writer: ChunkWriter,
    dictionary: Dictionary | None,
    extents: list[Extent],
    pieces: list[Piece],
    hold: Hold,
) -> list[Extent]:
    named: list[tuple[Piece, bytes]] = []
    for piece in pieces:
        if is_zero(piece.data):
            extents = replace(extents, piece.start, piece.start + len(piece.data), [])
        else:
            named.append((piece, codec.chunk_id(context.key, piece.data)))
    known = writer.known([cid for _, cid in named], hold)
    for piece, cid in named:
        if cid not in known:
            writer.put(cid, piece.data, hold, bases=_bases(reader, piece), dictionary=dictionary)
            known.add(cid)
        size = len(piece.data)
        extents = replace(extents, piece.start, piece.start + size, [(piece.start, size, cid, 0)])
    return extents


def _bases(reader: ChunkReader, piece: Piece) -> list[Base]:
    """The bytes that were there, as prefix of what is there now.

    For a small overwrite only what is in memory: reading and decoding 64 KiB for each 4 KiB written took two thirds
    of the time of random overwrites. When its slot is merged, it is stored as a delta after all.
    """
    before = piece.before[: limits.DELTA_BASES_MAX]
    if len(piece.data) < limits.SMALL_OVERWRITE:
        before = [extent for extent in before if reader.cached(extent[2]) is not None]
    return [Base(cid, inner, length) for _, length, cid, inner in before]


def is_zero(data: codec.Bytes) -> bool:
    """True when every byte is zero. The ends are looked at first: most data is told by them."""
    if data[0] or data[-1]:
        return False
    zeros = _ZEROS if len(data) == limits.SLOT else bytes(len(data))
    return zeros.startswith(data)  # compares without a copy, in a third of the time
