"""Bugs that real programs must notice; each is planted in the worker and in every ``holdfast`` command."""

from __future__ import annotations

import os
import stat
from typing import Any

from tools.torture.bugs import bug


@bug("fsync-acknowledged-early")
def fsync_early() -> None:
    """fsync answers before anything was committed"""
    from engine.live import LiveTree

    def fsync(self: LiveTree, ino: int, datasync: bool = False) -> None:
        self.getattr(ino)

    LiveTree.fsync = fsync  # type: ignore[method-assign]


@bug("sync-leaves-the-index")
def fsync_unnamed() -> None:
    """fsync seals the data and syncs the packs, and leaves the index for the next commit"""
    from engine.live import LiveTree

    def fsync(self: Any, ino: int, datasync: bool = False) -> None:
        with self._state.lock:
            inode = self._state.get(ino)
        self._sealing.seal_now([inode])
        self._ports.flush()

    LiveTree.fsync = fsync  # type: ignore[method-assign]


@bug("directory-sync-forgotten")
def directory_sync() -> None:
    """fsync of a directory does nothing"""
    from engine.live import LiveTree

    def fsyncdir(self: LiveTree, ino: int) -> None:
        self.getattr(ino)

    LiveTree.fsyncdir = fsyncdir  # type: ignore[method-assign]


@bug("holes-filled")
def holes() -> None:
    """restore gives every file all its room"""
    from engine.restore.file import RestoredFile

    really = RestoredFile.queue

    def queue(self: Any) -> None:
        if self._entry.size:
            os.posix_fallocate(self._fd, 0, self._entry.size)
        really(self)

    RestoredFile.queue = queue  # type: ignore[method-assign]


@bug("attributes-left-out-of-points")
def attributes_dropped() -> None:
    """a snapshot takes extended attributes of users only"""
    from engine.points.build import TreeBuilder

    really = TreeBuilder._xattrs

    def only_users(self: TreeBuilder, ino: int) -> dict[bytes, bytes]:
        found = really(self, ino)
        return {name: value for name, value in found.items() if name.startswith(b"user.")}

    TreeBuilder._xattrs = only_users  # type: ignore[method-assign]


@bug("hard-links-apart")
def links_apart() -> None:
    """restore makes every name a file of its own"""
    from engine.restore.walk import Walk

    def never(self: Walk, *_: object) -> bool:
        return False

    Walk._linked = never  # type: ignore[method-assign,assignment]


@bug("default-lists-ignored")
def no_heritage() -> None:
    """what is made in a directory does not inherit its access list"""
    from engine.live.xattrs import Xattrs

    def plain(self: Xattrs, parent: int, mode: int, umask: int) -> tuple[int, dict[bytes, bytes]]:
        return mode & ~umask, {}

    Xattrs.heritage = plain  # type: ignore[method-assign]


@bug("times-in-microseconds")
def coarse_times() -> None:
    """the tree keeps times to the microsecond"""
    from engine.live import LiveTree

    really = LiveTree.setattr

    def setattr_(self: Any, ino: int, **values: Any) -> Any:
        if values.get("mtime_ns") is not None:
            values["mtime_ns"] -= values["mtime_ns"] % 1000
        return really(self, ino, **values)

    LiveTree.setattr = setattr_  # type: ignore[method-assign]


@bug("links-without-attributes")
def bare_links() -> None:
    """restore gives symbolic links and special files no extended attributes"""
    from engine.restore import file

    really = file._set_xattrs

    def files_only(view: Any, job: Any, target: Any, path: bytes, entry: Any) -> None:
        if stat.S_ISREG(entry.mode) or stat.S_ISDIR(entry.mode):
            really(view, job, target, path, entry)

    file._set_xattrs = files_only
