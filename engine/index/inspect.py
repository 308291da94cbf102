"""Looking at an LMDB file before LMDB does: a file cut short would kill the process (SIGBUS) on first access.

Layout of LMDB 0.9 on 64-bit little-endian machines: two meta pages, each 16 bytes of page header, then magic u32,
version u32, address u64, map size u64, two database records of 48 bytes (the first begins with the page size),
last page u64, transaction id u64.

A sound file may end before its last page: pages that a transaction took and gave back at the end of the file are free,
and were never written.  So where the file is short, every page that is in use is looked for: by following page
numbers from the roots.  Pages: number u64, pad u16, flags u16, end u16 of the nodes' offsets, which are u16 from byte
16 on; of overflow pages the four bytes behind the flags are the number of pages.
Nodes: u16 low, u16 high, flags u16, key length u16, key; in a branch the first three are the child's number, in a leaf
low and high are the length of the data, which for flag 1 is the number of an overflow page, for flag 2 a database.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator

from engine.errors import Corrupt, NotFound, from_os

_MAGIC = 0xBEEFC0DE
_META = struct.Struct("<16xIIQQ I36xQ 40xQ QQ")
_PAGE, _NODE, _NUMBER = struct.Struct("<10xHHH"), struct.Struct("<HHHH"), struct.Struct("<Q")
_OVERFLOW = struct.Struct("<10xHI")
_BRANCH, _LEAF, _BIG_PAGE = 1, 2, 4  # flags of pages
_BIG, _DATABASE = 1, 2  # flags of nodes
_DATABASE_SIZE = 48  # bytes of a database's record; its root is at the end
_NONE = (1 << 64) - 1  # root of an empty database
Meta = tuple[int, int, tuple[int, ...]]
_DO = "run 'holdfast repair --rebuild-index'"


def inspect(folder: str) -> None:
    """Raises NotFound when there is no index, Corrupt when its file cannot be what LMDB left."""
    path = os.path.join(folder, "data.mdb")
    try:
        seen = None
        while True:
            page, size, metas = _look(path)
            if not metas:
                raise Corrupt(
                    f"index {path}", expected="an LMDB file", found="no valid meta page", do=_DO
                )
            transaction, last, roots = max(metas)
            if (last + 1) * page <= size or _whole(path, page, size // page, roots):
                return
            if transaction == seen:
                break
            seen = transaction  # pages may have been used anew while they were followed: once more
    except FileNotFoundError:
        raise NotFound(f"index {path}", expected="a file", found="none", do=_DO) from None
    except OSError as error:
        raise from_os(error, f"index {path}") from None
    raise Corrupt(f"index {path}", expected=f"{(last + 1) * page} bytes", found=f"{size} (cut short)",
                  do=_DO)  # fmt: skip


def _look(path: str) -> tuple[int, int, list[Meta]]:
    """(page size, bytes of the file, its valid meta pages)."""
    with open(path, "rb") as file:
        first = file.read(_META.size)
        page = _page_size(first)
        file.seek(page)
        second = file.read(_META.size)
        size = os.fstat(file.fileno()).st_size
    return page, size, [meta for meta in (_decode(first), _decode(second)) if meta is not None]


def _whole(path: str, page: int, count: int, roots: tuple[int, ...]) -> bool:
    """Whether every page in use is among the first ``count``."""
    todo = [root for root in roots if root != _NONE]
    with open(path, "rb") as file:
        while todo:
            number = todo.pop()
            if number >= count:
                return False
            file.seek(number * page)
            raw = file.read(page)
            flags, pages = _OVERFLOW.unpack_from(raw)
            if not flags & _BIG_PAGE:
                todo.extend(_refers(raw))
            elif number + pages > count:
                return False
    return True


def _refers(raw: bytes) -> Iterator[int]:
    """Pages that a page refers to. Of a page that is none of LMDB's, one that is in no file."""
    try:
        flags, lower, _ = _PAGE.unpack_from(raw)
        if not flags & (_BRANCH | _LEAF):
            yield _NONE
            return
        for (at,) in struct.iter_unpack("<H", raw[16:lower]):
            low, high, node, size = _NODE.unpack_from(raw, at)
            data = at + _NODE.size + size
            if flags & _BRANCH:
                yield low | high << 16 | node << 32
            elif node & _BIG:
                yield _NUMBER.unpack_from(raw, data)[0]
            elif node & _DATABASE:
                root = _NUMBER.unpack_from(raw, data + _DATABASE_SIZE - _NUMBER.size)[0]
                if root != _NONE:
                    yield root
    except struct.error:
        yield _NONE


def _page_size(raw: bytes) -> int:
    if len(raw) == _META.size:
        page = int(_META.unpack(raw)[4])
        if 512 <= page <= 65536 and page & (page - 1) == 0:
            return page
    return 4096


def _decode(raw: bytes) -> Meta | None:
    """(transaction, last page, roots), or None for a meta page that is not one."""
    if len(raw) != _META.size:
        return None
    magic, version, _, _, _, free, main, last, transaction = _META.unpack(raw)
    return (transaction, last, (free, main)) if magic == _MAGIC and version == 1 else None
