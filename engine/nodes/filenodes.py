"""Codecs of a file's content: the root, and the nodes of a file tree.

A file tree is a radix tree of fanout 256 over leaves of ``FILE_LEAF_SPANS`` spans each, by number; what is missing
in it is a hole. Its depth is the least that reaches the last leaf, so its shape depends on the content alone.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from engine.codec import ID_LEN
from engine.limits import FILE_DEPTH_MAX, FILE_LEAF_SPANS, INLINE_CONTENT_MAX, SPAN_ROW_MAX
from engine.nodes.entries import INLINE, TREE
from engine.nodes.extents import EMPTY
from engine.nodes.ports import VERSION, NodeKind, check_head, corrupt

FANOUT = 256
HOLE_LEAF: tuple[bytes, ...] = (b"",) * FILE_LEAF_SPANS
_BITMAP_AT = 3  # kind, version, level
_IDS_AT = _BITMAP_AT + FANOUT // 8
_LENGTH = struct.Struct("<H")


class Node(NamedTuple):
    """A node of a file tree that is stored: ``level`` 0 is a leaf."""

    level: int
    cid: bytes


# --- the root -----------------------------------------------------------------------------------


def encode_root(node: Node) -> bytes:
    """The content root that names a tree's top node."""
    return bytes((TREE, node.level)) + node.cid


def inline_root(encoded: bytes) -> bytes:
    """The content root that holds the extents of span 0, the only one."""
    return bytes((INLINE,)) + encoded


def decode_root(root: bytes) -> Node | bytes:
    """The top node of a content root, or the encoded extents of span 0, b"" when it is a hole. Raises Corrupt."""
    if not root:
        return b""
    if root[0] == INLINE and 1 + len(EMPTY) < len(root) <= 1 + INLINE_CONTENT_MAX:
        return root[1:]
    if root[0] != TREE or len(root) != 2 + ID_LEN or root[1] > FILE_DEPTH_MAX:
        corrupt("content root", "inline extents, or a depth and an id", root[:2].hex())
    return Node(root[1], root[2:])


# --- leaves -------------------------------------------------------------------------------------


def encode_leaf(spans: Sequence[bytes]) -> bytes:
    """A leaf of the encoded extents of its spans, b"" for a hole; they are not all holes."""
    mask = sum(1 << index for index, span in enumerate(spans) if span)
    lengths = b"".join(_LENGTH.pack(len(span)) for span in spans if span)
    return b"".join((bytes((NodeKind.SPANS, VERSION, mask)), lengths, *spans))


def decode_leaf(data: bytes, cid: bytes = b"") -> list[bytes]:
    """What ``encode_leaf`` was given; the extents stay encoded. Raises Corrupt."""
    check_head(data, NodeKind.SPANS, cid)
    mask = data[2] if len(data) > 2 else 0
    if not 0 < mask < 1 << FILE_LEAF_SPANS:
        corrupt("spans", f"a mask of {FILE_LEAF_SPANS} bits, not 0", mask, cid)
    length_at = 3
    at = length_at + _LENGTH.size * mask.bit_count()
    if len(data) < at:
        corrupt("spans", f"{at} bytes or more", len(data), cid)
    spans = []
    for index in range(FILE_LEAF_SPANS):
        if mask >> index & 1:
            (length,) = _LENGTH.unpack_from(data, length_at)
            if not len(EMPTY) < length <= SPAN_ROW_MAX:
                corrupt("extents", f"{len(EMPTY) + 1} to {SPAN_ROW_MAX} bytes", length, cid)
            spans.append(data[at : at + length])
            length_at += _LENGTH.size
            at += length
        else:
            spans.append(b"")
    if at != len(data):
        corrupt("spans", f"{at} bytes", len(data), cid)
    return spans


# --- inner nodes --------------------------------------------------------------------------------


def encode_inner(level: int, children: Mapping[int, bytes]) -> bytes:
    """An inner node of its children's ids by their position, 0 to 255; there is at least one."""
    places = sorted(children)
    bitmap = sum(1 << place for place in places).to_bytes(FANOUT // 8, "little")
    head = bytes((NodeKind.FILE, VERSION, level))
    return b"".join((head, bitmap, *[children[place] for place in places]))


def decode_inner(data: bytes, level: int, cid: bytes = b"") -> dict[int, bytes]:
    """What ``encode_inner`` was given, for a node of this level. Raises Corrupt."""
    bitmap = _bitmap(data, level, cid)
    places = [place for place in range(FANOUT) if bitmap >> place & 1]
    ids = [data[at : at + ID_LEN] for at in range(_IDS_AT, len(data), ID_LEN)]
    return dict(zip(places, ids, strict=True))


def inner_child(data: bytes, level: int, place: int, cid: bytes = b"") -> bytes | None:
    """The id of one child, None where a hole is: ``decode_inner(...).get(place)`` without the rest."""
    bitmap = _bitmap(data, level, cid)
    bit = 1 << place
    if not bitmap & bit:
        return None
    at = _IDS_AT + ID_LEN * (bitmap & (bit - 1)).bit_count()
    return data[at : at + ID_LEN]


def _bitmap(data: bytes, level: int, cid: bytes) -> int:
    check_head(data, NodeKind.FILE, cid)
    if len(data) < _IDS_AT:
        corrupt("file tree", f"{_IDS_AT} bytes or more", len(data), cid)
    if not data[2] == level > 0 or level > FILE_DEPTH_MAX:
        corrupt("level of a file tree", str(level), data[2], cid)
    bitmap = int.from_bytes(data[_BITMAP_AT:_IDS_AT], "little")
    size = _IDS_AT + ID_LEN * bitmap.bit_count()
    if not bitmap or len(data) != size:
        corrupt("file tree", f"{size} bytes and a child", len(data), cid)
    return bitmap
