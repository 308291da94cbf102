"""Dropping set-uid, set-gid and file capabilities on write, truncate and chown.

The kernel leaves this to us (HANDLE_KILLPRIV_V2), which saves a request per write(2).  pyfuse3 does not pass on which
writers hold CAP_FSETID, so every write drops the bits: also root's, where ext4 keeps them.  That is the safe side, and
programs that put files in place set the mode after the content; the kernel hands over dirty pages before a
change of mode, so late write-back never drops bits that were set after the write.

Files known to have nothing to drop are remembered, bounded, so that the usual write costs one set look-up.
"""

from __future__ import annotations

import errno
import stat
import time
from collections.abc import Callable

from engine.errors import PosixError
from fsmount.contract import Ctx, Tree
from fsmount.permission import Caller
from fsmount.xattrs import CAPABILITY

REMEMBERED = 65_536  # inodes; the set is forgotten as a whole when it is full (about 6 MB)


def drops(mode: int) -> bool:
    """Whether this mode has a bit that a write or chown must clear."""
    return stat.S_ISREG(mode) and bool(
        mode & stat.S_ISUID or (mode & stat.S_ISGID and mode & stat.S_IXGRP)
    )


def dropped(mode: int) -> int:
    """The mode after a write or chown."""
    if not drops(mode):
        return mode
    mode &= ~stat.S_ISUID
    return mode & ~stat.S_ISGID if mode & stat.S_IXGRP else mode


class KillPriv:
    """Keeps the promise for one live tree. Used on the loop's thread only."""

    def __init__(self, tree: Tree, changed: Callable[[int], None]) -> None:
        """``changed(ino)`` is called when attributes changed behind the kernel's back."""
        self._tree = tree
        self._changed = changed
        self._plain: set[int] = set()
        self._no_capability: set[int] = set()

    def written(self, ino: int, now_ns: int) -> None:
        """A write or truncation of this file is about to be carried out."""
        if ino in self._plain:
            return
        mode = self._tree.getattr(ino).mode
        if drops(mode):
            self._tree.setattr(ino, mode=dropped(mode) & 0o7777, ctime_ns=now_ns, now_ns=now_ns)
            self._changed(ino)
        self.drop_capability(ino)
        if len(self._plain) >= REMEMBERED:
            self._plain.clear()
        self._plain.add(ino)

    def drop_capability(self, ino: int) -> None:
        """Remove the file capabilities, if there are any."""
        if self.has_capability(ino):
            self._tree.removexattr(ino, CAPABILITY)
            self._no_capability.add(ino)

    def has_capability(self, ino: int) -> bool:
        """Whether the file has capabilities; cheap when it is known to have none."""
        if ino in self._no_capability:
            return False
        try:
            self._tree.getxattr(ino, CAPABILITY)
        except PosixError as error:
            if error.errno != errno.ENODATA:
                raise
        else:
            return True
        if len(self._no_capability) >= REMEMBERED:
            self._no_capability.clear()
        self._no_capability.add(ino)
        return False

    def list_set(self, ino: int, ctx: Ctx) -> None:
        """An access list was set, which is a chmod too: set-gid goes unless the caller is of that group."""
        attr = self._tree.getattr(ino)
        if attr.mode & stat.S_ISGID and ctx.uid and not Caller(*ctx[:3]).in_group(attr.gid):
            now = time.time_ns()
            self._tree.setattr(ino, mode=attr.mode & 0o5777, ctime_ns=now, now_ns=now)
            self._changed(ino)

    def forget(self, ino: int) -> None:
        """Mode or capabilities of this inode are being set: look again before the next write."""
        self._plain.discard(ino)
        self._no_capability.discard(ino)
