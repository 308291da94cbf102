"""One FUSE session from mount to end: the descriptor, the handshake, pyfuse3's loop, notifications to the kernel."""

from __future__ import annotations

import contextlib
import logging
import os
import struct

import pyfuse3
import trio

from fsmount.channel import kernel
from fsmount.channel.adapter import Adapter
from fsmount.channel.handshake import Handshake
from fsmount.channel.reader import Reader
from fsmount.spin import Spin

log = logging.getLogger("holdfast.fsmount.channel")

TASKS = 64  # requests served at once; each may come to hold a buffer of 1 MiB
INVAL_INODE = 2
INVAL_ENTRY = 3
_NAME_CHANGED = struct.Struct(
    "=IiQQII"
)  # header; then the directory, the length of the name, flags
_INVALIDATE = struct.Struct("=IiQQqq")  # header: length, code, 0; then inode, offset, length


class Session:
    """A mounted file system. Create and serve it on the thread of the event loop; one per process at a time."""

    def __init__(
        self, adapter: Adapter, mountpoint: str, options: list[str], spin: Spin, given: int = -1
    ) -> None:
        """Mounts at once, so that errors are the caller's; requests are answered from ``serve`` on.

        ``given``: a mounted connection, taken over as it is; else this mounts with ``options``.
        """
        self.mountpoint = mountpoint
        self.spin = spin
        self._handshake = Handshake(given if given >= 0 else kernel.attach(mountpoint, options))
        fd = self._fd = self._handshake.library_fd
        self._reader = Reader(fd, spin, self._begin)
        self.ready = trio.Event()
        self._open = True
        try:
            pyfuse3.init(adapter, f"/dev/fd/{fd}", set())
        except BaseException:
            if given < 0:
                kernel.detach(mountpoint, lazy=True)
            self._handshake.close()
            raise

    def _begin(self) -> bool:
        if self._handshake.finish():
            self.ready.set()
            return True
        return False

    async def serve(self) -> None:
        """Answer requests until the file system is unmounted or ``stop`` is called."""
        pyfuse3._wait_fuse_readable = self._reader.wait  # type: ignore[attr-defined]  # noqa: SLF001
        self._handshake.begin()
        await pyfuse3.main(min_tasks=TASKS, max_tasks=TASKS)

    def stop(self) -> None:
        """End ``serve`` without unmounting; requests that are being answered are finished first."""
        pyfuse3.terminate()
        self._reader.stop()

    def close(self) -> None:
        """Give the connection up. What is still mounted answers "not connected" from now on."""
        if self._open:
            self._open = False
            self._handshake.close()
            pyfuse3.close(unmount=False)

    def launder(self, ino: int, offset: int = 0, length: int = 0) -> None:
        """[T] Make the kernel write back an inode's dirty pages there (length 0: all from there on), and wait for it.

        Never call it on the loop's thread: the pages arrive as requests. An inode that the kernel does not know is
        fine, it has no pages. Raises OSError when the connection is gone.
        """
        self._notify(ino, offset, length)

    def _notify(self, ino: int, offset: int, length: int) -> None:
        message = _INVALIDATE.pack(_INVALIDATE.size, INVAL_INODE, 0, ino, offset, length)
        try:
            os.write(self._fd, message)
        except FileNotFoundError:
            return

    def name_changed(self, parent: int, name: bytes) -> None:
        """[T] Tell the kernel to ask again for a name. It waits for who holds the directory's lock."""
        size = _NAME_CHANGED.size + len(name) + 1
        message = _NAME_CHANGED.pack(size, INVAL_ENTRY, 0, parent, len(name), 0) + name + b"\0"
        with contextlib.suppress(FileNotFoundError):
            os.write(self._fd, message)

    def attributes_changed(self, ino: int) -> None:
        """Tell the kernel to ask again for an inode's attributes; short, fit for the loop's thread."""
        try:
            self._notify(ino, -1, 0)
        except OSError as error:
            log.debug("attributes of inode %d: %s", ino, os.strerror(error.errno or 0))
