"""A client of NFS in this process: libnfs, as far as the tests need it. An error is an OSError with its errno."""

from __future__ import annotations

import ctypes
import ctypes.util
import os
from types import TracebackType
from typing import Any, Self

LIBRARY = "libnfs.so.13"
LIMIT = 20_000  # ms for one answer
PIECE = {
    3: 256 << 10,
    4: 3 << 10,
}  # bytes of one write: libnfs 4.0 has no room for more of version 4


class Entry(ctypes.Structure):
    """``struct nfsdirent``, as far as the name."""


Entry._fields_ = [
    ("next", ctypes.POINTER(Entry)),
    ("name", ctypes.c_char_p),
    ("inode", ctypes.c_uint64),
]


class Handle(ctypes.Structure):
    """``struct nfs_fh``."""

    _fields_ = [("length", ctypes.c_int), ("value", ctypes.c_void_p)]


class Stat(ctypes.Structure):
    """``struct nfs_stat_64``."""

    _fields_ = [
        (name, ctypes.c_uint64)
        for name in (
            "dev", "ino", "mode", "nlink", "uid", "gid", "rdev", "size", "blksize", "blocks", "atime", "mtime",
            "ctime", "atime_nsec", "mtime_nsec", "ctime_nsec", "used",
        )
    ]  # fmt: skip


def library() -> ctypes.CDLL:
    """libnfs with the types of what is used. Raises OSError where it is not installed."""
    lib = ctypes.CDLL(LIBRARY)
    lib.nfs_init_context.restype = ctypes.c_void_p
    lib.nfs_get_error.restype = ctypes.c_char_p
    lib.nfs_readdir.restype = ctypes.POINTER(Entry)
    lib.nfs_get_fh.restype = ctypes.POINTER(Handle)
    lib.nfs_parse_url_dir.restype = ctypes.c_void_p
    return lib


class Nfs:
    """One mounted export. Not for several threads at once."""

    def __init__(
        self,
        port: int,
        mount_port: int,
        path: str,
        version: int = 3,
        *,
        uid: int = 0,
        server: str = "127.0.0.1",
    ) -> None:
        """Raises OSError when the server refuses."""
        self._lib = library()
        self._version = version
        self._context = ctypes.c_void_p(self._lib.nfs_init_context())
        self._call("nfs_set_version", version)
        self._lib.nfs_set_uid(self._context, uid)
        self._lib.nfs_set_gid(self._context, uid)
        self._lib.nfs_set_timeout(self._context, LIMIT)
        self._lib.nfs_set_autoreconnect(self._context, -1)
        url = f"nfs://{server}{path}?nfsport={port}&mountport={mount_port}&version={version}&auto-traverse-mounts=0"
        parsed = ctypes.c_void_p(self._lib.nfs_parse_url_dir(self._context, url.encode()))
        self._lib.nfs_destroy_url(parsed)
        self._call("nfs_mount", server.encode(), path.encode())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Hang up."""
        self._lib.nfs_destroy_context(self._context)

    def _call(self, name: str, *arguments: Any) -> int:
        result: int = getattr(self._lib, name)(self._context, *arguments)
        if result < 0:
            said = self._lib.nfs_get_error(self._context) or b""
            raise OSError(
                -result, f"{name}: {os.strerror(-result)}: {said.decode(errors='replace')}"
            )
        return result

    def open(self, path: str, flags: int = os.O_RDONLY) -> ctypes.c_void_p:
        """A handle of an open file."""
        handle = ctypes.c_void_p()
        self._call("nfs_open", path.encode(), flags, ctypes.byref(handle))
        return handle

    def create(self, path: str, mode: int = 0o644) -> ctypes.c_void_p:
        """A new file, open for writing."""
        handle = ctypes.c_void_p()
        self._call("nfs_open2", path.encode(), os.O_CREAT | os.O_RDWR, mode, ctypes.byref(handle))
        return handle

    def handle(self, file: ctypes.c_void_p) -> bytes:
        """What the server gave to name an open file by."""
        found = self._lib.nfs_get_fh(file).contents
        return ctypes.string_at(found.value, found.length)

    def shut(self, handle: ctypes.c_void_p) -> None:
        """Close a file."""
        self._call("nfs_close", handle)

    def read(self, handle: ctypes.c_void_p, offset: int, size: int) -> bytes:
        """At most ``size`` bytes."""
        room = ctypes.create_string_buffer(size)
        count = self._call(
            "nfs_pread", handle, ctypes.c_uint64(offset), ctypes.c_uint64(size), room
        )
        return room.raw[:count]

    def write(self, handle: ctypes.c_void_p, offset: int, data: bytes) -> None:
        """All of it."""
        done = 0
        while done < len(data):
            piece = data[done : done + PIECE[self._version]]
            done += self._call(
                "nfs_pwrite",
                handle,
                ctypes.c_uint64(offset + done),
                ctypes.c_uint64(len(piece)),
                piece,
            )

    def fsync(self, handle: ctypes.c_void_p) -> None:
        """COMMIT."""
        self._call("nfs_fsync", handle)

    def unlink(self, path: str) -> None:
        self._call("nfs_unlink", path.encode())

    def rename(self, old: str, new: str) -> None:
        self._call("nfs_rename", old.encode(), new.encode())

    def mkdir(self, path: str) -> None:
        self._call("nfs_mkdir", path.encode())

    def chown(self, path: str, uid: int, gid: int) -> None:
        self._call("nfs_chown", path.encode(), uid, gid)

    def stat(self, path: str) -> Stat:
        found = Stat()
        self._call("nfs_stat64", path.encode(), ctypes.byref(found))
        return found

    def names(self, path: str) -> list[str]:
        """What is in a directory, sorted, without "." and ".."."""
        listing = ctypes.c_void_p()
        self._call("nfs_opendir", path.encode(), ctypes.byref(listing))
        found = []
        while entry := self._lib.nfs_readdir(self._context, listing):
            found.append(os.fsdecode(entry.contents.name))
        self._lib.nfs_closedir(self._context, listing)
        return sorted(name for name in found if name not in (".", ".."))
