"""Nodes of a directory tree: their bytes, and where one ends and the next begins.

All levels are the same sorted map from names: at level 0 the values are records of entries, above it ids of the
nodes one level below, under the last name in each. A node ends behind a child by a rule over that child's name and
the children of this node before it, never over what follows or what was there earlier. So the shape of a tree
depends on its content alone, and a change moves no border further away than the next one its rule finds again.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from itertools import accumulate, islice, pairwise
from operator import itemgetter, lt
from zlib import crc32

from engine.codec import ID_LEN
from engine.limits import (
    DIR_DEPTH_MAX,
    DIR_LEAF_BYTES,
    DIR_NODE_MAX,
    DIR_NODE_MEAN,
    DIR_NODE_MIN,
)
from engine.nodes.entries import NAME_AT, RECORD_MAX, RECORD_MIN
from engine.nodes.ports import VERSION, NodeKind, NodeReader, NodeWriter, check_head, corrupt

_HEAD = struct.Struct("<BBBH")  # kind, version, level, children
_HEAD_LEN = _HEAD.size
_LENGTHS = tuple(struct.Struct(f"<{count}H") for count in range(DIR_NODE_MAX + 1))
_DOTS = frozenset((b".", b".."))

# crc32 is fast and linear; the multiplication (2**32 over the golden ratio, odd) spreads it over the high bits.
_SPREAD = 0x9E3779B1
_MASK = 0xFFFFFFFF
_ENDS = (1 << 32) // DIR_NODE_MEAN


def ends_node(level: int, name: bytes) -> bool:
    """Whether a node of this level ends behind the child of this name, when it has ``DIR_NODE_MIN`` already."""
    return crc32(name, level) * _SPREAD & _MASK < _ENDS


class DirNode:
    """A node decoded: ``names`` sorted strictly, never empty; ``values`` records (level 0) or ids."""

    __slots__ = ("cid", "level", "names", "values")

    def __init__(self, cid: bytes, level: int, names: list[bytes], values: list[bytes]) -> None:
        self.cid = cid
        self.level = level
        self.names = names
        self.values = values


def encode_node(level: int, names: list[bytes], values: list[bytes]) -> bytes:
    """The bytes of a node of 1 to ``DIR_NODE_MAX`` children, as the Chunker gathers them."""
    count = len(values)
    head = _HEAD.pack(NodeKind.DIR, VERSION, level, count)
    if level:
        return b"".join((head, bytes(map(len, names)), *names, *values))
    return b"".join((head, _LENGTHS[count].pack(*map(len, values)), *values))


def decode_node(data: bytes, cid: bytes = b"") -> DirNode:
    """Decode a node; ``cid`` is kept and names it in messages. Raises Corrupt. Records stay encoded."""
    check_head(data, NodeKind.DIR, cid)
    if len(data) < _HEAD_LEN:
        corrupt("directory", f"{_HEAD_LEN} bytes or more", len(data), cid)
    _, _, level, count = _HEAD.unpack_from(data)
    if level > DIR_DEPTH_MAX:
        corrupt("level of a directory", f"at most {DIR_DEPTH_MAX}", level, cid)
    if not 0 < count <= DIR_NODE_MAX:
        corrupt("directory", f"1 to {DIR_NODE_MAX} children", count, cid)
    names, values = (_inner if level else _leaf)(data, count, cid)
    joined = b"".join(names)
    if b"/" in joined or b"\0" in joined or not _DOTS.isdisjoint(names):
        corrupt("names of a directory", "no / and no NUL, not . or ..", "such a name", cid)
    if not names[0] or not all(map(lt, names, islice(names, 1, None))):
        corrupt("names of a directory", "not empty, strictly sorted", "another order", cid)
    return DirNode(cid, level, names, values)


def _leaf(data: bytes, count: int, cid: bytes) -> tuple[list[bytes], list[bytes]]:
    start = _HEAD_LEN + 2 * count
    if len(data) < start:
        corrupt("directory", f"{start} bytes or more", len(data), cid)
    lengths = _LENGTHS[count].unpack_from(data, _HEAD_LEN)
    if min(lengths) <= RECORD_MIN or max(lengths) > RECORD_MAX:
        found = f"{min(lengths)} to {max(lengths)}"
        corrupt("directory entry", f"{RECORD_MIN + 1} to {RECORD_MAX} bytes", found, cid)
    places = list(accumulate(lengths, initial=start))
    # The last record alone may reach past the mark behind which a leaf ends.
    if places[-1] != len(data) or places[-2] - start >= DIR_LEAF_BYTES:
        corrupt("directory", f"{places[-1]} bytes", len(data), cid)
    values = [data[at:end] for at, end in pairwise(places)]
    names = [record[NAME_AT : NAME_AT + record[0]] for record in values]
    # No name is longer than its record says, so equal sums mean that each is as long.
    if sum(map(len, names)) != sum(map(itemgetter(0), values)):
        corrupt("directory entry", "its whole name", "a part of it", cid)
    return names, values


def _inner(data: bytes, count: int, cid: bytes) -> tuple[list[bytes], list[bytes]]:
    start = _HEAD_LEN + count
    lengths = data[_HEAD_LEN:start]
    places = list(accumulate(lengths, initial=start))
    ids = places[-1]
    if len(lengths) != count or ids + count * ID_LEN != len(data):
        corrupt("directory", f"{ids + count * ID_LEN} bytes", len(data), cid)
    names = [data[at:end] for at, end in pairwise(places)]
    return names, [data[at : at + ID_LEN] for at in range(ids, len(data), ID_LEN)]


def read_root(reader: NodeReader, root: bytes) -> DirNode:
    """Read and decode the top node of a directory that is not empty. Raises Corrupt."""
    if len(root) != ID_LEN:
        corrupt("root of a directory", f"{ID_LEN} bytes", len(root))
    return decode_node(reader.read_node(root), root)


def read_child(reader: NodeReader, parent: DirNode, index: int, low: bytes) -> DirNode:
    """Read a child of an inner node and check that it is what its parent says.

    ``low``: the name all of the parent's must lie above, b"" for none.
    """
    cid = parent.values[index]
    child = decode_node(reader.read_node(cid), cid)
    if child.level != parent.level - 1:
        corrupt("level of a directory", str(parent.level - 1), child.level, child.cid)
    if index:
        low = parent.names[index - 1]
    if child.names[-1] != parent.names[index] or child.names[0] <= low:
        expected = f"those above {low!r} to {parent.names[index]!r}"
        found = f"{child.names[0]!r} to {child.names[-1]!r}"
        corrupt("names of a directory", expected, found, child.cid)
    return child


class Chunker:
    """Gathers the children of one level, in the order of their names, into nodes and stores those.

    ``nodes``: last name -> id of each node stored so far; ``only``: the value of the last one's child if it has one
    child alone, else None.
    """

    def __init__(self, writer: NodeWriter, level: int) -> None:
        self._writer = writer
        self._level = level
        self._names: list[bytes] = []
        self._values: list[bytes] = []
        self._bytes = 0
        self._like: bytes | None = None
        self.nodes: dict[bytes, bytes] = {}
        self.only: bytes | None = None

    @property
    def at_border(self) -> bool:
        """Whether a node has just ended, or none was begun."""
        return not self._names

    def feed(self, children: Iterable[tuple[bytes, bytes]], like: bytes | None) -> None:
        """Append (name, value) pairs. A node that begins among them is stored as a new version of ``like``."""
        level = self._level
        for name, value in children:
            names = self._names
            if not names:
                self._like = like
            names.append(name)
            self._values.append(value)
            self._bytes += len(value)
            count = len(names)
            if (
                (count >= DIR_NODE_MIN and (count >= DIR_NODE_MAX or ends_node(level, name)))
                or self._bytes >= DIR_LEAF_BYTES  # never above level 0: ids are short
            ):
                self.finish()

    def finish(self) -> None:
        """End the node that is being gathered, if any."""
        if self._names:
            data = encode_node(self._level, self._names, self._values)
            self.nodes[self._names[-1]] = self._writer.put_node(data, self._like)
            self.only = self._values[0] if len(self._values) == 1 else None
            self._names = []
            self._values = []
            self._bytes = 0
