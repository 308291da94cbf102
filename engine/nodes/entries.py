"""Codec of one directory entry: a name, its inode's attributes, and where its content is.

An entry repeats the attributes of its inode (hard links share ``ino``), so that listing and restoring a directory
reads its leaves and nothing else. All numbers are of fixed width: packing them is one call, and zstd makes them as
small as variable widths would (measured over 40,000 files of a system tree in leaves: 69 bytes an entry, of which
32 are a chunk id; times as differences would have saved 1.5).
"""

from __future__ import annotations

import stat
import struct
from operator import itemgetter
from typing import NamedTuple, NoReturn, Protocol

from engine.codec import ID_LEN
from engine.limits import (
    FILE_DEPTH_MAX,
    FILE_MAX,
    INLINE_CONTENT_MAX,
    NAME_MAX,
    SYMLINK_MAX,
    XATTR_INLINE_MAX,
    XATTR_NODES_MAX,
)
from engine.nodes.ports import corrupt, invalid

# First byte of a content root and of xattrs that are not empty.
INLINE = 0
TREE = 1

CHUNKING_MAX = 2  # 0 unknown, 1 fixed, 2 content-defined


class Entry(NamedTuple):
    """A directory entry. Times are ns since the epoch, signed 64 bit; sizes are bytes.

    ``xattrs``: made by ``xattrs.pack``, b"" for none. ``target``: of a symbolic link. ``root``: of a directory what
    ``dirs.build`` returned, of a regular file what ``files.build`` returned, of others b"". ``chunking``: how the
    content was cut, 0 unknown, 1 fixed, 2 content-defined. ``mode`` is st_mode, type included.
    """

    name: bytes
    mode: int
    uid: int = 0
    gid: int = 0
    nlink: int = 1
    generation: int = 1
    rdev: int = 0
    ino: int = 0
    size: int = 0
    allocated: int = 0
    mtime_ns: int = 0
    ctime_ns: int = 0
    atime_ns: int = 0
    btime_ns: int = 0
    chunking: int = 0
    xattrs: bytes = b""
    target: bytes = b""
    root: bytes = b""


# Lengths of name and xattrs, chunking; then the fields of an Entry from mode to btime_ns, in its order.
_FIXED = struct.Struct("<BBBHIIIIIQQQqqqq")
_FIXED_LEN = _FIXED.size
_numbers = itemgetter(slice(1, 14))
_pack = _FIXED.pack
_unpack = _FIXED.unpack_from
_make = Entry._make

NAME_AT = _FIXED_LEN  # offset of the name in a record; its length is the record's first byte
RECORD_MIN = _FIXED_LEN
RECORD_MAX = _FIXED_LEN + NAME_MAX + 1 + XATTR_INLINE_MAX + SYMLINK_MAX

_TYPES = frozenset(
    (
        stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO,
        stat.S_IFSOCK,
    )
)  # fmt: skip
_DOTS = (b".", b"..")
_TREE_LEN = 2 + ID_LEN


class Refuse(Protocol):
    """``corrupt`` or ``invalid``: who gave the bytes decides which error they are."""

    def __call__(self, what: str, expected: str, found: object) -> NoReturn: ...


def encode_entry(entry: Entry) -> bytes:
    """The record of an entry. Raises InvalidRequest."""
    name = entry[0]
    if not 0 < len(name) <= NAME_MAX or b"/" in name or b"\0" in name or name in _DOTS:
        invalid("name of a directory entry", f"1 to {NAME_MAX} bytes, no / or NUL", name)
    return _encode(entry)


def encode_root_entry(entry: Entry) -> bytes:
    """The record of the root of a tree: a directory's attributes with an empty name."""
    if entry.name or not stat.S_ISDIR(entry.mode):
        invalid("root of a tree", "a directory without a name", (entry.name, oct(entry.mode)))
    return _encode(entry)


def decode_entry(record: bytes) -> Entry:
    """The entry of a record. Raises Corrupt."""
    entry = _decode(record)
    name = entry[0]
    if not name or b"/" in name or b"\0" in name or name in _DOTS:
        corrupt("name of a directory entry", f"1 to {NAME_MAX} bytes, no / or NUL", name)
    return entry


def decode_root_entry(record: bytes) -> Entry:
    """The root entry of a record of ``encode_root_entry``. Raises Corrupt."""
    entry = _decode(record)
    if entry.name or not stat.S_ISDIR(entry.mode):
        corrupt("root of a tree", "a directory without a name", (entry.name, oct(entry.mode)))
    return entry


