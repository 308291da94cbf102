"""The difference of two directories: only the nodes that differ are read."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from engine.nodes.dirnodes import DirNode, read_child, read_root
from engine.nodes.entries import Entry, decode_entry
from engine.nodes.ports import NodeReader

Difference = tuple[bytes, Entry | None, Entry | None]

_ENTRY = -1


def diff(reader: NodeReader, a: bytes, b: bytes) -> Iterator[Difference]:
    """(name, entry in ``a``, entry in ``b``) of every name whose entries differ, sorted by name.

    ``a`` and ``b`` are roots of directories; None stands for an entry that is not there. Raises Corrupt.
    """
    if a == b:
        return
    left, right = _Side(reader, a), _Side(reader, b)
    while left.rest and right.rest:
        one, other = left.rest[-1], right.rest[-1]
        if one.level == other.level and one.value == other.value:
            left.rest.pop()
            right.rest.pop()
        elif one.level == other.level == _ENTRY and one.name == other.name:
            yield one.name, left.take(), right.take()
        elif _before(one, other):
            yield from left.alone()
        elif _before(other, one):
            yield from (_mirrored(change) for change in right.alone())
        elif one.level >= other.level:
            left.open()
        else:
            right.open()
    while left.rest:
        yield from left.alone()
    while right.rest:
        yield from (_mirrored(change) for change in right.alone())


def _mirrored(change: Difference) -> Difference:
    name, entry, _ = change
    return name, None, entry


class _Part(NamedTuple):
    """An entry (``value`` its record) or an unread node (its id) whose names are above ``low``, to ``name``."""

    level: int
    low: bytes
    name: bytes
    value: bytes
    parent: DirNode | None
    place: int


def _before(part: _Part, other: _Part) -> bool:
    """Whether all of a part comes before all of another."""
    return part.name < other.name if other.level == _ENTRY else part.name <= other.low


class _Side:
    """What is left of one directory: ``rest`` is a stack, the first part on top."""

    def __init__(self, reader: NodeReader, root: bytes) -> None:
        self._reader = reader
        self._top: DirNode | None = None
        self.rest: list[_Part] = []
        if root:
            top = self._top = read_root(reader, root)
            self.rest.append(_Part(top.level, b"", top.names[-1], root, None, 0))

    def take(self) -> Entry:
        """The entry on top."""
        return decode_entry(self.rest.pop().value)

    def alone(self) -> Iterator[Difference]:
        """Move on by the part on top, which the other side lacks."""
        part = self.rest[-1]
        if part.level == _ENTRY:
            yield part.name, self.take(), None
        else:
            self.open()

    def open(self) -> None:
        """Replace the node on top by its children."""
        part = self.rest.pop()
        if part.parent is not None:
            node = read_child(self._reader, part.parent, part.place, part.low)
        else:
            assert self._top is not None
            node = self._top
        level = node.level - 1
        for index in reversed(range(len(node.names))):
            low = node.names[index - 1] if index else part.low
            name = node.names[index]
            self.rest.append(_Part(level, low, name, node.values[index], node, index))
