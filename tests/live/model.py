"""The simplest file system that could be right: dictionaries and byte arrays, errors as errno."""

from __future__ import annotations

import copy
import errno
from dataclasses import dataclass, field

ROOT = 1


class Refused(Exception):
    """The model's answer is an error."""

    def __init__(self, number: int) -> None:
        super().__init__(errno.errorcode[number])
        self.errno = number


@dataclass
class Node:
    """A file, directory or symbolic link. ``versions``: contents a crash may mix, as no seal has settled them."""

    kind: str
    mode: int
    nlink: int = 1
    entries: dict[bytes, int] = field(default_factory=dict)
    data: bytearray = field(default_factory=bytearray)
    target: bytes = b""
    parent: int = ROOT
    xattrs: dict[bytes, bytes] = field(default_factory=dict)
    mtime: int = -1  # only as set
    versions: list[bytes] = field(default_factory=list)
    settled: bool = True  # all data is sealed
    floor: int = 0  # size a commit gave it, lowered by truncation


class Model:
    """Inode numbers are those the tree under test gave."""

    def __init__(self) -> None:
        self.nodes = {ROOT: Node("d", 0o755, nlink=2)}

    def copy(self) -> Model:
        return copy.deepcopy(self)

    def dir(self, ino: int) -> Node:
        node = self.nodes[ino]
        if node.kind != "d":
            raise Refused(errno.ENOTDIR)
        return node

    def find(self, parent: int, name: bytes) -> int:
        entries = self.dir(parent).entries
        if name not in entries:
            raise Refused(errno.ENOENT)
        return entries[name]

    def may_make(self, parent: int, name: bytes) -> None:
        if name in self.dir(parent).entries:
            raise Refused(errno.EEXIST)
        if self.nodes[parent].nlink == 0:
            raise Refused(errno.ENOENT)

    def made(self, parent: int, name: bytes, ino: int, node: Node) -> None:
        assert ino not in self.nodes, "a number was given twice"
        node.parent = parent
        self.nodes[ino] = node
        self.nodes[parent].entries[name] = ino
        if node.kind == "d":
            node.mode |= self.nodes[parent].mode & 0o2000
            node.nlink = 2
            self.nodes[parent].nlink += 1

    def link(self, ino: int, parent: int, name: bytes) -> None:
        entries = self.dir(parent).entries
        node = self.nodes[ino]
        if node.kind == "d":
            raise Refused(errno.EPERM)
        if node.nlink == 0 or self.nodes[parent].nlink == 0:
            raise Refused(errno.ENOENT)
        if name in entries:
            raise Refused(errno.EEXIST)
        entries[name] = ino
        node.nlink += 1

    def unlink(self, parent: int, name: bytes) -> int:
        ino = self.find(parent, name)
        if self.nodes[ino].kind == "d":
            raise Refused(errno.EISDIR)
        del self.nodes[parent].entries[name]
        self.nodes[ino].nlink -= 1
        return ino

    def rmdir(self, parent: int, name: bytes) -> int:
        ino = self.find(parent, name)
        node = self.nodes[ino]
        if node.kind != "d":
            raise Refused(errno.ENOTDIR)
        if node.entries:
            raise Refused(errno.ENOTEMPTY)
        del self.nodes[parent].entries[name]
        self.nodes[parent].nlink -= 1
        node.nlink = 0
        return ino

    def below(self, ino: int, top: int) -> bool:
        while ino not in (top, ROOT):
            ino = self.nodes[ino].parent
        return ino == top

    def rename(self, parent: int, name: bytes, target: int, new: bytes, flags: int) -> int | None:
        """Returns an inode that lost a name, if any."""
        ino = self.find(parent, name)
        node = self.nodes[ino]
        other = self.dir(target).entries.get(new)
        if self.nodes[target].nlink == 0:
            raise Refused(errno.ENOENT)
        if other is not None and flags == 1:
            raise Refused(errno.EEXIST)
        if node.kind == "d" and self.below(target, ino):
            raise Refused(errno.EINVAL)
        if flags == 2:
            self._exchange(parent, name, ino, target, new, other)
            return None
        if other == ino:
            return None
        if other is not None:
            old = self.nodes[other]
            if old.kind == "d" and node.kind != "d":
                raise Refused(errno.EISDIR)
            if old.kind != "d" and node.kind == "d":
                raise Refused(errno.ENOTDIR)
            if old.entries:
                raise Refused(errno.ENOTEMPTY)
            (self.rmdir if old.kind == "d" else self.unlink)(target, new)
        del self.nodes[parent].entries[name]
        self.nodes[target].entries[new] = ino
        self._moved(node, parent, target)
        return other

    def _exchange(
        self, parent: int, name: bytes, ino: int, target: int, new: bytes, other: int | None
    ) -> None:
        if other is None:
            raise Refused(errno.ENOENT)
        old = self.nodes[other]
        if old.kind == "d" and self.below(parent, other):
            raise Refused(errno.EINVAL)
        self.nodes[parent].entries[name] = other
        self.nodes[target].entries[new] = ino
        self._moved(self.nodes[ino], parent, target)
        self._moved(old, target, parent)

    def _moved(self, node: Node, parent: int, target: int) -> None:
        node.parent = target
        if node.kind == "d":
            self.nodes[parent].nlink -= 1
            self.nodes[target].nlink += 1

    # --- content

    def write(self, ino: int, offset: int, data: bytes) -> None:
        node = self.nodes[ino]
        if len(node.data) < offset:
            node.data.extend(bytes(offset - len(node.data)))
        node.data[offset : offset + len(data)] = data
        node.settled = False
        node.versions.append(bytes(node.data))

    def truncate(self, ino: int, size: int) -> None:
        node = self.nodes[ino]
        if size < len(node.data):
            del node.data[size:]
            node.floor = min(node.floor, size)
        else:
            node.data.extend(bytes(size - len(node.data)))
        node.versions.append(bytes(node.data))
        if size == 0:
            node.settled = True

    def settle(self, ino: int) -> None:
        node = self.nodes[ino]
        node.settled = True
        node.versions = [bytes(node.data)]
