"""What the parts of a live tree share: the lock, the inodes in memory, what is dirty, the counters.

Threads and locks.  ``State.lock`` guards everything a live tree keeps in memory; it is held briefly, never while
anything waits for the disk (point reads of the memory-mapped index excepted), and never while a chunk is read,
sealed or stored.  Order: ``Committer`` mutex → the chunk writer's locks → nothing; ``State.lock`` is the innermost
lock of the tree: whoever holds it calls neither the chunk writer nor a commit.

Memory over index.  The tree is what the index holds, overlaid by what is dirty or in flight (in a commit that is
being written).  An inode, a directory's names or a span that memory knows better than the index is pinned; anything
else may be dropped and read again.
"""

from __future__ import annotations

import errno
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from engine import limits
from engine.errors import Busy, Corrupt, HoldfastError, PosixError
from engine.index import Index, Table, Txn
from engine.live import rows
from engine.live.inode import Inode, from_row
from engine.live.ports import Hold


def repeated(error: HoldfastError) -> HoldfastError:
    """The same error once more: one object raised often would gather tracebacks without end."""
    return type(error)(str(error))


@dataclass
class Clock:
    """Where time comes from."""

    now_ns: Callable[[], int] = time.time_ns
    monotonic: Callable[[], float] = time.monotonic


class State:
    """The shared part of one live tree. Every method needs ``lock`` held."""

    def __init__(self, mount: int, index: Index, clock: Clock) -> None:
        self.lock = threading.RLock()
        self.mount = mount
        self.index = index
        self.clock = clock
        self.inodes: OrderedDict[int, Inode] = OrderedDict()
        self.dirty: dict[int, Inode] = {}
        self.dirty_names: dict[int, Inode] = {}  # directories with unsaved names
        self.dirty_rows = 0  # names changed since the last collection, for the size of a commit
        self.dirty_since: float | None = None
        self.orphans: dict[int, Inode] = {}  # unlinked, still open or known to the kernel
        self.gone: set[int] = set()  # removed here, rows still in the index
        self.purge: list[int] = []  # members of gone whose rows are to be deleted
        self.listed: set[int] = set()  # members of purge known to be in ORPHANS
        self.replaced: dict[
            int, Inode
        ] = {}  # renamed over another file: sealed before the next commit
        self.limbo: list[Hold] = []  # holds of dropped spans, kept until the drop is committed
        self.cached_names = 0
        self.frozen = False
        self.failure: HoldfastError | None = None  # why the last commit failed
        self.lost: HoldfastError | None = (
            None  # why memory is not to be trusted: no commit ever again
        )
        self.wake_committer: Callable[[], None] = lambda: None
        with index.read() as txn:
            raw = txn.get(Table.LIVE_META, rows.meta_key(mount))
            if raw is None:
                raise Corrupt(f"mount {mount}", expected="a live tree", found="none")
            meta = rows.decode_meta(raw)
            for key in txn.keys(Table.ORPHANS, prefix=rows.meta_key(mount)):
                ino = rows.split_inode_key(key)
                self.gone.add(ino)
                self.listed.add(ino)
                self.purge.append(ino)
        self.seq = meta.seq
        self.next_ino = meta.next_ino
        self.ino_limit = meta.next_ino  # numbers below are claimed in the index
        self.used_bytes = meta.used_bytes
        self.used_inodes = meta.used_inodes
        self.secret = meta.secret

    # --- inodes -------------------------------------------------------------------------------------------

    def get(self, ino: int) -> Inode:
        """The inode; ESTALE when there is none (an old handle)."""
        inode = self.inodes.get(ino)
        if inode is not None:
            self.inodes.move_to_end(ino)
            return inode
        with self.index.read() as txn:
            return self.load(txn, ino)

    def load(self, txn: Txn, ino: int) -> Inode:
        """Like ``get``, inside a transaction of the caller's that was begun with the lock held."""
        inode = self.inodes.get(ino)
        if inode is not None:
            return inode
        raw = None if ino in self.gone else txn.get(Table.INODES, rows.inode_key(self.mount, ino))
        if raw is None:
            raise PosixError(errno.ESTALE, "no such inode")
        inode = from_row(ino, rows.decode_inode(raw))
        self.insert(inode)
        return inode

    def directory(self, ino: int) -> Inode:
        """The inode of a directory; ENOTDIR."""
        inode = self.get(ino)
        if not inode.is_dir:
            raise PosixError(errno.ENOTDIR)
        return inode

    def insert(self, inode: Inode) -> None:
        """Keep an inode in memory; drop the longest unused clean ones over the limit."""
        self.inodes[inode.ino] = inode
        if len(self.inodes) > limits.INODE_CACHE:
            self.shrink(8, inode)

    def shrink(self, effort: int, kept: Inode | None = None) -> None:
        """Drop clean inodes while there are too many, looking at ``effort`` of them; pinned ones are passed over."""
        inodes = self.inodes
        while effort and len(inodes) > limits.INODE_CACHE:
            effort -= 1
            ino, oldest = inodes.popitem(last=False)
            if oldest.pinned or oldest is kept:
                inodes[ino] = oldest
            else:
                self._forget_names(oldest)

    def _forget_names(self, inode: Inode) -> None:
        if inode.names is not None:
            self.cached_names -= len(inode.names.entries)
            inode.names = None

    def trim_names(self) -> None:
        """Drop clean directory entries, longest unused directories first, to well under the limit."""
        for inode in list(self.inodes.values()):
            if inode.names is not None:
                self.cached_names -= inode.names.drop_clean()
                if self.cached_names < limits.NAME_CACHE * 3 // 4:
                    return

    def new_ino(self) -> int:
        """The next inode number. Busy when numbers would have to be given that a crash could give again."""
        if self.next_ino >= self.ino_limit:
            raise Busy("live tree", found="no claimed inode numbers left", do="wait for a commit")
        self.next_ino += 1
        return self.next_ino - 1

    # --- changes ------------------------------------------------------------------------------------------

    def touch(self, inode: Inode) -> None:
        """The inode must be part of the next commit."""
        if not inode.dirty:
            inode.dirty = True
            self.dirty[inode.ino] = self.inodes[inode.ino] = inode  # it may just have been dropped
            if self.dirty_since is None:
                self.dirty_since = self.clock.monotonic()
            if len(self.dirty) == limits.COMMIT_ROWS:
                self.wake_committer()

    def touch_name(self, directory: Inode) -> None:
        """A name of the directory changed."""
        self.dirty_names[directory.ino] = directory
        if directory.nlink:  # a removed one may be out of memory but for its names
            self.inodes[directory.ino] = directory
        self.dirty_rows += 1
        if self.dirty_since is None:
            self.dirty_since = self.clock.monotonic()
        if self.dirty_rows == limits.COMMIT_ROWS:
            self.wake_committer()

    def admit(self) -> None:
        """Refuse a change while the tree is frozen."""
        if self.frozen:
            raise Busy("live tree", found="a snapshot being cut", do="try again")

    def admit_growth(self) -> None:
        """Refuse what needs room while the last commit could not be written."""
        if self.frozen:
            self.admit()
        if self.failure is not None:
            raise repeated(self.failure)

    @property
    def crowded(self) -> bool:
        """So many rows are dirty that callers should wait for a commit."""
        return len(self.dirty) + self.dirty_rows > limits.DIRTY_ROWS_MAX
