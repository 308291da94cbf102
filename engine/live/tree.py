"""The live tree of a mount: one object with every operation a mount needs.

Thread-safe.  Methods marked [T] may wait for the disk or for other threads: call them in a thread.  All others are
short: they wait for nothing but the tree's lock and point reads of the memory-mapped index.  Only the engine's error
family is raised.

What is promised
 L1  The tree is one history: after a crash it is what it was at its last commit, names and attributes of one moment.
 L2  When ``fsync(ino)`` returns, the data that file received before the call, its attributes and its names are
     durable, and if that took a commit, every name and attribute changed before it. When it raises, nothing is
     claimed; what can be tried again stays in memory.
 L3  A change is durable ``COMMIT_INTERVAL`` after it was made, if ``tick`` is called about every second.
 L4  After a crash a file never shows zeros, or what was there before a truncation, where bytes were written and not
     sealed: its size ends before the first of them past the size it had.
 L5  A file renamed over another replaces it with its content, or the old one is still there.
 L6  Inode numbers are never given twice, not even after a crash; a number that is gone answers ESTALE.
 L7  An entry that is in a directory throughout a reading of it is seen once.
 L8  Bytes and inodes in use, as quota and statfs count them, are those of the committed rows: ``check`` adds up.
"""

from __future__ import annotations

import errno
import logging
import os
import stat
from collections.abc import Iterator

from engine import limits
from engine.errors import HoldfastError, InvalidRequest, PosixError
from engine.live import rows
from engine.live.commit import Committer
from engine.live.content import Contents
from engine.live.fileio import FileIO
from engine.live.fragments import Data
from engine.live.inode import Attr, Ctx, Inode
from engine.live.names import NameTable
from engine.live.namespace import Namespace
from engine.live.ports import Ports
from engine.live.seal import Sealing
from engine.live.space import Quota, Space
from engine.live.state import Clock, State, repeated
from engine.live.xattrs import Xattrs

log = logging.getLogger("holdfast.engine.live")

ROOT = rows.ROOT


