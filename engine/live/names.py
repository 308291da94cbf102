"""Directory entries: what the index holds, overlaid by what changed; stable cookies; reading a directory.

A cookie is 60 bits of the keyed hash of the name, then 2 bits that tell apart names with the same hash.  It depends
on nothing else, so a directory can be read on from any cookie whatever came or went meanwhile: no entry that is
there throughout is missed or seen twice.  The key (parent, cookie) is both the order of reading and the way to find
a name, which saves a second table.  The hash key is secret, so nobody can make names collide.

A directory born in this process is known completely (``complete``): looking up a missing name in it costs no index
read.  All functions need the tree's lock.
"""

from __future__ import annotations

import errno
from bisect import bisect_left, insort
from collections.abc import Callable, Iterator
from functools import partial

from engine import limits
from engine.errors import PosixError
from engine.index import Table, Txn
from engine.live import lookup, rows
from engine.live.entries import Entry, Names
from engine.live.inode import Inode
from engine.live.lookup import PLACES
from engine.live.state import State


class NameTable:
    """Finding, adding and removing directory entries."""

    def __init__(self, state: State, hash_name: Callable[[bytes], int] | None = None) -> None:
        self._state = state
        self._hash = hash_name or partial(lookup.name_hash, state.secret)

    def of(self, directory: Inode) -> Names:
        """The directory's names in memory, an empty set at first."""
        names = directory.names
        if names is None:
            names = directory.names = Names(complete=directory.born == 0 and not directory.flight)
        return names

    def find(self, directory: Inode, name: bytes, txn: Txn | None = None) -> Entry | None:
        """The entry, or None. ``txn``: read from it, if memory does not know, rather than from a new one."""
        names = directory.names or self.of(directory)
        try:
            return names.entries[name]
        except KeyError:
            pass
        if names.complete or directory.size == 0:
            return None
        if txn is not None:
            return self._find_row(txn, directory, names, name)
        with self._state.index.read() as txn:
            return self._find_row(txn, directory, names, name)

    def known(self, directory: Inode, name: bytes) -> bool:
        """True when ``find`` will not read the index."""
        names = directory.names or self.of(directory)
        return name in names.entries or names.complete or directory.size == 0

    def _find_row(self, txn: Txn, directory: Inode, names: Names, name: bytes) -> Entry | None:
        first = self._hash(name) * PLACES
        taken = False
        for cookie, row in self._places(txn, directory.ino, first):
            if cookie != first:
                names.collided = True
            if row.name == name:
                entry = Entry(row.ino, row.kind, cookie)
                self._keep(names, name, entry)
                return entry
            taken = names.collided = True
        if not taken:  # the absence of all names with this hash is what may be remembered
            self._keep(names, name, None)
        return None

    def _places(self, txn: Txn, ino: int, first: int) -> Iterator[tuple[int, rows.DirentRow]]:
        """(cookie, entry) of the committed names with one hash."""
        start = rows.dirent_key(self._state.mount, ino, first)
        raw = txn.get(Table.DIRENTS, start)  # nearly always the only one
        if raw is not None:
            yield first, rows.decode_dirent(raw)
        start = rows.dirent_key(self._state.mount, ino, first + 1) if raw is not None else start
        for key in txn.keys(Table.DIRENTS, start=start, prefix=start[:-8]):
            cookie = rows.split_dirent_key(key)
            if cookie >= first + PLACES:
                break
            raw = txn.get(Table.DIRENTS, key)
            if raw is not None:
                yield cookie, rows.decode_dirent(raw)

    def _keep(self, names: Names, name: bytes, entry: Entry | None) -> None:
        names.entries[name] = entry
        if entry is not None:
            names.cookies[entry.cookie] = name
        state = self._state
        state.cached_names += 1
        if state.cached_names > limits.NAME_CACHE:
            state.trim_names()

    def add(self, directory: Inode, name: bytes, ino: int, kind: int) -> int:
        """Add an entry whose name ``find`` has just reported absent; returns its cookie."""
        names = directory.names or self.of(directory)
        old = names.old_cookies(name, None)
        first = self._hash(name) * PLACES
        cookie = first
        known = names.complete or name in names.entries or directory.size == 0
        if names.collided or not known or first in names.cookies:
            cookie = self._free_place(directory, names, first)
        names.changed[name] = old
        if name not in names.entries:
            self._state.cached_names += 1
        names.entries[name] = Entry(ino, kind, cookie)
        names.cookies[cookie] = name
        if names.order is not None:
            self._place(names.order, cookie, name)
        directory.size += 1
        self._state.touch_name(directory)
        return cookie

    @staticmethod
    def _place(order: list[tuple[int, bytes]], cookie: int, name: bytes) -> None:
        at = bisect_left(order, (cookie, name))
        if at == len(order) or order[at] != (cookie, name):
            insort(order, (cookie, name))

    def _free_place(self, directory: Inode, names: Names, first: int) -> int:
        taken = {cookie for cookie in range(first, first + PLACES) if cookie in names.cookies}
        if not names.complete:
            with self._state.index.read() as txn:
                for cookie, row in self._places(txn, directory.ino, first):
                    if row.name not in names.changed and row.name not in names.flight:
                        taken.add(cookie)
        for cookie in range(first, first + PLACES):
            if cookie not in taken:
                return cookie
            names.collided = True
        raise PosixError(errno.ENOSPC, "too many names with one hash in a directory")

    def remove(self, directory: Inode, name: bytes, entry: Entry) -> None:
        """Take away an entry that ``find`` has just reported."""
        names = directory.names or self.of(directory)
        names.changed[name] = names.old_cookies(name, entry)
        names.entries[name] = None
        names.cookies.pop(entry.cookie, None)
        directory.size -= 1
        self._state.touch_name(directory)

    def replace(self, directory: Inode, name: bytes, entry: Entry, ino: int, kind: int) -> int:
        """Let an existing name mean another inode; its cookie, and so its place in a reading, stays."""
        names = directory.names or self.of(directory)
        names.changed[name] = names.old_cookies(name, entry)
        names.entries[name] = Entry(ino, kind, entry.cookie)
        names.cookies[entry.cookie] = name  # the entry may have left memory since it was found
        self._state.touch_name(directory)
        return entry.cookie

    def name_at(self, parent: int, cookie: int) -> bytes | None:
        """The name at a place of a directory, or None."""
        directory = self._state.get(parent)
        names = self.of(directory)
        name = names.cookies.get(cookie)
        if name is not None or names.complete:
            return name
        with self._state.index.read() as txn:
            raw = txn.get(Table.DIRENTS, rows.dirent_key(self._state.mount, parent, cookie))
        if raw is None:
            return None
        row = rows.decode_dirent(raw)
        if row.name in names.changed or row.name in names.flight:
            return None
        self._keep(names, row.name, Entry(row.ino, row.kind, cookie))
        return row.name

    def path(self, inode: Inode) -> bytes:
        """Path from the root, without a leading slash; of the first link when there are several."""
        parts = []
        for _ in range(limits.DEPTH_MAX):
            if inode.ino == rows.ROOT or inode.nlink == 0:
                break
            if inode.name is None:
                inode.name = self.name_at(inode.parent, inode.cookie)
            parts.append(inode.name or b"?")
            inode = self._state.get(inode.parent)
        return b"/".join(reversed(parts))

    # --- reading a directory ------------------------------------------------------------------------------

    def read(self, txn: Txn, directory: Inode, after: int, count: int) -> list[tuple[bytes, Entry]]:
        """Up to ``count`` entries with cookies above ``after``, in cookie order; fewer only at the end."""
        names = directory.names or self.of(directory)
        if names.complete:
            return self._read_memory(names, after, count)
        mine = sorted(
            (entry.cookie, name, entry)
            for name in {**names.changed, **names.flight}
            if (entry := names.entries.get(name)) is not None and entry.cookie > after
        )
        result: list[tuple[bytes, Entry]] = []
        at = 0
        start = rows.dirent_key(self._state.mount, directory.ino, after + 1)
        for key, value in txn.scan(Table.DIRENTS, start=start, prefix=start[:-8]):
            row = rows.decode_dirent(value)
            if row.name in names.changed or row.name in names.flight:
                continue
            cookie = rows.split_dirent_key(key)
            while at < len(mine) and mine[at][0] < cookie:
                result.append(mine[at][1:])
                at += 1
            result.append((row.name, Entry(row.ino, row.kind, cookie)))
            if len(result) >= count:
                return result[:count]
        result.extend(item[1:] for item in mine[at:])
        return result[:count]

    def _read_memory(self, names: Names, after: int, count: int) -> list[tuple[bytes, Entry]]:
        order = names.order
        if order is None or (after == 0 and len(order) > 2 * len(names.cookies) + 64):
            order = names.order = sorted(names.cookies.items())
        result = []
        for at in range(bisect_left(order, (after + 1, b"")), len(order)):
            cookie, name = order[at]
            entry = names.entries.get(name)
            if entry is not None and entry.cookie == cookie:
                result.append((name, entry))
                if len(result) >= count:
                    break
        return result
