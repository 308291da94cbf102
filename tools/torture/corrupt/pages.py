"""The rows of a damaged index as LMDB gives them, and its free list, for the rig that damages indexes."""

from __future__ import annotations

import struct

from engine.index import Index, Table

Rows = dict[Table, dict[bytes, bytes]]


def rows(index: Index) -> Rows:
    """Every row of every table, found by going through them."""
    with index.read() as txn:
        return {table: dict(txn.scan(table)) for table in Table}


def look_up(index: Index, wanted: Rows) -> str:
    """Every row looked up by its key; what is wrong, empty when nothing is."""
    with index.read() as txn:
        for table, some in wanted.items():
            if txn.count(table) != len(some):
                return f"{table.name} says that it has {txn.count(table)} rows of {len(some)}"
            for key, value in some.items():
                if txn.get(table, key) != value:
                    return f"{table.name} does not give its row {key.hex()}"
    return ""


def transaction(data: bytes, place: int) -> int:
    """The number of the commit that a meta page says it is of."""
    return int(struct.unpack_from("<Q", data, 4096 * place + 144)[0])


def is_older(before: bytes, after: bytes) -> bool:
    """Whether the younger meta page now has the number it had two commits ago.

    Then the file is, whole and sound, what it was before the last commit, as after a write that the disk lost: nothing
    in it can tell.
    """
    metas = [transaction(before, place) for place in (0, 1)]
    return transaction(after, metas.index(max(metas))) == max(metas) - 2


def free_pages(data: bytes) -> set[int]:
    """Numbers in the free list of the younger meta page. Nothing here is sure of its footing: it is the rig's own
    reading of a file that ``check`` called sound."""
    newest = 4096 * max((0, 1), key=lambda place: transaction(data, place))
    (root,) = struct.unpack_from("<Q", data, newest + 80)
    found: set[int] = set()
    todo = [] if root == (1 << 64) - 1 else [root]
    while todo:
        page = todo.pop() * 4096
        flags, lower = struct.unpack_from("<HH", data, page + 10)
        for (at,) in struct.iter_unpack("<H", data[page + 16 : page + lower]):
            low, high, kind, key = struct.unpack_from("<HHHH", data, page + at)
            if flags & 1:
                todo.append(low | high << 16 | kind << 32)
                continue
            start = page + at + 8 + key
            if kind & 1:
                start = struct.unpack_from("<Q", data, start)[0] * 4096 + 16
            (count,) = struct.unpack_from("<Q", data, start)
            found.update(struct.unpack_from(f"<{count}Q", data, start + 8))
    return found
