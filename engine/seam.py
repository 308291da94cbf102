"""The storage seam: the one door from the engine to files, time and randomness.

Everything the engine does to pack files, segments and ``format.json`` goes through an ``Os`` object, so that a
recording or failing implementation can stand in its place.  LMDB does its own input and output.

A failed ``fsync`` is final for the file it failed on (a retried fsync answers "ok" for pages that were dropped):
callers abandon the file and write the data again to a new one.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import stat
import time
from collections.abc import Sequence


def hand_over(fd: int, folder: str) -> None:
    """As root, give what was made in a directory to the directory's owner: a store is one user's, whoever runs a
    command on it, and a service that is not root must be able to go on with it.

    Never what has another name somewhere: that could be put there for it to be given away.
    """
    if os.geteuid():
        return
    made = os.fstat(fd)
    owner = os.stat(folder or ".")
    if made.st_uid == 0 and owner.st_uid and (stat.S_ISDIR(made.st_mode) or made.st_nlink == 1):
        os.chown(
            f"/proc/self/fd/{fd}", owner.st_uid, owner.st_gid
        )  # also of one that is only a path


def _rename_noreplace(old: str, new: str) -> None:
    here, noreplace = -100, 1  # AT_FDCWD, RENAME_NOREPLACE
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.renameat2(here, os.fsencode(old), here, os.fsencode(new), noreplace) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), new)


class Os:
    """The real operating system. Methods raise OSError; short writes are completed, never ignored."""

    def open(self, path: str, flags: int, mode: int = 0o600) -> int:
        if not flags & os.O_CREAT:
            return os.open(path, flags | os.O_CLOEXEC, mode)
        fd = os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW, mode)
        hand_over(fd, os.path.dirname(path))
        return fd

    def close(self, fd: int) -> None:
        os.close(fd)

    def pwritev(self, fd: int, parts: Sequence[bytes | bytearray | memoryview], offset: int) -> int:
        """Write all parts at ``offset``; returns the bytes written (always all of them)."""
        total = sum(len(part) for part in parts)
        done = os.pwritev(fd, parts, offset)
        if done < total:
            rest = memoryview(b"".join(parts))
            while done < total:
                done += os.pwrite(fd, rest[done:], offset + done)
        return total

    def pread(self, fd: int, size: int, offset: int) -> bytes:
        """Read up to ``size`` bytes; fewer only at the end of the file."""
        data = os.pread(fd, size, offset)
        if len(data) == size or not data:
            return data
        parts = [data]
        got = len(data)
        while got < size:
            data = os.pread(fd, size - got, offset + got)
            if not data:
                break
            parts.append(data)
            got += len(data)
        return b"".join(parts)

    def write_behind(self, fd: int, offset: int, size: int) -> None:
        """Let the kernel begin to write these bytes to the disk; nothing waits, nothing is promised."""
        # DONTNEED starts writing what is dirty; it drops only pages that are clean already.
        os.posix_fadvise(fd, offset, size, os.POSIX_FADV_DONTNEED)

    def drop_pages(self, fd: int) -> None:
        """Forget what is in memory of the file and was written to the disk."""
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)

    def fdatasync(self, fd: int) -> None:
        os.fdatasync(fd)

    def fsync(self, fd: int) -> None:
        os.fsync(fd)

    def fsync_dir(self, path: str) -> None:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def truncate(self, fd: int, size: int) -> None:
        os.ftruncate(fd, size)

    def size(self, fd: int) -> int:
        return os.fstat(fd).st_size

    def rename(self, old: str, new: str) -> None:
        os.rename(old, new)

    def rename_new(self, old: str, new: str) -> None:
        """Rename without replacing, in one step: FileExistsError where there is something, whatever happens beside."""
        try:
            os.link(old, new, follow_symlinks=False)
        except FileExistsError:
            # A server of files that lost its own answer says this of the link that it made.
            if not os.path.samestat(os.lstat(old), os.lstat(new)):
                raise
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK):
                raise
            _rename_noreplace(old, new)  # a file system without links
        else:
            os.unlink(old)
            return
        if os.path.lexists(old):
            os.unlink(old)

    def unlink(self, path: str) -> None:
        os.unlink(path)

    def mkdir(self, path: str, mode: int = 0o700) -> None:
        os.mkdir(path, mode)
        if os.geteuid() == 0:
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                hand_over(fd, os.path.dirname(path))
            finally:
                os.close(fd)

    def listdir(self, path: str) -> list[str]:
        return sorted(os.listdir(path))

    def exists(self, path: str) -> bool:
        return os.path.lexists(path)

    def space(self, path: str) -> tuple[int, int]:
        """(bytes available to us, bytes in all) of the file system that holds ``path``."""
        st = os.statvfs(path)
        return st.f_bavail * st.f_frsize, st.f_blocks * st.f_frsize

    def try_lock(self, fd: int, *, shared: bool = False) -> bool:
        """Take a lock on an open file; False when another process holds it (exclusively, if ``shared``)."""
        try:
            fcntl.flock(fd, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def time_ns(self) -> int:
        return time.time_ns()

    def monotonic(self) -> float:
        return time.monotonic()

    def since_boot(self) -> float:
        """Like ``monotonic``, but it goes on while the machine sleeps."""
        return time.clock_gettime(time.CLOCK_BOOTTIME)

    def boot(self) -> str:
        """Which boot of the machine this is; empty where nobody tells."""
        try:
            with open("/proc/sys/kernel/random/boot_id", "rb") as file:
                return file.read().decode("utf-8", "replace").strip()
        except OSError:
            return ""

    def random(self, count: int) -> bytes:
        return os.urandom(count)


REAL = Os()

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of mallopt(3), glibc
_KEPT = 64 << 20  # free bytes at the end of the heap above which some are given back
_MAPPED = 32 << 20  # larger blocks are mapped one by one


def keep_memory() -> None:
    """Let this process's allocator keep the memory of buffers that are freed, for the next ones.

    By default every buffer of 128 KiB and more is mapped, faulted in page by page and unmapped again: a restore that
    reads in large runs spent 0.6 of 1.4 s of processor time in that.  Does nothing where there is no mallopt.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, _MAPPED)
        mallopt(_TRIM_THRESHOLD, _KEPT)


def save(system: Os, path: str, data: bytes) -> None:
    """Durably replace ``path`` by ``data``: temporary file, fsync, rename, directory fsync."""
    temporary = f"{path}.tmp-{system.random(6).hex()}"
    fd = system.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    try:
        system.pwritev(fd, [data], 0)
        system.fsync(fd)
    finally:
        system.close(fd)
    system.rename(temporary, path)
    system.fsync_dir(os.path.dirname(path) or ".")


def load(system: Os, path: str, most: int, flags: int = 0) -> bytes:
    """The first ``most`` bytes of a small file. ``flags``: besides those of reading. Raises OSError."""
    fd = system.open(path, os.O_RDONLY | flags)
    try:
        return system.pread(fd, most, 0)
    finally:
        system.close(fd)
