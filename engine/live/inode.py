"""Inodes in memory, and the attributes shown to callers.

An ``Inode`` is guarded by the tree's lock.  It mirrors its row (rows.InodeRow) and adds what only a running tree
knows: open counts, dirty state, the directory or content object that belongs to it.
"""

from __future__ import annotations

import stat
from typing import NamedTuple

from engine.errors import HoldfastError
from engine.live import rows
from engine.live.entries import Names
from engine.live.rows import F_INLINE, F_LINKS, F_XATTRS, InodeRow
from engine.live.spans import Content

GENERATION = 1  # inode numbers are never given twice, so one generation is enough for ever
BLKSIZE = 64 * 1024  # st_blksize: one slot


class Ctx(NamedTuple):
    """Who asks."""

    uid: int
    gid: int
    pid: int = 0
    umask: int = 0


class Attr:
    """Attributes of an inode at one moment. ``blocks``: of 512 bytes; times: ns since the epoch."""

    __slots__ = (
        "atime_ns",
        "blksize",
        "blocks",
        "btime_ns",
        "ctime_ns",
        "generation",
        "gid",
        "ino",
        "mode",
        "mtime_ns",
        "nlink",
        "rdev",
        "size",
        "uid",
    )

    def __init__(self, inode: Inode) -> None:
        content = inode.content
        alloc = inode.alloc if content is None else inode.alloc + content.unsealed_new
        self.ino = inode.ino
        self.generation = GENERATION
        self.mode = inode.mode
        self.nlink = inode.nlink
        self.uid = inode.uid
        self.gid = inode.gid
        self.rdev = inode.rdev
        self.size = inode.size
        self.blocks = (alloc + 511) >> 9
        self.blksize = BLKSIZE
        self.atime_ns = inode.atime
        self.mtime_ns = inode.mtime
        self.ctime_ns = inode.ctime
        self.btime_ns = inode.btime

    def __repr__(self) -> str:
        return f"<Attr ino={self.ino} mode={self.mode:o} nlink={self.nlink} size={self.size}>"


class Inode:
    """One inode. ``name`` may be None when only the number is known; ``links``: places beyond the first, or None
    when they have not been read; ``links_changed``: (parent, cookie) -> there or not, since the last commit.

    ``floor``: the committed size, lowered by truncation since; ``inline``: committed extents of span 0 if they are
    in the row; ``born``: 0 until first committed; ``flight``: part of a commit that is being written.
    """

    __slots__ = (
        "alloc",
        "atime",
        "born",
        "btime",
        "content",
        "cookie",
        "ctime",
        "dirty",
        "error",
        "flight",
        "floor",
        "forgotten",
        "gid",
        "hint",
        "inline",
        "ino",
        "links",
        "links_changed",
        "mode",
        "mtime",
        "name",
        "names",
        "nlink",
        "opens",
        "orphan_row",
        "parent",
        "rdev",
        "size",
        "target",
        "uid",
        "writers",
        "xattrs",
        "xattrs_changed",
    )

    def __init__(
        self, ino: int, mode: int, uid: int, gid: int, now: int, parent: int, cookie: int
    ) -> None:
        self.ino = ino
        self.mode = mode
        self.nlink = 1
        self.uid = uid
        self.gid = gid
        self.rdev = 0
        self.size = 0
        self.alloc = 0
        self.mtime = self.ctime = self.atime = self.btime = now
        self.parent = parent
        self.cookie = cookie
        self.name: bytes | None = None
        self.born = 0
        self.hint = 0
        self.target = b""
        self.inline: bytes | None = None
        self.floor = 0
        self.links: set[tuple[int, int]] | None = set()
        self.links_changed: dict[tuple[int, int], bool] | None = None
        self.xattrs: dict[bytes, bytes] | None = {}
        self.xattrs_changed: set[bytes] | None = None
        self.opens = 0
        self.writers = 0
        self.forgotten = False
        self.dirty = False
        self.flight = False
        self.orphan_row = False
        self.error: HoldfastError | None = None
        self.content: Content | None = None
        self.names: Names | None = None

    @property
    def is_dir(self) -> bool:
        return self.mode & 0o170000 == 0o040000

    @property
    def is_file(self) -> bool:
        return self.mode & 0o170000 == 0o100000

    @property
    def pinned(self) -> bool:
        """True while memory knows more than the index, or a caller counts on the object."""
        return (
            self.dirty
            or self.flight
            or self.opens > 0
            or self.nlink == 0
            or self.error is not None
            or (self.content is not None and bool(self.content.spans))
            or (self.names is not None and self.names.unsaved)
        )

    def encode(self, seq: int, size: int, alloc: int, inline: bytes | None) -> bytes:
        """The row to commit; ``size`` and ``alloc`` may lag behind the live ones (FORMAT-live.md, L4)."""
        flags = 0
        tail = b""
        if self.target:
            tail = self.target
        elif self.rdev or stat.S_ISCHR(self.mode) or stat.S_ISBLK(self.mode):
            tail = rows.rdev_tail(self.rdev)
        elif inline is not None:
            tail = inline
            flags = F_INLINE
        if self.xattrs is None or self.xattrs:
            flags |= F_XATTRS
        if self.links is None or self.links:
            flags |= F_LINKS
        return rows.encode_inode(
            flags, self.hint, self.mode, self.nlink, self.uid, self.gid, size, alloc, self.mtime, self.ctime,
            self.atime, self.btime, self.parent, self.cookie, self.born or seq, tail,
        )  # fmt: skip


def from_row(ino: int, row: InodeRow) -> Inode:
    """The clean inode that a row describes."""
    inode = Inode(ino, row.mode, row.uid, row.gid, row.mtime, row.parent, row.cookie)
    inode.nlink = row.nlink
    inode.size = inode.floor = row.size
    inode.alloc = row.alloc
    inode.ctime = row.ctime
    inode.atime = row.atime
    inode.btime = row.btime
    inode.hint = row.hint
    inode.born = row.born
    kind = stat.S_IFMT(row.mode)
    if kind == stat.S_IFLNK:
        inode.target = row.tail
    elif kind == stat.S_IFREG:
        inode.inline = row.tail if row.flags & F_INLINE else None
    else:
        inode.rdev = row.rdev
    if row.flags & F_XATTRS:
        inode.xattrs = None
    if row.flags & F_LINKS:
        inode.links = None
    return inode
