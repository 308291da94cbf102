"""What damaged chunks cost a point: names, extended attributes and ranges of bytes that cannot be read."""

from __future__ import annotations

import stat
from collections.abc import Collection, Iterator

from engine import limits
from engine.chunks import ChunkReader
from engine.errors import UNREADABLE, Away, Corrupt
from engine.nodes import Entry, dirs, files, xattrs


class _Reader:
    """Nodes but for the damaged ones, which a cache may still have whole."""

    def __init__(self, reader: ChunkReader, damaged: Collection[bytes]) -> None:
        self._reader = reader
        self._damaged = damaged

    def read_node(self, cid: bytes) -> bytes:
        if cid in self._damaged:
            raise Corrupt(f"chunk {cid.hex()}", found="damage")
        return self._reader.read_node(cid)


def affected(
    reader: ChunkReader, top: Entry, damaged: Collection[bytes]
) -> Iterator[tuple[bytes, str]]:
    """(path, what of it cannot be read) of a point's tree; a directory's path is told for names in it.

    ``damaged``: ids of all chunks that cannot be had, those with a damaged base included.
    """
    nodes = _Reader(reader, damaged)
    todo = [(b"", top)]
    while todo:
        path, folder = todo.pop()
        lost: list[str] = []
        yield from _attributes(nodes, path, folder)
        for entry in _members(nodes, folder, lost):
            here = path + b"/" + entry.name if path else entry.name
            if stat.S_ISDIR(entry.mode):
                todo.append((here, entry))
                continue
            yield from _attributes(nodes, here, entry)
            if stat.S_ISREG(entry.mode):
                for start, end in _ranges(nodes, entry, damaged):
                    yield here, f"bytes {start} to {end} cannot be read"
        for text in lost:
            yield path or b".", text


def _attributes(nodes: _Reader, path: bytes, entry: Entry) -> Iterator[tuple[bytes, str]]:
    try:
        xattrs.load(nodes, entry.xattrs)
    except Away:
        return
    except UNREADABLE:
        yield path or b".", "extended attributes cannot be read"


def _members(nodes: _Reader, folder: Entry, lost: list[str]) -> Iterator[Entry]:
    def note(after: bytes, upto: bytes, error: Exception) -> None:
        if isinstance(error, Away):
            return  # told once, of the location
        names = f"names behind {after!r}" + (f" up to {upto!r}" if upto else "")
        lost.append(f"{names} cannot be read")

    return dirs.scan(nodes, folder.root, b"", note)


def _ranges(nodes: _Reader, entry: Entry, damaged: Collection[bytes]) -> Iterator[tuple[int, int]]:
    """Ranges of a file that cannot be read, in order; those that touch are one."""
    pieces: list[tuple[int, int]] = []

    def lost(first: int, end: int, error: Exception) -> None:
        if not isinstance(error, Away):
            pieces.append((first * limits.SPAN, min(end * limits.SPAN, entry.size)))

    for number, extents in files.spans(nodes, entry.root, 0, lost):
        at = number * limits.SPAN
        pieces += [
            (at + offset, at + offset + length)
            for offset, length, cid, _ in extents
            if cid in damaged
        ]
    last: tuple[int, int] | None = None
    for start, end in sorted(pieces):
        if start >= end:
            continue
        if last is not None and start <= last[1]:
            last = (last[0], max(last[1], end))
            continue
        if last is not None:
            yield last
        last = (start, end)
    if last is not None:
        yield last
