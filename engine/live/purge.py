"""Removing the rows of an inode that is gone, a bounded number per transaction.

A large file has many span rows.  Until the last of its rows is deleted the inode stays listed in ORPHANS, so a crash
in between leaves work, never a half-removed file that can be reached.
"""

from __future__ import annotations

from contextlib import suppress
from itertools import islice

from engine.errors import Corrupt
from engine.index import Table, Txn
from engine.live import rows
from engine.live.rows import F_INLINE, F_LINKS, F_XATTRS, InodeRow

_LISTS = (Table.SPANS, Table.XATTRS, Table.PARENTS, Table.CHANGED_SPANS, Table.CHANGED_NAMES)
_SINGLE = (Table.CHANGED, Table.ROOTS, Table.ORPHANS, Table.INODES)


def _tables(row: InodeRow | None, begun: int) -> list[Table]:
    """The tables that may hold lists of rows of the inode."""
    if row is None:
        return list(_LISTS)
    tables = []
    if row.alloc and not (row.flags & F_INLINE and row.size <= rows.SPAN):
        tables.append(Table.SPANS)
    if row.flags & F_XATTRS:
        tables.append(Table.XATTRS)
    if row.flags & F_LINKS:
        tables.append(Table.PARENTS)
    if row.born <= begun:
        tables += [Table.CHANGED_SPANS, Table.CHANGED_NAMES]
    return tables


def purge_inode(txn: Txn, mount: int, ino: int, begun: int, budget: int) -> tuple[int, bool]:
    """Delete up to ``budget`` rows of an inode; returns (rows deleted, whether all are)."""
    key = rows.inode_key(mount, ino)
    row = None
    with suppress(Corrupt):  # then every table is looked through
        raw = txn.get(Table.INODES, key)
        row = None if raw is None else rows.decode_inode(raw)
    deleted = 0
    for table in _tables(row, begun):
        keys = list(islice(txn.keys(table, prefix=key), budget - deleted + 1))
        for found in keys[: budget - deleted]:
            txn.delete(table, found)
        if len(keys) > budget - deleted:
            txn.put(Table.ORPHANS, key, b"")
            return budget, False
        deleted += len(keys)
    old = row is None or row.born <= begun
    for table in _SINGLE if old else _SINGLE[2:]:
        deleted += txn.delete(table, key)
    return deleted, True
