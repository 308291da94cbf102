"""Going on with a restore that was cut off: what the target has already is taken by its content.

Times and sizes are not believed: bytes count as there when they hash to the id of the chunk that belongs there.
Of an extent that is a part of its chunk that cannot be told, so it is read and written again, as are the small files
that share chunks.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterable, Sequence

from engine import limits
from engine.nodes import Entry, Extent
from engine.seam import REAL


def reopened(folder: int, name: bytes, entry: Entry) -> int:
    """A descriptor, to read and write, of the regular file that an earlier try left; -1 where there is none to go on
    with: nothing, something else, a file with other names, which may lie outside of the target, or somebody's who is
    neither who restores nor who it is for. Raises OSError."""
    try:
        fd = os.open(
            name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder
        )
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ELOOP, errno.ENXIO, errno.EACCES, errno.ENODEV):
            return -1
        raise
    try:
        found = os.fstat(fd)
        owners = (os.geteuid(), *((entry.uid,) if os.geteuid() == 0 else ()))
        if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1 or found.st_uid not in owners:
            return -1
        os.fchmod(fd, 0o600)
        return os.open(f"/proc/self/fd/{fd}", os.O_RDWR | os.O_CLOEXEC)
    finally:
        os.close(fd)


def missing(
    fd: int, start: int, extents: Iterable[Extent], name_of: Callable[[bytes], bytes]
) -> list[Extent]:
    """Extents of a span, which begins at ``start``, whose bytes are not in the file. Raises OSError."""
    left = []
    for extent in extents:
        offset, length, cid, inner = extent
        if inner or name_of(REAL.pread(fd, length, start + offset)) != cid:
            left.append(extent)
    return left


def clear(fd: int, start: int, end: int) -> None:
    """Have zeros from ``start`` to ``end``; holes stay holes. Raises OSError."""
    while start < end:
        try:
            start = os.lseek(fd, start, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return
            raise
        stop = min(end, start + limits.MIB, os.lseek(fd, start, os.SEEK_HOLE))
        if start < stop:
            data = REAL.pread(fd, stop - start, start)
            if data.count(0) != len(data):
                REAL.pwritev(fd, [bytes(len(data))], start)
        start = stop


def gaps(extents: Sequence[Extent], end: int) -> Iterable[tuple[int, int]]:
    """What extents leave out from the beginning of their span to ``end``."""
    at = 0
    for offset, length, _, _ in extents:
        if offset > at:
            yield at, offset
        at = offset + length
    if at < end:
        yield at, end
