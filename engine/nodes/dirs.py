"""Directories as content-addressed sorted maps: build, update, look up, list.

The root of a directory is b"" when it is empty, else the id of its top node: the only node of its level, and the
lowest for which that is so. ``update`` gives, byte for byte, what ``build`` gives for the same entries.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from engine.errors import UNREADABLE
from engine.limits import DIR_DEPTH_MAX
from engine.nodes.dirdiff import diff
from engine.nodes.dirnodes import Chunker, DirNode, read_child, read_root
from engine.nodes.entries import Entry, decode_entry, encode_entry
from engine.nodes.ports import NodeReader, NodeWriter, invalid

__all__ = ["build", "diff", "get", "scan", "update"]

Change = tuple[bytes, bytes | None]
Lost = Callable[[bytes, bytes, Exception], None]
"""Told of names that cannot be read: those behind the first, up to the second (b"" for no bound), and why."""


def build(writer: NodeWriter, entries: Iterable[Entry]) -> bytes:
    """Store a directory of these entries, which come sorted by name; its root.

    Memory is that of one leaf and of 32 bytes and a name for each. Raises InvalidRequest.
    """
    chunker = Chunker(writer, 0)
    chunker.feed(_records(entries), None)
    chunker.finish()
    return _top(writer, 0, chunker.nodes)


def _records(entries: Iterable[Entry]) -> Iterator[tuple[bytes, bytes]]:
    last = b""
    for entry in entries:
        name = entry[0]
        if name <= last:
            invalid("entries of a directory", f"a name behind {last!r}", name)
        last = name
        yield name, encode_entry(entry)


def _top(writer: NodeWriter, level: int, nodes: dict[bytes, bytes]) -> bytes:
    """Store levels above ``level``, whose nodes these are, until one node is left; the root."""
    while len(nodes) > 1:
        level += 1
        if level > DIR_DEPTH_MAX:
            invalid("directory", f"at most {DIR_DEPTH_MAX} levels", level)
        chunker = Chunker(writer, level)
        chunker.feed(nodes.items(), None)
        chunker.finish()
        nodes = chunker.nodes
    return next(iter(nodes.values()), b"")


def update(
    reader: NodeReader, writer: NodeWriter, root: bytes, changes: Mapping[bytes, Entry | None]
) -> bytes:
    """Store a new version of a directory: entries put under their names, or removed (None); its root.

    Reads and writes only the nodes on the paths to the changes, and those next to one whose border moves. Taking
    away what is not there, or putting what is there already, changes nothing. Raises InvalidRequest, Corrupt.
    """
    edits: Sequence[Change] = _encoded(changes)
    if not root:
        chunker = Chunker(writer, 0)
        chunker.feed([(name, record) for name, record in edits if record is not None], None)
        chunker.finish()
        return _top(writer, 0, chunker.nodes)
    tree = _Tree(reader, root)
    only: bytes | None = None
    for level in range(tree.top.level + 1):
        edits, only = _update_level(tree, writer, level, edits)
        if not edits:
            return root
    nodes = {tree.top.names[-1]: root}
    for name, cid in edits:
        if cid is None:
            nodes.pop(name, None)
        else:
            nodes[name] = cid
    if len(nodes) > 1:
        return _top(writer, tree.top.level, dict(sorted(nodes.items())))
    if nodes and only and tree.top.level:
        return _lowest(reader, only)
    return next(iter(nodes.values()), b"")


def _encoded(changes: Mapping[bytes, Entry | None]) -> list[Change]:
    edits: list[Change] = []
    for name in sorted(changes):
        entry = changes[name]
        if entry is not None and entry.name != name:
            invalid("change of a directory", f"an entry of the name {name!r}", entry.name)
        edits.append((name, None if entry is None else encode_entry(entry)))
    return edits


def _lowest(reader: NodeReader, root: bytes) -> bytes:
    """Descend through nodes with a single child to the one that is the canonical root."""
    node = read_root(reader, root)
    while node.level and len(node.names) == 1:
        node = read_child(reader, node, 0, b"")
    return node.cid


class _Tree:
    """A place among the nodes of one level of a stored tree. Inner nodes are kept decoded while it lives."""

    def __init__(self, reader: NodeReader, root: bytes) -> None:
        self._reader = reader
        self._inner: dict[tuple[int, bytes], DirNode] = {}
        self.top = read_root(reader, root)
        self._path: list[tuple[DirNode, int]] = []  # inner nodes from the top, and which child
        self.node = self.top

    def seek(self, level: int, name: bytes) -> None:
        """Go to the node of a level that holds this name, or would."""
        self._path.clear()
        self._descend(self.top, level, name, b"")

    def _descend(self, node: DirNode, level: int, name: bytes, low: bytes) -> None:
        while node.level > level:
            index = min(bisect_left(node.names, name), len(node.names) - 1)
            self._path.append((node, index))
            node, low = self._child(node, index, low), node.names[index - 1] if index else low
        self.node = node

    def _child(self, node: DirNode, index: int, low: bytes) -> DirNode:
        # Named by its place, not its id, so that a damaged tree that has a node twice is found out.
        place = (node.level, node.names[index])
        child = self._inner.get(place)
        if child is None:
            child = read_child(self._reader, node, index, low)
            if child.level:
                self._inner[place] = child
        return child

    @property
    def is_last(self) -> bool:
        """Whether no node of this level lies behind."""
        return all(index + 1 == len(node.names) for node, index in self._path)

    def step(self) -> None:
        """Go to the next node of this level; there must be one."""
        level = self.node.level
        while True:
            node, index = self._path.pop()
            if index + 1 < len(node.names):
                break
        low = node.names[index]
        self._path.append((node, index + 1))
        child = self._child(node, index + 1, low)
        self._descend(child, level, b"", low)


def _update_level(
    tree: _Tree, writer: NodeWriter, level: int, edits: Sequence[Change]
) -> tuple[list[Change], bytes | None]:
    """Apply sorted changes to one level of a tree.

    The changes that follow for the level above it; and the only child of the last node stored, if it has but one.
    """
    chunker = Chunker(writer, level)
    replaced: dict[bytes, bytes] = {}
    names = [name for name, _ in edits]
    done = 0
    while done < len(edits):
        tree.seek(level, names[done])
        while True:
            node = tree.node
            last = tree.is_last
            end = len(edits) if last else bisect_right(names, node.names[-1], done)
            replaced[node.names[-1]] = node.cid
            chunker.feed(_merge(node, edits[done:end]), node.cid)
            done = end
            if last:
                chunker.finish()
            if chunker.at_border:
                break  # from here on the old nodes are what they would be built as
            tree.step()
    result: list[Change] = []
    for name in sorted(replaced.keys() | chunker.nodes.keys()):
        cid = chunker.nodes.get(name)
        if cid != replaced.get(name):
            result.append((name, cid))
    return result, chunker.only


def _merge(node: DirNode, edits: Sequence[Change]) -> Iterable[tuple[bytes, bytes]]:
    if not edits:
        return zip(node.names, node.values, strict=True)
    merged = dict(zip(node.names, node.values, strict=True))
    grown = False
    for name, value in edits:
        if value is None:
            merged.pop(name, None)
        else:
            grown = grown or name not in merged
            merged[name] = value
    return sorted(merged.items()) if grown else merged.items()


def get(reader: NodeReader, root: bytes, name: bytes) -> Entry | None:
    """The entry of a name, or None. Raises Corrupt."""
    if not root:
        return None
    node = read_root(reader, root)
    low = b""
    while True:
        index = bisect_left(node.names, name)
        if index == len(node.names):
            return None
        if not node.level:
            return decode_entry(node.values[index]) if node.names[index] == name else None
        node, low = read_child(reader, node, index, low), node.names[index - 1] if index else low


def scan(
    reader: NodeReader, root: bytes, after: bytes = b"", lost: Lost | None = None
) -> Iterator[Entry]:
    """The entries in the order of their names, those behind ``after``. Nodes are read as it goes.

    What cannot be read is told to ``lost``, and the rest given; without it, raises Corrupt.
    """
    if not root:
        return
    try:
        top = read_root(reader, root)
    except UNREADABLE as error:
        if lost is None:
            raise
        lost(after, b"", error)
        return
    path = [(top, bisect_right(top.names, after), b"")]
    while path:
        node, index, low = path.pop()
        if index == len(node.names):
            continue
        if not node.level:
            yield from map(decode_entry, node.values[index:])
            continue
        path.append((node, index + 1, low))
        low = node.names[index - 1] if index else low
        try:
            child = read_child(reader, node, index, low)
        except UNREADABLE as error:
            if lost is None:
                raise
            lost(max(after, low), node.names[index], error)
            continue
        path.append((child, bisect_right(child.names, after), low))
