"""LMDB's errors in the words of the error table."""

from __future__ import annotations

import errno
import os

import lmdb

from engine import limits
from engine.errors import Busy, Corrupt, HoldfastError, LocationUnavailable, ReadOnly, StoreFull

_FULL = tuple(os.strerror(number) for number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG))
_READ_ONLY = os.strerror(errno.EROFS)
_IO = os.strerror(errno.EIO)
_CROWDED = (
    1 * limits.MIB
)  # bytes left, below which an I/O error of LMDB is taken for a lack of room


def _full(error: lmdb.Error, path: str) -> HoldfastError:
    return StoreFull(f"index {path}", found=str(error), do="free space on the store's file system")


def _room(path: str) -> int:
    try:
        found = os.statvfs(path)
    except OSError:
        return _CROWDED
    return found.f_bavail * found.f_frsize


def translate(error: lmdb.Error, path: str) -> HoldfastError:
    """What LMDB says, in the words of the error table. ``path``: the index's directory."""
    said = str(error)  # lmdb gives what the system said as text only
    if isinstance(error, (lmdb.MapFullError, lmdb.DiskError)) or any(one in said for one in _FULL):
        return _full(error, path)
    if _IO in said and _room(path) < _CROWDED:
        return _full(error, path)  # so LMDB tells a write of which the disk took a part
    if _READ_ONLY in said:
        return ReadOnly(
            f"index {path}", found=said, do="remount the store's file system read-write"
        )
    if isinstance(error, (lmdb.ReadersFullError, lmdb.TxnFullError)):
        return Busy(
            f"index {path}", found=str(error), do="try again; too many processes or one huge change"
        )
    if isinstance(
        error, (lmdb.CorruptedError, lmdb.PanicError, lmdb.PageNotFoundError, lmdb.InvalidError)
    ):
        return Corrupt(f"index {path}", expected="a sound LMDB file", found=str(error),
                       do="run 'holdfast repair --rebuild-index'")  # fmt: skip
    return LocationUnavailable(f"index {path}", found=str(error), do="look at the disk and its log")
