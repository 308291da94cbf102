"""The model: what POSIX says of paths and open files, in dictionaries.

It is what a mount and ext4 are compared with. Descriptors are numbers that the caller chooses.
"""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass

from tools.torture.conform.nodes import Node, Refused, Stat, Tree


@dataclass(eq=False)
class Open:
    """An open file."""

    node: Node
    flags: int
    at: int = 0

    def may(self, *, write: bool) -> None:
        """EBADF unless it was opened so."""
        kind = self.flags & os.O_ACCMODE
        if kind != os.O_RDWR and (kind == os.O_WRONLY) != write:
            raise Refused(errno.EBADF)


class Model(Tree):
    """The whole of it."""

    def __init__(self) -> None:
        super().__init__()
        self.open_files: dict[int, Open] = {}
        self.maps: dict[int, int] = {}  # descriptor -> bytes mapped of its file

    def _open(self, fd: int) -> Open:
        return self.open_files[fd]

    def fstat(self, fd: int) -> Stat:
        return self.shown(self._open(fd).node)

    def fchmod(self, fd: int, mode: int) -> None:
        self.change_mode(self._open(fd).node, mode)

    def open(self, path: str, flags: int, mode: int, fd: int) -> None:
        create = bool(flags & os.O_CREAT)
        exclusive = create and bool(flags & os.O_EXCL)
        if create and flags & os.O_DIRECTORY:
            raise Refused(errno.EINVAL)
        follow = not (exclusive or flags & os.O_NOFOLLOW)
        directory, name, node = self.walk(path, follow=follow)
        if node is None:
            if not create:
                raise Refused(errno.ENOENT)
            if not directory.is_dir:
                raise Refused(errno.ENOTDIR)
            node = Node(stat.S_IFREG | mode)
            if directory.mode & stat.S_ISGID:
                node.gid = directory.gid
            self.add(directory, name, node)
        else:
            if create and not exclusive:
                self._may_create_over(directory, node)
            self._may_open(node, flags, exclusive)
            if flags & os.O_TRUNC and node.is_file:
                node.content.truncate(0)
                node.mark("mc")
        self.open_files[fd] = Open(node, flags)

    @staticmethod
    def _may_create_over(directory: Node, node: Node) -> None:
        """Linux guards what others made in a sticky directory that everybody may write to: whatever fs.protected_* say,
        from O_CREAT on anything that is neither a file nor a pipe, so on a link with O_NOFOLLOW."""
        guarded = directory.mode & stat.S_ISVTX and directory.mode & stat.S_IWOTH
        if guarded and node.is_link and node.uid not in (directory.uid, os.geteuid()):
            raise Refused(errno.EACCES)

    @staticmethod
    def _may_open(node: Node, flags: int, exclusive: bool) -> None:
        writes = flags & os.O_ACCMODE != os.O_RDONLY or flags & os.O_TRUNC
        if exclusive:
            raise Refused(errno.EEXIST)
        if node.is_dir and (flags & os.O_CREAT or writes):
            raise Refused(errno.EISDIR)
        if flags & os.O_DIRECTORY and not node.is_dir:
            raise Refused(errno.ENOTDIR)
        if node.is_link:
            raise Refused(errno.ELOOP)

    def close(self, fd: int) -> None:
        del self.open_files[fd]
        self.maps.pop(fd, None)

    def pread(self, fd: int, size: int, offset: int) -> bytes:
        one = self._open(fd)
        one.may(write=False)
        if one.node.is_dir:
            raise Refused(errno.EISDIR)
        return one.node.content.read(offset, size)

    def read(self, fd: int, size: int) -> bytes:
        one = self._open(fd)
        data = self.pread(fd, size, one.at)
        one.at += len(data)
        return data

    def pwrite(self, fd: int, data: bytes, offset: int) -> int:
        one = self._open(fd)
        one.may(write=True)
        if one.flags & os.O_APPEND:
            offset = one.node.content.size  # on Linux, whatever the offset
        if data:
            one.node.content.write(offset, data)
            one.node.mark("mc")
        return len(data)

    def write(self, fd: int, data: bytes) -> int:
        one = self._open(fd)
        one.may(write=True)
        offset = one.node.content.size if one.flags & os.O_APPEND else one.at
        self.pwrite(fd, data, offset)
        one.at = offset + len(data)
        return len(data)

    def lseek(self, fd: int, offset: int, whence: int) -> int:
        """Data and holes are as a file system answers that knows of no hole: any answer between is right elsewhere."""
        one = self._open(fd)
        size = one.node.content.size
        if whence in (os.SEEK_DATA, os.SEEK_HOLE):
            if not 0 <= offset < size:
                raise Refused(errno.ENXIO)
            at = offset if whence == os.SEEK_DATA else size
        else:
            at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: one.at, os.SEEK_END: size}[whence]
            if at < 0:
                raise Refused(errno.EINVAL)
        one.at = at
        return at

    def ftruncate(self, fd: int, size: int) -> None:
        one = self._open(fd)
        if one.flags & os.O_ACCMODE == os.O_RDONLY:
            raise Refused(errno.EINVAL)
        one.node.content.truncate(size)
        one.node.mark("mc")

    def truncate(self, path: str, size: int) -> None:
        node = self.find(path)
        if node.is_dir:
            raise Refused(errno.EISDIR)
        if not node.is_file:
            raise Refused(errno.EINVAL)
        node.content.truncate(size)
        node.mark("mc")

    # --- mappings -------------------------------------------------------------------------------------------

    def fsync(self, fd: int) -> None:
        self._open(fd)

    def map(self, fd: int, size: int) -> None:
        self.maps[fd] = size

    def unmap(self, fd: int) -> None:
        del self.maps[fd]

    def store(self, fd: int, offset: int, data: bytes, sync: bool) -> None:
        self._open(fd).node.content.write(offset, data)

    def load(self, fd: int, offset: int, size: int) -> bytes:
        return self._open(fd).node.content.read(offset, size)
