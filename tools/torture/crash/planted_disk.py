"""Planted bugs in how a store makes its data durable; more are in ``planted_order``. Only lost writes show them."""

from __future__ import annotations

import os

from tools.torture.bugs import bug


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


@bug("mount-not-laundered")
def not_laundered() -> None:
    """a snapshot does not have the kernel hand over what it holds of open files"""
    from fsmount import worker

    worker.capture = lambda mountpoint, files, launder: None  # type: ignore[attr-defined]
