"""The error table: every way the engine can refuse or fail, in one place.

Layers above read the row (``kind``) of an error and never invent numbers of their own: the FUSE boundary
takes ``errno``, the HTTP layer ``http``, the command line ``exit``.  Foreign exceptions (lmdb, OS, zstd) are
translated where they are caught.  A message says which thing, what was expected, what was found, what to do.
"""

from __future__ import annotations

import errno as _errno
import os
from typing import NamedTuple


class Kind(NamedTuple):
    """One row of the error table."""

    slug: str
    errno: int
    http: int
    exit: int
    retryable: bool


class HoldfastError(Exception):
    """Base of everything the engine raises on purpose; also the row for "a bug"."""

    kind = Kind("internal", _errno.EIO, 500, 1, False)

    def __init__(self, what: str, *, expected: str = "", found: str = "", do: str = "") -> None:
        parts = []
        if expected:
            parts.append(f"expected {expected}")
        if found:
            parts.append(f"found {found}")
        text = what + (": " + ", ".join(parts) if parts else "") + (f"; {do}" if do else "")
        super().__init__(text)
        self.what = what

    @property
    def errno(self) -> int:
        """The errno a file-system caller gets."""
        return self.kind.errno


class InvalidRequest(HoldfastError):
    """The request itself makes no sense (bad name, bad option)."""

    kind = Kind("invalid_request", _errno.EINVAL, 400, 2, False)


class NotFound(HoldfastError):
    """The named thing does not exist."""

    kind = Kind("not_found", _errno.ENOENT, 404, 10, False)


class AlreadyExists(HoldfastError):
    """The named thing exists and would have been replaced."""

    kind = Kind("already_exists", _errno.EEXIST, 409, 11, False)


class Busy(HoldfastError):
    """Another process or operation holds the thing; later may work."""

    kind = Kind("busy", _errno.EBUSY, 409, 12, True)


class ReadOnly(HoldfastError):
    """A write to something that is read-only (a recovery point, a store in read-only state)."""

    kind = Kind("read_only", _errno.EROFS, 409, 13, False)


class PermissionDenied(HoldfastError):
    """The caller lacks a permission."""

    kind = Kind("permission_denied", _errno.EACCES, 403, 14, False)


class NoKey(PermissionDenied):
    """It is sealed with a key that the key ring at hand has not: out of reach, and not damaged."""


class Held(HoldfastError):
    """A hold or retention lock forbids it, for everyone."""

    kind = Kind("held", _errno.EPERM, 409, 15, False)


class StoreFull(HoldfastError):
    """The store's file system (less its reserve) or its index has no room."""

    kind = Kind("store_full", _errno.ENOSPC, 507, 16, True)


class QuotaExceeded(HoldfastError):
    """The mount's quota has no room."""

    kind = Kind("quota", _errno.EDQUOT, 507, 16, True)


class Unsupported(HoldfastError):
    """A known operation that Holdfast does not do."""

    kind = Kind("unsupported", _errno.ENOTSUP, 501, 17, False)


class Corrupt(HoldfastError):
    """Stored bytes are not what they were when stored, or a decoder was fed bytes that break its format."""

    kind = Kind("corrupt", _errno.EIO, 500, 20, False)


class FormatTooNew(HoldfastError):
    """The store was written by a newer Holdfast."""

    kind = Kind("format_too_new", _errno.EIO, 500, 21, False)


class LocationUnavailable(HoldfastError):
    """A storage location does not answer or answers with I/O errors."""

    kind = Kind("location_unavailable", _errno.EIO, 503, 22, True)


class Away(LocationUnavailable):
    """A storage location cannot be asked now for what lies there only: nothing says that this is damaged."""


UNREADABLE = (Corrupt, LocationUnavailable, NoKey)
"""Damage, disks that answer with errors, keys that are not at hand: where one thing cannot be read, others may be."""


class LocationDenied(HoldfastError):
    """A storage location refuses our credentials."""

    kind = Kind("location_denied", _errno.EIO, 502, 23, False)


class ShuttingDown(HoldfastError):
    """The worker is draining."""

    kind = Kind("shutting_down", _errno.EIO, 503, 24, True)


class PosixError(HoldfastError):
    """A file-system result with an errno of its own (ENOTEMPTY, EISDIR, ENODATA …); no failure of the store."""

    def __init__(self, number: int, what: str = "") -> None:
        super().__init__(what or os.strerror(number))
        self._errno = number

    @property
    def errno(self) -> int:
        """The errno given at construction."""
        return self._errno


TABLE: tuple[type[HoldfastError], ...] = (
    InvalidRequest, NotFound, AlreadyExists, Busy, ReadOnly, PermissionDenied, Held, StoreFull,
    QuotaExceeded, Unsupported, Corrupt, FormatTooNew, LocationUnavailable, LocationDenied,
    ShuttingDown, HoldfastError,
)  # fmt: skip
"""Every kind, in the order of the table in ARCHITECTURE.md."""


def from_os(error: OSError, what: str) -> HoldfastError:
    """Translate an OSError of the store's own files into the family; ``what`` names the thing."""
    found = os.strerror(error.errno) if error.errno else str(error)
    if error.errno in (_errno.ENOSPC, _errno.EDQUOT, _errno.EFBIG):
        return StoreFull(what, found=found, do="free space on the store's file system")
    if error.errno in (_errno.EACCES, _errno.EPERM):
        return PermissionDenied(what, found=found, do="run as the store's owner")
    if error.errno == _errno.EROFS:
        return ReadOnly(what, found=found, do="remount the store's file system read-write")
    if error.errno == _errno.ENOENT:
        return NotFound(what, found=found)
    return LocationUnavailable(what, found=found, do="look at the disk and its log")


def the_cause(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Of what several tasks raised: the engine's error if there is one, else the first that is no cancellation."""
    leaves: list[BaseException] = []

    def collect(error: BaseException) -> None:
        if isinstance(error, BaseExceptionGroup):
            for inner in error.exceptions:
                collect(inner)
        else:
            leaves.append(error)

    collect(group)
    known = next((one for one in leaves if isinstance(one, HoldfastError)), None)
    return known or next((one for one in leaves if isinstance(one, Exception)), leaves[0])
