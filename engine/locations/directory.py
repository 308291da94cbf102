"""``file://``: a storage location that is a directory.

What is stored is written to ``.tmp/RANDOM``, synced, given its name in one step, and the folder synced. Invariants:

- A name leads to nothing, or to a whole file that was synced before it got the name.
- Below the directory no symbolic link is followed: a folder or file that is one is refused.
- Folders are 0700, files 0600. Folders are made as needed and never removed: another writer may just be using one.
- Nothing is written or removed, nothing counts as written, and nothing is missing, where another directory has come
  into the place of the one that was opened: the bare mount point of a disk that is gone has room for everything, too.

Who can write into the directory while we work can put anything anywhere in it; links are refused so that what *lies*
there, as on a medium that came from elsewhere, leads nowhere else.
"""

from __future__ import annotations

import errno
import os
import stat
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from engine.errors import (
    Away,
    HoldfastError,
    LocationDenied,
    LocationUnavailable,
    NotFound,
    PosixError,
    StoreFull,
    Unsupported,
)
from engine.locations import contract
from engine.locations.contract import Features, Pieces, Stat
from engine.seam import REAL, Os

if TYPE_CHECKING:
    from typing_extensions import Buffer

_TEMPORARY = ".tmp"
_WRITE = 8 << 20  # bytes handed to the kernel at once
_WITNESS = "holdfast.json"  # of a location, differs from that of any other: a disk that was mounted anew is told by it
_WITNESS_MAX = 4096


