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
        elif one.level == other.level == _ENTRY:
            if one.name == other.name:
                yield one.name, left.take(), right.take()
            elif one.name < other.name:
                yield one.name, left.take(), None
            else:
                yield other.name, None, right.take()
        # A node that is still to come on the other side: all before it there is on that side alone.
        elif one.level >= other.level and (size := right.before(one)) is not None:
            yield from (_mirrored(change) for change in right.alone(size))
        elif other.level >= one.level and (size := left.before(other)) is not None:
            yield from left.alone(size)
        elif one.level >= other.level:
            left.open()
        else:
            right.open()
    yield from left.alone(0)
    yield from (_mirrored(change) for change in right.alone(0))


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

    def before(self, node: _Part) -> int | None:
        """How many parts there are from this node on, None when it is not to come."""
        for index, part in enumerate(self.rest):
            if part.value == node.value and part.level == node.level:
                return index + 1
        return None

    def alone(self, size: int) -> Iterator[Difference]:
        """Every entry before the last ``size`` parts, as one that the other side lacks."""
        while len(self.rest) > size:
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