class LiveTree:
    """See the module."""

    def __init__(
        self,
        mount: int,
        ports: Ports,
        *,
        quota: Quota | None = None,
        chunking: str = "auto",
        clock: Clock | None = None,
        seal_threads: int = limits.SEAL_THREADS,
    ) -> None:
        """Open the tree that ``create_tree`` made. The caller sees to it that no other process has it open."""
        self._ports = ports
        self._state = state = State(mount, ports.index, clock or Clock())
        self._contents = Contents(state)
        self._names = NameTable(state)
        self._space = Space(state, self._contents, quota or Quota(), ports)
        self._sealing = Sealing(state, self._contents, self._names, ports, chunking, seal_threads)
        self._commits = Committer(state, self._contents, self._sealing, ports)
        self._io = FileIO(
            state, self._contents, self._space, self._sealing, self._commits, ports.reader
        )
        self._tree = Namespace(state, self._names, self._contents, self._space)
        self._xattrs = Xattrs(state, self._space)
        try:
            self._commits.commit(force=True)  # claims inode numbers
        except BaseException:
            self._stop()
            raise

    # --- looking ------------------------------------------------------------------------------------------

    def lookup(self, parent: int, name: bytes) -> Attr:
        """Attributes of an entry (``.`` and ``..`` too). Raises NotFound, ENOTDIR, ESTALE, ENAMETOOLONG."""
        return self._tree.lookup(parent, name)

    def getattr(self, ino: int) -> Attr:
        """Raises ESTALE."""
        with self._state.lock:
            return Attr(self._state.get(ino))

    def readlink(self, ino: int) -> bytes:
        """The target of a symbolic link. Raises InvalidRequest for anything else."""
        with self._state.lock:
            inode = self._state.get(ino)
            if not stat.S_ISLNK(inode.mode):
                raise InvalidRequest("readlink", expected="a symbolic link")
            return inode.target

    def path(self, ino: int) -> bytes | None:
        """The path from the root, of the first name when there are several; None for a file without. Raises ESTALE."""
        with self._state.lock:
            inode = self._state.get(ino)
            return self._names.path(inode) if inode.nlink else None

    def readdir(self, ino: int, cookie: int) -> Iterator[tuple[bytes, Attr, int]]:
        """(name, attributes, cookie to go on after it) of the entries after ``cookie``; 0 is the start.

        Without ``.`` and ``..``.  May be left at any entry and gone on with later, also after a restart.
        """
        count = 32  # callers often take little; one that goes on gets larger batches
        while True:
            batch, more = self._read_batch(ino, cookie, count)
            for item in batch:
                yield item
                cookie = item[2]
            if not more:
                return
            count = limits.READDIR_BATCH

    def _read_batch(
        self, ino: int, cookie: int, count: int
    ) -> tuple[list[tuple[bytes, Attr, int]], bool]:
        state = self._state
        with state.lock, state.index.read() as txn:
            directory = state.inodes.get(ino) or state.load(txn, ino)
            if not directory.is_dir:
                raise PosixError(errno.ENOTDIR)
            batch = []
            found = self._names.read(txn, directory, cookie, count)
            for name, entry in found:
                try:
                    batch.append((name, Attr(state.load(txn, entry.ino)), entry.cookie))
                except HoldfastError as error:  # the others must still be found
                    log.error("an entry of directory %d is left out: %s", ino, error)
            return batch, len(found) == count

    # --- changing the namespace -----------------------------------------------------------------------------

    def mknod(self, parent: int, name: bytes, mode: int, rdev: int, ctx: Ctx) -> Attr:
        """A regular file, fifo, socket or device, by the type in ``mode`` (none means a regular file)."""
        kind = stat.S_IFMT(mode) or stat.S_IFREG
        if kind in (stat.S_IFDIR, stat.S_IFLNK):
            raise InvalidRequest("mknod", expected="a file, fifo, socket or device")
        if kind not in (stat.S_IFCHR, stat.S_IFBLK):
            rdev = 0
        return self._make(parent, name, kind | stat.S_IMODE(mode), ctx, rdev)

    def create(self, parent: int, name: bytes, mode: int, ctx: Ctx) -> Attr:
        """A regular file. ``opened`` is called for it separately."""
        return self._make(parent, name, stat.S_IFREG | stat.S_IMODE(mode), ctx)

    def mkdir(self, parent: int, name: bytes, mode: int, ctx: Ctx) -> Attr:
        """A directory."""
        return self._make(parent, name, stat.S_IFDIR | stat.S_IMODE(mode), ctx)

    def _make(self, parent: int, name: bytes, mode: int, ctx: Ctx, rdev: int = 0) -> Attr:
        with self._state.lock:
            mode, lists = self._xattrs.heritage(parent, mode, ctx.umask)
            attr = self._tree.make(parent, name, mode, ctx, rdev=rdev)
            if lists:
                self._xattrs.inherit(attr.ino, lists)
            return attr

    def symlink(self, parent: int, name: bytes, target: bytes, ctx: Ctx) -> Attr:
        """A symbolic link. Raises ENAMETOOLONG."""
        if not target or b"\0" in target:
            raise InvalidRequest("symbolic link", expected="a target without NUL")
        if len(target) > limits.SYMLINK_MAX:
            raise PosixError(errno.ENAMETOOLONG)
        return self._tree.make(parent, name, stat.S_IFLNK | 0o777, ctx, target=target)

    def link(self, ino: int, parent: int, name: bytes) -> Attr:
        """See Namespace.link."""
        return self._tree.link(ino, parent, name)

    def unlink(self, parent: int, name: bytes) -> None:
        """See Namespace.unlink."""
        self._tree.unlink(parent, name)

    def rmdir(self, parent: int, name: bytes) -> None:
        """See Namespace.rmdir."""
        self._tree.rmdir(parent, name)

    def rename(
        self, parent: int, name: bytes, new_parent: int, new_name: bytes, flags: int = 0
    ) -> None:
        """See Namespace.rename. ``flags``: RENAME_NOREPLACE 1, RENAME_EXCHANGE 2."""
        self._tree.rename(parent, name, new_parent, new_name, flags)

    def setattr(
        self,
        ino: int,
        *,
        mode: int | None = None,
        uid: int | None = None,
        gid: int | None = None,
        size: int | None = None,
        atime_ns: int | None = None,
        mtime_ns: int | None = None,
        ctime_ns: int | None = None,
        now_ns: int,
    ) -> Attr:
        """Set what is given; the change time becomes ``now_ns`` unless given. Raises EFBIG, EISDIR, ENOSPC."""
        state = self._state
        with state.lock:
            state.admit()
            inode = state.get(ino)
            if size is not None:
                self._resize(inode, size)
                inode.mtime = now_ns
            if uid is not None or gid is not None:
                _change_owner(inode, uid, gid, mode is None)
            if mode is not None:
                inode.mode = stat.S_IFMT(inode.mode) | stat.S_IMODE(mode)
                self._xattrs.mode_changed(inode)
            if atime_ns is not None:
                inode.atime = atime_ns
            if mtime_ns is not None:
                inode.mtime = mtime_ns
            inode.ctime = now_ns if ctime_ns is None else ctime_ns
            state.touch(inode)
            return Attr(inode)

    def _resize(self, inode: Inode, size: int) -> None:
        if not inode.is_file:
            raise PosixError(errno.EISDIR if inode.is_dir else errno.EINVAL)
        if size > limits.FILE_MAX:
            raise PosixError(errno.EFBIG)
        if size > inode.size:
            self._state.admit_growth()
        self._contents.truncate(inode, size)

    # --- open files -----------------------------------------------------------------------------------------

    def opened(self, ino: int, flags: int) -> None:
        """A descriptor of the inode exists from now on."""
        with self._state.lock:
            inode = self._state.get(ino)
            inode.opens += 1
            if flags & os.O_ACCMODE != os.O_RDONLY:
                inode.writers += 1

    def released(self, ino: int) -> None:
        """A descriptor went away. After the last one, written data is on its way to chunks."""
        state = self._state
        with state.lock:
            inode = state.get(ino)
            inode.opens -= 1
            if inode.opens <= 0:
                inode.opens = 0
                if inode.writers:
                    inode.writers = 0
                    self._sealing.closed(inode)
                self._tree.maybe_remove(inode)

    def forgotten(self, ino: int) -> None:
        """The kernel dropped the inode; an unlinked one can be removed."""
        self._tree.forgotten(ino)

    def open_writers(self) -> list[int]:
        """Inodes that were opened for writing and are still open."""
        with self._state.lock:
            return [inode.ino for inode in self._state.inodes.values() if inode.writers]

    def dirty_inodes(self) -> list[int]:
        """Inodes with changes that no commit has taken yet."""
        with self._state.lock:
            return [
                *self._state.dirty,
                *(i for i in self._contents.waiting if i not in self._state.dirty),
            ]

    # --- content ------------------------------------------------------------------------------------------

    def write(self, ino: int, offset: int, data: Data, touch: bool = True) -> int:
        """See FileIO.write."""
        return self._io.write(ino, offset, data, touch)

    def over_limit(self) -> bool:
        """So much is waiting that the caller of ``write`` (or of any change) should ``wait_room`` now."""
        return self._io.over_limit()

    def wait_room(self) -> None:
        """[T] Wait until ``over_limit`` is false. Raises what keeps waiting data from being stored, if it is stuck."""
        self._io.wait_room()

    def read_now(self, ino: int, offset: int, size: int) -> bytes | None:
        """The bytes, if all of them are in memory; None when ``read`` must be called in a thread."""
        return self._io.read_now(ino, offset, size)

    def read(self, ino: int, offset: int, size: int) -> bytes:
        """[T] The bytes, cut at the end of the file. Raises Corrupt, naming the chunk."""
        return self._io.read(ino, offset, size)

    # --- durability -----------------------------------------------------------------------------------------

    def flush(self, ino: int) -> None:
        """Raise the error that keeps written data of the file from being stored, if there is one (for close)."""
        with self._state.lock:
            error = self._state.get(ino).error
        if error is not None:
            raise repeated(error)

    def fsync(self, ino: int, datasync: bool = False) -> None:
        """[T] L2. ``datasync`` makes no difference: a commit has both."""
        state = self._state
        with state.lock:
            inode = state.get(ino)
            if inode.nlink == 0:
                return  # no crash can leave anything of it
            content = inode.content
            unsealed = content is not None and bool(content.unsealed)
        if unsealed:
            self._sealing.seal_now([inode])
        if inode.error is not None:
            raise repeated(inode.error)
        # Also of a file without changes: a directory above it may have been renamed.
        self._commits.commit()

    def fsyncdir(self, ino: int) -> None:
        """[T] Every name made before the call is durable."""
        with self._state.lock:
            self._state.get(ino)
        self._commits.commit()

    def barrier(self) -> None:
        """[T] Everything written, named and set before the call is durable. Raises what is not."""
        with self._state.lock:
            waiting = [inode for inode in self._contents.unsealed.values() if inode.nlink]
        self._sealing.seal_now(waiting)
        self._ports.flush()
        self._commits.commit()
        for inode in waiting:
            if inode.error is not None:
                raise repeated(inode.error)

    def freeze(self) -> None:
        """Until ``thaw`` no change is admitted (Busy) and nothing commits of itself.

        After ``freeze`` and ``barrier`` the index holds the whole tree and stands still: that is when a snapshot cuts.
        """
        with self._state.lock:
            self._state.frozen = True

    def thaw(self) -> None:
        """Changes are admitted again."""
        with self._state.lock:
            self._state.frozen = False

    def tick(self) -> None:
        """[T] About once a second: seal and commit what is due, try again what failed."""
        state = self._state
        self._space.follow_quota()
        with state.lock:
            due = state.clock.monotonic() - (limits.COMMIT_INTERVAL - limits.TICK)
            self._sealing.flush_small()
            self._space.look()
            old = self._sealing.older_than(due)
            wanted = state.dirty_since is not None and state.dirty_since <= due
            wanted = bool(wanted or old or state.purge or state.crowded or state.failure)
        if old:
            self._sealing.seal_now(old)
        if wanted or self._ports.writer.wants_commit():
            self._commits.try_commit()
        self._ports.heartbeat()

    def close(self) -> None:
        """[T] Barrier; unlinked files go; the tree cannot be used any more. Raises what could not be made durable."""
        try:
            self._tree.remove_orphans()
            self.barrier()
            self._commits.reserve = 0
            self._commits.commit(force=True)
        finally:
            self._stop()

    def _stop(self) -> None:
        self._sealing.close()
        self._commits.close()

    # --- extended attributes, space ---------------------------------------------------------------------------

    def getxattr(self, ino: int, name: bytes) -> bytes:
        """See Xattrs.get."""
        return self._xattrs.get(ino, name)

    def setxattr(self, ino: int, name: bytes, value: bytes, flags: int = 0) -> None:
        """See Xattrs.set."""
        self._xattrs.set(ino, name, value, flags)

    def listxattr(self, ino: int) -> list[bytes]:
        """See Xattrs.list."""
        return self._xattrs.list(ino)

    def removexattr(self, ino: int, name: bytes) -> None:
        """See Xattrs.remove."""
        self._xattrs.remove(ino, name)

    def statfs(self) -> tuple[int, int, int, int, int, int, int]:
        """(bsize, blocks, bfree, bavail, files, ffree, namemax)."""
        with self._state.lock:
            return self._space.statfs()


def _change_owner(inode: Inode, uid: int | None, gid: int | None, clear: bool) -> None:
    if uid is not None:
        inode.uid = uid
    if gid is not None:
        inode.gid = gid
    if clear and inode.is_file:
        inode.mode &= ~stat.S_ISUID
        if inode.mode & stat.S_IXGRP:
            inode.mode &= ~stat.S_ISGID
