"""A disk that remembers everything done to it: a FUSE file system of two files, ``disk`` and ``notes``.

``disk`` is the backing file of a loop device.  The kernel may keep none of it (direct I/O), so every block the file
system above writes arrives here before its write is complete, in order; the loop device sends each flush of the block
layer as an fsync (it has no FUA: the block layer makes write and flush of it), and a discard as nothing at all.
Requests are served one at a time, and so is what is written to ``notes``: a note is in the log before its write(2)
returns, behind all writes that were complete by then.  That is why this is no NBD server: those answer several
requests at once, and an acknowledgement would have to find its place among them.

    python -m tools.torture.crash.recorder DIRECTORY IMAGE LOG

The disk is the content of IMAGE at first, which is not changed; the log is whole when the process has ended.
"""

from __future__ import annotations

import errno
import mmap
import stat
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import pyfuse3
import trio

from tools.torture.crash.disklog import PAGE, Kind, encode, load

DISK, NOTES = 2, 3
NAMES = {b"disk": DISK, b"notes": NOTES}


class Recording(pyfuse3.Operations):
    """The handlers."""

    enable_writeback_cache = False

    def __init__(self, image: Path, log: BinaryIO) -> None:
        super().__init__()
        self._disk = mmap.mmap(-1, image.stat().st_size)
        for number, page in load(image).items():
            self._disk[number * PAGE : (number + 1) * PAGE] = page
        self._log = log

    def _attr(self, inode: int) -> pyfuse3.EntryAttributes:
        attr = pyfuse3.EntryAttributes()
        attr.st_ino = pyfuse3.InodeT(inode)
        attr.st_mode = pyfuse3.ModeT(
            (stat.S_IFREG | 0o600) if inode in (2, 3) else (stat.S_IFDIR | 0o700)
        )
        attr.st_size = len(self._disk) if inode == DISK else 0
        attr.st_blksize = 4096
        attr.entry_timeout = attr.attr_timeout = 3600
        return attr

    async def getattr(self, inode, ctx):  # type: ignore[no-untyped-def]
        return self._attr(inode)

    async def lookup(self, parent_inode, name, ctx):  # type: ignore[no-untyped-def]
        if name not in NAMES:
            raise pyfuse3.FUSEError(errno.ENOENT)
        return self._attr(NAMES[name])

    async def setattr(self, inode, attr, fields, fh, ctx):  # type: ignore[no-untyped-def]
        return self._attr(inode)

    async def open(self, inode, flags, ctx):  # type: ignore[no-untyped-def]
        return pyfuse3.FileInfo(fh=inode, direct_io=True)

    async def read(self, fh, off, size):  # type: ignore[no-untyped-def]
        return self._disk[off : off + size]

    async def write(self, fh, off, buf):  # type: ignore[no-untyped-def]
        if fh == NOTES:
            self._log.write(encode(Kind.NOTE, 0, buf))
        elif off + len(buf) > len(self._disk):
            raise pyfuse3.FUSEError(errno.ENOSPC)
        else:
            self._disk[off : off + len(buf)] = buf
            self._log.write(encode(Kind.WRITE, off, buf))
        return len(buf)

    async def fsync(self, fh, datasync):  # type: ignore[no-untyped-def]
        self._log.write(encode(Kind.FLUSH))

    async def flush(self, fh):  # type: ignore[no-untyped-def]
        return None

    async def release(self, fh):  # type: ignore[no-untyped-def]
        return None

    async def forget(self, inode_list: Sequence[tuple[int, int]]) -> None:
        """There are two files, for ever."""


@contextmanager
def recorder(place: Path, image: Path, log: Path) -> Iterator[tuple[Path, Path]]:
    """The paths of ``disk`` and ``notes`` of a recorder in a process of its own; the log is whole afterwards."""
    place.mkdir()
    command = [
        sys.executable,
        "-m",
        "tools.torture.crash.recorder",
        str(place),
        str(image),
        str(log),
    ]
    with subprocess.Popen(command) as process:
        try:
            deadline = time.monotonic() + 20
            while not (place / "disk").exists():
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError("the recorder did not start")
                time.sleep(0.01)
            yield place / "disk", place / "notes"
        finally:
            subprocess.run(["umount", str(place)], check=False)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                subprocess.run(["umount", "-l", str(place)], check=False)
                process.kill()
    place.rmdir()


def main() -> None:
    """Serve until unmounted."""
    place, image, log = sys.argv[1:]
    with open(log, "wb") as out:
        operations = Recording(Path(image), out)
        options = {*pyfuse3.default_options, "fsname=recorder"}
        pyfuse3.init(operations, place, options)
        try:
            trio.run(pyfuse3.main)
        finally:
            pyfuse3.close(unmount=True)


if __name__ == "__main__":
    main()
