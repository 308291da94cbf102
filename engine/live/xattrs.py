"""Extended attributes of a live tree. Loaded with their inode's first use, kept with it, written part by part.

Only the namespaces that mean what they say here are taken: ``user``, ``trusted`` and ``security`` (the kernel decides
who may use the latter two).  ``system`` is refused, above all POSIX ACLs: they would be stored and not enforced.
"""

from __future__ import annotations

import errno

from engine import limits
from engine.errors import InvalidRequest, PosixError, Unsupported
from engine.live import lookup
from engine.live.inode import Inode
from engine.live.space import Space
from engine.live.state import State

CREATE = 1
REPLACE = 2
_NAMESPACES = (b"user.", b"trusted.", b"security.")


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
        """Raises EEXIST (CREATE), ENODATA (REPLACE), ERANGE, E2BIG, ENOSPC, Unsupported."""
        if not name.startswith(_NAMESPACES):
            raise Unsupported(
                "extended attribute", expected="a user, trusted or security one", found="another"
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
            known[name] = value
            self._changed(inode, name)

    def remove(self, ino: int, name: bytes) -> None:
        """Raises ENODATA."""
        with self._state.lock:
            self._state.admit()
            inode = self._state.get(ino)
            if self._of(inode).pop(name, None) is None:
                raise PosixError(errno.ENODATA)
            self._changed(inode, name)

    def _changed(self, inode: Inode, name: bytes) -> None:
        if inode.xattrs_changed is None:
            inode.xattrs_changed = set()
        inode.xattrs_changed.add(name)
        inode.ctime = self._state.clock.now_ns()
        self._state.touch(inode)
