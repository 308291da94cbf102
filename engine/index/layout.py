"""The bytes of an LMDB file, read without LMDB: meta pages, pages, nodes, database records. FORMAT: LMDB 0.9, 64 bit.

Page: number u64, pad u16, flags u16, then the ends of the table of nodes' offsets and of the free room, u16 each, and
that table; of overflow pages the four bytes behind the flags are the number of pages.  Node: u16 low, u16 high, flags
u16, key length u16, key; in a branch the first three are the child's number, in a leaf low and high are the length of
the data, which for flag 1 is the number of an overflow page, for flag 2 a database record: pad u32, flags u16, depth
u16, then branch, leaf and overflow pages, rows, root, u64 each.  Nodes begin at even bytes and fill the page's end
without gaps.  A meta page: magic u32, version u32, address u64, map size u64, the records of the free list (its pad is
the page size) and of the main tree, last page u64, transaction u64.  A commit writes meta page (transaction mod 2).
"""

from __future__ import annotations

import os
import struct
from typing import NamedTuple

_MAGIC, _VERSION = 0xBEEFC0DE, 1
_META = struct.Struct("<10xH4xIIQQ 48s 48s QQ")
_RECORD = struct.Struct("<IHHQQQQQ")
_PAGE, _NODE, _NUMBER = struct.Struct("<QHHHH"), struct.Struct("<HHHH"), struct.Struct("<Q")
_OVERFLOW = struct.Struct("<Q2xHI")
_BRANCH, _LEAF, _BIG_PAGE, _META_PAGE = 1, 2, 4, 8  # flags of pages
_BIG, _DATABASE = 1, 2  # flags of nodes
_HEAD = _PAGE.size
NONE = (1 << 64) - 1  # root of an empty database


class Damaged(Exception):
    """A page is not what LMDB leaves behind. The message says what is wrong with it."""


class Tree(NamedTuple):
    """A database as its record tells of it; page size in ``pad`` for the free list, else unused."""

    pad: int
    flags: int
    depth: int
    branches: int
    leaves: int
    overflows: int
    rows: int
    root: int


class Meta(NamedTuple):
    """A meta page."""

    transaction: int
    last: int
    page: int
    free: Tree
    main: Tree


class Row(NamedTuple):
    """A node of a leaf. ``big``: the first of the overflow pages its ``size`` bytes lie on, or 0: they are ``data``."""

    key: bytes
    data: bytes
    size: int
    big: int
    database: bool


def decode_tree(raw: bytes) -> Tree:
    """A database's record, 48 bytes. Raises Damaged."""
    if len(raw) != _RECORD.size:
        raise Damaged(f"a database's record has {len(raw)} bytes")
    return Tree(*_RECORD.unpack(raw))


def decode_meta(raw: bytes, place: int) -> Meta | None:
    """The meta page that begins at ``raw``; None when it is none, or is not that of its place (0 or 1)."""
    if len(raw) < _META.size:
        return None
    flags, magic, version, _, _, free, main, last, transaction = _META.unpack_from(raw)
    meta = Meta(
        transaction, last, Tree(*_RECORD.unpack(free)).pad, decode_tree(free), decode_tree(main)
    )
    sound = (
        magic == _MAGIC and version == _VERSION and flags == _META_PAGE and transaction % 2 == place
        and 512 <= meta.page <= 65536 and not meta.page & (meta.page - 1)
    )  # fmt: skip
    return meta if sound else None


def read_metas(fd: int) -> list[Meta]:
    """The meta pages that are sound, older first. LMDB keeps two, of successive commits."""
    found = []
    first = decode_meta(os.pread(fd, _META.size, 0), 0)
    for page in (first.page,) if first else (4096, 8192, 16384, 32768, 65536):
        second = decode_meta(os.pread(fd, _META.size, page), 1)
        if second is not None and second.page == page:
            found.append(second)
            break
    if first is not None:
        found.append(first)
    return sorted(found)


def branch(raw: bytes, number: int) -> list[tuple[bytes, int]] | None:
    """(least key, page) of the children of a branch; None for a leaf. Raises Damaged.

    LMDB never looks at the first child's key.
    """
    found = _nodes(raw, number)
    if found[0] != _BRANCH:
        return None
    children, ends = [], []
    for at in found[1]:
        low, high, top, size = _NODE.unpack_from(raw, at)
        start = at + _NODE.size
        ends.append(start + size)
        children.append((raw[start : start + size], low | high << 16 | top << 32))
    _contiguous(found[1], ends, found[2], len(raw))
    return children


def leaf(raw: bytes, number: int) -> list[Row]:
    """The rows of a leaf. Raises Damaged."""
    flags, places, upper = _nodes(raw, number)
    if flags != _LEAF:
        raise Damaged("no leaf where one must be")
    rows, ends = [], []
    for at in places:
        low, high, kind, key = _NODE.unpack_from(raw, at)
        start = at + _NODE.size + key
        size = low | high << 16
        big = 0
        end = start + size
        if kind == _BIG:
            end = start + _NUMBER.size
        elif kind not in (0, _DATABASE):
            raise Damaged(f"a row of an unknown kind {kind}")
        ends.append(end)
        if end > len(raw):
            raise Damaged("a row that reaches beyond its page")
        data = raw[start:end]
        if kind == _BIG:
            big, data = _NUMBER.unpack(data)[0], b""
        rows.append(Row(raw[at + _NODE.size : start], data, size, big, kind == _DATABASE))
    _contiguous(places, ends, upper, len(raw))
    return rows


def overflow(raw: bytes, number: int) -> int:
    """How many pages there are from this one on; ``raw``: at least its head. Raises Damaged."""
    if len(raw) < _HEAD:
        raise Damaged("it lies behind the end of the file")
    itself, flags, pages = _OVERFLOW.unpack_from(raw)
    if itself != number or flags != _BIG_PAGE:
        raise Damaged("no overflow page where one must be")
    return int(pages)


def _nodes(raw: bytes, number: int) -> tuple[int, tuple[int, ...], int]:
    """(flags, offsets of the nodes, end of the free room) of a page that has nodes."""
    if len(raw) < _HEAD:
        raise Damaged("it lies behind the end of the file")
    itself, _, flags, lower, upper = _PAGE.unpack_from(raw)
    if itself != number:
        raise Damaged(f"says that it is page {itself}")
    if flags not in (_BRANCH, _LEAF):
        raise Damaged(f"is of an unknown kind {flags}")
    if not _HEAD < lower <= upper <= len(raw) or lower % 2:
        raise Damaged("has a table of nodes that cannot be")
    places = struct.unpack_from(f"<{(lower - _HEAD) // 2}H", raw, _HEAD)
    if min(places) < upper or max(places) > len(raw) - _NODE.size:
        raise Damaged("has nodes outside their room")
    return flags, places, upper


def _contiguous(places: tuple[int, ...], ends: list[int], upper: int, size: int) -> None:
    """Nodes fill the end of the page, each from an even byte to where the next begins."""
    at = upper
    for start, end in sorted(zip(places, ends, strict=True)):
        if start != at:
            raise Damaged("has nodes with gaps or overlaps")
        at = end + end % 2
    if at != size:
        raise Damaged("has nodes that do not fill its end")
