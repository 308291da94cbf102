"""Extent lists as values: cut, replace, cover. Pure.

An extent is ``(offset, length, chunk id, offset in chunk)``; a list is sorted and does not overlap; what no extent
covers is a hole. Offsets are relative to the span.
"""

from __future__ import annotations

from bisect import bisect_left

Extent = tuple[int, int, bytes, int]


def cut(extents: list[Extent], start: int, end: int) -> list[Extent]:
    """The parts of ``extents`` inside ``[start, end)``."""
    result: list[Extent] = []
    first = bisect_left(extents, (start,))
    if first and extents[first - 1][0] + extents[first - 1][1] > start:
        first -= 1
    for at in range(first, len(extents)):
        extent = extents[at]
        offset, length, cid, inner = extent
        stop = offset + length
        if offset >= end:
            break
        if offset >= start and stop <= end:
            result.append(extent)
        else:
            low, high = max(offset, start), min(stop, end)
            result.append((low, high - low, cid, inner + low - offset))
    return result


def replace(extents: list[Extent], start: int, end: int, new: list[Extent]) -> list[Extent]:
    """``extents`` with everything in ``[start, end)`` replaced by ``new`` (which lies inside it)."""
    if not extents or start >= extents[-1][0] + extents[-1][1]:
        return extents + new  # the common case: appending
    first = bisect_left(extents, (start,))
    last = bisect_left(extents, (end,))
    head = extents[:first]
    tail = extents[last:]
    if last:  # the extent before ``end`` may reach behind it
        offset, length, cid, inner = extents[last - 1]
        if offset + length > end:
            tail.insert(0, (end, offset + length - end, cid, inner + end - offset))
    if head:
        offset, length, cid, inner = head[-1]
        if offset + length > start:
            head[-1] = (offset, start - offset, cid, inner)
    return head + new + tail


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
