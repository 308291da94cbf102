"""Access control lists: what a list and a mode say to each other, and what a new file inherits."""

from __future__ import annotations

import errno
import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import HoldfastError, InvalidRequest, Unsupported
from engine.live import acl
from engine.live.acl import GROUP, GROUP_OBJ, MASK, OTHER, USER, USER_OBJ, Right
from tests.live.rig import CTX, Rig, write_file
from tests.live.test_xattrs import refused

NOBODY = 0xFFFFFFFF
PERMS = st.integers(0, 7)


def plain(user: int, group: int, other: int) -> acl.Acl:
    return [Right(USER_OBJ, user, NOBODY), Right(GROUP_OBJ, group, NOBODY), Right(OTHER, other, NOBODY)]  # fmt: skip


def named(user: int = 7, mask: int = 5, other: int = 4) -> acl.Acl:
    return [
        Right(USER_OBJ, user, NOBODY), Right(USER, 6, 1234), Right(GROUP_OBJ, 1, NOBODY),
        Right(GROUP, 0, 77), Right(MASK, mask, NOBODY), Right(OTHER, other, NOBODY),
    ]  # fmt: skip


@st.composite
def acls(draw: st.DrawFn) -> acl.Acl:
    found = plain(draw(PERMS), draw(PERMS), draw(PERMS))
    users = draw(st.lists(st.tuples(PERMS, st.integers(0, 99)), max_size=3))
    groups = draw(st.lists(st.tuples(PERMS, st.integers(0, 99)), max_size=3))
    found += [Right(USER, *one) for one in users] + [Right(GROUP, *one) for one in groups]
    if users or groups or draw(st.booleans()):
        found.append(Right(MASK, draw(PERMS), NOBODY))
    return sorted(found, key=lambda right: right.tag)


@given(acls(), st.integers(0, 0o777))
def test_mode_and_list_agree(given_acl: acl.Acl, mode: int) -> None:
    assert acl.decode(acl.encode(given_acl)) == given_acl
    assert acl.mode_of(acl.changed(given_acl, mode)) == mode
    new, inherited = acl.inherited(given_acl, mode | stat.S_ISVTX)
    assert new == mode & acl.mode_of(given_acl) | stat.S_ISVTX
    assert acl.mode_of(inherited) == new & 0o777
    acl.decode(acl.encode(inherited))


def test_a_known_value() -> None:
    """As getfattr shows it on ext4 after ``setfacl -m u:1234:rw,m::rw`` of a file of mode 644."""
    value = bytes.fromhex(
        "02000000" "01000600ffffffff" "02000600d2040000" "04000400ffffffff" "10000600ffffffff"
        "20000400ffffffff"
    )  # fmt: skip
    found = acl.decode(value)
    assert acl.mode_of(found) == 0o664 and acl.extended(found)
    assert acl.encode(found) == value


@pytest.mark.parametrize(
    "bad",
    [
        b"", b"\2\0\0\0", b"\1\0\0\0" + acl.encode(named())[4:], acl.encode(named()) + b"x",
        acl.encode(plain(7, 7, 7)[:2]), acl.encode(plain(7, 7, 7)[::-1]), acl.encode(plain(8, 7, 7)),
        acl.encode([*plain(7, 7, 7), Right(64, 1, 1)]), acl.encode(named()[:4] + named()[5:]),
        acl.encode([named()[0], *named()]),
    ],
)  # fmt: skip
def test_what_is_no_list_is_refused(bad: bytes) -> None:
    with pytest.raises(InvalidRequest):
        acl.decode(bad)


def test_a_list_the_kernel_could_not_read_back_is_refused(rig: Rig) -> None:
    many = [*plain(7, 7, 7), Right(MASK, 7, NOBODY), *(Right(USER, 7, i) for i in range(600))]
    ino = write_file(rig.tree, 1, b"f", b"")
    with refused(errno.E2BIG):
        rig.tree.setxattr(
            ino, acl.ACCESS, acl.encode(sorted(many, key=lambda right: (right.tag, right.id)))
        )


def test_a_list_sets_the_mode_and_chmod_the_list(rig: Rig) -> None:
    ino = write_file(rig.tree, 1, b"f", b"")
    rig.tree.setxattr(ino, acl.ACCESS, acl.encode(named(mask=3, other=1)))
    tree = rig.reopen()
    assert stat.S_IMODE(tree.getattr(ino).mode) == 0o731
    tree.setattr(ino, mode=0o640, now_ns=1)
    tree = rig.reopen()
    assert acl.decode(tree.getxattr(ino, acl.ACCESS)) == named(6, 4, 0)
    tree.setxattr(ino, acl.ACCESS, acl.encode(plain(6, 0, 0)))  # setfacl -b
    tree = rig.reopen()
    assert tree.listxattr(ino) == [] and stat.S_IMODE(tree.getattr(ino).mode) == 0o600
    tree.removexattr(ino, acl.ACCESS)  # others take that for done, too


def test_what_is_made_inherits(rig: Rig) -> None:
    tree = rig.tree
    parent = tree.mkdir(1, b"d", 0o2755, CTX).ino
    tree.setxattr(parent, acl.DEFAULT, acl.encode(named(mask=7, other=4)))
    file = tree.create(parent, b"f", 0o666, CTX)
    folder = tree.mkdir(parent, b"d", 0o777, CTX)
    fifo = tree.mknod(parent, b"p", stat.S_IFIFO | 0o600, 0, CTX)
    link = tree.symlink(parent, b"l", b"x", CTX)
    assert stat.S_IMODE(file.mode) == 0o664, "the umask has no say"
    assert stat.S_IMODE(folder.mode) == 0o2774 and stat.S_IMODE(fifo.mode) == 0o600
    tree = rig.reopen()
    assert acl.decode(tree.getxattr(file.ino, acl.ACCESS)) == named(6, 6, 4)
    assert acl.decode(tree.getxattr(fifo.ino, acl.ACCESS)) == named(6, 0, 0)
    assert tree.listxattr(folder.ino) == [acl.ACCESS, acl.DEFAULT]
    assert tree.listxattr(file.ino) == [acl.ACCESS] and tree.listxattr(link.ino) == []
    tree.setxattr(parent, acl.DEFAULT, acl.encode(plain(7, 5, 0)))
    file = tree.create(parent, b"g", 0o666, CTX)
    assert stat.S_IMODE(file.mode) == 0o640 and tree.listxattr(file.ino) == []


def test_where_a_list_cannot_be(rig: Rig) -> None:
    tree = rig.tree
    ino = write_file(tree, 1, b"f", b"")
    with refused(errno.EACCES):
        tree.setxattr(ino, acl.DEFAULT, acl.encode(named()))
    link = tree.symlink(1, b"l", b"x", CTX).ino
    with pytest.raises(Unsupported):
        tree.setxattr(link, acl.ACCESS, acl.encode(named()))
    with pytest.raises(HoldfastError):
        tree.setxattr(ino, acl.ACCESS, b"junk")
    assert tree.listxattr(ino) == [] and stat.S_IMODE(tree.getattr(ino).mode) != 0o754
