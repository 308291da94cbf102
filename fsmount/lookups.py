"""How often the kernel was told of each inode, so that "forget" messages can be settled.

Inode numbers are a dense counter, so counts live in small pages of 64: about 7 bytes an inode in a tree that was
walked, some 400 in the worst scatter, where a plain dictionary takes 75.  Ten million inodes known to the kernel then
cost this worker 70 MB.
"""

from __future__ import annotations

from array import array

PAGE_BITS = 6
PAGE = 1 << PAGE_BITS
MASK = PAGE - 1
EMPTY = array("I", bytes(4 * PAGE))


class Lookups:
    """Lookup counts by inode number. Used on the loop's thread only."""

    def __init__(self) -> None:
        self._pages: dict[int, array[int]] = {}

    def add(self, ino: int) -> None:
        """One more entry reply named this inode."""
        number = ino >> PAGE_BITS
        page = self._pages.get(number)
        if page is None:
            page = self._pages[number] = EMPTY[:]
        page[ino & MASK] += 1

    def drop(self, ino: int, count: int) -> bool:
        """The kernel forgets ``count`` of them; True when it knows the inode no more."""
        number = ino >> PAGE_BITS
        page = self._pages.get(number)
        if page is None:
            return False
        left = page[ino & MASK] - count
        if left > 0:
            page[ino & MASK] = left
            return False
        known = page[ino & MASK] > 0
        page[ino & MASK] = 0
        if page == EMPTY:
            del self._pages[number]
        return known

    def count(self, ino: int) -> int:
        """How often the kernel was told of this inode and has not forgotten it."""
        page = self._pages.get(ino >> PAGE_BITS)
        return 0 if page is None else page[ino & MASK]

    def all(self) -> list[int]:
        """Every inode the kernel knows."""
        return [
            (number << PAGE_BITS) + place
            for number, page in self._pages.items()
            for place in range(PAGE)
            if page[place]
        ]
