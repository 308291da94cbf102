"""What a node refers to, whatever it is: the step of marking and of checking."""

from __future__ import annotations

import stat
from collections.abc import Iterator

from engine.nodes import point, xattrs
from engine.nodes.dirnodes import decode_node
from engine.nodes.entries import record_parts
from engine.nodes.extents import extent_ids
from engine.nodes.filenodes import Node, decode_inner, decode_leaf, decode_root
from engine.nodes.ports import NodeKind, Ref, corrupt

Reference = tuple[Ref, bytes]


def children(data: bytes, cid: bytes = b"") -> Iterator[Reference]:
    """(kind, chunk id) of everything a node refers to itself; an id may come more than once.

    Point records count as nodes. ``cid`` names the node in the message of Corrupt, which any damage raises.
    """
    kind = data[0] if data else None
    if kind == NodeKind.DIR:
        yield from _of_directory(data, cid)
    elif kind == NodeKind.SPANS:
        for encoded in decode_leaf(data, cid):
            if encoded:
                yield from ((Ref.DATA, chunk) for chunk in extent_ids(encoded, cid))
    elif kind == NodeKind.FILE:
        level = data[2] if len(data) > 2 else 0
        yield from ((Ref.NODE, node) for node in decode_inner(data, level, cid).values())
    elif kind == NodeKind.POINT:
        root = point.decode_point(data).root
        yield from of_entry(stat.S_IFDIR, root.xattrs, root.root)
    elif kind == NodeKind.TOMBSTONE:
        point.decode_tombstone(data)
    elif kind == NodeKind.XATTRS:
        xattrs.decode_part(data, cid)
    else:
        corrupt("kind", "one of " + ", ".join(NodeKind.__members__), data[:1].hex(), cid)


def named(data: bytes, cid: bytes = b"") -> Iterator[tuple[bytes, Ref, bytes]]:
    """What ``children`` gives, each with the name of the entry that refers to it, b"" where none does."""
    if data[:1] == bytes((NodeKind.DIR,)):
        node = decode_node(data, cid)
        if not node.level:
            for name, record in zip(node.names, node.values, strict=True):
                for kind, child in of_entry(*record_parts(record)):
                    yield name, kind, child
            return
    for kind, child in children(data, cid):
        yield b"", kind, child


def _of_directory(data: bytes, cid: bytes) -> Iterator[Reference]:
    node = decode_node(data, cid)
    if node.level:
        yield from ((Ref.NODE, child) for child in node.values)
        return
    for record in node.values:
        yield from of_entry(*record_parts(record))


def of_entry(mode: int, packed: bytes, root: bytes) -> list[Reference]:
    """(kind, chunk id) of what an entry of this mode refers to by its xattrs and its root."""
    found = [(Ref.NODE, node) for node in xattrs.node_ids(packed)] if packed else []
    if root and stat.S_ISDIR(mode):
        found.append((Ref.NODE, root))
    elif root and stat.S_ISREG(mode):
        top = decode_root(root)
        if isinstance(top, Node):
            found.append((Ref.NODE, top.cid))
        else:
            found += [(Ref.DATA, chunk) for chunk in extent_ids(top)]
    return found
