"""What of a point a location lacks, in an order in which it may be sent: whatever a chunk needs comes before it.

The tree is walked depth first. A node that the location has whole ends the walk there, so that the cost is that of
what changed. Memory: one list of children for each level of the tree, and what is on its way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from engine.chunks import ChunkReader
from engine.copies.rows import WHOLE, CopyRow
from engine.errors import Corrupt
from engine.nodes import walk
from engine.nodes.ports import Ref
from engine.nodes.walk import Reference

Has = Callable[[bytes], CopyRow | None]
"""Where a chunk lies at the location, or is on its way to."""


class Need(NamedTuple):
    """A chunk to be sent. ``node``: it is metadata; ``whole``: all that it refers to has come before; ``there``: it
    lies there already, as the base of another, and is whole from now on."""

    cid: bytes
    node: bool
    whole: bool = False
    there: bool = False


def missing(reader: ChunkReader, has: Has, top: bytes) -> Iterator[Need]:
    """What the location lacks of the point whose record is the chunk ``top``. Raises Corrupt for what cannot be read.

    ``has`` is asked anew for each chunk: what was yielded counts as on its way, so nothing comes twice.
    """
    levels: list[tuple[bytes, Iterator[Reference]]] = []
    if not _is_whole(has(top)):
        levels.append((top, _children(reader, top)))
    while levels:
        cid, children = levels[-1]
        for kind, child in children:
            if kind is Ref.DATA:
                if has(child) is None:
                    yield from _with_bases(reader, has, child, node=False)
            elif not _is_whole(has(child)):
                levels.append((child, _children(reader, child)))
                break
        else:
            levels.pop()
            known = has(cid)
            if known is None:
                yield from _bases(reader, has, cid, node=True)
            if not _is_whole(known):  # it may have come by another way since it was met
                yield Need(cid, node=True, whole=True, there=known is not None)


def _is_whole(row: CopyRow | None) -> bool:
    return row is not None and bool(row.flags & WHOLE)


def _children(reader: ChunkReader, cid: bytes) -> Iterator[Reference]:
    return walk.children(reader.read_node(cid), cid)


def _with_bases(reader: ChunkReader, has: Has, cid: bytes, *, node: bool) -> Iterator[Need]:
    yield from _bases(reader, has, cid, node=node)
    yield Need(cid, node)


def _bases(reader: ChunkReader, has: Has, cid: bytes, *, node: bool) -> Iterator[Need]:
    """What a chunk is a delta of. A base is not whole: what it refers to was not looked at."""
    row = reader.row(cid)
    if row is None:
        raise Corrupt(f"chunk {cid.hex()}", expected="a row in the index", found="none",
                      do="run 'holdfast check'")  # fmt: skip
    for base in row.bases:
        if has(base) is None:
            yield from _with_bases(reader, has, base, node=node)
