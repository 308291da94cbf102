"""The namespace: making, linking, renaming and removing names, with POSIX's structure and its errors.

Permissions, the sticky bit and umask-free modes are the kernel's business (default_permissions); here it is made
sure that the tree stays a tree, that link counts are right, and that times move as POSIX says.  Every method is
atomic under the tree's lock and is part of one commit.
"""

from __future__ import annotations

import errno
import stat

from engine import limits
from engine.errors import AlreadyExists, InvalidRequest, NotFound, PosixError
from engine.index import Table
from engine.live import rows
from engine.live.content import Contents
from engine.live.entries import Entry, Names
from engine.live.inode import Attr, Ctx, Inode
from engine.live.names import NameTable
from engine.live.rows import ROOT
from engine.live.space import Space
from engine.live.state import State

RENAME_NOREPLACE = 1
RENAME_EXCHANGE = 2


def check_name(name: bytes) -> None:
    """Refuse what cannot be an entry: ENAMETOOLONG, EINVAL."""
    if len(name) > limits.NAME_MAX:
        raise PosixError(errno.ENAMETOOLONG)
    if not name or name in (b".", b"..") or b"/" in name or b"\0" in name:
        raise InvalidRequest("name", expected="1 to 255 bytes without / and NUL, not . or ..")


class Namespace:
    """All methods take the tree's lock."""

    def __init__(self, state: State, names: NameTable, contents: Contents, space: Space) -> None:
        self._state = state
        self._names = names
        self._contents = contents
        self._space = space

    # --- looking up ---------------------------------------------------------------------------------------

    def lookup(self, parent: int, name: bytes) -> Attr:
        """Raises NotFound, ENOTDIR, ENAMETOOLONG. ``.`` and ``..`` are looked up too; the root is its own parent."""
        state = self._state
        with state.lock:
            directory = state.directory(parent)
            if self._names.known(directory, name):
                entry = self._names.find(directory, name)
                inode = None if entry is None else state.get(entry.ino)
            else:
                with state.index.read() as txn:
                    entry = self._names.find(directory, name, txn)
                    inode = None if entry is None else state.load(txn, entry.ino)
            if inode is not None:
                if inode.nlink == 1 or inode.is_dir:
                    inode.name = name
                return Attr(inode)
            if name == b".":
                return Attr(directory)
            if name == b"..":
                return Attr(state.get(directory.parent))
            if len(name) > limits.NAME_MAX:
                raise PosixError(errno.ENAMETOOLONG)
            raise NotFound("no such name")

    def _present(self, directory: Inode, name: bytes) -> tuple[Entry, Inode]:
        check_name(name)
        entry = self._names.find(directory, name)
        if entry is None:
            raise NotFound("no such name")
        return entry, self._state.get(entry.ino)

    # --- making -------------------------------------------------------------------------------------------

    def make(
        self, parent: int, name: bytes, mode: int, ctx: Ctx, *, rdev: int = 0, target: bytes = b""
    ) -> Attr:
        """A new inode under a new name. Raises AlreadyExists, ENOTDIR, ENOSPC, EDQUOT …

        In a setgid directory the group is the directory's, and a new directory is setgid as well.
        """
        check_name(name)
        state = self._state
        with state.lock:
            directory = state.directory(parent)
            if self._names.find(directory, name) is not None:
                raise AlreadyExists("name exists")
            if directory.nlink == 0:
                raise NotFound("directory was removed")
            self._space.admit_inode()
            gid = ctx.gid
            if directory.mode & stat.S_ISGID:
                gid = directory.gid
                if stat.S_ISDIR(mode):
                    mode |= stat.S_ISGID
            now = state.clock.now_ns()
            ino = state.new_ino()
            cookie = self._names.add(directory, name, ino, mode >> 12)
            inode = Inode(ino, mode, ctx.uid, gid, now, parent, cookie)
            inode.name = name
            inode.rdev = rdev
            if target:
                inode.target = target
                inode.size = len(target)
            elif stat.S_ISDIR(mode):
                inode.nlink = 2
                inode.names = Names(complete=True)
                directory.nlink += 1
            state.insert(inode)
            state.touch(inode)
            state.used_inodes += 1
            self._changed_directory(directory, now)
            return Attr(inode)

    def _changed_directory(self, directory: Inode, now: int) -> None:
        directory.mtime = directory.ctime = now
        self._state.touch(directory)

    # --- hard links ---------------------------------------------------------------------------------------

    def link(self, ino: int, parent: int, name: bytes) -> Attr:
        """One more name for a file. Raises AlreadyExists, EPERM for directories, EMLINK."""
        check_name(name)
        state = self._state
        with state.lock:
            inode = state.get(ino)
            directory = state.directory(parent)
            if inode.is_dir:
                raise PosixError(errno.EPERM, "a directory cannot have a second name")
            if inode.nlink == 0 or directory.nlink == 0:
                raise NotFound("file or directory was removed")
            if inode.nlink >= limits.LINK_MAX:
                raise PosixError(errno.EMLINK)
            if self._names.find(directory, name) is not None:
                raise AlreadyExists("name exists")
            self._space.admit_inode()
            now = state.clock.now_ns()
            cookie = self._names.add(directory, name, ino, inode.mode >> 12)
            self._set_link(inode, (parent, cookie), there=True)
            inode.nlink += 1
            inode.ctime = now
            state.touch(inode)
            self._changed_directory(directory, now)
            return Attr(inode)

    def _links(self, inode: Inode) -> set[tuple[int, int]]:
        """Places of the links beyond the first."""
        if inode.links is None:
            state = self._state
            with state.index.read() as txn:
                prefix = rows.inode_key(state.mount, inode.ino)
                links = {
                    rows.split_link_key(key) for key, _ in txn.scan(Table.PARENTS, prefix=prefix)
                }
            inode.links = links
        return inode.links

    def _set_link(self, inode: Inode, place: tuple[int, int], *, there: bool) -> None:
        links = self._links(inode)
        if there:
            links.add(place)
        else:
            links.discard(place)
        if inode.links_changed is None:
            inode.links_changed = {}
        inode.links_changed[place] = there

    def _drop_link(self, inode: Inode, place: tuple[int, int]) -> None:
        """A name of a file is gone. When it was the first, another becomes it."""
        inode.nlink -= 1
        if (inode.parent, inode.cookie) != place:
            self._set_link(inode, place, there=False)
        elif inode.nlink:
            other = min(self._links(inode))
            self._set_link(inode, other, there=False)
            inode.parent, inode.cookie = other
            inode.name = None

    # --- removing -----------------------------------------------------------------------------------------

    def unlink(self, parent: int, name: bytes) -> None:
        """Raises NotFound, EISDIR. The inode stays while it is open or known to the kernel."""
        state = self._state
        with state.lock:
            state.admit()
            directory = state.directory(parent)
            entry, inode = self._present(directory, name)
            if inode.is_dir:
                raise PosixError(errno.EISDIR)
            now = state.clock.now_ns()
            self._names.remove(directory, name, entry)
            self._changed_directory(directory, now)
            self._unlinked(inode, (parent, entry.cookie), now)

    def _unlinked(self, inode: Inode, place: tuple[int, int], now: int) -> None:
        self._drop_link(inode, place)
        inode.ctime = now
        self._state.touch(inode)
        if inode.nlink == 0:
            self._orphaned(inode)

    def _orphaned(self, inode: Inode) -> None:
        self._state.orphans[inode.ino] = inode
        self._state.replaced.pop(inode.ino, None)
        inode.forgotten = False

    def rmdir(self, parent: int, name: bytes) -> None:
        """Raises NotFound, ENOTDIR, ENOTEMPTY."""
        state = self._state
        with state.lock:
            state.admit()
            directory = state.directory(parent)
            if name == b".":
                raise InvalidRequest("name", expected="not '.'")
            if name == b"..":
                raise PosixError(errno.ENOTEMPTY)
            entry, inode = self._present(directory, name)
            if not inode.is_dir:
                raise PosixError(errno.ENOTDIR)
            if inode.size:
                raise PosixError(errno.ENOTEMPTY)
            now = state.clock.now_ns()
            self._names.remove(directory, name, entry)
            directory.nlink -= 1
            self._changed_directory(directory, now)
            self._removed_directory(inode, now)

    def _removed_directory(self, inode: Inode, now: int) -> None:
        inode.nlink = 0
        inode.ctime = now
        self._state.touch(inode)
        self._orphaned(inode)

    def forgotten(self, ino: int) -> None:
        """The kernel dropped the inode: an unlinked one that is not open goes now."""
        state = self._state
        with state.lock:
            inode = state.orphans.get(ino)
            if inode is not None:
                inode.forgotten = True
                self.maybe_remove(inode)

    def maybe_remove(self, inode: Inode) -> None:
        """Remove an unlinked inode that nobody has open and the kernel does not know. Lock held."""
        if inode.nlink == 0 and inode.opens == 0 and inode.forgotten:
            self._remove(inode)

    def _remove(self, inode: Inode) -> None:
        state = self._state
        ino = inode.ino
        self._contents.remove(inode)
        state.used_bytes -= inode.alloc
        state.used_inodes -= 1
        state.orphans.pop(ino, None)
        state.inodes.pop(ino, None)
        state.dirty.pop(ino, None)
        # A removed directory's tombstones are still to be committed: dirty_names keeps it until they are.
        if inode.born or inode.flight:
            state.gone.add(ino)
            state.purge.append(ino)
            if state.dirty_since is None:
                state.dirty_since = state.clock.monotonic()

    def remove_orphans(self) -> None:
        """Nobody can have anything open any more (closing)."""
        with self._state.lock:
            for inode in list(self._state.orphans.values()):
                self._remove(inode)

    # --- renaming -----------------------------------------------------------------------------------------

    def rename(
        self, parent: int, name: bytes, new_parent: int, new_name: bytes, flags: int
    ) -> None:
        """Raises NotFound, AlreadyExists (NOREPLACE), ENOTEMPTY, EISDIR, ENOTDIR; EINVAL into its own subtree."""
        if flags not in (0, RENAME_NOREPLACE, RENAME_EXCHANGE):
            raise InvalidRequest(
                "rename", expected="no flag, NOREPLACE or EXCHANGE", found=str(flags)
            )
        check_name(new_name)
        state = self._state
        with state.lock:
            state.admit()
            source = state.directory(parent)
            target = state.directory(new_parent)
            entry, inode = self._present(source, name)
            if target.nlink == 0:
                raise NotFound("directory was removed")
            other = self._names.find(target, new_name)
            if other is not None and flags == RENAME_NOREPLACE:
                raise AlreadyExists("name exists")
            self._refuse_loop(inode, target)
            now = state.clock.now_ns()
            if flags == RENAME_EXCHANGE:
                if other is None:
                    raise NotFound("no such name")
                self._exchange(source, name, entry, target, new_name, other, now)
                return
            if other is not None:
                if other.ino == entry.ino:
                    return  # two names of one file: POSIX says nothing is done
                self._replace_target(inode, target, new_name, other, now)
                if inode.is_file:
                    state.replaced[inode.ino] = inode
            self._names.remove(source, name, entry)
            again = self._names.find(target, new_name)
            assert again is None, "the target's name is free"
            cookie = self._names.add(target, new_name, inode.ino, inode.mode >> 12)
            self._moved(inode, (parent, entry.cookie), (new_parent, cookie), new_name, now)
            if inode.is_dir and source is not target:
                source.nlink -= 1
                target.nlink += 1
            self._changed_directory(source, now)
            self._changed_directory(target, now)

    def _refuse_loop(self, inode: Inode, target: Inode) -> None:
        """EINVAL when ``target`` is ``inode`` or lies below it."""
        if not inode.is_dir:
            return
        while True:
            if target.ino == inode.ino:
                raise InvalidRequest("rename", found="a target inside the directory that is moved")
            if target.ino == ROOT:
                return
            target = self._state.get(target.parent)

    def _replace_target(
        self, inode: Inode, target: Inode, name: bytes, other: Entry, now: int
    ) -> None:
        old = self._state.get(other.ino)
        if old.is_dir:
            if not inode.is_dir:
                raise PosixError(errno.EISDIR)
            if old.size:
                raise PosixError(errno.ENOTEMPTY)
            self._names.remove(target, name, other)
            target.nlink -= 1
            self._removed_directory(old, now)
        else:
            if inode.is_dir:
                raise PosixError(errno.ENOTDIR)
            self._names.remove(target, name, other)
            self._unlinked(old, (target.ino, other.cookie), now)

    def _moved(
        self, inode: Inode, old: tuple[int, int], new: tuple[int, int], name: bytes, now: int
    ) -> None:
        """One name of the inode is now elsewhere."""
        if (inode.parent, inode.cookie) == old:
            inode.parent, inode.cookie = new
            inode.name = name
        else:
            self._set_link(inode, old, there=False)
            self._set_link(inode, new, there=True)
        inode.ctime = now
        self._state.touch(inode)

    def _exchange(
        self,
        source: Inode,
        name: bytes,
        entry: Entry,
        target: Inode,
        new_name: bytes,
        other: Entry,
        now: int,
    ) -> None:
        state = self._state
        inode = state.get(entry.ino)
        old = state.get(other.ino)
        self._refuse_loop(old, source)
        if inode is old:
            return
        self._names.replace(source, name, entry, old.ino, old.mode >> 12)
        self._names.replace(target, new_name, other, inode.ino, inode.mode >> 12)
        here, there = (source.ino, entry.cookie), (target.ino, other.cookie)
        self._moved(inode, here, there, new_name, now)
        self._moved(old, there, here, name, now)
        if source is not target:
            source.nlink += old.is_dir - inode.is_dir
            target.nlink += inode.is_dir - old.is_dir
        for moved in (inode, old):
            if moved.is_file:
                state.replaced[moved.ino] = moved
        self._changed_directory(source, now)
        self._changed_directory(target, now)
