"""pyfuse3's request handlers: each translates its arguments, asks ``Files``, and translates the answer.

File handles carry their inode, so that there is no table of handles: ``ino << 1 | writable``.  Directory handles
are the inode.  ``flush`` answers "not implemented" on purpose: the kernel then never asks again, which saves one
request per close; it still writes dirty pages back and reports their errors from close.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Sequence
from contextlib import aclosing

import pyfuse3

from engine.errors import NotFound, PosixError, QuotaExceeded, StoreFull
from fsmount.channel.errors import boundary, errno_of
from fsmount.contract import Attr, Change, Ctx, StatFs
from fsmount.files import RESTORES, VIRTUAL, Files

WRITING = os.O_WRONLY | os.O_RDWR
SHOWN = 3  # "." and ".." have the positions 1 and 2, in the root the restores 3; a tree's own cookie c is c + 3
NAME_MAX = 255


class Adapter(pyfuse3.Operations):
    """Serves one mount: ``live`` for its own inodes, ``virtual`` for those of ``.snapshots`` and below, ``restores``
    for those of the directory of that name while it is shown. Counts what it does."""

    enable_writeback_cache = True
    enable_acl = True
    supports_dot_lookup = True

    def __init__(self, live: Files, virtual: Files | None, hidden: bytes | None) -> None:
        """``hidden`` is the name in the root, not listed, that leads to the virtual tree's root."""
        super().__init__()
        self.live = live
        self.virtual = virtual if virtual is not None else live
        self.restores = self.virtual
        self.shown = b""  # the name of ``restores`` in the root, while it is shown
        self.named = {hidden: (self.virtual, VIRTUAL)} if hidden is not None else {}
        self.requests = 0
        self.bytes_read = 0
        self.bytes_written = 0
        self.fsyncs = 0
        self.fsync_ns = 0

    def show(self, name: bytes, restores: Files) -> None:
        """Show these restores in the root under this name; b"" for no more. What is known of them stays usable."""
        self.named.pop(self.shown, None)
        self.restores, self.shown = restores, name
        if name:
            self.named[name] = restores, RESTORES

    def _of(self, ino: int) -> Files:
        if ino & VIRTUAL:
            return self.restores if ino & RESTORES == RESTORES else self.virtual
        return self.live

    def _entry(self, files: Files, attr: Attr) -> pyfuse3.EntryAttributes:
        entry = attributes(attr)
        entry.attr_timeout = files.timeout(attr.ino)
        entry.entry_timeout = self.entry_timeout(files, attr.ino)
        return entry

    def entry_timeout(self, files: Files, ino: int) -> float:
        """How long the kernel may remember a name of this inode, or what is not in it (s)."""
        return files.timeout(ino)

    def caller(self, ctx: pyfuse3.RequestContext) -> Ctx:
        """Who a request acts as."""
        return Ctx(ctx.uid, ctx.gid, ctx.pid, ctx.umask)

    def _told(self, files: Files, attr: Attr) -> pyfuse3.EntryAttributes:
        entry = self._entry(files, attr)
        files.known(attr.ino)
        return entry

    # --- names --------------------------------------------------------------------------------------

    @boundary
    async def lookup(
        self, parent_inode: int, name: bytes, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        self.requests += 1
        if len(name) > NAME_MAX:
            raise PosixError(errno.ENAMETOOLONG)
        if parent_inode == pyfuse3.ROOT_INODE and name in self.named:
            files, ino = self.named[name]
            return self._told(files, await files.getattr(ino))
        files = self._of(parent_inode)
        try:
            attr = await files.lookup(parent_inode, name)
        except NotFound:
            if name == b"..":  # of a directory that is shown in the root
                return self._told(self.live, await self.live.getattr(pyfuse3.ROOT_INODE))
            nothing = pyfuse3.EntryAttributes()
            nothing.st_ino = 0
            nothing.entry_timeout = self.entry_timeout(files, parent_inode)
            return nothing
        return self._told(self._of(attr.ino), attr)

    async def forget(self, inode_list: Sequence[tuple[int, int]]) -> None:
        for ino, count in inode_list:
            try:
                self._of(ino).forget(ino, count)
            except Exception as error:  # noqa: BLE001  there is nobody to answer; the log is told
                errno_of("forget", error)

    @boundary
    async def mknod(
        self, parent_inode: int, name: bytes, mode: int, rdev: int, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        files = self._at(parent_inode, name)
        return self._told(
            files, await files.mknod(parent_inode, name, mode, rdev, self.caller(ctx))
        )

    @boundary
    async def mkdir(
        self, parent_inode: int, name: bytes, mode: int, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        files = self._at(parent_inode, name)
        return self._told(files, await files.mkdir(parent_inode, name, mode, self.caller(ctx)))

    @boundary
    async def symlink(
        self, parent_inode: int, name: bytes, target: bytes, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        files = self._at(parent_inode, name)
        return self._told(files, await files.symlink(parent_inode, name, target, self.caller(ctx)))

    @boundary
    async def link(
        self, inode: int, new_parent_inode: int, new_name: bytes, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        files = self._of(inode)
        if files is self.live:
            files = self._at(new_parent_inode, new_name)
        return self._told(files, await files.link(inode, new_parent_inode, new_name))

    @boundary
    async def unlink(self, parent_inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> None:
        await self._at(parent_inode, name).unlink(parent_inode, name)

    @boundary
    async def rmdir(self, parent_inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> None:
        await self._at(parent_inode, name).rmdir(parent_inode, name)

    @boundary
    async def rename(
        self,
        parent_inode_old: int,
        name_old: bytes,
        parent_inode_new: int,
        name_new: bytes,
        flags: int,
        ctx: pyfuse3.RequestContext,
    ) -> None:
        files = self._at(parent_inode_old, name_old)
        if files is self.live:
            files = self._at(parent_inode_new, name_new)
        await files.rename(parent_inode_old, name_old, parent_inode_new, name_new, flags)

    def _at(self, parent: int, name: bytes) -> Files:
        """Who is asked to change this name."""
        if parent == pyfuse3.ROOT_INODE and name in self.named:
            return self.named[name][0]
        return self._of(parent)

    # --- attributes ---------------------------------------------------------------------------------

    @boundary
    async def getattr(self, inode: int, ctx: pyfuse3.RequestContext) -> pyfuse3.EntryAttributes:
        self.requests += 1
        files = self._of(inode)
        return self._entry(files, await files.getattr(inode))

    @boundary
    async def setattr(
        self,
        inode: int,
        attr: pyfuse3.EntryAttributes,
        fields: pyfuse3.SetattrFields,
        fh: int | None,
        ctx: pyfuse3.RequestContext,
    ) -> pyfuse3.EntryAttributes:
        self.requests += 1
        files = self._of(inode)
        return self._entry(files, await files.setattr(inode, wanted(attr, fields)))

    @boundary
    async def readlink(self, inode: int, ctx: pyfuse3.RequestContext) -> bytes:
        return await self._of(inode).readlink(inode)

    @boundary
    async def statfs(self, ctx: pyfuse3.RequestContext) -> pyfuse3.StatvfsData:
        return space(await self.live.statfs())

    @boundary
    async def getxattr(self, inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> bytes:
        self.requests += 1
        return await self._of(inode).getxattr(inode, name)

    @boundary
    async def setxattr(
        self, inode: int, name: bytes, value: bytes, ctx: pyfuse3.RequestContext
    ) -> None:
        await self._of(inode).setxattr(inode, name, value, self.caller(ctx))

    @boundary
    async def listxattr(self, inode: int, ctx: pyfuse3.RequestContext) -> list[bytes]:
        names = await self._of(inode).listxattr(inode)
        return names if ctx.uid == 0 else self.shown_to_all(names)

    @staticmethod
    def shown_to_all(names: list[bytes]) -> list[bytes]:
        """Names of attributes that only root may read are root's alone, as on other file systems."""
        return [name for name in names if not name.startswith(b"trusted.")]

    @boundary
    async def removexattr(self, inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> None:
        await self._of(inode).removexattr(inode, name)

    # --- files --------------------------------------------------------------------------------------

    @boundary
    async def create(
        self,
        parent_inode: int,
        name: bytes,
        mode: int,
        flags: int,
        ctx: pyfuse3.RequestContext,
    ) -> tuple[pyfuse3.FileInfo, pyfuse3.EntryAttributes]:
        self.requests += 1
        files = self._at(parent_inode, name)
        writable = bool(flags & WRITING)
        attr = await files.create(parent_inode, name, mode, writable, self.caller(ctx))
        return handle(attr.ino, writable), self._told(files, attr)

    @boundary
    async def open(self, inode: int, flags: int, ctx: pyfuse3.RequestContext) -> pyfuse3.FileInfo:
        writable = bool(flags & WRITING)
        await self._of(inode).opened(inode, writable)
        return handle(inode, writable)

    @boundary
    async def read(self, fh: int, off: int, size: int) -> bytes:
        self.requests += 1
        ino = fh >> 1
        data = await self._of(ino).read(ino, off, size)
        self.bytes_read += len(data)
        return data

    @boundary
    async def write(self, fh: int, off: int, buf: bytes) -> int:
        self.requests += 1
        try:
            written = await self._of(fh >> 1).write(fh >> 1, off, buf)
        except QuotaExceeded as error:
            if not self.enable_writeback_cache:
                raise
            # Of errors at write-back the kernel keeps ENOSPC for close, and makes EIO of every other one.
            raise StoreFull(str(error)) from None
        self.bytes_written += written
        return written

    @boundary
    async def release(self, fh: int) -> None:
        await self._of(fh >> 1).released(fh >> 1, bool(fh & 1))

    @boundary
    async def fsync(self, fh: int, datasync: bool) -> None:
        began = time.monotonic_ns()
        await self._of(fh >> 1).fsync(fh >> 1, datasync)
        self.fsyncs += 1
        self.fsync_ns += time.monotonic_ns() - began

    # --- directories --------------------------------------------------------------------------------

    @boundary
    async def opendir(self, inode: int, ctx: pyfuse3.RequestContext) -> int:
        return inode

    @boundary
    async def readdir(self, fh: int, start_id: int, token: pyfuse3.ReaddirToken) -> None:
        files = self._of(fh)
        for position, name in ((1, b"."), (2, b"..")):
            if start_id < position:
                ino = fh if position == 1 else await files.parent(fh)
                entry = self._entry(files, await self._of(ino).getattr(ino))
                if not pyfuse3.readdir_reply(token, name, entry, position):
                    return
        if fh == pyfuse3.ROOT_INODE and start_id < SHOWN and self.shown:
            entry = self._entry(self.restores, await self.restores.getattr(RESTORES))
            if not pyfuse3.readdir_reply(token, self.shown, entry, SHOWN):
                return
            self.restores.known(RESTORES)
        async with aclosing(files.readdir(fh, max(0, start_id - SHOWN))) as entries:
            async for name, attr, cookie in entries:
                if not pyfuse3.readdir_reply(token, name, self._entry(files, attr), cookie + SHOWN):
                    break
                files.known(attr.ino)

    @boundary
    async def releasedir(self, fh: int) -> None:
        return None

    @boundary
    async def fsyncdir(self, fh: int, datasync: bool) -> None:
        await self._of(fh).fsyncdir(fh)


def handle(ino: int, writable: bool) -> pyfuse3.FileInfo:
    """An open file; the kernel keeps its pages, since nobody else changes them."""
    return pyfuse3.FileInfo(fh=ino << 1 | writable, keep_cache=True)


def attributes(attr: Attr) -> pyfuse3.EntryAttributes:
    """Attributes in the channel's type; timeouts are the caller's."""
    entry = pyfuse3.EntryAttributes()
    entry.st_ino = attr.ino
    entry.generation = attr.generation
    entry.st_mode = attr.mode
    entry.st_nlink = attr.nlink
    entry.st_uid = attr.uid
    entry.st_gid = attr.gid
    entry.st_rdev = attr.rdev
    entry.st_size = attr.size
    entry.st_blocks = attr.blocks
    entry.st_blksize = attr.blksize
    entry.st_atime_ns = attr.atime_ns
    entry.st_mtime_ns = attr.mtime_ns
    entry.st_ctime_ns = attr.ctime_ns
    return entry


def wanted(attr: pyfuse3.EntryAttributes, fields: pyfuse3.SetattrFields) -> Change:
    """The new values of a setattr by name."""
    change: Change = {}
    if fields.update_mode:
        change["mode"] = attr.st_mode & 0o7777
    if fields.update_uid:
        change["uid"] = attr.st_uid
    if fields.update_gid:
        change["gid"] = attr.st_gid
    if fields.update_size:
        change["size"] = attr.st_size
    if fields.update_atime:
        change["atime_ns"] = attr.st_atime_ns
    if fields.update_mtime:
        change["mtime_ns"] = attr.st_mtime_ns
    if fields.update_ctime:
        change["ctime_ns"] = attr.st_ctime_ns
    return change


def space(given: StatFs) -> pyfuse3.StatvfsData:
    """Space in the channel's type."""
    data = pyfuse3.StatvfsData()
    data.f_bsize = data.f_frsize = given.bsize
    data.f_blocks, data.f_bfree, data.f_bavail = given.blocks, given.bfree, given.bavail
    data.f_files, data.f_ffree, data.f_favail = given.files, given.ffree, given.ffree
    data.f_namemax = given.namemax
    return data
