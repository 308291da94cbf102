"""Keys and row codecs of a live tree in the index. FORMAT-live.md has the byte tables.

Decoders are strict: a row that no writer of this format can have made raises Corrupt.
Integers in keys are big-endian, so that key order is number order; integers in values are little-endian.
"""

from __future__ import annotations

import stat
import struct
from typing import NamedTuple

from engine import limits
from engine.errors import Corrupt

ROOT = 1
SPAN = limits.SPAN
NOWHERE = 0xFFFF_FFFF  # "no span": the first changed span of an inode whose spans are listed singly

F_INLINE = 1  # the tail holds the encoded extents of span 0
F_XATTRS = 2  # there are rows in XATTRS
F_LINKS = 4  # there are rows in PARENTS (hard links beyond the first)
_FLAGS = F_INLINE | F_XATTRS | F_LINKS

_U64 = struct.Struct("<Q")
_INODE = struct.Struct("<BBHIIIIQQqqqqQQQ")
_META = struct.Struct("<QQQQ16s")
_CUT = struct.Struct("<QQ")
_CHANGED = struct.Struct("<QI")
_DIRENT = struct.Struct("<QB")

_MOUNT = struct.Struct(">I")
_K_INODE = struct.Struct(">IQ")
_K_TWO = struct.Struct(">IQQ")
_K_SPAN = struct.Struct(">IQI")
_K_LINK = struct.Struct(">IQQQ")

inode_key = _K_INODE.pack  # (mount, ino)
dirent_key = _K_TWO.pack  # (mount, parent ino, cookie)
span_key = _K_SPAN.pack  # (mount, ino, span number)
link_key = _K_LINK.pack  # (mount, ino, parent ino, cookie)


def meta_key(mount: int) -> bytes:
    """LIVE_META: the tree's counters."""
    return _MOUNT.pack(mount)


def cut_key(mount: int) -> bytes:
    """LIVE_META: where snapshots have cut the history."""
    return _MOUNT.pack(mount) + b"c"


def xattr_key(mount: int, ino: int, name: bytes, part: int) -> bytes:
    """XATTRS: a name holds no NUL, so the byte after it ends it."""
    return _K_INODE.pack(mount, ino) + name + b"\0" + bytes((part,))


def name_key(mount: int, parent: int, name: bytes) -> bytes:
    """CHANGED_NAMES."""
    return _K_INODE.pack(mount, parent) + name


def split_inode_key(key: bytes) -> int:
    """The inode number of an INODES, CHANGED, ORPHANS or ROOTS key."""
    return int(_K_INODE.unpack(key)[1])


def split_dirent_key(key: bytes) -> int:
    """The cookie of a DIRENTS key."""
    return int(_K_TWO.unpack(key)[2])


def split_span_key(key: bytes) -> int:
    """The span number of a SPANS or CHANGED_SPANS key."""
    return int(_K_SPAN.unpack(key)[2])


def split_link_key(key: bytes) -> tuple[int, int]:
    """(parent ino, cookie) of a PARENTS key."""
    _, _, parent, cookie = _K_LINK.unpack(key)
    return parent, cookie


class InodeRow(NamedTuple):
    """An inode as committed.

    ``size``: bytes of a file or symlink target, number of entries of a directory.  ``alloc``: bytes that are not
    hole.  ``parent``, ``cookie``: the first link's place (a directory's only one); others are PARENTS rows.
    ``born``: sequence of the commit that first wrote the inode.  ``tail``: encoded extents of span 0 (F_INLINE),
    symlink target, or device number.
    """

    flags: int
    hint: int
    mode: int
    nlink: int
    uid: int
    gid: int
    size: int
    alloc: int
    mtime: int
    ctime: int
    atime: int
    btime: int
    parent: int
    cookie: int
    born: int
    tail: bytes = b""

    @property
    def rdev(self) -> int:
        """Device number of a device file, else 0."""
        kind = stat.S_IFMT(self.mode)
        return int(_U64.unpack(self.tail)[0]) if kind in (stat.S_IFCHR, stat.S_IFBLK) else 0


def encode_inode(
    flags: int,
    hint: int,
    mode: int,
    nlink: int,
    uid: int,
    gid: int,
    size: int,
    alloc: int,
    mtime: int,
    ctime: int,
    atime: int,
    btime: int,
    parent: int,
    cookie: int,
    born: int,
    tail: bytes,
) -> bytes:
    """An INODES value; arguments as the fields of InodeRow."""
    return (
        _INODE.pack(
            flags,
            hint,
            0,
            mode,
            nlink,
            uid,
            gid,
            size,
            alloc,
            mtime,
            ctime,
            atime,
            btime,
            parent,
            cookie,
            born,
        )
        + tail
    )


