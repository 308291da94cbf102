"""Building the content of a file from its spans, in order, in the memory of one node a level."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from engine.limits import FILE_LEAF_SPANS, FILE_MAX, INLINE_CONTENT_MAX, SPAN, SPAN_ROW_MAX
from engine.nodes.extents import Extent, decode_extents, encode_extents
from engine.nodes.filenodes import (
    FANOUT,
    HOLE_LEAF,
    Node,
    encode_inner,
    encode_leaf,
    encode_root,
    inline_root,
)
from engine.nodes.ports import NodeWriter, check_id, invalid

Span = tuple[int, Sequence[Extent]]

Content = list[bytes] | dict[int, bytes]
"""A node decoded: the encoded spans of a leaf, or the children of an inner node."""

SPANS_MAX = FILE_MAX // SPAN


def depth_of(leaf: int) -> int:
    """Inner levels of the lowest tree that reaches this leaf."""
    return (leaf.bit_length() + 7) // 8


def encode_span(number: int, extents: Sequence[Extent] | None, size: int) -> bytes:
    """The extents of a span of a file of this size, b"" for a hole. What lies past the end is cut off."""
    if not 0 <= number < SPANS_MAX:
        invalid("span", f"a number below {SPANS_MAX}", number)
    room = size - number * SPAN
    if not extents or room <= 0:
        return b""
    if extents[-1][0] + extents[-1][1] > room:
        extents = _cut(extents, room)
    if not extents:
        return b""
    encoded = encode_extents(extents)
    if len(encoded) > SPAN_ROW_MAX:
        invalid("extents of a span", f"at most {SPAN_ROW_MAX} bytes encoded", len(encoded))
    return encoded


def cut_span(encoded: bytes, room: int) -> bytes:
    """Encoded extents without what lies ``room`` bytes or more behind the beginning of the span."""
    if not encoded or room >= SPAN:
        return encoded
    extents = _cut(decode_extents(encoded), room)
    return encode_extents(extents) if extents else b""


def _cut(extents: Sequence[Extent], room: int) -> list[Extent]:
    return [
        (offset, min(length, room - offset), cid, start)
        for offset, length, cid, start in extents
        if offset < room
    ]


def build(writer: NodeWriter, size: int, spans: Iterable[Span]) -> bytes:
    """Store the content of a file of ``size`` bytes, whose spans come sorted by number; its content root.

    Memory is that of one node a level. Raises InvalidRequest.
    """
    builder = _Builder(writer)
    last = -1
    for number, extents in spans:
        if number <= last:
            invalid("spans of a file", f"a number above {last}", number)
        last = number
        encoded = encode_span(number, extents, size)
        if encoded:
            builder.add(number, encoded)
    return builder.finish()


class _Builder:
    """Gathers the leaf, and on each level above it the inner node, that spans are being added to."""

    def __init__(self, writer: NodeWriter) -> None:
        self._writer = writer
        self._leaf = -1
        self._spans = list(HOLE_LEAF)
        self._inner: list[tuple[int, dict[int, bytes]]] = []  # number in its level, children

    def add(self, number: int, encoded: bytes) -> None:
        leaf, index = divmod(number, FILE_LEAF_SPANS)
        if leaf != self._leaf:
            self._end_leaf()
            self._leaf = leaf
        self._spans[index] = encoded

    def _end_leaf(self) -> None:
        if self._leaf >= 0:
            self._append(1, self._leaf, self._writer.put_node(encode_leaf(self._spans)))
            self._spans = list(HOLE_LEAF)

    def _append(self, level: int, number: int, cid: bytes) -> None:
        """Add the node of this number, one level below, to the one it belongs to."""
        parent, place = divmod(number, FANOUT)
        if len(self._inner) < level:
            self._inner.append((parent, {}))
        current, children = self._inner[level - 1]
        if parent != current:
            self._end_inner(level)
            children = {}
            self._inner[level - 1] = (parent, children)
        children[place] = check_id(cid)

    def _end_inner(self, level: int) -> None:
        number, children = self._inner[level - 1]
        self._append(level + 1, number, self._writer.put_node(encode_inner(level, children)))

    def finish(self) -> bytes:
        if self._leaf < 0:
            return b""
        depth = depth_of(self._leaf)
        if not depth:
            return store_root(self._spans, 0, self._writer.put_node)
        self._end_leaf()
        for level in range(1, depth):
            self._end_inner(level)
        return store_root(self._inner[depth - 1][1], depth, self._writer.put_node)


def store_root(content: Content, level: int, put: Callable[[bytes], bytes]) -> bytes:
    """The content root of a tree whose top node has this content; ``put`` stores a node unless the root holds it."""
    if isinstance(content, dict):
        return encode_root(Node(level, check_id(put(encode_inner(level, content)))))
    if not any(content[1:]) and len(content[0]) <= INLINE_CONTENT_MAX:
        return inline_root(content[0])
    return encode_root(Node(0, check_id(put(encode_leaf(content)))))
