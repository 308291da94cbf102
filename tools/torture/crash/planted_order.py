"""Planted bugs: something is acknowledged, or referred to, before it is on the disk."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any

from engine.chunks.segments import Segments
from engine.index import env
from engine.live.content import Contents
from engine.live.tree import LiveTree
from engine.maintain.copies import Copies
from engine.packs import segment
from engine.packs.files import PackFiles
from engine.packs.records import Entry, PackHeader
from engine.packs.segment import SegmentWriter
from engine.seam import Os
from tools.torture.bugs import bug


def _nothing(*_: object, **__: object) -> None:
    return None


@bug("data-sync-skipped")
def _data_sync() -> None:
    """Segments are not synced before the commit that refers to them."""
    Os.fdatasync = _nothing  # type: ignore[method-assign]


@bug("file-sync-skipped")
def _file_sync() -> None:
    """New segments and sealed packs are not synced."""
    Os.fsync = _nothing  # type: ignore[method-assign]


@bug("directory-sync-skipped")
def _directory_sync() -> None:
    """Names of new and renamed files are not synced."""
    Os.fsync_dir = _nothing  # type: ignore[method-assign]


@bug("new-folder-sync-skipped")
def _folder_sync() -> None:
    """A pack is renamed into a new directory whose own name is not synced."""
    real = Os.fsync_dir

    def fsync_dir(self: Os, path: str) -> None:
        if not path.endswith("/packs"):
            real(self, path)

    Os.fsync_dir = fsync_dir  # type: ignore[method-assign]


def _open_with(**options: Any) -> None:
    module: Any = env
    real: Callable[..., Any] = module.lmdb.open

    def opened(*arguments: Any, **given: Any) -> Any:
        return real(*arguments, **{**given, **options})

    module.lmdb.open = opened


@bug("index-sync-off")
def _index_sync() -> None:
    """The index is opened with sync=False: its commits reach the disk some time later."""
    _open_with(sync=False)


@bug("index-metasync-off")
def _index_metasync() -> None:
    """The index is opened with metasync=False: its last commit can be lost."""
    _open_with(metasync=False)


@bug("commit-before-data")
def _commit_first() -> None:
    """The transaction is committed first, segments are synced after it."""
    sync, committed = Segments.sync, Segments.committed

    def early(self: Segments, moved: Any) -> dict[int, int]:
        for one in self._in_use():
            with one._lock:
                one._flush()
        return {one.number: one._written for one in self._in_use()}

    def late(self: Segments, lengths: dict[int, int]) -> None:
        sync(self, _nothing)
        committed(self, lengths)

    Segments.sync = early  # type: ignore[method-assign]
    Segments.committed = late  # type: ignore[method-assign]


@bug("nodes-not-synced")
def _nodes() -> None:
    """Only segments of data are synced, not those of manifests and points."""
    real = SegmentWriter.sync

    def sync(self: SegmentWriter) -> int:
        if all(entry.kind == 1 for entry in self.entries):
            return real(self)
        with self._lock:
            self._flush()
            return self._written

    SegmentWriter.sync = sync  # type: ignore[method-assign]


@bug("fsync-without-commit")
def _no_commit() -> None:
    """fsync stores the data, and leaves the names and extents to a later commit."""

    def fsync(self: LiveTree, ino: int, datasync: bool = False) -> None:
        with self._state.lock:
            inode = self._state.get(ino)
        self._sealing.seal_now([inode])

    LiveTree.fsync = fsync  # type: ignore[method-assign]


@bug("barrier-without-seal")
def _no_seal() -> None:
    """A snapshot commits names, but not the data that is still in memory."""

    def barrier(self: LiveTree) -> None:
        self._commits.commit()

    LiveTree.barrier = barrier  # type: ignore[method-assign]


@bug("early-size")
def _early_size() -> None:
    """A file's size is committed before the bytes it counts."""
    Contents.committed_size = lambda self, inode: inode.size  # type: ignore[method-assign]


@bug("tail-trusted")
def _tail() -> None:
    """A segment is gone on with behind whatever lies in it, not behind its committed length; an index made anew
    names what lies there unread. (Either alone harms nothing.)"""

    def adopt(cls: type, files: PackFiles, header: PackHeader, length: int) -> SegmentWriter:
        fd = files.system.open(files.segment_path(header.number), os.O_RDWR)
        entries = [
            Entry(r.id, at, r.size, r.plain, r.kind, r.encoding, r.depth, tuple(b.id for b in r.bases))
            for at, r in files.scan(header.number, length)
        ]  # fmt: skip
        return SegmentWriter(files, header.number, fd, files.system.size(fd), entries)

    segment.SegmentWriter.adopt = classmethod(adopt)  # type: ignore[assignment]
    Copies._drop_unreadable = lambda self: 0  # type: ignore[method-assign]


@bug("write-cut-short")
def _short() -> None:
    """A write that stored less than it was given is taken for a whole one."""

    def pwritev(self: Os, fd: int, parts: Any, offset: int) -> int:
        data = b"".join(parts)
        os.pwrite(fd, data[: len(data) - 700] if len(data) > 30_000 else data, offset)
        return len(data)

    Os.pwritev = pwritev  # type: ignore[method-assign]


@bug("acknowledged-early")
def _early() -> None:
    """fsync returns at once, and its commit is made in the background."""
    real = LiveTree.fsync

    def fsync(self: LiveTree, ino: int, datasync: bool = False) -> None:
        threading.Timer(0.05, real, (self, ino)).start()

    LiveTree.fsync = fsync  # type: ignore[method-assign]
    LiveTree.fsyncdir = lambda self, ino: None  # type: ignore[method-assign]
