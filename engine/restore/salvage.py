"""Going on in a point's tree behind a manifest node that cannot be read: what it held is lost, the rest is not.

The ordinary walks (``engine.nodes``) end at such a node.  These begin where one ended, say what each unreadable node
held, and give everything else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from engine import limits
from engine.chunks import ChunkReader
from engine.errors import Corrupt, HoldfastError, LocationUnavailable
from engine.nodes import Entry, Extent, filenodes
from engine.nodes.dirnodes import DirNode, read_child, read_root
from engine.nodes.entries import decode_entry
from engine.nodes.extents import decode_extents

UNREADABLE = (Corrupt, LocationUnavailable)
"""Damage, and disks that answer with errors: of one file, no reason to leave the others."""

Spans = Iterator[tuple[int, list[Extent]]]


def spans(
    reader: ChunkReader, root: bytes, first: int, lost: Callable[[int, int, HoldfastError], None]
) -> Spans:
    """Like ``files.spans``; ``lost(span, end span, error)`` for what an unreadable node would tell."""
    try:
        top = filenodes.decode_root(root)
    except Corrupt as error:
        lost(first, limits.FILE_MAX // limits.SPAN, error)
        return
    if not isinstance(top, filenodes.Node):
        return  # the extents of span 0, read by whoever came here
    rest = [(top, 0)]
    while rest:
        node, number = rest.pop()
        width = filenodes.FANOUT**node.level * limits.FILE_LEAF_SPANS
        start = number * width
        if start + width <= first:
            continue
        try:
            data = reader.read_node(node.cid)
            if node.level:
                children = filenodes.decode_inner(data, node.level, node.cid)
                rest += [
                    (filenodes.Node(node.level - 1, children[index]), number * filenodes.FANOUT + index)
                    for index in sorted(children, reverse=True)
                ]  # fmt: skip
                continue
            found = [
                (start + index, decode_extents(encoded, node.cid))
                for index, encoded in enumerate(filenodes.decode_leaf(data, node.cid))
                if encoded and start + index >= first
            ]
        except UNREADABLE as error:
            lost(max(first, start), start + width, error)
            continue
        yield from found


def entries(
    reader: ChunkReader, root: bytes, after: bytes, lost: Callable[[bytes, bytes, HoldfastError], None]
) -> Iterator[Entry]:  # fmt: skip
    """Like ``dirs.scan``; ``lost(after, up to, error)`` for the names of an unreadable node, b"" for no bound."""
    try:
        rest = [(read_root(reader, root), b"")]
    except UNREADABLE as error:
        lost(after, b"", error)
        return
    while rest:
        node, low = rest.pop()
        if not node.level:
            yield from _leaf(node, after, lost)
            continue
        below: list[tuple[DirNode, bytes]] = []
        for index, name in enumerate(node.names):
            before = node.names[index - 1] if index else low
            if name <= after:
                continue
            try:
                below.append((read_child(reader, node, index, low), before))
            except UNREADABLE as error:
                lost(max(after, before), name, error)
        rest += reversed(below)


def _leaf(
    node: DirNode, after: bytes, lost: Callable[[bytes, bytes, HoldfastError], None]
) -> Iterator[Entry]:
    for name, value in zip(node.names, node.values, strict=True):
        if name <= after:
            continue
        try:
            entry = decode_entry(value)
        except Corrupt as error:
            lost(name, name, error)
            continue
        yield entry
