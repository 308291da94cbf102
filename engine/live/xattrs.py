"""Extended attributes of a live tree. Loaded with their inode's first use, kept with it, written part by part.

Only names that mean what they say here are taken: ``user``, ``trusted`` and ``security`` (the kernel decides who may
use the latter two), and the two of POSIX access control lists (the kernel enforces them; see ``acl``).
"""

from __future__ import annotations

import errno
import stat

from engine import limits
from engine.errors import InvalidRequest, PosixError, Unsupported
from engine.live import acl, lookup
from engine.live.inode import Inode
from engine.live.space import Space
from engine.live.state import State

CREATE = 1
REPLACE = 2
_NAMESPACES = (b"user.", b"trusted.", b"security.")
_LISTS = (acl.ACCESS, acl.DEFAULT)


class Xattrs:
    """All methods take the tree's lock."""

    def __init__(self, state: State, space: Space) -> None:
        self._state = state
        self._space = space

    def _of(self, inode: Inode) -> dict[bytes, bytes]:
        if inode.xattrs is None:
            with self._state.index.read() as txn:
                inode.xattrs = lookup.read_xattrs(txn, self._state.mount, inode.ino)
        return inode.xattrs

    def get(self, ino: int, name: bytes) -> bytes:
        """Raises ENODATA."""
        with self._state.lock:
            try:
                return self._of(self._state.get(ino))[name]
            except KeyError:
                raise PosixError(errno.ENODATA) from None

    def list(self, ino: int) -> list[bytes]:
        """Names, sorted."""
        with self._state.lock:
            return sorted(self._of(self._state.get(ino)))

    def set(self, ino: int, name: bytes, value: bytes, flags: int) -> None:
        """Raises EEXIST (CREATE), ENODATA (REPLACE), ERANGE, E2BIG, ENOSPC, Unsupported; for lists InvalidRequest.

        An access list sets the mode too; one that says no more than the mode is taken away.
        """
        if not name.startswith(_NAMESPACES) and name not in _LISTS:
            raise Unsupported(
                "extended attribute",
                expected="a user, trusted or security one, or an access control list",
                found="another",
            )
        if len(name) > limits.XATTR_NAME_MAX or b"\0" in name:
            raise PosixError(errno.ERANGE)
        if len(value) > limits.XATTR_VALUE_MAX:
            raise PosixError(errno.E2BIG)
        if flags not in (0, CREATE, REPLACE):
            raise InvalidRequest("extended attribute", found=f"flags {flags}")
        with self._state.lock:
            inode = self._state.get(ino)
            known = self._of(inode)
            if flags == CREATE and name in known:
                raise PosixError(errno.EEXIST)
            if flags == REPLACE and name not in known:
                raise PosixError(errno.ENODATA)
            old = known.get(name)
            total = sum(len(n) + len(v) for n, v in known.items()) + len(name) + len(value)
            if old is not None:
                total -= len(name) + len(old)
            if total > limits.XATTR_TOTAL_MAX:
                raise PosixError(errno.ENOSPC, "too many extended attributes on one inode")
            self._state.admit_growth()
            if name in _LISTS and not self._admit_list(inode, name, acl.decode(value)):
                if known.pop(name, None) is not None:
                    self._changed(inode, name)
                return
            known[name] = value
            self._changed(inode, name)

    # --- access control lists -------------------------------------------------------------------------------

    def _admit_list(self, inode: Inode, name: bytes, rights: acl.Acl) -> bool:
        """Give the inode the mode of a new list; whether the list must be kept. Lock held."""
        if stat.S_ISLNK(inode.mode):
            raise Unsupported("access control list", expected="no symbolic link")
        if name == acl.DEFAULT:
            if not inode.is_dir:
                raise PosixError(errno.EACCES, "only directories have a default list")
            return True
        inode.mode = inode.mode & ~0o777 | acl.mode_of(rights)
        inode.ctime = self._state.clock.now_ns()
        self._state.touch(inode)
        return acl.extended(rights)

    def mode_changed(self, inode: Inode) -> None:
        """Bring the access list, if there is one, in line with the inode's mode. Lock held."""
        known = self._of(inode)
        if acl.ACCESS in known:
            known[acl.ACCESS] = acl.encode(acl.changed(acl.decode(known[acl.ACCESS]), inode.mode))
            self._changed(inode, acl.ACCESS)

    def heritage(self, parent: int, mode: int, umask: int) -> tuple[int, dict[bytes, bytes]]:
        """Permission bits, and lists, of what is made in a directory with these bits and this umask. Lock held."""
        default = self._of(self._state.get(parent)).get(acl.DEFAULT)
        if default is None:
            return mode & ~umask, {}
        mode, access = acl.inherited(acl.decode(default), mode)
        return mode, {acl.DEFAULT: default} | (
            {acl.ACCESS: acl.encode(access)} if acl.extended(access) else {}
        )

    def inherit(self, ino: int, lists: dict[bytes, bytes]) -> None:
        """Give lists to an inode that was just made. Lock held."""
        inode = self._state.get(ino)
        for name, value in lists.items():
            if name == acl.ACCESS or inode.is_dir:
                self._of(inode)[name] = value
                self._changed(inode, name)

    def remove(self, ino: int, name: bytes) -> None:
        """Raises ENODATA; a list that is not there counts as removed, as on other file systems."""
        with self._state.lock:
            self._state.admit()
            inode = self._state.get(ino)
            if self._of(inode).pop(name, None) is None:
                if name in _LISTS:
                    return
                raise PosixError(errno.ENODATA)
            self._changed(inode, name)

    def _changed(self, inode: Inode, name: bytes) -> None:
        if inode.xattrs_changed is None:
            inode.xattrs_changed = set()
        inode.xattrs_changed.add(name)
        inode.ctime = self._state.clock.now_ns()
        self._state.touch(inode)