class Directory:
    """A location in a directory that exists. Holds no descriptor open between calls."""

    def __init__(self, root: str, shown: str, system: Os = REAL) -> None:
        self.shown = shown
        self._root = root
        self._os = system
        self._lock = threading.Lock()  # guards _folders
        self._folders: set[str] = set()  # known to be there, synced into their parents
        if not stat.S_ISDIR(self._lstat("", f"directory of {shown}").st_mode):
            raise NotFound(f"directory of {shown}", expected="a directory", found="something else")
        self._opened = self._identity(f"directory of {shown}")
        self._witness = self._witnessed()

    def features(self) -> Features:
        probe = "probe-" + self._os.random(8).hex()
        try:
            return Features(
                create=self.create(probe, b"1") and not self.create(probe, b"2"), lock=False
            )
        except Unsupported:
            return Features(create=False, lock=False)
        finally:
            self.remove([probe])

    def put(self, name: str, data: Buffer) -> None:
        self._store(name, data, new=False)

    def create(self, name: str, data: Buffer) -> bool:
        what = self._what(name)
        self._same(what)
        self._folder(contract.checked(name), what)
        if self._there(name):
            return False
        return self._store(name, data, new=True)

    def read(self, name: str, offset: int = 0, length: int = -1) -> bytes:
        contract.positive(offset)
        return self._read(name, [(offset, length)])[0]

    def ranges(self, name: str, parts: Sequence[tuple[int, int]]) -> Pieces:
        joined = contract.join(parts)
        answers = self._read(name, [(one.offset, one.length) for one in joined])
        return contract.split(parts, joined, answers)

    def stat(self, name: str) -> Stat:
        with self._looking(self._what(name)):
            self._checked_way(contract.checked(name))
            state = self._lstat(name, self._what(name))
            if not stat.S_ISREG(state.st_mode):
                raise NotFound(self._what(name), expected="a file", found="something else")
            return Stat(name, state.st_size, state.st_mtime_ns)

    def list(self, prefix: str, after: str = "") -> Iterator[Stat]:
        self._same(f"directory of {self.shown}")  # gone: an error, not an empty list
        return self._walk("", prefix, after)

    def remove(self, names: Sequence[str]) -> None:
        folders = set()
        self._same(f"directory of {self.shown}")
        for name in names:
            what = self._what(name)
            try:
                self._checked_way(contract.checked(name))
                self._os.unlink(self._path(name))
            except NotFound:
                continue
            except FileNotFoundError:
                continue
            except OSError as error:
                raise self._error(error, what) from None
            folders.add(os.path.dirname(name))
        for folder in sorted(folders):
            with self._asking(self._what(folder)):
                self._os.fsync_dir(self._path(folder))

    def retain(self, name: str, until_s: int) -> None:
        raise Unsupported(
            f"retention of {self._what(name)}",
            expected="a server with Object Lock",
            found="a directory",
            do="use a bucket made with Object Lock",
        )

    def tidy(self, age_s: float) -> int:
        what = f"unfinished files in {self.shown}"
        path = self._path(_TEMPORARY)
        if not self._os.exists(path):
            return 0
        self._is_folder(_TEMPORARY, what)
        removed = 0
        with self._asking(what):
            names = self._os.listdir(path)
        for name in names:
            one = os.path.join(path, name)
            try:
                if self._os.time_ns() - os.lstat(one).st_mtime_ns > age_s * 1e9:
                    self._os.unlink(one)
                    removed += 1
            except FileNotFoundError:
                continue
            except OSError as error:
                raise self._error(error, what) from None
        return removed

    def counts(self) -> dict[str, int]:
        return {}

    def close(self) -> None:
        """Nothing is held."""

    # --- writing ---------------------------------------------------------------------------------

    def _store(self, name: str, data: Buffer, *, new: bool) -> bool:
        """Write it whole beside, then give it its name; False when there is something of that name, and ``new``."""
        what = self._what(name)
        self._same(what)
        self._folder(contract.checked(name), what)
        self._folder(f"{_TEMPORARY}/x", what)
        if not new and self._there(name):  # a link would be replaced, a folder not: neither is ours
            self.stat(name)
        temporary = self._path(f"{_TEMPORARY}/{self._os.random(12).hex()}")
        try:
            self._write(temporary, data)
            try:
                (self._os.rename_new if new else self._os.rename)(temporary, self._path(name))
            except FileExistsError:
                self._os.unlink(temporary)
                return False
            self._os.fsync_dir(os.path.dirname(self._path(name)))
        except OSError as error:
            self._drop(temporary)
            raise self._error(error, what) from None
        self._same(what)
        return True

    def _write(self, path: str, data: Buffer) -> None:
        view = memoryview(data).cast("B")
        fd = self._os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        try:
            for at in range(0, len(view), _WRITE):
                self._os.pwritev(fd, [view[at : at + _WRITE]], at)
                self._os.write_behind(fd, at, _WRITE)
            self._os.fsync(fd)
        finally:
            self._os.close(fd)

    def _drop(self, path: str) -> None:
        try:
            if self._os.exists(path):
                self._os.unlink(path)
        except OSError:
            return  # ``tidy`` finds it

    def _folder(self, name: str, what: str) -> None:
        """Make the folders of a name that are not there, durably; none of them is a link."""
        parts = name.split("/")[:-1]
        for depth in range(1, len(parts) + 1):
            folder = "/".join(parts[:depth])
            with self._lock:
                if folder in self._folders and self._os.exists(self._path(folder)):
                    continue
                try:
                    if not self._os.exists(self._path(folder)):
                        self._os.mkdir(self._path(folder))
                except FileExistsError:
                    pass  # another process
                except OSError as error:
                    raise self._error(error, what) from None
                self._is_folder(folder, what)
                with self._asking(what):
                    self._os.fsync_dir(os.path.dirname(self._path(folder)))
                self._folders.add(folder)

    # --- reading ---------------------------------------------------------------------------------

    def _read(self, name: str, parts: Sequence[tuple[int, int]]) -> Sequence[bytes]:
        what = self._what(name)
        with self._looking(what), self._asking(what):
            self._checked_way(contract.checked(name))
            fd = self._os.open(self._path(name), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            state = os.fstat(fd)
            if not stat.S_ISREG(state.st_mode):
                raise NotFound(what, expected="a file", found="something else")
            found = []
            for offset, length in parts:
                wanted = max(state.st_size - offset, 0) if length < 0 else length
                if length < 0 and offset > state.st_size:
                    wanted = 1  # there is nothing there to be the rest of
                # Lengths come from elsewhere: nothing is allocated for bytes that are not there.
                here = max(min(wanted, state.st_size - offset), 0)
                found.append(contract.whole(self._os.pread(fd, here, offset), wanted, what, offset))
            return found
        except OSError as error:
            raise self._error(error, what) from None
        finally:
            self._os.close(fd)

    def _walk(self, folder: str, prefix: str, after: str) -> Iterator[Stat]:
        """Names in order: a folder stands where its names do, as if it ended in a slash."""
        what = self._what(folder)
        try:
            with os.scandir(self._path(folder)) as entries:
                here = [(one.name, one.is_dir(follow_symlinks=False)) for one in entries]
        except FileNotFoundError:
            return
        except OSError as error:
            raise self._error(error, what) from None
        start = folder + "/" if folder else ""
        for full, is_folder in sorted((start + name + "/" * deep, deep) for name, deep in here):
            name = full.rstrip("/")
            if not contract.is_name(name):
                continue
            if is_folder:
                below = full.startswith(prefix) or prefix.startswith(full)
                if below and not (after > full and not after.startswith(full)):
                    yield from self._walk(name, prefix, after)
            elif name.startswith(prefix) and name > after:
                try:
                    yield self.stat(name)
                except NotFound:
                    continue  # removed meanwhile, or no file

    # --- names -----------------------------------------------------------------------------------

    def _what(self, name: str) -> str:
        return f"{name or 'directory'} at {self.shown}"

    def _path(self, name: str) -> str:
        return os.path.join(self._root, name) if name else self._root

    def _there(self, name: str) -> bool:
        return self._os.exists(self._path(name))

    def _checked_way(self, name: str) -> None:
        """The folders of a name are there, and are folders."""
        parts = name.split("/")[:-1]
        for depth in range(1, len(parts) + 1):
            self._is_folder("/".join(parts[:depth]), self._what(name))

    def _is_folder(self, folder: str, what: str) -> None:
        mode = self._lstat(folder, what).st_mode
        if not stat.S_ISDIR(mode):
            raise LocationDenied(
                what,
                expected=f"{folder} to be a folder",
                found="a symbolic link" if stat.S_ISLNK(mode) else "something else",
                do="links in a storage location are not followed",
            )

    def _lstat(self, name: str, what: str) -> os.stat_result:
        try:
            # The directory itself was named by whoever runs this, and may be a link.
            return os.lstat(self._path(name)) if name else os.stat(self._root)
        except OSError as error:
            raise self._error(error, what) from None

    def _identity(self, what: str) -> tuple[int, int]:
        """Which directory it is. It is opened: looking alone does not have an automatic mount be made."""
        try:
            fd = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                state = os.fstat(fd)
            finally:
                os.close(fd)
        except OSError as error:
            raise self._error(error, what) from None
        return state.st_dev, state.st_ino

    def _same(self, what: str) -> None:
        """Raises Away when it is another directory than was opened, unless by its content."""
        found = self._identity(what)
        if found == self._opened:
            return
        if not self._witness or self._witnessed() != self._witness:
            raise Away(
                what, expected="the directory that was opened", found="another one in its place", do="mount its disk"
            )  # fmt: skip
        self._opened = found

    def _witnessed(self) -> bytes:
        try:
            fd = os.open(self._path(_WITNESS), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError:
            return b""
        try:
            return os.read(fd, _WITNESS_MAX)
        except OSError:
            return b""
        finally:
            os.close(fd)

    @contextmanager
    def _looking(self, what: str) -> Iterator[None]:
        """What is not found inside may be gone with the whole disk: that passes."""
        try:
            yield
        except NotFound:
            try:
                self._same(what)
            except NotFound:
                raise Away(
                    what,
                    expected="the directory that was opened",
                    found="none",
                    do="mount its disk",
                ) from None
            raise

    @contextmanager
    def _asking(self, what: str) -> Iterator[None]:
        """Errors of the system inside are told in the family, as of this thing."""
        try:
            yield
        except OSError as error:
            raise self._error(error, what) from None

    def _error(self, error: OSError, what: str) -> HoldfastError:
        """What the system says, in the family."""
        found = os.strerror(error.errno) if error.errno else "an error"
        match error.errno:
            case errno.ENOENT | errno.ENOTDIR:
                return NotFound(what, found=found)
            case errno.ENOSPC | errno.EDQUOT | errno.EFBIG:
                return StoreFull(what, found=found, do="free space at the storage location")
            case errno.EACCES | errno.EPERM | errno.EROFS:
                return LocationDenied(what, found=found, do="let this user write there")
            case errno.ELOOP:
                return LocationDenied(what, expected="a file", found="a symbolic link")
            case errno.EISDIR | errno.EEXIST | errno.ENOTEMPTY:
                return PosixError(error.errno, f"{what}: {found}")
            case errno.EINVAL | errno.ENOSYS | errno.EOPNOTSUPP:
                return Unsupported(what, found=found, do="use another file system")
        return LocationUnavailable(what, found=found, do="look at the disk and its log")
