"""Making the kernel hand over its dirty pages, so that every write that returned is in the next barrier.

With the writeback cache a write(2) that returned may be in the page cache only, and ``syncfs`` returns before the
pages have arrived here.  What does wait is *laundering*: a FUSE_NOTIFY_INVAL_INODE with a data range makes the
kernel write back each dirty page of the range (also of an unlinked file, also of one dirtied through a mapping) and
wait for our answer before the notification's own write(2) returns.

Evidence, kernel 6.18, bytes counted on this side:

* 400 MiB written to an open file: 19 to 178 MiB had not arrived when ``syncfs`` returned (more with a larger share
  of dirty pages allowed); after laundering nothing was missing, in each of 8 trials.  syncfs first, then laundering
  took 0.06 s, laundering alone 0.1 s (1.4 s with 360 MiB dirty: it writes single pages, syncfs whole runs).
* 40 MiB in an unlinked, open file: all there.  16 MiB dirty in a MAP_SHARED mapping whose descriptor was closed: all
  4,096 pages there; one page dirtied again: one write more.
* munmap writes dirty pages back by itself, close does, and RELEASE is only sent when the last mapping has gone and
  all pages are written: so *the files open for writing* are all there is to launder.
* Without an upper bound laundering runs after a process that keeps appending (5 s, until that one stopped).  So the
  range ends at the size the file had when the capture began; the kernel knows it, and tells it through a handle
  (``open_by_handle_at``, which needs CAP_DAC_READ_SEARCH).
* Without that privilege the size has a bound: a file that is being appended to is at most as much longer than what has
  arrived of it as there are dirty pages in the whole kernel.  What is beyond the bound is laundered first: nothing,
  or the end of a file with a hole before it; then all before it.  So every page is laundered whatever the bound is,
  and an appender is followed no further than the bound.

A page whose write fails while laundering is dropped by the kernel; ``LiveFiles.lost`` knows of it, and the freeze is
then refused.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Callable, Iterable

_HANDLE = struct.Struct("=IiIII")  # handle_bytes, handle_type, inode high, low, generation
_HANDLE_BYTES = 12
_FILEID_INO64_GEN = 0x81
_libc = ctypes.CDLL(None, use_errno=True)

PAGE = 4096
SLACK = (
    16 << 20
)  # what the kernel's counters may lag behind, and an appender may write until we begin


def capture(
    mountpoint: str, files: Iterable[tuple[int, int]], launder: Callable[[int, int, int], None]
) -> None:
    """[T] Return when every page of these files that is dirty now has arrived here.

    ``files``: inodes, each with the size that has arrived.  ``launder(ino, offset, length)`` writes back these bytes
    (length 0: all from there on) and waits.  Must run in a thread: the pages arrive as requests to the loop. Raises
    OSError when the kernel refuses.
    """
    files = list(files)
    if not files:
        return
    root = _open_root(mountpoint)
    try:
        dirty = _dirty()
        ends = []
        for ino, arrived in files:
            end = _size(root, ino)
            if not end:
                end = _whole_pages(arrived + dirty)
                launder(ino, end, 0)  # at once: an appender that got there before would be followed
            ends.append((ino, end))
        if root >= 0:
            _libc.syncfs(root)  # only for speed: whole runs instead of single pages
        for ino, end in ends:
            launder(ino, 0, end)
    finally:
        if root >= 0:
            os.close(root)


def _open_root(mountpoint: str) -> int:
    try:
        return os.open(mountpoint, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return -1  # not reachable from here: slower, not wrong


def _size(root: int, ino: int) -> int:
    """The kernel's own idea of a file's size, up to a page border; 0 when it cannot be had."""
    if root < 0:
        return 0
    handle = _HANDLE.pack(_HANDLE_BYTES, _FILEID_INO64_GEN, ino >> 32, ino & 0xFFFFFFFF, 1)
    fd = _libc.open_by_handle_at(root, handle, os.O_PATH | os.O_CLOEXEC)
    if fd < 0:
        return 0
    try:
        size = os.fstat(fd).st_size
    except OSError:
        return 0
    finally:
        os.close(fd)
    return _whole_pages(size)


def _whole_pages(size: int) -> int:
    return max(PAGE, (size + PAGE - 1) // PAGE * PAGE)


def _dirty() -> int:
    """How much more than has arrived of it a file can be long, bytes, if it has no hole."""
    found = 0
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            for line in file:
                if line.startswith(("Dirty:", "Writeback:")):
                    found += int(line.split()[1]) * 1024
    except (OSError, ValueError):
        found = os.sysconf("SC_PHYS_PAGES") * PAGE // 4  # hidden from us
    return found + SLACK
