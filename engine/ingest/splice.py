"""Extent lists as values: cut, replace, cover. Pure.

An extent is ``(offset, length, chunk id, offset in chunk)``; a list is sorted and does not overlap; what no extent
covers is a hole. Offsets are relative to the span.
"""

from __future__ import annotations

Extent = tuple[int, int, bytes, int]


def cut(extents: list[Extent], start: int, end: int) -> list[Extent]:
    """The parts of ``extents`` inside ``[start, end)``."""
    result = []
    for offset, length, cid, inner in extents:
        stop = offset + length
        if stop <= start or offset >= end:
            continue
        low, high = max(offset, start), min(stop, end)
        result.append((low, high - low, cid, inner + low - offset))
    return result


def replace(extents: list[Extent], start: int, end: int, new: list[Extent]) -> list[Extent]:
    """``extents`` with everything in ``[start, end)`` replaced by ``new`` (which lies inside it)."""
    if not extents or start >= extents[-1][0] + extents[-1][1]:
        return extents + new  # the common case: appending
    return cut(extents, 0, start) + new + cut(extents, end, 1 << 62)


def merged(extents: list[Extent]) -> list[Extent]:
    """Neighbours that continue each other in the same chunk become one extent."""
    result: list[Extent] = []
    for extent in extents:
        if result:
            offset, length, cid, inner = result[-1]
            if cid == extent[2] and offset + length == extent[0] and inner + length == extent[3]:
                result[-1] = (offset, length + extent[1], cid, inner)
                continue
        result.append(extent)
    return result


def regions(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Sorted ``(start, end)`` ranges, touching or overlapping ones joined."""
    result: list[tuple[int, int]] = []
    for start, end in sorted(ranges):
        if result and start <= result[-1][1]:
            result[-1] = (result[-1][0], max(result[-1][1], end))
        else:
            result.append((start, end))
    return result
