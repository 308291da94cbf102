"""Codec of extent lists: which parts of which chunks make up one span of a file.

The same bytes are a row of a live tree's SPANS, the inline content of a small file, and a part of a file tree's
leaf. The usual list (whole slots one behind the other, each a chunk of its own) costs one byte beside each id.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import repeat

from engine.codec import ID_LEN
from engine.limits import CHUNK_MAX, SLOT, SLOTS_PER_SPAN, SPAN, SPAN_ROW_MAX
from engine.nodes.ports import corrupt, get_varint, invalid, put_varint

Extent = tuple[int, int, bytes, int]
"""(offset in the span, length, chunk id, offset in the chunk); bytes."""

FORM = 1
EMPTY = bytes((FORM, 0, 0))  # no extents
# Bits of the tag before each extent's numbers. None set: the next slot, whole, from a chunk not named before.
GAP = 1  # number: bytes of hole before it
LENGTH = 2  # number: its length, not a slot's
SEEN = 4  # number: the position in the table of a chunk an earlier extent named
START = 8  # number: where in the chunk it begins, not 0


def encode_extents(extents: Sequence[Extent]) -> bytes:
    """Encode the extents of one span, sorted and apart; any number, so that a caller can see the size.

    Raises InvalidRequest for a list no decoder would take for another reason than its size.
    """
    table: dict[bytes, int] = {}
    body = bytearray()
    end = 0
    for offset, length, cid, start in extents:
        gap = offset - end
        end = offset + length
        if gap < 0 or length <= 0 or end > SPAN or start < 0 or start + length > CHUNK_MAX:
            invalid("extent", "sorted, inside its span and its chunk", (offset, length, start))
        number = table.get(cid)
        if number is None:
            if len(cid) != ID_LEN:
                invalid("chunk id", f"{ID_LEN} bytes", len(cid))
            table[cid] = len(table)
            if length == SLOT and not gap and not start:
                body.append(0)
                continue
        tag_at = len(body)
        body.append(0)
        tag = 0
        if gap:
            tag = GAP
            put_varint(body, gap)
        if length != SLOT:
            tag |= LENGTH
            put_varint(body, length)
        if number is not None:
            tag |= SEEN
            put_varint(body, number)
        if start:
            tag |= START
            put_varint(body, start)
        body[tag_at] = tag
    head = bytearray((FORM,))
    put_varint(head, len(extents))
    put_varint(head, len(table))
    return b"".join((head, *table, body))


def decode_extents(data: bytes, cid: bytes = b"") -> list[Extent]:
    """The list ``encode_extents`` was given. ``cid`` names the node it lies in, for the message of Corrupt."""
    ids, count, at = _table(data, cid)
    if _all_slots(data, count, ids, at):
        if count > SLOTS_PER_SPAN:
            corrupt("extents", f"at most {SLOTS_PER_SPAN} slots", count, cid)
        return list(zip(_SLOT_OFFSETS[:count], repeat(SLOT), ids, repeat(0), strict=False))
    try:
        return _decode_tagged(data, cid, ids, count, at)
    except IndexError:
        corrupt("extents", "a complete list", f"{len(data)} bytes", cid)


def extent_ids(data: bytes, cid: bytes = b"") -> list[bytes]:
    """The chunks an encoded list refers to, each once, after the same checks as ``decode_extents``."""
    ids, count, at = _table(data, cid)
    if count > SLOTS_PER_SPAN or not _all_slots(data, count, ids, at):
        decode_extents(data, cid)
    return ids


def _all_slots(data: bytes, count: int, ids: list[bytes], at: int) -> bool:
    """Whether no extent has a tag bit: the list of most spans, and quick to read."""
    return count == len(ids) == len(data) - at == data.count(0, at)


_SLOT_OFFSETS = tuple(range(0, SPAN, SLOT))


def _table(data: bytes, cid: bytes) -> tuple[list[bytes], int, int]:
    """(chunk ids, number of extents, offset of the first tag)."""
    size = len(data)
    if not len(EMPTY) <= size <= SPAN_ROW_MAX:
        corrupt("extents", f"{len(EMPTY)} to {SPAN_ROW_MAX} bytes", size, cid)
    if data[0] != FORM:
        corrupt("form of extents", str(FORM), data[0], cid)
    count, named, at = data[1], data[2], 3
    if count > 0x7F or named > 0x7F:
        try:
            count, at = get_varint(data, 1)
            named, at = get_varint(data, at)
        except IndexError:
            corrupt("extents", "a complete list", f"{size} bytes", cid)
    tags = at + named * ID_LEN
    if named > count or tags + count > size:
        corrupt("extents", f"{count} of {named} chunks", f"{size} bytes", cid)
    ids = [data[place : place + ID_LEN] for place in range(at, tags, ID_LEN)]
    if len(set(ids)) != named:
        corrupt("chunk ids of extents", "each once", f"{named - len(set(ids))} again", cid)
    return ids, count, tags


def _decode_tagged(data: bytes, cid: bytes, ids: list[bytes], count: int, at: int) -> list[Extent]:
    extents: list[Extent] = []
    used = end = 0
    for _ in range(count):
        tag = data[at]
        at += 1
        gap = start = 0
        length = SLOT
        if tag & GAP:
            gap, at = get_varint(data, at)
        if tag & LENGTH:
            length, at = get_varint(data, at)
        if tag & SEEN:
            number, at = get_varint(data, at)
            if number >= used:
                corrupt("extent", f"one of {used} chunks named before", number, cid)
        else:
            number = used
            used += 1
        if tag & START:
            start, at = get_varint(data, at)
        # A number that says what the absence of its tag says would be a second form of the same list.
        plain = GAP * (gap > 0) + LENGTH * (length != SLOT) + START * (start > 0)
        if tag & ~SEEN != plain:
            corrupt("tag of an extent", hex(plain), hex(tag), cid)
        offset = end + gap
        end = offset + length
        if not length or end > SPAN or start + length > CHUNK_MAX:
            corrupt("extent", "inside its span and its chunk", (offset, length, start), cid)
        extents.append((offset, length, ids[number], start))
    if used != len(ids) or at != len(data):
        found = f"{len(ids) - used} chunks and {len(data) - at} bytes more"
        corrupt("extents", "nothing behind the last", found, cid)
    return extents
