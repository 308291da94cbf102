"""POSIX access control lists, as they travel in the xattrs ``system.posix_acl_access`` and ``…_default``.

The kernel enforces them; what it leaves to a file system is done here: the mode and the list say the same, new files
inherit from their directory, and a list that says no more than a mode is not kept.

Value: u32 version 2, then per entry u16 tag, u16 permissions (rwx), u32 id (of USER and GROUP; else all ones), little
endian, in the order of the tags below.
"""

from __future__ import annotations

import errno
import struct
from typing import NamedTuple

from engine.errors import InvalidRequest, PosixError

ACCESS = b"system.posix_acl_access"
DEFAULT = b"system.posix_acl_default"

_VERSION = struct.pack("<I", 2)
_ENTRY = struct.Struct("<HHI")
USER_OBJ, USER, GROUP_OBJ, GROUP, MASK, OTHER = 0x01, 0x02, 0x04, 0x08, 0x10, 0x20
_ORDER = (USER_OBJ, USER, GROUP_OBJ, GROUP, MASK, OTHER)
_ONCE = (USER_OBJ, GROUP_OBJ, OTHER)
_BITS = 0o777
VALUE_MAX = 4096
"""Bytes: the kernel reads a list into one page, and refuses all access to a file whose list is longer."""


class Right(NamedTuple):
    """One entry."""

    tag: int
    perm: int
    id: int


Acl = list[Right]


def decode(value: bytes) -> Acl:
    """Raises InvalidRequest for what is no list, E2BIG for one the kernel could not read back."""
    if len(value) > VALUE_MAX:
        raise PosixError(errno.E2BIG)
    if value[:4] != _VERSION or (len(value) - 4) % _ENTRY.size:
        raise _invalid("version 2 and whole entries")
    found = [Right(*fields) for fields in _ENTRY.iter_unpack(value[4:])]
    tags = [right.tag for right in found]
    if any(tag not in _ORDER for tag in tags) or tags != sorted(tags):
        raise _invalid("known tags in their order")
    if any(right.perm & ~7 for right in found):
        raise _invalid("permissions of rwx")
    if any(tags.count(tag) != 1 for tag in _ONCE) or tags.count(MASK) > 1:
        raise _invalid("one entry each for the owner, the group and others")
    if MASK not in tags and (USER in tags or GROUP in tags):
        raise _invalid("a mask beside named users and groups")
    return found


def _invalid(expected: str) -> InvalidRequest:
    return InvalidRequest("access control list", expected=expected)


def encode(acl: Acl) -> bytes:
    """The inverse of ``decode``."""
    return _VERSION + b"".join(_ENTRY.pack(*right) for right in acl)


def extended(acl: Acl) -> bool:
    """Whether it says more than a mode can."""
    return any(right.tag in (USER, GROUP, MASK) for right in acl)


def _group(acl: Acl) -> int:
    """The tag that the group's bits of the mode stand for."""
    return MASK if any(right.tag == MASK for right in acl) else GROUP_OBJ


def mode_of(acl: Acl) -> int:
    """The nine permission bits that go with it."""
    perms = {right.tag: right.perm for right in acl if right.tag not in (USER, GROUP)}
    return perms[USER_OBJ] << 6 | perms[_group(acl)] << 3 | perms[OTHER]


def changed(acl: Acl, mode: int) -> Acl:
    """The list after a chmod."""
    new = {USER_OBJ: mode >> 6 & 7, _group(acl): mode >> 3 & 7, OTHER: mode & 7}
    return [right._replace(perm=new.get(right.tag, right.perm)) for right in acl]


def inherited(default: Acl, mode: int) -> tuple[int, Acl]:
    """Mode and access list of what is made in a directory with this default list; the umask has no say there."""
    asked = {USER_OBJ: mode >> 6 & 7, _group(default): mode >> 3 & 7, OTHER: mode & 7}
    acl = [right._replace(perm=right.perm & asked.get(right.tag, 7)) for right in default]
    return mode & ~_BITS | mode_of(acl), acl
