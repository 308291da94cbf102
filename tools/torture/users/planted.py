"""Bugs planted in what keeps users apart."""

from __future__ import annotations

import os
import socket
import stat
import sys
import time

from engine.index import Txn
from engine.live.inode import Attr, Ctx, Inode
from engine.live.space import Quota, Space
from tools.torture.bugs import bug


@bug("points open to all")
def open_points() -> None:
    """Recovery points are served with everybody's right to read, whatever the modes were."""
    from fsmount.pointfs import Entry, PointAttr

    real = PointAttr.__init__

    def init(self: PointAttr, ino: int, entry: Entry) -> None:
        real(self, ino, entry)
        self.mode |= 0o555 if stat.S_ISDIR(self.mode) else 0o444

    PointAttr.__init__ = init  # type: ignore[method-assign]


@bug("listing opens points")
def open_listing() -> None:
    """A listing of .snapshots tells the kernel that every point's root is open to all."""
    from fsmount import snapdir
    from fsmount.pointfs import Entry

    def attr(ino: int, root: Entry) -> snapdir.FolderAttr:
        return snapdir.FolderAttr(ino, root.mtime_ns)

    vars(snapdir)["PointAttr"] = attr


@bug("control socket for all")
def open_socket() -> None:
    """The control socket has mode 0666, and the worker does not look who is at the other end."""
    from fsmount import control

    real = control.listen

    def listen(folder: str, name: str) -> socket.socket:
        listener = real(folder, name)
        os.chmod(os.path.join(folder, name), 0o666)
        return listener

    control.listen = listen
    control._is_owner = lambda stream: True


@bug("squash forgets setattr")
def no_squash_of_attributes() -> None:
    """Root squash does not cover changes of mode, owner, size and times."""
    from fsmount.channel.adapter import Adapter
    from fsmount.channel.guarded import Guarded

    Guarded.setattr = Adapter.setattr  # type: ignore[method-assign]


@bug("kernel checks nothing")
def no_default_permissions() -> None:
    """Mounts are made without default_permissions: anybody may chown, chmod, read and delete."""
    from fsmount import worker
    from fsmount.channel.adapter import Adapter
    from fsmount.options import Options

    Adapter.enable_acl = False  # with access lists the kernel judges modes as well, asked or not
    real = vars(worker)["mount_options"]

    def options(given: Options, source: str, *, read_only: bool) -> list[str]:
        return [one for one in real(given, source, read_only=read_only) if one != DEFAULT]

    vars(worker)["mount_options"] = options


DEFAULT = "default_permissions"


@bug("points can be removed")
def removable_points() -> None:
    """Removing a point's directory in .snapshots deletes the point."""
    from fsmount.snapdir import SnapDir
    from fsmount.source import StorePoints

    async def rmdir(self: SnapDir, parent: int, name: bytes) -> None:
        points = self._points
        assert isinstance(points, StorePoints)
        points._store.remove_point(name.decode())

    SnapDir.rmdir = rmdir  # type: ignore[method-assign,assignment]


@bug("quota checked when opened")
def quota_at_open() -> None:
    """The quota of bytes is looked at when a file is made or opened, not when it is written."""

    real = Space.admit_write

    def admit(self: Space, inode: Inode, end: int, size: int) -> None:
        if inode.size == 0:
            real(self, inode, end, size)

    Space.admit_write = admit  # type: ignore[method-assign]


@bug("inodes not counted")
def no_inodes() -> None:
    """The quota of inodes is looked at for directories alone."""
    from engine.live.namespace import Namespace

    real = Namespace.make

    def make(
        self: Namespace, parent: int, name: bytes, mode: int, ctx: Ctx, *, rdev: int = 0, target: bytes = b""
    ) -> Attr:  # fmt: skip
        quota = self._space._quota
        if not stat.S_ISDIR(mode):
            self._space._quota = Quota(quota.nbytes)
        try:
            return real(self, parent, name, mode, ctx, rdev=rdev, target=target)
        finally:
            self._space._quota = quota

    Namespace.make = make  # type: ignore[method-assign]


@bug("transaction held while waiting")
def holds_transaction() -> None:
    """The worker of the attacked mount waits a quarter of a second inside every write transaction."""
    from engine.live.batch import Batch

    real = Batch.write

    def write(self: Batch, txn: Txn) -> None:
        real(self, txn)
        if any(word.startswith("evil") for word in sys.argv):
            time.sleep(0.25)

    Batch.write = write  # type: ignore[method-assign]
