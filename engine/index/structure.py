"""The trees of an LMDB file, verified page by page without LMDB: LMDB keeps no checksums.

Rows carry a check each, which tells when one was changed, not when one is missing: a flipped bit in a page's head, in
a table of offsets, in a branch's key or in a page number hides rows, or kills the process that follows it.  Here every
page of every tree is read with pread and judged: its number, kind and bounds, its nodes without gaps, keys ascending
and within what the branches above say, the depth, rows and pages counted against the tree's record, no page in two
places, none both in use and free.  Nothing here can raise a signal, whatever the file holds.

Beside writers: LMDB never writes to a page that a read transaction can see, so what is looked at is the state of the
caller's read transaction, which must stay open meanwhile.  Memory: one byte a page.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import pairwise

from engine.index import layout
from engine.index.layout import NONE, Damaged, Meta, Row, Tree

_PROBLEMS_MAX = 100  # of one file: damage that is everywhere need not be told a million times
_INTEGER_KEYS = 8  # flag of the free list: keys are numbers
_FREE, _USED = 1, 2


def metas_agree(metas: list[Meta]) -> bool:
    """Whether both meta pages are there and of successive commits: where not, the last commit may be missing."""
    return (
        len(metas) == 2
        and metas[1].transaction - metas[0].transaction == 1
        and metas[0].page == metas[1].page
    )


def problems(path: str, transaction: int) -> list[str] | None:
    """What is wrong with the trees of a transaction that is open for reading; None when it cannot be found any more.

    ``path``: the data file.  None means that two commits came between the transaction's begin and this call, or that
    its meta page is damaged: ask again with a younger one.
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        metas = layout.read_metas(fd)
        meta = next((one for one in metas if one.transaction == transaction), None)
        if meta is None or not metas_agree(metas):
            return None
        return _Walk(fd, meta).run()
    finally:
        os.close(fd)


