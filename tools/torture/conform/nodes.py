"""What POSIX says of paths, in dictionaries: half of the model that a mount and ext4 are compared with.

One caller, root; no permissions (``posix.access`` has those).  Every operation answers as the system call does, or
raises Refused.  Each node counts how often its times were marked for update, so that a comparison can tell which moved.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field

PAGE = 65_536
LINKS_MAX = 40  # symbolic links on the way of one path
NOREPLACE, EXCHANGE = 1, 2
CREATE, REPLACE = 1, 2


class Refused(Exception):
    """The answer is an error."""

    def __init__(self, number: int) -> None:
        super().__init__(errno.errorcode[number])
        self.errno = number


class Content:
    """Bytes of a file, sparse."""

    def __init__(self) -> None:
        self.size = 0
        self.pages: dict[int, bytearray] = {}

    def read(self, offset: int, size: int) -> bytes:
        """The bytes, cut at the end."""
        end = min(offset + size, self.size)
        parts = []
        while offset < end:
            number, inside = divmod(offset, PAGE)
            take = min(PAGE - inside, end - offset)
            page = self.pages.get(number)
            parts.append(bytes(take) if page is None else bytes(page[inside : inside + take]))
            offset += take
        return b"".join(parts)

    def write(self, offset: int, data: bytes) -> None:
        """Lay bytes over it."""
        self.size = max(self.size, offset + len(data))
        at = 0
        while at < len(data):
            number, inside = divmod(offset + at, PAGE)
            take = min(PAGE - inside, len(data) - at)
            page = self.pages.setdefault(number, bytearray(PAGE))
            page[inside : inside + take] = data[at : at + take]
            at += take

    def truncate(self, size: int) -> None:
        """What is cut off is gone for good."""
        if size < self.size:
            number, inside = divmod(size, PAGE)
            for one in [n for n in self.pages if n > number or (n == number and not inside)]:
                del self.pages[one]
            if number in self.pages:
                self.pages[number][inside:] = bytes(PAGE - inside)
        self.size = size

    def copy(self) -> Content:
        """As it is now."""
        other = Content()
        other.size = self.size
        other.pages = {number: bytearray(page) for number, page in self.pages.items()}
        return other


@dataclass(eq=False)
class Node:
    """A file of any type. ``marks``: how often access, modification and change time were marked for update."""

    mode: int
    uid: int = 0
    gid: int = 0
    nlink: int = 1
    content: Content = field(default_factory=Content)
    target: str = ""
    entries: dict[str, Node] = field(default_factory=dict)
    parent: Node | None = None
    xattrs: dict[str, bytes] = field(default_factory=dict)
    marks: dict[str, int] = field(default_factory=lambda: {"a": 0, "m": 0, "c": 0})

    @property
    def is_dir(self) -> bool:
        return stat.S_ISDIR(self.mode)

    @property
    def is_link(self) -> bool:
        return stat.S_ISLNK(self.mode)

    @property
    def is_file(self) -> bool:
        return stat.S_ISREG(self.mode)

    def mark(self, which: str) -> None:
        """Mark times for update."""
        for letter in which:
            self.marks[letter] += 1


Stat = tuple[int, int, int, int, int]


class Tree:
    """Names and attributes. Paths are relative to the root."""

    def __init__(self) -> None:
        self.root = Node(stat.S_IFDIR | 0o755, nlink=2)
        self.root.parent = self.root

    # --- names ----------------------------------------------------------------------------------------------

    def walk(
        self, path: str, *, follow: bool, depth: int = 0, start: Node | None = None
    ) -> tuple[Node, str, Node | None]:
        """(directory, last name, what is there)."""
        if not path:
            raise Refused(errno.ENOENT)
        if depth > LINKS_MAX:
            raise Refused(errno.ELOOP)
        node = start or self.root
        parts = [part for part in path.split("/") if part not in ("", ".")]
        if not parts:
            return node, ".", node
        for number, part in enumerate(parts):
            last = number == len(parts) - 1
            if not node.is_dir:
                raise Refused(errno.ENOTDIR)
            if part == "..":
                assert node.parent is not None
                found: Node | None = node.parent
            else:
                found = node.entries.get(part)
            if found is not None and found.is_link and (follow or not last):
                where, name, there = self.walk(
                    found.target, follow=True, depth=depth + 1, start=node
                )
                if last:
                    return where, name, there
                found = there
            if last:
                return node, part, found
            if found is None:
                raise Refused(errno.ENOENT)
            node = found
        raise AssertionError("unreachable")

    def find(self, path: str, *, follow: bool = True) -> Node:
        """What a path names."""
        node = self.walk(path, follow=follow)[2]
        if node is None:
            raise Refused(errno.ENOENT)
        return node

    def _place(self, path: str) -> tuple[Node, str]:
        """Directory and name for something new."""
        directory, name, there = self.walk(path, follow=False)
        if not directory.is_dir:
            raise Refused(errno.ENOTDIR)
        if there is not None:
            raise Refused(errno.EEXIST)
        if directory.nlink == 0:
            raise Refused(errno.ENOENT)
        return directory, name

    def add(self, directory: Node, name: str, node: Node) -> None:
        """A new name of a node."""
        directory.entries[name] = node
        directory.mark("mc")
        if node.is_dir:
            node.parent = directory
            directory.nlink += 1

    def _make(self, path: str, mode: int, target: str = "") -> None:
        directory, name = self._place(path)
        node = Node(mode, target=target)
        if directory.mode & stat.S_ISGID:
            node.gid = directory.gid
            if node.is_dir:
                node.mode |= stat.S_ISGID
        if node.is_dir:
            node.nlink = 2
        self.add(directory, name, node)

    def mkdir(self, path: str, mode: int) -> None:
        self._make(path, stat.S_IFDIR | mode & 0o1777)  # Linux gives set-gid only by inheritance

    def mkfifo(self, path: str) -> None:
        self._make(path, stat.S_IFIFO | 0o600)

    def symlink(self, target: str, path: str) -> None:
        self._make(path, stat.S_IFLNK | 0o777, target)

    def link(self, old: str, new: str) -> None:
        node = self.find(old, follow=False)
        directory, name = self._place(new)
        if node.is_dir:
            raise Refused(errno.EPERM)
        node.nlink += 1
        node.mark("c")
        self.add(directory, name, node)

    def _there(self, path: str) -> tuple[Node, str, Node]:
        directory, name, node = self.walk(path, follow=False)
        if node is None:
            raise Refused(errno.ENOENT)
        return directory, name, node

    def unlink(self, path: str) -> None:
        directory, name, node = self._there(path)
        if node.is_dir:
            raise Refused(errno.EISDIR)
        del directory.entries[name]
        directory.mark("mc")
        node.nlink -= 1
        node.mark("c")

    def rmdir(self, path: str) -> None:
        directory, name, node = self._there(path)
        if not node.is_dir:
            raise Refused(errno.ENOTDIR)
        if node.entries:
            raise Refused(errno.ENOTEMPTY)
        del directory.entries[name]
        directory.nlink -= 1
        directory.mark("mc")
        node.nlink = 0
        node.mark("c")

    @staticmethod
    def _within(node: Node, above: Node) -> bool:
        """Whether ``node`` is ``above`` or lies below it."""
        while node is not above:
            assert node.parent is not None
            if node.parent is node:
                return False
            node = node.parent
        return True

    def rename(self, old: str, new: str, flags: int) -> None:
        source, name, node = self.walk(old, follow=False)
        target, new_name, other = self.walk(new, follow=False)
        if not target.is_dir:
            raise Refused(errno.ENOTDIR)
        if node is None:
            raise Refused(errno.ENOENT)
        if other is not None and flags == NOREPLACE:
            raise Refused(errno.EEXIST)
        if other is None and flags == EXCHANGE:
            raise Refused(errno.ENOENT)
        if node.is_dir and source is not target and self._within(target, node):
            raise Refused(errno.EINVAL)
        if (
            other is not None
            and other.is_dir
            and source is not target
            and self._within(source, other)
        ):
            raise Refused(errno.EINVAL if flags == EXCHANGE else errno.ENOTEMPTY)
        if node is other:
            return
        if flags == EXCHANGE:
            assert other is not None
            self._put(source, name, other, target)
            self._put(target, new_name, node, source)
            return
        if other is not None:
            self._replace(node, target, new_name, other)
        del source.entries[name]
        self._put(target, new_name, node, source)
        source.mark("mc")

    def _replace(self, node: Node, target: Node, name: str, other: Node) -> None:
        if node.is_dir and not other.is_dir:
            raise Refused(errno.ENOTDIR)
        if other.is_dir and not node.is_dir:
            raise Refused(errno.EISDIR)
        if other.entries:
            raise Refused(errno.ENOTEMPTY)
        del target.entries[name]
        if other.is_dir:
            target.nlink -= 1
            other.nlink = 0
        else:
            other.nlink -= 1
        other.mark("c")

    @staticmethod
    def _put(directory: Node, name: str, node: Node, before: Node) -> None:
        directory.entries[name] = node
        directory.mark("mc")
        node.mark("c")
        if node.is_dir:
            node.parent = directory
            before.nlink -= 1
            directory.nlink += 1

    def readlink(self, path: str) -> str:
        node = self.find(path, follow=False)
        if not node.is_link:
            raise Refused(errno.EINVAL)
        return node.target

    def names(self, path: str) -> list[str]:
        node = self.find(path)
        if not node.is_dir:
            raise Refused(errno.ENOTDIR)
        return sorted(node.entries)

    # --- attributes -----------------------------------------------------------------------------------------

    @staticmethod
    def shown(node: Node) -> Stat:
        """Mode with type, owner, group, links, size (0 of directories)."""
        size = len(os.fsencode(node.target)) if node.is_link else node.content.size
        return node.mode, node.uid, node.gid, node.nlink, size

    def stat(self, path: str, follow: bool) -> Stat:
        return self.shown(self.find(path, follow=follow))

    def chmod(self, path: str, mode: int) -> None:
        self.change_mode(self.find(path), mode)

    @staticmethod
    def change_mode(node: Node, mode: int) -> None:
        node.mode = stat.S_IFMT(node.mode) | mode
        node.mark("c")

    def chown(self, path: str, uid: int, gid: int, follow: bool) -> None:
        node = self.find(path, follow=follow)
        node.uid = node.uid if uid < 0 else uid
        node.gid = node.gid if gid < 0 else gid
        node.mark("c")

    def utime(self, path: str, atime: int, mtime: int) -> None:
        self.find(path).mark("amc")

    def setxattr(self, path: str, name: str, value: bytes, flags: int) -> None:
        node = self._keeper(path)
        if flags == CREATE and name in node.xattrs:
            raise Refused(errno.EEXIST)
        if flags == REPLACE and name not in node.xattrs:
            raise Refused(errno.ENODATA)
        node.xattrs[name] = value
        node.mark("c")

    def getxattr(self, path: str, name: str) -> bytes:
        node = self._keeper(path, errno.ENODATA)
        if name not in node.xattrs:
            raise Refused(errno.ENODATA)
        return node.xattrs[name]

    def removexattr(self, path: str, name: str) -> None:
        node = self._keeper(path)
        if name not in node.xattrs:
            raise Refused(errno.ENODATA)
        del node.xattrs[name]
        node.mark("c")

    def listxattr(self, path: str) -> list[str]:
        return sorted(self.find(path).xattrs)

    def _keeper(self, path: str, otherwise: int = errno.EPERM) -> Node:
        """Only files and directories have user attributes."""
        node = self.find(path)
        if not node.is_file and not node.is_dir:
            raise Refused(otherwise)
        return node

    # --- all of it ------------------------------------------------------------------------------------------

    def tree(self) -> Iterator[tuple[str, Node]]:
        """Every path with its node, the root as an empty one, in the order of names."""
        waiting = [("", self.root)]
        while waiting:
            path, node = waiting.pop()
            yield path, node
            waiting += [
                (f"{path}/{name}".lstrip("/"), node.entries[name])
                for name in sorted(node.entries, reverse=True)
            ]
