"""Room: the mount's quota, the store's file system, and the numbers statfs shows.

Growth is refused before the store is full: ``space_left`` is what writers may use beyond a reserve that commits and
collection need, and data in memory is counted against it as if it would not shrink.  Deleting is never refused.
The quota counts bytes that are not hole; writes into a span that has content already (the middle of a sparse file, the
end of one that was sealed before) are counted when they are sealed, so it can be passed by what is waiting to be
sealed (at most ``DIRTY_MAX``).  Names, link targets and extended attributes
are not in it: they are bounded by the number of inodes (``XATTR_TOTAL_MAX`` each), which has a quota of its own.
"""

from __future__ import annotations

from dataclasses import dataclass

from engine import limits
from engine.errors import HoldfastError, QuotaExceeded, StoreFull
from engine.live.content import Contents
from engine.live.inode import Inode
from engine.live.ports import Ports
from engine.live.state import State

_BLOCK = 4096  # statfs counts in these
_FREE_INODES = 1 << 32  # shown when no quota of inodes is set
_META_ROOM = 1 * limits.MIB  # below this much left, not even a name is added


@dataclass(frozen=True)
class Quota:
    """0: no limit. ``nbytes``: bytes that are not hole; ``inodes``: files, directories and all else."""

    nbytes: int = 0
    inodes: int = 0


class Space:
    """Admission of growth. All methods but ``refresh`` and ``follow_quota`` need the tree's lock."""

    def __init__(self, state: State, contents: Contents, quota: Quota, ports: Ports) -> None:
        self._state = state
        self._contents = contents
        self._quota = quota
        self._ask_quota = ports.quota
        self._space_left = ports.space_left
        self._incidents = ports.incidents
        self._name = ports.name
        self._told = False
        self._room = 0  # bytes that may still be accepted before the file system is asked again
        self.left = 0
        self.refresh()

    def refresh(self) -> None:
        """Ask the file system (a few microseconds)."""
        self.left = self._space_left()
        self._room = self.left - self._contents.dirty_bytes
        if self._told and self._room >= limits.RESERVE_MIN and self._state.failure is None:
            self._told = False
            self._incidents.over("store_full", "store")

    def look(self) -> None:
        """``refresh``, when nobody asks: what cannot be told now is asked for again at the next write."""
        try:
            self.refresh()
        except HoldfastError as error:
            self._incidents.error(error)
            self._room = 0

    def follow_quota(self) -> None:
        """[T] Without the lock: take the quota as it is now; what cannot be read now is as it was."""
        if self._ask_quota is None:
            return
        try:
            self._quota = Quota(*self._ask_quota())
        except HoldfastError as error:
            self._incidents.error(error)

    def admit_write(self, inode: Inode, end: int, size: int) -> None:
        """Refuse ``size`` more bytes of a file, ending at ``end``: StoreFull, QuotaExceeded, or why commits fail."""
        self._state.admit_growth()
        self._room -= size
        if self._room < 0:
            self.refresh()
            self._room -= size
            if self._room < 0:
                raise self._full()
        limit = self._quota.nbytes
        if limit and self._state.used_bytes + self._contents.new_bytes + size > limit:
            dense = inode.alloc == inode.size and end <= inode.size
            if not dense:
                raise self._over_quota(f"{limit} bytes", f"{self._state.used_bytes} in use")

    def admit_inode(self) -> None:
        """Refuse one more inode or name."""
        self._state.admit_growth()
        if self.left < _META_ROOM:
            self.refresh()
            if self.left < _META_ROOM:
                raise self._full()
        limit = self._quota.inodes
        if limit and self._state.used_inodes >= limit:
            raise self._over_quota(f"{limit} inodes", f"{self._state.used_inodes}")

    def _over_quota(self, limit: str, used: str) -> QuotaExceeded:
        error = QuotaExceeded(self._name, expected=f"at most {limit}", found=used,
                              do="delete files or raise the quota")  # fmt: skip
        self._incidents.error(error)
        return error

    def _full(self) -> StoreFull:
        error = StoreFull(
            "store", expected="room beyond its reserve",
            found=f"{max(0, self.left - self._contents.dirty_bytes)} bytes",
            do="free space on the store's file system",
        )  # fmt: skip
        self._told = True
        self._incidents.error(error)
        return error

    def statfs(self) -> tuple[int, int, int, int, int, int, int]:
        """(block size, blocks, free, available, inodes, free inodes, longest name)."""
        state = self._state
        used = state.used_bytes + self._contents.new_bytes
        free = max(0, self.left - self._contents.dirty_bytes)
        if self._quota.nbytes:
            free = min(free, max(0, self._quota.nbytes - used))
        files = self._quota.inodes or state.used_inodes + _FREE_INODES
        blocks = (used + free) // _BLOCK
        return (
            _BLOCK, blocks, free // _BLOCK, free // _BLOCK, files, max(0, files - state.used_inodes),
            limits.NAME_MAX,
        )  # fmt: skip
