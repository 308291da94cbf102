"""Contents of files as content-addressed trees of spans: build, update, look up, list, compare.

A content root (``Entry.root``) is b"" for nothing but holes, inline extents for a small file, or the top node of a
tree (filenodes.py). ``update`` gives, byte for byte, what ``build`` gives for the same spans. Spans are given and
returned as (number, extents); a span without extents is a hole, and holes cost nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from engine.errors import UNREADABLE
from engine.limits import FILE_LEAF_SPANS, SPAN
from engine.nodes.extents import Extent, decode_extents
from engine.nodes.filebuild import (
    SPANS_MAX,
    Content,
    Span,
    build,
    cut_span,
    depth_of,
    encode_span,
    store_root,
)
from engine.nodes.filenodes import (
    FANOUT,
    HOLE_LEAF,
    Node,
    decode_inner,
    decode_leaf,
    decode_root,
    encode_inner,
    encode_leaf,
    inner_child,
)
from engine.nodes.ports import NodeReader, NodeWriter, check_id, corrupt

__all__ = ["Span", "build", "diff", "span", "spans", "update"]

_LEAF_BYTES = FILE_LEAF_SPANS * SPAN

Lost = Callable[[int, int, Exception], None]
"""Told of spans that cannot be read: from the first number to before the second, and why."""

Edits = Mapping[int, Mapping[int, bytes]]
"""Leaf number -> index of a span in it -> encoded extents, b"" for a hole."""


# --- updating -----------------------------------------------------------------------------------


def update(
    reader: NodeReader,
    writer: NodeWriter,
    root: bytes,
    size: int,
    changes: Mapping[int, Sequence[Extent] | None],
    old_size: int | None = None,
) -> bytes:
    """Store a new version of a file's content, now of ``size`` bytes; its content root.

    ``changes``: span number -> extents, None for a hole. Whatever lies past ``size`` is cut off, in ``changes`` and
    in what was there; with the ``old_size`` the content had, a file that did not shrink is not looked at for that.
    Reads and writes only the nodes on the paths to the changes and to the cut. Raises InvalidRequest, Corrupt.
    """
    edits: dict[int, dict[int, bytes]] = {}
    for number, extents in changes.items():
        leaf, index = divmod(number, FILE_LEAF_SPANS)
        edits.setdefault(leaf, {})[index] = encode_span(number, extents, size)
    top = decode_root(root)
    old = top if isinstance(top, Node) else None
    if isinstance(top, bytes) and top:
        edits.setdefault(0, {}).setdefault(0, cut_span(top, size))
    level = max((depth_of(leaf) for leaf in edits if any(edits[leaf].values())), default=0)
    if old:
        level = max(level, old.level)
    reached = {leaf: edit for leaf, edit in edits.items() if depth_of(leaf) <= level}
    cut = size if old_size is None or size < old_size else None
    editor = _Editor(reader, writer, cut)
    content = editor.edited(level, 0, old, reached)
    while isinstance(content, dict) and level and content.keys() <= {0}:
        if not content:
            return b""
        level -= 1
        old = Node(level, content[0])
        content = _content(reader, old)
    if not _any(content):
        return b""
    return store_root(content, level, lambda data: editor.put(data, old, level))


class _Editor:
    """One update: where nodes come from and go to, and the size to cut the content to, if it may be larger."""

    def __init__(self, reader: NodeReader, writer: NodeWriter, cut: int | None) -> None:
        self._reader = reader
        self._writer = writer
        self._cut = cut

    def edited(self, level: int, number: int, old: Node | None, edits: Edits) -> Content:
        """The new content of the node of this number in its level.

        ``old``: the node in its place, or one of a lower level when the tree grows above it.
        """
        if level:
            return self._inner(level, number, old, edits)
        spans = list(HOLE_LEAF) if old is None else _leaf(self._reader, old)
        if self._cut is not None:
            for index, encoded in enumerate(spans):
                at = number * _LEAF_BYTES + index * SPAN
                spans[index] = cut_span(encoded, self._cut - at)
        for index, encoded in edits.get(number, {}).items():
            spans[index] = encoded
        return spans

    def _inner(self, level: int, number: int, old: Node | None, edits: Edits) -> dict[int, bytes]:
        children: dict[int, bytes] = {}
        below = level - 1
        if old and old.level == level:
            children = decode_inner(self._reader.read_node(old.cid), level, old.cid)
        elif old:
            below = old.level
            children[0] = old.cid
        touched: dict[int, dict[int, Mapping[int, bytes]]] = {}
        if below != level - 1:
            touched[0] = {}
        leaves = FANOUT ** (level - 1)
        for leaf, edit in edits.items():
            touched.setdefault(leaf // leaves % FANOUT, {})[leaf] = edit
        if self._cut is not None:
            for place in self._cut_children(children, number * FANOUT, leaves * _LEAF_BYTES):
                touched.setdefault(place, {})
        for place in sorted(touched):
            cid = children.pop(place, None)
            child = None if cid is None else Node(below, cid)
            content = self.edited(level - 1, number * FANOUT + place, child, touched[place])
            if _any(content):
                data = _encode(level - 1, content)
                children[place] = check_id(self.put(data, child, level - 1))
        return children

    def _cut_children(self, children: dict[int, bytes], first: int, width: int) -> list[int]:
        """Drop children of ``width`` bytes past the cut; those it goes through."""
        assert self._cut is not None
        through = []
        for place in list(children):
            begin = (first + place) * width
            if begin >= self._cut:
                del children[place]
            elif begin + width > self._cut:
                through.append(place)
        return through

    def put(self, data: bytes, old: Node | None, level: int) -> bytes:
        """Store a node of this level in the place of ``old``."""
        if old is None or old.level != level:
            return self._writer.put_node(data)
        if data == self._reader.read_node(old.cid):
            return old.cid
        return self._writer.put_node(data, old.cid)


def _any(content: Content) -> bool:
    return bool(content) if isinstance(content, dict) else any(content)


def _encode(level: int, content: Content) -> bytes:
    return encode_inner(level, content) if isinstance(content, dict) else encode_leaf(content)


def _leaf(reader: NodeReader, node: Node) -> list[bytes]:
    return decode_leaf(reader.read_node(node.cid), node.cid)


def _content(reader: NodeReader, node: Node) -> Content:
    if not node.level:
        return _leaf(reader, node)
    return decode_inner(reader.read_node(node.cid), node.level, node.cid)


# --- reading ------------------------------------------------------------------------------------


def span(reader: NodeReader, root: bytes, number: int) -> list[Extent]:
    """The extents of one span, [] for a hole or past the end. Raises Corrupt."""
    leaf, index = divmod(number, FILE_LEAF_SPANS)
    node = decode_root(root)
    if not isinstance(node, Node):
        return decode_extents(node) if node and not number else []
    if number < 0 or depth_of(leaf) > node.level:
        return []
    cid = node.cid
    for level in range(node.level, 0, -1):
        place = leaf // FANOUT ** (level - 1) % FANOUT
        child = inner_child(reader.read_node(cid), level, place, cid)
        if child is None:
            return []
        cid = child
    encoded = decode_leaf(reader.read_node(cid), cid)[index]
    return decode_extents(encoded, cid) if encoded else []


def spans(
    reader: NodeReader, root: bytes, first: int = 0, lost: Lost | None = None
) -> Iterator[tuple[int, list[Extent]]]:
    """(number, extents) of every span from ``first`` on that is no hole, in order.

    What cannot be read is told to ``lost``, and the rest given; without it, raises Corrupt.
    """
    top = decode_root(root)
    if not isinstance(top, Node):
        if top and first <= 0:
            yield 0, decode_extents(top)
        return
    rest = [(top, 0)]
    while rest:
        node, number = rest.pop()
        width = FANOUT**node.level * FILE_LEAF_SPANS
        if (number + 1) * width <= first:
            continue
        try:
            if node.level:
                children = decode_inner(reader.read_node(node.cid), node.level, node.cid)
                rest += [
                    (Node(node.level - 1, children[index]), number * FANOUT + index)
                    for index in sorted(children, reverse=True)
                ]
                continue
            leaf = list(enumerate(_leaf(reader, node), number * width))
        except UNREADABLE as error:
            if lost is None:
                raise
            lost(max(first, number * width), (number + 1) * width, error)
            continue
        for place, encoded in leaf:
            if encoded and place >= first:
                yield _checked(place, node.cid), decode_extents(encoded, node.cid)


def _checked(number: int, cid: bytes) -> int:
    if number >= SPANS_MAX:
        corrupt("span", f"a number below {SPANS_MAX}", number, cid)
    return number


# --- comparing ----------------------------------------------------------------------------------

Part = Node | bytes | None
Difference = tuple[int, list[Extent], list[Extent]]


def diff(reader: NodeReader, a: bytes, b: bytes) -> Iterator[Difference]:
    """(number, extents in ``a``, extents in ``b``) of every span that differs, in order; [] for a hole.

    ``a`` and ``b`` are content roots; of what they share nothing is read. Raises Corrupt.
    """
    left, right = decode_root(a) or None, decode_root(b) or None
    level = max(part.level if isinstance(part, Node) else 0 for part in (left, right))
    yield from _diff(reader, level, 0, left, right)


def _diff(reader: NodeReader, level: int, number: int, a: Part, b: Part) -> Iterator[Difference]:
    if a == b:
        return
    if level:
        left, right = _children(reader, level, a), _children(reader, level, b)
        for place in sorted(left.keys() | right.keys()):
            child = number * FANOUT + place
            yield from _diff(reader, level - 1, child, left.get(place), right.get(place))
        return
    pairs = zip(_spans_of(reader, a), _spans_of(reader, b), strict=True)
    for index, (one, other) in enumerate(pairs):
        if one != other:
            place = _checked(number * FILE_LEAF_SPANS + index, b"")
            yield place, _extents(one), _extents(other)


def _children(reader: NodeReader, level: int, part: Part) -> dict[int, Part]:
    if part is None:
        return {}
    if not isinstance(part, Node) or part.level < level:
        return {0: part}
    ids = decode_inner(reader.read_node(part.cid), level, part.cid)
    return {place: Node(level - 1, cid) for place, cid in ids.items()}


def _spans_of(reader: NodeReader, part: Part) -> list[bytes]:
    if isinstance(part, Node):
        return _leaf(reader, part)
    return [part or b"", *HOLE_LEAF[1:]]


def _extents(encoded: bytes) -> list[Extent]:
    return decode_extents(encoded) if encoded else []