def rdev_tail(rdev: int) -> bytes:
    """The tail of a device file's row."""
    return _U64.pack(rdev)


_KINDS = frozenset(
    (
        stat.S_IFREG,
        stat.S_IFDIR,
        stat.S_IFLNK,
        stat.S_IFIFO,
        stat.S_IFSOCK,
        stat.S_IFCHR,
        stat.S_IFBLK,
    )
)


def decode_inode(raw: bytes) -> InodeRow:
    """Raises Corrupt."""
    if len(raw) < _INODE.size:
        raise Corrupt("inode row", expected=f"{_INODE.size} bytes or more", found=f"{len(raw)}")
    flags, hint, zero, *rest = _INODE.unpack_from(raw)
    row = InodeRow._make((flags, hint, *rest, raw[_INODE.size :]))
    kind = stat.S_IFMT(row.mode)
    tail = len(row.tail)
    if kind == stat.S_IFREG:
        sound = tail <= limits.INLINE_CONTENT_MAX and (tail > 0) == bool(flags & F_INLINE)
        sound = sound and row.size <= limits.FILE_MAX
    elif kind == stat.S_IFLNK:
        sound = 0 < tail <= limits.SYMLINK_MAX and tail == row.size
    elif kind in (stat.S_IFCHR, stat.S_IFBLK):
        sound = tail == _U64.size
    else:
        sound = tail == 0
    if zero or flags & ~_FLAGS or kind not in _KINDS or row.mode >> 16 or not sound:
        raise Corrupt("inode row", expected="fields that fit each other", found=raw[:24].hex())
    return row


class Meta(NamedTuple):
    """Counters of a live tree. ``secret`` keys the hash that turns names into cookies.

    ``used_bytes`` and ``used_inodes`` count every inode that is not in ORPHANS.
    """

    next_ino: int
    seq: int
    used_bytes: int
    used_inodes: int
    secret: bytes

    def encode(self) -> bytes:
        return _META.pack(*self)


def decode_meta(raw: bytes) -> Meta:
    """Raises Corrupt."""
    if len(raw) != _META.size:
        raise Corrupt("live tree counters", expected=f"{_META.size} bytes", found=f"{len(raw)}")
    return Meta(*_META.unpack(raw))


class Cut(NamedTuple):
    """``begun``: sequence of the last cut a snapshot began with; ``done``: of the last that was finished."""

    begun: int
    done: int

    def encode(self) -> bytes:
        return _CUT.pack(*self)


def decode_cut(raw: bytes | None) -> Cut:
    """No row means no snapshot yet. Raises Corrupt."""
    if raw is None:
        return Cut(0, 0)
    if len(raw) != _CUT.size:
        raise Corrupt("live tree cut", expected=f"{_CUT.size} bytes", found=f"{len(raw)}")
    cut = Cut(*_CUT.unpack(raw))
    if cut.done > cut.begun:
        raise Corrupt("live tree cut", expected="a cut begun before it was done", found=str(cut))
    return cut


class Changed(NamedTuple):
    """An inode changed in commit ``seq``; its spans from ``first`` on must all be looked at."""

    seq: int
    first: int

    def encode(self) -> bytes:
        return _CHANGED.pack(*self)


def decode_changed(raw: bytes) -> Changed:
    """Raises Corrupt."""
    if len(raw) != _CHANGED.size:
        raise Corrupt("changed-inode row", expected=f"{_CHANGED.size} bytes", found=f"{len(raw)}")
    return Changed(*_CHANGED.unpack(raw))


def encode_seq(seq: int) -> bytes:
    """Value of CHANGED_NAMES and CHANGED_SPANS."""
    return _U64.pack(seq)


def decode_seq(raw: bytes) -> int:
    """Raises Corrupt."""
    if len(raw) != _U64.size:
        raise Corrupt("change mark", expected=f"{_U64.size} bytes", found=f"{len(raw)}")
    return int(_U64.unpack(raw)[0])


class DirentRow(NamedTuple):
    """A directory entry as committed. ``kind``: file type as in ``mode >> 12``."""

    ino: int
    kind: int
    name: bytes


def encode_dirent(ino: int, kind: int, name: bytes) -> bytes:
    """A DIRENTS value; arguments as the fields of DirentRow."""
    return _DIRENT.pack(ino, kind) + name


def decode_dirent(raw: bytes) -> DirentRow:
    """Raises Corrupt."""
    row = None
    if len(raw) > _DIRENT.size:
        ino, kind = _DIRENT.unpack_from(raw)
        row = DirentRow(ino, kind, raw[_DIRENT.size :])
    if row is None or len(row.name) > limits.NAME_MAX or b"/" in row.name or b"\0" in row.name:
        raise Corrupt("directory entry row", expected="a number and a name", found=raw[:24].hex())
    return row
