"""A read-only view of a point's tree: look-ups by name, directory scans, verified reads. Thread-safe.

Everything is immutable, so a view needs no lock and no transaction; nodes and chunks come from the reader's caches.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator

from engine import limits
from engine.chunks import ChunkReader, Part
from engine.errors import NotFound, PosixError
from engine.nodes import Entry, Extent, dirs, files, xattrs
from engine.nodes.filenodes import Node, decode_root


class PointView:
    """The tree below ``root_entry`` (the root directory's attributes; its name is empty)."""

    def __init__(self, reader: ChunkReader, root_entry: Entry) -> None:
        self.reader = reader
        self.root_entry = root_entry

    def get(self, directory: Entry, name: bytes) -> Entry | None:
        """The entry of that name in a directory, or None."""
        if not directory.root:
            return None
        return dirs.get(self.reader, directory.root, name)

    def scan(
        self, directory: Entry, after: bytes = b"", lost: dirs.Lost | None = None
    ) -> Iterator[Entry]:
        """Entries of a directory in name order, those after ``after``; see ``dirs.scan``."""
        if directory.root:
            yield from dirs.scan(self.reader, directory.root, after, lost)

    def find(self, path: bytes) -> Entry:
        """The entry at a path below the root; symbolic links are not followed. Raises NotFound."""
        entry = self.lookup(path)
        if entry is None:
            raise NotFound(
                f"path {path!r} in the point", expected="a file or directory", found="nothing"
            )
        return entry

    def lookup(self, path: bytes) -> Entry | None:
        """Like ``find``; None when there is nothing."""
        entry: Entry | None = self.root_entry
        for name in path.split(b"/"):
            if name in (b"", b"."):
                continue
            if entry is None or not stat.S_ISDIR(entry.mode):
                return None
            entry = self.get(entry, name)
        return entry

    def spans(
        self, entry: Entry, lost: files.Lost | None = None
    ) -> Iterator[tuple[int, list[Extent]]]:
        """(span number, extents) of a file's spans that are not all hole, in order; see ``files.spans``."""
        return files.spans(self.reader, entry.root, 0, lost)

    def span(self, entry: Entry, number: int) -> list[Extent]:
        """Extents of one span; empty for a hole."""
        return list(files.span(self.reader, entry.root, number))

    def read(self, entry: Entry, offset: int, size: int) -> bytes:
        """Bytes of a regular file; fewer only at its end. Raises Corrupt naming the chunk."""
        if not stat.S_ISREG(entry.mode):
            raise PosixError(21 if stat.S_ISDIR(entry.mode) else 22)
        end = min(offset + size, entry.size)
        pieces: list[Part | int] = []
        at = offset
        while at < end:
            number, inside = divmod(at, limits.SPAN)
            stop = min(end - number * limits.SPAN, limits.SPAN)
            pieces.extend(_span_pieces(self.span(entry, number), inside, stop))
            at = number * limits.SPAN + stop
        read = iter(self.reader.read_parts([p for p in pieces if not isinstance(p, int)]))
        return b"".join([bytes(p) if isinstance(p, int) else next(read) for p in pieces])

    def content_id(self, entry: Entry) -> bytes:
        """The id (32 bytes) of a regular file's content: of its top node, or of its extents where it has none.

        Files of the same size and id have the same content.
        """
        top = decode_root(entry.root)
        return top.cid if isinstance(top, Node) else self.reader.name_of(top)

    def xattrs(self, entry: Entry) -> dict[bytes, bytes]:
        """Extended attributes by full name."""
        return xattrs.load(self.reader, entry.xattrs)


def _span_pieces(extents: list[Extent], start: int, end: int) -> Iterator[Part | int]:
    """What start..end of a span is made of: parts of chunks, and numbers of zeros."""
    at = start
    for offset, length, cid, inner in extents:
        stop = offset + length
        if stop <= at:
            continue
        if offset >= end:
            break
        if offset > at:
            yield offset - at
            at = offset
        upto = min(stop, end)
        yield cid, inner + at - offset, upto - at
        at = upto
    if at < end:
        yield end - at
