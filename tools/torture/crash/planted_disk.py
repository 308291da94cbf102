"""Planted bugs in what a store does to make its data durable: faults that only lost writes show."""

from __future__ import annotations

import os
from typing import Any

from tools.torture.bugs import bug


@bug("disk-pack-not-synced")
def pack_not_synced() -> None:
    """a commit does not wait for the data of its segments to reach the disk"""
    from engine.seam import Os

    Os.fdatasync = lambda self, fd: None  # type: ignore[method-assign]


@bug("disk-write-behind-for-sync")
def write_behind_for_sync() -> None:
    """telling the kernel to begin writing a segment is taken for having it written"""
    from engine.seam import Os

    Os.fdatasync = lambda self, fd: self.write_behind(fd, 0, 0)  # type: ignore[method-assign]


@bug("disk-only-directory-synced")
def only_directory_synced() -> None:
    """a commit syncs the directory of its segments, not their data"""
    from engine.seam import Os

    def fdatasync(self: Os, fd: int) -> None:
        self.fsync_dir(os.path.dirname(os.readlink(f"/proc/self/fd/{fd}")))

    Os.fdatasync = fdatasync  # type: ignore[method-assign]


@bug("disk-commit-before-data")
def commit_before_data() -> None:
    """the index is committed first, the data it points to is synced afterwards"""
    from engine.chunks.segments import Segments

    synced = Segments.sync
    committed = Segments.committed

    def sync(self: Segments, moved: Any) -> dict[int, int]:
        segments = self._in_use()
        for segment in segments:
            segment._flush()
        return {segment.number: segment.length for segment in segments}

    def after(self: Segments, lengths: dict[int, int]) -> None:
        synced(self, lambda old, moves: None)
        committed(self, lengths)

    Segments.sync = sync  # type: ignore[method-assign]
    Segments.committed = after  # type: ignore[method-assign]


def _lmdb_with(**options: bool) -> None:
    import lmdb

    real = lmdb.open
    setattr(lmdb, "open", lambda *args, **kwargs: real(*args, **{**kwargs, **options}))  # noqa: B010  (untyped)


@bug("disk-index-not-synced")
def index_not_synced() -> None:
    """LMDB is opened with sync=False"""
    _lmdb_with(sync=False)


@bug("disk-index-meta-not-synced")
def index_meta_not_synced() -> None:
    """LMDB is opened with metasync=False"""
    _lmdb_with(metasync=False)


@bug("disk-seal-not-synced")
def seal_not_synced() -> None:
    """a pack gets its name before its trailer is on the disk"""
    from engine.seam import Os

    Os.fsync = lambda self, fd: None  # type: ignore[method-assign]


@bug("mount-not-laundered")
def not_laundered() -> None:
    """a snapshot does not have the kernel hand over what it holds of open files"""
    from fsmount import worker

    worker.capture = lambda mountpoint, inodes, launder: None  # type: ignore[attr-defined]