class _Walk:
    """One look at all trees of one state."""

    def __init__(self, fd: int, meta: Meta) -> None:
        self._fd = fd
        self._meta = meta
        self._state = bytearray(min(meta.last + 1, os.fstat(fd).st_size // meta.page + 1))
        self._found: list[str] = []

    def run(self) -> list[str]:
        meta = self._meta
        if meta.main.flags or meta.free.flags & 0xFF != _INTEGER_KEYS:
            self._say("meta page", "has other flags than LMDB gives it")
        databases: list[tuple[str, Tree]] = []
        for row in self._tree("main", meta.main):
            try:
                if not row.database:
                    raise Damaged("is no database")
                databases.append((row.key.decode(errors="replace"), layout.decode_tree(row.data)))
            except Damaged as error:
                self._say(f"main row {row.key[:40]!r}", error)
        for name, tree in databases:
            if tree.flags or tree.pad:
                self._say(f"table {name}", "has other flags than it was made with")
            for row in self._tree(name, tree):
                if row.database:
                    self._say(f"table {name}", "has a tree for a row")
        self._free()
        return self._found

    def _say(self, what: str, problem: object) -> None:
        if len(self._found) < _PROBLEMS_MAX:
            self._found.append(f"{what}: {problem}")

    def _tree(self, name: str, tree: Tree) -> Iterator[Row]:
        """Every row of a tree that can be reached, in any order of pages."""
        counts = [0, 0, 0, 0]  # branches, leaves, overflow pages, rows
        todo: list[tuple[int, int, bytes, bytes | None]] = []
        if tree.root != NONE:
            todo.append((tree.root, 1, b"", None))
        while todo:
            number, depth, low, high = todo.pop()
            try:
                raw = self._page(number)
                children = layout.branch(raw, number)
                if children is not None and tree is self._meta.free:
                    children = [
                        (key[::-1], child) for key, child in children
                    ]  # numbers, in key order
                if (depth == tree.depth) != (children is None):
                    raise Damaged(f"lies at depth {depth}, the tree has {tree.depth}")
                if children is not None:
                    counts[0] += 1
                    todo.extend(_below(children, depth + 1, low, high))
                    continue
                rows = layout.leaf(raw, number)
                counts[1] += 1
                counts[3] += len(rows)
                if tree is self._meta.free:
                    rows = [row._replace(key=row.key[::-1]) for row in rows]
                _in_order([row.key for row in rows], low, high)
            except Damaged as error:
                self._say(f"page {number} of {name}", error)
                continue
            for row in rows:
                if row.big:
                    counts[2] += self._overflow(name, row)
                yield row
        expected = [tree.branches, tree.leaves, tree.overflows, tree.rows]
        if counts != expected or (tree.root == NONE and tree.depth):
            texts = [" ".join(map(str, some)) for some in (expected, counts)]
            self._say(name, f"branches, leaves, overflow pages and rows are {texts[0]} in its record,"
                            f" {texts[1]} in its pages")  # fmt: skip

    def _page(self, number: int) -> bytes:
        self._take(number, 1)
        raw = os.pread(self._fd, self._meta.page, number * self._meta.page)
        if len(raw) != self._meta.page:
            raise Damaged("lies behind the end of the file")
        return raw

    def _take(self, number: int, count: int) -> None:
        if number < 2 or number + count - 1 > self._meta.last or number + count > len(self._state):
            raise Damaged("is none of the file's pages")
        if any(self._state[number : number + count]):
            raise Damaged("is used twice")
        self._state[number : number + count] = bytes((_USED,)) * count

    def _overflow(self, name: str, row: Row) -> int:
        """Pages that a row takes beside its leaf."""
        page, number = self._meta.page, row.big
        count = (row.size + 15) // page + 1  # the head's 16 bytes, rounded up
        try:
            self._take(number, count)
            if layout.overflow(os.pread(self._fd, 16, number * page), number) != count:
                raise Damaged("is of another length than its row")
            if (number + count) * page > os.fstat(self._fd).st_size:
                raise Damaged("lies behind the end of the file")
        except Damaged as error:
            self._say(f"overflow page {number} of {name}", error)
        return count

    def _free(self) -> None:
        """The free list: numbers of pages by the transaction that gave them up."""
        for row in list(
            self._tree("free list", self._meta.free)
        ):  # their own pages are in use, too
            try:
                if len(row.key) != 8 or int.from_bytes(row.key, "big") > self._meta.transaction:
                    raise Damaged("has a key that is none of a transaction")
                self._free_pages(row)
            except Damaged as error:
                self._say("free list", error)

    def _free_pages(self, row: Row) -> None:
        raw = row.data
        if row.big:
            raw = os.pread(self._fd, row.size, row.big * self._meta.page + 16)
        numbers = [int.from_bytes(raw[at : at + 8], "little") for at in range(0, len(raw) - 7, 8)]
        if len(raw) % 8 or len(raw) != row.size or not numbers or numbers[0] >= len(numbers):
            raise Damaged("has a row of another length than it says")
        pages = numbers[1 : 1 + numbers[0]]
        if any(one <= other for one, other in pairwise(pages)):
            raise Damaged("is not in order")
        for number in pages:
            if number < 2 or number > self._meta.last:
                raise Damaged(f"names page {number}, which is none of the file's")
            if number >= len(self._state):
                continue  # given up before it was ever written: the file ends before it
            if self._state[number]:
                raise Damaged(f"names page {number}, which is in use or named twice")
            self._state[number] = _FREE


def _below(
    children: list[tuple[bytes, int]], depth: int, low: bytes, high: bytes | None
) -> Iterator[tuple[int, int, bytes, bytes | None]]:
    """(page, depth, least key, bound above) of the children. Raises Damaged."""
    keys = [key for key, _ in children[1:]]
    _in_order(keys, low, high)
    bounds = [low, *keys, high]
    for place, (_, number) in enumerate(children):
        below = bounds[place]
        assert below is not None
        yield number, depth, below, bounds[place + 1]


def _in_order(keys: list[bytes], low: bytes, high: bytes | None) -> None:
    if any(one >= other for one, other in pairwise(keys)):
        raise Damaged("has keys out of order")
    if keys and (keys[0] < low or (high is not None and keys[-1] >= high)):
        raise Damaged("has keys outside what the pages above it say")
