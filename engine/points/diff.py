"""What differs between two points: equal subtrees are skipped by their ids, so the cost follows the change."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from typing import NamedTuple

from engine.chunks import ChunkReader
from engine.nodes import Entry, dirdiff, dirs


class Change(NamedTuple):
    """``kind``: "added", "removed" or "changed"; ``path`` relative to the root; ``detail``: what changed."""

    kind: str
    path: bytes
    detail: str


def diff(reader: ChunkReader, old: Entry, new: Entry, path: bytes = b"") -> Iterator[Change]:
    """Changes from one directory entry to another, in name order, parents before children."""
    for name, before, after in dirdiff.diff(reader, old.root, new.root):
        here = path + b"/" + name if path else name
        if before is None:
            assert after is not None
            yield from _whole(reader, "added", here, after)
        elif after is None:
            yield from _whole(reader, "removed", here, before)
        elif stat.S_IFMT(before.mode) != stat.S_IFMT(after.mode):
            yield from _whole(reader, "removed", here, before)
            yield from _whole(reader, "added", here, after)
        else:
            detail = _detail(before, after)
            if detail:
                yield Change("changed", here, detail)
            if stat.S_ISDIR(after.mode) and before.root != after.root:
                yield from diff(reader, before, after, here)


def _whole(reader: ChunkReader, kind: str, path: bytes, entry: Entry) -> Iterator[Change]:
    yield Change(kind, path, _kind(entry))
    if stat.S_ISDIR(entry.mode) and entry.root:
        for child in dirs.scan(reader, entry.root):
            yield from _whole(reader, kind, path + b"/" + child.name, child)


_KINDS = {
    stat.S_IFREG: "file", stat.S_IFDIR: "directory", stat.S_IFLNK: "symlink", stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket", stat.S_IFCHR: "character device", stat.S_IFBLK: "block device",
}  # fmt: skip


def _kind(entry: Entry) -> str:
    return _KINDS[stat.S_IFMT(entry.mode)]


def _detail(old: Entry, new: Entry) -> str:
    found = []
    if stat.S_ISREG(new.mode) and old.root != new.root:
        found.append("content")
    if stat.S_ISREG(new.mode) and old.size != new.size:
        found.append(f"size {old.size} to {new.size}")
    if old.mode != new.mode:
        found.append(f"mode {old.mode & 0o7777:o} to {new.mode & 0o7777:o}")
    if (old.uid, old.gid) != (new.uid, new.gid):
        found.append(f"owner {old.uid}:{old.gid} to {new.uid}:{new.gid}")
    names = ("target", "rdev", "xattrs", "nlink", "ino")
    found.extend(name for name in names if getattr(old, name) != getattr(new, name))
    if old.mtime_ns != new.mtime_ns:
        found.append("mtime")
    return ", ".join(found)
