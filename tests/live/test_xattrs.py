"""Extended attributes."""

from __future__ import annotations

import errno

import pytest

from engine import limits
from engine.errors import Corrupt, HoldfastError, Unsupported
from engine.index import Table
from engine.live import lookup, rows
from tests.live.rig import CTX, MOUNT, Rig, write_file


def refused(number: int):
    return pytest.raises(HoldfastError, check=lambda error: error.errno == number)


@pytest.mark.parametrize(
    "size", [0, 1, limits.XATTR_PART, limits.XATTR_PART + 1, limits.XATTR_VALUE_MAX]
)
def test_values_of_any_size_survive(rig: Rig, size: int) -> None:
    ino = write_file(rig.tree, 1, b"f", b"")
    value = bytes(i * 7 % 256 for i in range(size))
    name = b"user." + b"n" * 250
    rig.tree.setxattr(ino, name, value)
    rig.tree.setxattr(ino, b"user.n", b"prefix of the other")
    tree = rig.reopen()
    assert tree.getxattr(ino, name) == value
    assert tree.listxattr(ino) == [b"user.n", name]
    tree.setxattr(ino, name, b"short")
    tree.removexattr(ino, b"user.n")
    tree = rig.reopen()
    assert tree.getxattr(ino, name) == b"short"
    assert tree.listxattr(ino) == [name]
    tree.removexattr(ino, name)
    tree = rig.reopen()
    assert tree.listxattr(ino) == []
    with rig.index.read() as txn:
        assert txn.count(Table.XATTRS) == 0


def test_errors(rig: Rig) -> None:
    tree = rig.tree
    ino = write_file(tree, 1, b"f", b"")
    with refused(errno.ENODATA):
        tree.getxattr(ino, b"user.none")
    with refused(errno.ENODATA):
        tree.removexattr(ino, b"user.none")
    with refused(errno.ENODATA):
        tree.setxattr(ino, b"user.a", b"", 2)
    tree.setxattr(ino, b"user.a", b"", 1)
    with refused(errno.EEXIST):
        tree.setxattr(ino, b"user.a", b"", 1)
    tree.setxattr(ino, b"user.a", b"new", 2)
    with refused(errno.E2BIG):
        tree.setxattr(ino, b"user.b", b"x" * (limits.XATTR_VALUE_MAX + 1))
    with refused(errno.ERANGE):
        tree.setxattr(ino, b"user." + b"x" * 251, b"")
    with refused(errno.EINVAL):
        tree.setxattr(ino, b"user.b", b"", 9)
    for name in (b"system.nfs4_acl", b"other.x"):
        with pytest.raises(Unsupported):
            tree.setxattr(ino, name, b"")
    assert tree.getxattr(ino, b"user.a") == b"new"


def test_one_inode_cannot_have_without_end(rig: Rig) -> None:
    ino = write_file(rig.tree, 1, b"f", b"")
    with refused(errno.ENOSPC):
        for i in range(100):
            rig.tree.setxattr(ino, b"trusted.%d" % i, b"x" * 60_000)
    rig.tree.setxattr(ino, b"trusted.0", b"smaller")
    rig.reopen()


def test_directories_and_links_have_them_too(rig: Rig) -> None:
    sub = rig.tree.mkdir(1, b"d", 0o700, CTX).ino
    link = rig.tree.symlink(1, b"l", b"x", CTX).ino
    for ino in (1, sub, link):
        rig.tree.setxattr(ino, b"security.x", b"%d" % ino)
    tree = rig.reopen()
    assert [tree.getxattr(ino, b"security.x") for ino in (1, sub, link)] == [
        b"%d" % ino for ino in (1, sub, link)
    ]


def test_a_missing_part_is_damage(rig: Rig) -> None:
    ino = write_file(rig.tree, 1, b"f", b"")
    rig.tree.setxattr(ino, b"user.a", b"x" * 5000)
    rig.tree.barrier()
    with rig.index.write() as txn:
        txn.delete(Table.XATTRS, rows.xattr_key(MOUNT, ino, b"user.a", 1))
    with rig.index.read() as txn, pytest.raises(Corrupt):
        lookup.read_xattrs(txn, MOUNT, ino)
    with rig.index.write() as txn:
        txn.put(Table.XATTRS, rows.xattr_key(MOUNT, ino, b"user.a", 1), b"x" * 1800)
