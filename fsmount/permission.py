"""Who may do what with an inode, by modes and access lists: POSIX's rules without anybody's privilege.

The kernel applies them too (default_permissions), but lets root and holders of capabilities pass.  A mount with
``--root-squash`` asks here as well, for every caller, with root as a user who owns nothing.
"""

from __future__ import annotations

import errno
import stat
import struct
from typing import NamedTuple, Protocol

from engine.errors import PosixError
from fsmount.contract import Change
from fsmount.xattrs import LISTS

READ, WRITE, SEARCH = 4, 2, 1
JUST_NOW = 2 * 10**9  # ns: a time so near the present is what any writer may set by writing

_USER, _TRUSTED = b"user.", b"trusted."


class Attr(Protocol):
    """What a decision hangs on."""

    @property
    def mode(self) -> int: ...
    @property
    def uid(self) -> int: ...
    @property
    def gid(self) -> int: ...


class Ruled(NamedTuple):
    """An inode as an access list makes it for one caller: the bits of all three classes are what that one may."""

    mode: int
    uid: int
    gid: int


class Caller:
    """Somebody who asks. Supplementary groups are looked up only when a decision hangs on them."""

    def __init__(self, uid: int, gid: int, pid: int | None) -> None:
        """``pid``: whose supplementary groups count; None for none."""
        self.uid = uid
        self.gid = gid
        self._pid = pid
        self._groups: frozenset[int] | None = None

    def in_group(self, gid: int) -> bool:
        """Whether this group's bits are the caller's."""
        if gid == self.gid:
            return True
        if self._groups is None:
            self._groups = frozenset() if self._pid is None else groups_of(self._pid)
        return gid in self._groups


def groups_of(pid: int) -> frozenset[int]:
    """Supplementary groups of a process; none when it cannot be looked at."""
    try:
        with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as file:
            for line in file:
                if line.startswith("Groups:"):
                    return frozenset(map(int, line.split()[1:]))
    except OSError:
        pass
    return frozenset()


_ENTRY = struct.Struct("<HHI")  # of an access list, after 4 bytes: tag, permissions, id
_USER_OBJ, _NAMED_USER, _GROUP_OBJ, _NAMED_GROUP, _MASK, _OTHER = 1, 2, 4, 8, 16, 32


def ruled(attr: Attr, rights: bytes, who: Caller) -> Ruled:
    """The inode as its access list makes it for this caller. Of several groups each counts: the kernel is stricter."""
    found = list(_ENTRY.iter_unpack(rights[4:]))
    mask = next((perm for tag, perm, _ in found if tag == _MASK), 7)
    bits: int | None = None
    if who.uid == attr.uid:
        bits = next(perm for tag, perm, _ in found if tag == _USER_OBJ)
    for tag, perm, number in found:
        if bits is None and tag == _NAMED_USER and number == who.uid:
            bits = perm & mask
    if bits is None:
        for tag, perm, number in found:
            group = attr.gid if tag == _GROUP_OBJ else number
            if tag in (_GROUP_OBJ, _NAMED_GROUP) and who.in_group(group):
                bits = (bits or 0) | perm & mask
    if bits is None:
        bits = next(perm for tag, perm, _ in found if tag == _OTHER)
    return Ruled(attr.mode & ~0o777 | bits * 0o111, attr.uid, attr.gid)


def may(attr: Attr, who: Caller, want: int) -> bool:
    """Whether the mode grants all of ``want`` (READ, WRITE, SEARCH together)."""
    if who.uid == attr.uid:
        return attr.mode >> 6 & want == want
    group, other = attr.mode >> 3 & want == want, attr.mode & want == want
    return group if group == other or who.in_group(attr.gid) else other


def require(attr: Attr, who: Caller, want: int) -> None:
    """Raises EACCES."""
    if not may(attr, who, want):
        raise PosixError(errno.EACCES)


def require_removal(directory: Attr, entry: Attr, who: Caller) -> None:
    """May this entry's name be taken out of the directory? Raises EACCES, EPERM (sticky)."""
    require(directory, who, WRITE | SEARCH)
    if directory.mode & stat.S_ISVTX and who.uid not in (directory.uid, entry.uid):
        raise PosixError(errno.EPERM)


def require_change(attr: Attr, change: Change, who: Caller, now_ns: int, *, opened: bool) -> None:
    """May these attributes be set? ``opened``: through a descriptor open for writing. Raises EPERM, EACCES.

    A set-group-id bit for a group the caller is not in is taken out of ``change``.
    """
    owner = who.uid == attr.uid
    if "mode" in change:
        if not owner:
            raise PosixError(errno.EPERM)
        if not who.in_group(change.get("gid", attr.gid)):
            change["mode"] &= ~stat.S_ISGID
    if "uid" in change and not (owner and change["uid"] == attr.uid):
        raise PosixError(errno.EPERM)
    if "gid" in change and not (
        owner and (change["gid"] == attr.gid or who.in_group(change["gid"]))
    ):
        raise PosixError(errno.EPERM)
    if "size" in change and not opened:
        require(attr, who, WRITE)
    times = [change[name] for name in ("atime_ns", "mtime_ns") if name in change]
    if times and not owner and not (opened and "size" in change):
        if any(abs(now_ns - time) > JUST_NOW for time in times):
            raise PosixError(errno.EPERM)
        require(attr, who, WRITE)


def require_xattr(attr: Attr, name: bytes, who: Caller, *, write: bool) -> None:
    """May this extended attribute be read or set? Raises EPERM, ENODATA, EACCES."""
    if name.startswith(_TRUSTED):
        raise PosixError(errno.EPERM if write else errno.ENODATA)
    if name in LISTS:
        if write and who.uid != attr.uid:
            raise PosixError(errno.EPERM)
        return
    if not name.startswith(_USER):
        if write:
            raise PosixError(errno.EPERM)
        return
    if write and stat.S_ISDIR(attr.mode) and attr.mode & stat.S_ISVTX and who.uid != attr.uid:
        raise PosixError(errno.EPERM)
    require(attr, who, WRITE if write else READ)


def made_mode(directory: Attr, mode: int, who: Caller) -> int:
    """The mode a new file may have: none passes a group on that its maker is not in."""
    inherits = directory.mode & stat.S_ISGID and not stat.S_ISDIR(mode)
    if inherits and mode & stat.S_IXGRP and not who.in_group(directory.gid):
        mode &= ~stat.S_ISGID
    return mode
