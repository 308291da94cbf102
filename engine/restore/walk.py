"""Walking a point and making its tree beneath a directory descriptor.

Nothing is made outside the target: every name is checked again, every open is relative to a descriptor of a directory
this restore made or was given, and none follows a symbolic link.  Content is written by threads; attributes of a file
are set when its last byte is written, those of directories at the end.  Holes stay holes.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator

from engine.errors import AlreadyExists, Corrupt
from engine.nodes import Entry
from engine.points.view import PointView
from engine.restore.descent import Descent, open_below
from engine.restore.file import RestoredFile, set_attributes, set_named_attributes
from engine.restore.job import Job
from engine.restore.resume import reopened

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC

Wanted = dict[bytes, "Wanted | None"]
"""Names in a directory, each with what is wanted in it: None for all."""


class Walk:
    """One walk. Used by one thread; content goes to the job's threads."""

    def __init__(
        self, view: PointView, job: Job, root: int, *, force: bool, resume: bool, wanted: Wanted | None = None
    ) -> None:  # fmt: skip
        """``root``: descriptor of the target directory; it stays the caller's. ``force``: put things in the place of
        others; ``resume``: and keep what is right in files; ``wanted``: only these, all of it without."""
        self._view = view
        self._job = job
        self._root = root
        self._force = force
        self._resume = resume
        self._wanted = [wanted]  # of the directories the walk is in
        self._at = Descent(root)
        self._links: dict[int, bytes] = {}  # inode -> path of its first name
        self._trail: list[bytes] = []  # names of the directories the walk is in
        self._directories: list[tuple[int, bytes, Entry]] = []  # depth, name; parents first

    def directory(self, entry: Entry) -> None:
        """Everything below a directory, which is the target itself. Raises OSError, AlreadyExists, Corrupt."""
        inside = [self._members(b"", entry)]
        try:
            while inside:
                child = next(inside[-1], None)
                if child is None:
                    inside.pop()
                    if inside:
                        self._at.up()
                        self._trail.pop()
                        self._wanted.pop()
                    continue
                here = b"/".join((*self._trail, child.name))
                if stat.S_ISDIR(child.mode):
                    self._job.result.files += 1
                    self._make_directory(_checked(child.name), here)
                    self._at.down(child.name)
                    if self._resume:  # it may be as it was in the point, closed even to its owner
                        os.fchmod(self._at.fd, 0o700)
                    self._trail.append(child.name)
                    here_wanted = self._wanted[-1]
                    self._wanted.append(here_wanted and here_wanted[child.name])
                    inside.append(self._members(child.name, child))
                else:
                    self.member(here, child)
        finally:
            self._at.close()

    def _members(self, name: bytes, entry: Entry) -> Iterator[Entry]:
        """A directory's entries; its own attributes are left for ``finish``.

        No path is kept: those of a deep tree are long, and together as large as the square of its depth.
        """
        depth = len(self._trail)
        self._directories.append((depth, name, entry))

        def lost(after: bytes, upto: bytes, error: Exception) -> None:
            names = f"names behind {after!r}" + (f" up to {upto!r}" if upto else "")
            path = b"/".join(self._trail[:depth])
            self._job.lost(path or b".", names, error)

        wanted = self._wanted[-1]
        if wanted is None:
            return self._view.scan(entry, b"", lost)
        found = (self._view.get(entry, one) for one in sorted(wanted))
        return iter([one for one in found if one is not None])

    def member(self, path: bytes, entry: Entry) -> None:
        """One entry that is no directory, under its name in the directory the walk is in."""
        fd, name = self._at.fd, _checked(entry.name)
        self._job.result.files += 1
        if entry.nlink > 1 and self._linked(fd, name, path, entry):
            return
        there = -1
        if self._resume and stat.S_ISREG(entry.mode):
            there = reopened(fd, name, entry)
        if there >= 0:
            RestoredFile(self._view, self._job, there, path, entry, there=True).queue()
            return
        if stat.S_ISREG(entry.mode):
            try:
                out = os.open(name, _NEW, 0o600, dir_fd=fd)
            except FileExistsError:
                self._clear(fd, name, path)
                out = os.open(name, _NEW, 0o600, dir_fd=fd)
            RestoredFile(self._view, self._job, out, path, entry).queue()
            return
        self._clear(fd, name, path)
        if stat.S_ISLNK(entry.mode):
            os.symlink(entry.target, name, dir_fd=fd)
            set_named_attributes(self._view, self._job, fd, name, path, entry)
        else:
            self._special(fd, name, path, entry)

    def finish(self) -> None:
        """Attributes of directories, innermost first, when nothing changes them any more. Raises OSError."""
        at = Descent(self._root)
        inside: list[tuple[bytes, Entry]] = []
        try:
            for depth, name, entry in self._directories:
                while len(inside) > depth:
                    self._leave(at, inside)
                if depth:
                    at.down(name)
                inside.append((name, entry))
            while inside:
                self._leave(at, inside)
        finally:
            at.close()

    def _leave(self, at: Descent, inside: list[tuple[bytes, Entry]]) -> None:
        """Set the attributes of the innermost directory, which may close it: so the way up comes before."""
        path = b"/".join(name for name, _ in inside[1:])
        _, entry = inside.pop()
        fd = os.dup(at.fd)
        try:
            if inside:
                at.up()
            set_attributes(self._view, self._job, fd, path, entry)
        finally:
            os.close(fd)

    def _make_directory(self, name: bytes, path: bytes) -> None:
        try:
            os.mkdir(name, 0o700, dir_fd=self._at.fd)
        except FileExistsError:
            there = os.stat(name, dir_fd=self._at.fd, follow_symlinks=False)
            if not self._force or not stat.S_ISDIR(there.st_mode):
                raise AlreadyExists(f"directory {os.fsdecode(path)!r}", expected="nothing or a directory there",
                                    found="another", do="move it, or choose another target") from None  # fmt: skip

    def _clear(self, fd: int, name: bytes, path: bytes) -> None:
        """Take what is at the name away, if that was asked for."""
        try:
            there = os.stat(name, dir_fd=fd, follow_symlinks=False)
        except FileNotFoundError:
            return
        if stat.S_ISDIR(there.st_mode):
            raise AlreadyExists(f"file {os.fsdecode(path)!r}", expected="no directory of that name", found="one",
                                do="move it away, or choose another target")  # fmt: skip
        if not self._force:
            raise AlreadyExists(f"file {os.fsdecode(path)!r}", expected="no file of that name", found="one",
                                do="choose another target, or --force")  # fmt: skip
        os.unlink(name, dir_fd=fd)

    def _linked(self, fd: int, name: bytes, path: bytes, entry: Entry) -> bool:
        first = self._links.setdefault(entry.ino, path)
        if first == path:
            return False
        self._clear(fd, name, path)
        folder, _, source = first.rpartition(b"/")
        other = open_below(self._root, folder)
        try:
            os.link(source, name, src_dir_fd=other, dst_dir_fd=fd, follow_symlinks=False)
        finally:
            os.close(other)
        return True

    def _special(self, fd: int, name: bytes, path: bytes, entry: Entry) -> None:
        try:
            os.mknod(name, stat.S_IFMT(entry.mode) | 0o600, entry.rdev, dir_fd=fd)
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.EACCES):
                raise
            self._links.pop(entry.ino, None)
            self._job.skipped(path, "special files need root")
            return
        set_named_attributes(self._view, self._job, fd, name, path, entry)


def _checked(name: bytes) -> bytes:
    if not name or b"/" in name or b"\0" in name or name in (b".", b".."):
        raise Corrupt(f"name {name!r}", expected="a plain file name", found="another")
    return name
