"""Browsing: directories, files, manifests and differences of recovery points, a page or a piece at a time."""

from __future__ import annotations

import stat
import threading
from collections.abc import Iterator
from functools import cached_property
from itertools import chain, islice

from daemon.contract import Change, EntryInfo, ManifestFile, Page
from daemon.service import cursors, restoring, tar, walking
from daemon.service.core import bounded
from daemon.service.points import Points
from engine import PointView
from engine.errors import InvalidRequest
from engine.nodes import Entry
from engine.points.diff import Change as Difference

_Key = tuple[str, str, int]
BEGUN_MAX = 8  # comparisons that are kept where a page ended
PIECE = 1 << 20  # bytes of a file in one piece of an answer
PIN_FROM = (
    16 << 20
)  # bytes from which a download keeps its point from being deleted: that costs a transaction


class Begun:
    """Comparisons where a page ended: the next page goes on there; another begins anew. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: dict[_Key, Iterator[Difference]] = {}

    def take(self, key: _Key) -> Iterator[Difference] | None:
        """The comparison that is at this place; it is the caller's now."""
        with self._lock:
            return self._kept.pop(key, None)

    def keep(self, key: _Key, changes: Iterator[Difference]) -> None:
        """Until somebody goes on with it, or there are others."""
        with self._lock:
            self._kept[key] = changes
            while len(self._kept) > BEGUN_MAX:
                del self._kept[next(iter(self._kept))]


class Browse(Points):
    """The part of ``Backend`` that looks into points."""

    @cached_property
    def _begun(self) -> Begun:
        return Begun()

    def entries(
        self, reference: str, path: str = "", *, cursor: str = "", limit: int = 1000
    ) -> Page[EntryInfo]:
        """What is in a directory of a point, by name. Raises NotFound, InvalidRequest when it is none."""
        after, _ = cursors.decode_path("entries", cursor)
        view = self.store.glance(reference)
        folder = walking.found(view, path)
        if not stat.S_ISDIR(folder.mode):
            raise InvalidRequest(f"path {path!r}", expected="a directory", found="another thing")
        page = list(islice(view.scan(folder, after=after), bounded(limit) + 1))
        items = [walking.entry_info(entry) for entry in page[:limit]]
        if len(page) <= limit:
            return Page(items)
        return Page(items, cursors.encode_path("entries", page[limit - 1].name, 0))

    def file(
        self, reference: str, path: str, *, offset: int = 0, length: int = -1
    ) -> tuple[EntryInfo, Iterator[bytes]]:
        """A regular file, and its bytes from ``offset`` on, ``length`` of them (-1: to the end).

        Raises NotFound, InvalidRequest for what is no file or begins behind its end; the pieces raise Corrupt.
        """
        view = self.store.glance(reference)
        entry = walking.found(view, path)
        if not stat.S_ISREG(entry.mode):
            raise InvalidRequest(f"path {path!r}", expected="a regular file", found="another thing")
        if not 0 <= offset <= entry.size or length < -1:
            raise InvalidRequest(
                f"range of {path!r}", expected=f"one inside 0 to {entry.size}", found=f"{offset}, {length}"
            )  # fmt: skip
        end = entry.size if length < 0 else min(entry.size, offset + length)
        info = walking.entry_info(entry)
        if end - offset < PIN_FROM:
            return info, _pieces(view, entry, offset, end)
        return info, self._pinned_pieces(self.store.point(reference).id, entry, offset, end)

    def _pinned_pieces(self, point: str, entry: Entry, offset: int, end: int) -> Iterator[bytes]:
        with self.pinned(point) as view:
            yield from _pieces(view, entry, offset, end)

    def tar(self, reference: str, path: str = "") -> Iterator[bytes]:
        """A directory or a file of a point as a tar stream (PAX). Raises NotFound at once, Corrupt on the way."""
        walking.found(self.store.glance(reference), path)
        return self._tar(self.store.point(reference).id, path)

    def _tar(self, point: str, path: str) -> Iterator[bytes]:
        with self.pinned(point) as view:
            yield from tar.stream(view, walking.found(view, path))

    def manifest(
        self, reference: str, *, cursor: str = "", limit: int = 1000
    ) -> Page[ManifestFile]:
        """Regular files of a point with their sizes and content ids, in the order of paths."""
        after, place = cursors.decode_path("manifest", cursor)
        view = self.store.glance(reference)
        files = (
            (path, entry)
            for path, entry in walking.below(view, view.root_entry, after)
            if stat.S_ISREG(entry.mode)
        )
        if place and not after:
            files = islice(files, place, None)  # type: ignore[assignment]
        page = list(islice(files, bounded(limit) + 1))
        items = [
            ManifestFile(walking.text_path(path), entry.size, view.content_id(entry).hex())
            for path, entry in page[:limit]
        ]
        if len(page) <= limit:
            return Page(items)
        return Page(items, cursors.encode_path("manifest", page[limit - 1][0], place + limit))

    def databases(self, reference: str) -> dict[str, int]:
        """The databases that the logs of a point speak of, and how many files of each they name. Raises NotFound."""
        known = self.database_files(reference)
        return {name: len(known[name]) for name in sorted(known)}

    def files_of(self, reference: str, database: str) -> list[str]:
        """The files of a point that belong to a database, as the logs say that were sent with it. Raises NotFound."""
        known = self.database_files(reference)
        return restoring.files_of(self.store.glance(reference), known, reference, database)

    def diff(self, old: str, new: str, *, cursor: str = "", limit: int = 1000) -> Page[Change]:
        """What differs between two points, in the order of paths."""
        begun = cursors.decode("diff", cursor, int)
        place = max(0, begun[0]) if begun else 0
        pair = self.store.point(old).id, self.store.point(new).id
        changes = self._begun.take((*pair, place))
        if changes is None:
            changes = islice(self.store.differences(*pair), place, None)
        page = list(islice(changes, bounded(limit)))
        items = [Change(one.kind, walking.text_path(one.path), one.detail) for one in page]  # type: ignore[arg-type]
        following = next(changes, None)
        if following is None:
            return Page(items)
        self._begun.keep((*pair, place + limit), chain([following], changes))
        return Page(items, cursors.encode("diff", place + limit))


def _pieces(view: PointView, entry: Entry, offset: int, end: int) -> Iterator[bytes]:
    while offset < end:
        size = min(PIECE, end - offset)
        yield view.read(entry, offset, size)
        offset += size
