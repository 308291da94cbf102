"""A mount on which root is nobody: every request is checked by modes and access lists, whoever asks.

The kernel checks too, but not root.  It must therefore ask about every step of a path (names are not to be remembered)
and may keep no written pages back (it hands those over in root's name): such a mount is slower.

Reading, writing and syncing need no check of their own: they come with a descriptor that was opened by somebody who
was allowed to.  Attributes are not hidden, as everywhere: to see them one must have found the name.
"""

from __future__ import annotations

import errno
import os
import stat
import time

import pyfuse3

from engine.errors import NotFound, PosixError
from fsmount import contract
from fsmount.channel.adapter import Adapter, wanted
from fsmount.channel.errors import boundary
from fsmount.contract import Ctx
from fsmount.files import Files
from fsmount.permission import (
    READ,
    SEARCH,
    WRITE,
    Attr,
    Caller,
    made_mode,
    may,
    require,
    require_change,
    require_removal,
    require_xattr,
    ruled,
)
from fsmount.xattrs import ACCESS

EXCHANGE = 2  # RENAME_EXCHANGE
_NEEDS = {os.O_RDONLY: READ, os.O_WRONLY: WRITE, os.O_RDWR: READ | WRITE}


class Guarded(Adapter):
    """``nobody``: user and group that root's requests act as."""

    enable_writeback_cache = False

    def __init__(
        self, live: Files, virtual: Files | None, hidden: bytes | None, nobody: tuple[int, int]
    ) -> None:
        super().__init__(live, virtual, hidden)
        self._nobody = nobody

    def entry_timeout(self, files: Files, ino: int) -> float:
        return 0.0  # so that each step of each path is asked about

    def caller(self, ctx: pyfuse3.RequestContext) -> Ctx:
        given = super().caller(ctx)
        if given.uid:
            return given
        # No process: root's other groups are not nobody's.
        return given._replace(uid=self._nobody[0], gid=self._nobody[1], pid=0)

    def _who(self, ctx: pyfuse3.RequestContext) -> Caller:
        if ctx.uid:
            return Caller(ctx.uid, ctx.gid, ctx.pid)
        return Caller(*self._nobody, None)

    async def _attr(self, ino: int, who: Caller) -> Attr:
        """The inode as it is for this caller."""
        files = self._of(ino)
        attr = await files.getattr(ino)
        if stat.S_ISLNK(attr.mode) or not attr.mode & stat.S_IRWXG:
            return attr  # the kernel looks at no list then, either
        try:
            return ruled(attr, await files.getxattr(ino, ACCESS), who)
        except PosixError as error:
            if error.errno != errno.ENODATA:
                raise
        return attr

    async def _require(self, ino: int, ctx: pyfuse3.RequestContext, want: int) -> None:
        who = self._who(ctx)
        require(await self._attr(ino, who), who, want)

    # --- names --------------------------------------------------------------------------------------

    @boundary
    async def lookup(
        self, parent_inode: int, name: bytes, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        if name not in (b".", b".."):  # how an inode is found by its number, and its parent
            await self._require(parent_inode, ctx, SEARCH)
        return await super().lookup(parent_inode, name, ctx)

    async def _made(self, parent: int, mode: int, ctx: pyfuse3.RequestContext) -> int:
        who = self._who(ctx)
        directory = await self._attr(parent, who)
        require(directory, who, WRITE | SEARCH)
        return made_mode(directory, mode, who)

    @boundary
    async def mknod(
        self, parent_inode: int, name: bytes, mode: int, rdev: int, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        mode = await self._made(parent_inode, mode, ctx)
        if stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
            raise PosixError(errno.EPERM)
        return await super().mknod(parent_inode, name, mode, rdev, ctx)

    @boundary
    async def mkdir(
        self, parent_inode: int, name: bytes, mode: int, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        await self._require(parent_inode, ctx, WRITE | SEARCH)
        return await super().mkdir(parent_inode, name, mode, ctx)

    @boundary
    async def symlink(
        self, parent_inode: int, name: bytes, target: bytes, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        await self._require(parent_inode, ctx, WRITE | SEARCH)
        return await super().symlink(parent_inode, name, target, ctx)

    @boundary
    async def link(
        self, inode: int, new_parent_inode: int, new_name: bytes, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        await self._require(new_parent_inode, ctx, WRITE | SEARCH)
        who = self._who(ctx)
        attr = await self._attr(inode, who)
        if attr.uid != who.uid and not (
            stat.S_ISREG(attr.mode)
            and may(attr, who, READ | WRITE)
            and not attr.mode & stat.S_ISUID
        ):
            raise PosixError(errno.EPERM)  # as hosts do that protect hard links
        return await super().link(inode, new_parent_inode, new_name, ctx)

    async def _removal(
        self, parent: int, name: bytes, ctx: pyfuse3.RequestContext
    ) -> contract.Attr | None:
        """The entry, which may be taken away; None when there is none."""
        if self._at(parent, name) is not self.live:
            return None  # what is asked changes a point, and is refused as such
        who = self._who(ctx)
        directory = await self._attr(parent, who)
        require(directory, who, WRITE | SEARCH)
        try:
            entry = await self.live.lookup(parent, name)
        except NotFound:
            return None
        require_removal(directory, entry, who)
        return entry

    @boundary
    async def unlink(self, parent_inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> None:
        await self._removal(parent_inode, name, ctx)
        await super().unlink(parent_inode, name, ctx)

    @boundary
    async def rmdir(self, parent_inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> None:
        await self._removal(parent_inode, name, ctx)
        await super().rmdir(parent_inode, name, ctx)

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
        moved = [await self._removal(parent_inode_old, name_old, ctx)]
        other = await self._removal(parent_inode_new, name_new, ctx)
        if flags == EXCHANGE:
            moved.append(other)
        for entry in moved:  # a directory that gets another parent is itself written to
            if (
                entry is not None
                and stat.S_ISDIR(entry.mode)
                and parent_inode_old != parent_inode_new
            ):
                await self._require(entry.ino, ctx, WRITE)
        await super().rename(parent_inode_old, name_old, parent_inode_new, name_new, flags, ctx)

    # --- attributes ---------------------------------------------------------------------------------

    @boundary
    async def setattr(
        self,
        inode: int,
        attr: pyfuse3.EntryAttributes,
        fields: pyfuse3.SetattrFields,
        fh: int | None,
        ctx: pyfuse3.RequestContext,
    ) -> pyfuse3.EntryAttributes:
        change = wanted(attr, fields)
        opened = fh is not None and bool(fh & 1)
        now, who = time.time_ns(), self._who(ctx)
        require_change(await self._attr(inode, who), change, who, now, opened=opened)
        if "mode" in change:
            attr.st_mode = change["mode"]
        return await super().setattr(inode, attr, fields, fh, ctx)

    @boundary
    async def getxattr(self, inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> bytes:
        who = self._who(ctx)
        require_xattr(await self._attr(inode, who), name, who, write=False)
        return await super().getxattr(inode, name, ctx)

    @boundary
    async def listxattr(self, inode: int, ctx: pyfuse3.RequestContext) -> list[bytes]:
        return self.shown_to_all(await super().listxattr(inode, ctx))

    @boundary
    async def setxattr(
        self, inode: int, name: bytes, value: bytes, ctx: pyfuse3.RequestContext
    ) -> None:
        who = self._who(ctx)
        require_xattr(await self._attr(inode, who), name, who, write=True)
        await super().setxattr(inode, name, value, ctx)

    @boundary
    async def removexattr(self, inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> None:
        who = self._who(ctx)
        require_xattr(await self._attr(inode, who), name, who, write=True)
        await super().removexattr(inode, name, ctx)

    # --- opening ------------------------------------------------------------------------------------

    @boundary
    async def create(
        self,
        parent_inode: int,
        name: bytes,
        mode: int,
        flags: int,
        ctx: pyfuse3.RequestContext,
    ) -> tuple[pyfuse3.FileInfo, pyfuse3.EntryAttributes]:
        mode = await self._made(parent_inode, mode, ctx)
        return await super().create(parent_inode, name, mode, flags, ctx)

    @boundary
    async def open(self, inode: int, flags: int, ctx: pyfuse3.RequestContext) -> pyfuse3.FileInfo:
        want = _NEEDS.get(flags & os.O_ACCMODE, READ | WRITE)
        await self._require(inode, ctx, want)
        return await super().open(inode, flags, ctx)

    @boundary
    async def opendir(self, inode: int, ctx: pyfuse3.RequestContext) -> int:
        await self._require(inode, ctx, READ)
        return await super().opendir(inode, ctx)
