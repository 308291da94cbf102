"""Faults of a file system, planted in the worker: what the conformance rigs must find."""

from __future__ import annotations

import os
import stat
import time
from typing import Any

from tools.torture.bugs import bug

PAGE = 4096


@bug("conform-rename-ctime")
def rename_forgets_ctime() -> None:
    """Renaming a file leaves its change time."""
    from engine.live.namespace import Namespace

    real = Namespace._moved

    def moved(self: Namespace, inode: Any, *rest: Any) -> None:
        before = inode.ctime
        real(self, inode, *rest)
        inode.ctime = before

    Namespace._moved = moved  # type: ignore[method-assign, assignment]


@bug("conform-old-bytes")
def truncation_keeps_bytes() -> None:
    """A file that is cut and lengthened again shows the bytes that were cut off."""
    from engine.live.content import Contents

    def truncate(self: Contents, inode: Any, size: int) -> None:
        inode.size = size

    Contents.truncate = truncate  # type: ignore[method-assign]


@bug("conform-end-lost")
def writes_end_at_the_old_size() -> None:
    """What a write lays past the file's old end comes out as zeros."""
    from engine.live.fileio import FileIO

    real = FileIO.write

    def write(self: FileIO, ino: int, offset: int, data: Any, touch: bool = True) -> int:
        inside = max(0, self._state.get(ino).size - offset)
        kept = bytes(data[:inside])
        return real(self, ino, offset, kept + bytes(len(data) - len(kept)), touch)

    FileIO.write = write  # type: ignore[method-assign]


@bug("conform-lost-write")
def some_writes_are_dropped() -> None:
    """One write of a page or more in fifty is acknowledged and forgotten."""
    from engine.live.fileio import FileIO

    real = FileIO.write
    count = 0

    def write(self: FileIO, ino: int, offset: int, data: Any, touch: bool = True) -> int:
        nonlocal count
        count += len(data) >= PAGE
        if len(data) >= PAGE and count % 50 == 0:
            return len(data)
        return real(self, ino, offset, data, touch)

    FileIO.write = write  # type: ignore[method-assign]


@bug("conform-append-overlap")
def appends_overlap() -> None:
    """Of a file that several have open for writing, pages that come together lie a byte too early."""
    from engine.live.fileio import FileIO

    real = FileIO.write

    def write(self: FileIO, ino: int, offset: int, data: Any, touch: bool = True) -> int:
        done = real(self, ino, offset, data, touch)
        if self._state.get(ino).writers > 1 and len(data) > PAGE:
            real(self, ino, offset + PAGE - 1, bytes(data[PAGE:]), touch)
        return done

    FileIO.write = write  # type: ignore[method-assign]


@bug("conform-mkdir-count")
def mkdir_counts_no_link() -> None:
    """A new directory is not counted as a link of its parent."""
    from engine.live.namespace import Namespace

    real = Namespace.make

    def make(self: Namespace, parent: int, name: bytes, mode: int, *rest: Any, **more: Any) -> Any:
        attr = real(self, parent, name, mode, *rest, **more)
        if stat.S_ISDIR(mode):
            self._state.get(parent).nlink -= 1
        return attr

    Namespace.make = make  # type: ignore[method-assign]


@bug("conform-point-of-now")
def old_points_show_the_newest() -> None:
    """Under ``.snapshots`` every point shows what the newest one holds: later writes in an old point."""
    from fsmount.source import StorePoints

    real = StorePoints.view

    def view(self: StorePoints, name: bytes, location: str = "") -> Any:
        return real(self, self.names()[-1][0])

    StorePoints.view = view  # type: ignore[method-assign]


@bug("conform-capture-skipped")
def snapshots_trust_what_arrived() -> None:
    """A snapshot does not fetch what the kernel still keeps of files that are open."""
    from fsmount import worker

    setattr(worker, "capture", lambda *_: None)  # noqa: B010  imported there, not exported


@bug("conform-listing-skips")
def listings_skip_an_entry() -> None:
    """A listing that is gone on with misses the first entry."""
    from engine.live.tree import LiveTree

    real = LiveTree.readdir

    def readdir(self: LiveTree, ino: int, cookie: int) -> Any:
        entries = real(self, ino, cookie)
        if cookie:
            next(entries, None)
        return entries

    LiveTree.readdir = readdir  # type: ignore[method-assign]


@bug("conform-no-sticky")
def sticky_bits_are_lost() -> None:
    """The sticky bit of directories is not kept."""
    from engine.live.tree import LiveTree

    setattr_, mkdir = LiveTree.setattr, LiveTree.mkdir

    def without(self: LiveTree, ino: int, *, mode: int | None = None, **more: Any) -> Any:
        return setattr_(self, ino, mode=None if mode is None else mode & ~stat.S_ISVTX, **more)

    LiveTree.setattr = without  # type: ignore[method-assign]
    LiveTree.mkdir = lambda self, parent, name, mode, ctx: mkdir(  # type: ignore[method-assign]
        self, parent, name, mode & ~stat.S_ISVTX, ctx
    )


@bug("conform-set-id-kept")
def set_id_bits_stay() -> None:
    """Writing to a set-user-id program leaves it one."""
    from fsmount.killpriv import KillPriv

    KillPriv.written = lambda self, ino, now_ns: None  # type: ignore[method-assign]


@bug("conform-unlinked-lost")
def unlinked_files_go_at_once() -> None:
    """A file that is open loses its content with its last name."""
    from engine.live.namespace import Namespace

    real = Namespace._unlinked

    def unlinked(self: Namespace, inode: Any, *rest: Any) -> None:
        real(self, inode, *rest)
        if inode.nlink == 0:
            self._contents.remove(inode)
            inode.alloc = 0

    Namespace._unlinked = unlinked  # type: ignore[method-assign, assignment]


@bug("conform-times-kept")
def times_that_were_set_stay() -> None:
    """With ``--write-through`` a write leaves a modification time that was set just before."""
    from fsmount.live import LiveFiles

    real = LiveFiles.__init__

    def init(self: LiveFiles, *given: Any, late_writes: bool = True) -> None:
        real(self, *given, late_writes=True)

    LiveFiles.__init__ = init  # type: ignore[method-assign, assignment]


@bug("conform-emptied-twice")
def open_empties_files() -> None:
    """OPEN itself empties a file, and the kernel does so once more for itself without the file's lock."""
    from fsmount.channel import handshake
    from fsmount.channel.adapter import Adapter

    real = Adapter.open

    async def opened(self: Adapter, inode: int, flags: int, ctx: Any) -> Any:
        if flags & os.O_TRUNC:
            now = time.time_ns()
            await self.live.setattr(inode, {"size": 0, "mtime_ns": now, "ctime_ns": now})
        return await real(self, inode, flags, ctx)

    handshake.NEVER = 0
    Adapter.open = opened  # type: ignore[method-assign]