def record_parts(record: bytes) -> tuple[int, bytes, bytes]:
    """(mode, xattrs, root or target) of a record, checked as far as they go: enough to find what it refers to."""
    if not RECORD_MIN <= len(record) <= RECORD_MAX:
        corrupt("directory entry", f"{RECORD_MIN} to {RECORD_MAX} bytes", len(record))
    mode = record[3] | record[4] << 8
    at = _FIXED_LEN + record[0]
    end = at + record[1]
    if end > len(record):
        corrupt("directory entry", f"{end} bytes or more", len(record))
    xattrs = record[at:end]
    rest = record[end:]
    target, root = (rest, b"") if mode & 0o170000 == stat.S_IFLNK else (b"", rest)
    _check(corrupt, mode, 0, 0, 0, xattrs, target, root)
    return mode, xattrs, rest


def _encode(entry: Entry) -> bytes:
    name, xattrs, target, root = entry.name, entry.xattrs, entry.target, entry.root
    _check(invalid, entry.mode, entry.rdev, entry.size, entry.chunking, xattrs, target, root)
    try:
        fixed = _pack(len(name), len(xattrs), entry.chunking, *_numbers(entry))
    except struct.error as error:
        invalid("directory entry", "numbers within their width", error)
    return b"".join((fixed, name, xattrs, target, root))


def _decode(record: bytes) -> Entry:
    size = len(record)
    if not RECORD_MIN <= size <= RECORD_MAX:
        corrupt("directory entry", f"{RECORD_MIN} to {RECORD_MAX} bytes", size)
    name_len, xattrs_len, chunking, *fields = _unpack(record)
    at = _FIXED_LEN + name_len
    end = at + xattrs_len
    if end > size:
        corrupt("directory entry", f"{end} bytes or more", size)
    mode = fields[0]
    xattrs = record[at:end]
    target, root = record[end:], b""
    if mode & 0o170000 != stat.S_IFLNK:
        target, root = root, target
    _check(corrupt, mode, fields[5], fields[7], chunking, xattrs, target, root)
    return _make((record[_FIXED_LEN:at], *fields, chunking, xattrs, target, root))


def _check(
    refuse: Refuse, mode: int, rdev: int, size: int, chunking: int,
    xattrs: bytes, target: bytes, root: bytes,
) -> None:  # fmt: skip
    """The rules of an entry, the same for both directions."""
    kind = mode & 0o170000
    if kind == stat.S_IFREG:
        if root:
            _check_content(refuse, root)
        if target or rdev or not 0 <= size <= FILE_MAX:
            refuse("regular file", "no target or device, a bounded size", (target, rdev, size))
    elif kind == stat.S_IFDIR:
        if len(root) not in (0, ID_LEN) or target or rdev:
            refuse("directory", "a root of 0 or 32 bytes alone", (len(root), target, rdev))
    elif kind == stat.S_IFLNK:
        if not 0 < len(target) <= SYMLINK_MAX or b"\0" in target or root or rdev:
            refuse("symbolic link", f"a target of 1 to {SYMLINK_MAX} bytes alone", len(target))
    elif kind not in _TYPES or target or root:
        refuse("special file", "a known type without content", (oct(mode), target, root))
    elif rdev and kind not in (stat.S_IFCHR, stat.S_IFBLK):
        refuse("special file", "a device number for devices only", rdev)
    if not 0 <= chunking <= CHUNKING_MAX:
        refuse("chunking", f"at most {CHUNKING_MAX}", chunking)
    if xattrs:
        _check_xattrs(refuse, xattrs)


def _check_content(refuse: Refuse, root: bytes) -> None:
    form = root[0]
    if form == TREE:
        if len(root) != _TREE_LEN or root[1] > FILE_DEPTH_MAX:
            refuse("content root", f"a depth to {FILE_DEPTH_MAX} and an id", root[:2].hex())
    elif form != INLINE or not 3 < len(root) <= 1 + INLINE_CONTENT_MAX:
        refuse("content root", f"inline extents to {INLINE_CONTENT_MAX} bytes", root[:2].hex())


def _check_xattrs(refuse: Refuse, xattrs: bytes) -> None:
    size = len(xattrs)
    if xattrs[0] == TREE:
        if size % ID_LEN != 1 or not 1 <= size // ID_LEN <= XATTR_NODES_MAX:
            refuse("xattrs", f"1 to {XATTR_NODES_MAX} ids", f"{size - 1} bytes")
    elif xattrs[0] != INLINE or not 1 < size <= 1 + XATTR_INLINE_MAX:
        refuse("xattrs", f"1 to {XATTR_INLINE_MAX} bytes inline or ids", f"{size} bytes")
