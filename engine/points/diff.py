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


def diff(reader: ChunkReader, old: Entry, new: Entry) -> Iterator[Change]:
    """Changes from one directory entry to another, in name order, parents before children."""
    inside = [(b"", dirdiff.diff(reader, old.root, new.root))]  # deeper than a program's stack
    while inside:
        path, differences = inside[-1]
        found = next(differences, None)
        if found is None:
            inside.pop()
            continue
        name, before, after = found
        here = path + b"/" + name if path else name
        if before and after and stat.S_IFMT(before.mode) == stat.S_IFMT(after.mode):
            detail = _detail(before, after)
            if detail:
                yield Change("changed", here, detail)
            if stat.S_ISDIR(after.mode) and before.root != after.root:
                inside.append((here, dirdiff.diff(reader, before.root, after.root)))
            continue
        if before:
            yield from _whole(reader, "removed", here, before)
        if after:
            yield from _whole(reader, "added", here, after)


def _whole(reader: ChunkReader, kind: str, path: bytes, entry: Entry) -> Iterator[Change]:
    yield Change(kind, path, _kind(entry))
    inside = [(path, _members(reader, entry))]
    while inside:
        above, members = inside[-1]
        child = next(members, None)
        if child is None:
            inside.pop()
            continue
        here = above + b"/" + child.name
        yield Change(kind, here, _kind(child))
        inside.append((here, _members(reader, child)))


def _members(reader: ChunkReader, entry: Entry) -> Iterator[Entry]:
    if stat.S_ISDIR(entry.mode) and entry.root:
        yield from dirs.scan(reader, entry.root)


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
