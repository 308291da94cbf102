"""The segment writer: one append-only file of one worker, sealed into a pack.

Invariants
 S1  Bytes up to the committed length (``PackRow.length``) were synced before the transaction that set it.
 S2  A segment has one owner; nobody else writes to it. A dead owner's segment is cut back to its committed length
     by whoever adopts it.
 S3  A sealed pack is never written to again.
 S4  After a failed write or sync the writer is unusable; its owner starts another segment and appends again what
     was not committed (a retried fsync may answer "ok" for pages that were dropped).
 S5  But a write for which there was no room is taken back and has changed nothing: the bytes before it are the
     kernel's, those after it still in memory, and both go their way once there is room. So a full disk does not
     fill with the tails of given-up segments, nor with new ones.

What a crash leaves of making and sealing one: FORMAT.md, "Crash tables". The row says *open* until the last step.
"""

from __future__ import annotations

import contextlib
import os
import threading

from engine import limits
from engine.codec import Digest
from engine.errors import HoldfastError, LocationUnavailable, StoreFull, from_os
from engine.packs import records
from engine.packs.files import PackFiles
from engine.packs.records import Entry, PackHeader


class SegmentWriter:
    """Appends records to one segment. Thread-safe; an error makes it unusable (``broken``)."""

    def __init__(
        self, files: PackFiles, number: int, fd: int, length: int, entries: list[Entry]
    ) -> None:
        self.number = number
        self.length = length  # bytes appended, buffered ones included
        self.entries = entries
        self.broken = False
        self._files = files
        self._system = files.system
        self._fd = fd
        self._written = length
        self._synced = length
        self._begun = length  # so far the kernel was told to write
        self._parts: list[bytes] = []
        self._lock = threading.Lock()
        self._hashed = 0
        self._digest = Digest()

    @classmethod
    def create(cls, files: PackFiles, header: PackHeader) -> SegmentWriter:
        """A new, empty segment; its name is durable when this returns."""
        path = files.segment_path(header.number)
        system = files.system
        head = records.encode_header(header)
        try:
            fd = system.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL)
        except OSError as error:
            raise from_os(error, path) from None
        try:
            system.pwritev(fd, [head], 0)
            system.fsync(fd)
            system.fsync_dir(os.path.dirname(path))
        except OSError as error:
            system.close(fd)
            raise from_os(error, path) from None
        writer = cls(files, header.number, fd, len(head), [])
        writer._digest.update(head)
        writer._hashed = len(head)
        return writer

    @classmethod
    def adopt(cls, files: PackFiles, header: PackHeader, length: int) -> SegmentWriter:
        """Go on with a segment nobody owns: cut it back to its committed length and read what it holds.

        An empty one gets its head anew: its owner may have died before that was written.
        """
        number = header.number
        path = files.segment_path(number)
        system = files.system
        try:
            fd = system.open(path, os.O_RDWR)
        except OSError as error:
            raise from_os(error, path) from None
        try:
            system.truncate(fd, length)
            if length == records.HEADER_LEN:
                system.pwritev(fd, [records.encode_header(header)], 0)
                system.fsync_dir(os.path.dirname(path))  # its owner may have died before that, too
            system.fsync(fd)
            files.header(number)
            entries = [
                Entry(
                    r.id,
                    at,
                    r.size,
                    r.plain,
                    r.kind,
                    r.encoding,
                    r.depth,
                    tuple(b.id for b in r.bases),
                )
                for at, r in files.scan(number, length)
            ]
        except OSError as error:
            system.close(fd)
            raise from_os(error, path) from None
        except BaseException:
            system.close(fd)
            raise
        return cls(files, number, fd, length, entries)

    def append(self, head: bytes, payload: bytes, entry: Entry) -> int:
        """Append one record; returns its offset. ``entry.offset`` is filled in here.

        After StoreFull the record is not in the segment, and everything before it is (S5).
        """
        size = len(head) + len(payload)
        with self._lock:
            self._usable()
            offset = self.length
            self._parts.append(head)
            self._parts.append(payload)
            self.length += size
            self.entries.append(entry._replace(offset=offset, stored=size))
            if self.length - self._written >= limits.APPEND_BUFFER:
                try:
                    self._flush()
                except StoreFull:
                    del self._parts[-2:]
                    self.entries.pop()
                    self.length = offset
                    raise
        return offset

    def make_readable(self, end: int) -> None:
        """Hand buffered bytes up to ``end`` to the kernel, so that a pread finds them.

        Raises LocationUnavailable for what was never synced of a segment that failed: it may not be what was written.
        """
        if self.broken and end > self._synced:
            self._usable()
        if end > self._written:
            with self._lock:
                self._usable()
                self._flush()

    def sync(self) -> int:
        """Everything appended so far is on disk when this returns; returns that length."""
        with self._lock:
            self._usable()
            self._flush()
            target = self._written
        if target > self._synced:
            try:
                self._system.fdatasync(self._fd)
            except OSError as error:
                self.broken = True
                raise from_os(error, f"segment {self.number}") from None
            self._synced = target
        return target

    def seal(self) -> bytes:
        """Write the trailer, sync, rename into ``packs/``; returns the pack's digest. The writer is then closed.

        Call only when everything appended is committed.
        """
        with self._lock:
            self._usable()
            self._flush()
            self._hash_rest()
            digest = self._digest.digest()
            trailer = records.encode_trailer(self.entries, self.length, digest)
            end = len(trailer) - records.FOOTER_LEN
            footer = records.decode_footer(trailer[end:])
            assert records.decode_trailer(trailer[:end], footer) == self.entries
            target = self._files.pack_path(self.number)
            folder = os.path.dirname(target)
            try:
                self._system.pwritev(self._fd, [trailer], self.length)
                self._system.fsync(self._fd)
                with contextlib.suppress(FileExistsError):
                    self._system.mkdir(folder)
                # Also when it was there: another process may have made it a moment ago, and not synced it yet.
                self._system.fsync_dir(os.path.dirname(folder))
                source = self._files.segment_path(self.number)
                self._system.rename(source, target)
                self._system.fsync_dir(folder)
                self._system.fsync_dir(os.path.dirname(source))
            except OSError as error:
                self.broken = True
                raise from_os(error, f"segment {self.number}") from None
            self.broken = True  # closed: S3
            self._close()
            return digest

    def close(self) -> None:
        """Let go of the file without sealing it. What was not committed is cut off by the next owner.

        A writer that failed is closed too, by its owner, when nobody syncs it.
        """
        with self._lock:
            self.broken = True
            self._close()

    def _close(self) -> None:
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            self._system.close(fd)

    def _usable(self) -> None:
        if self.broken:
            raise LocationUnavailable(f"segment {self.number}", expected="a usable segment",
                                      found="an earlier failure", do="retry: a new segment is used")  # fmt: skip

    def _flush(self) -> None:
        if not self._parts:
            return
        try:
            # One pwritev takes at most IOV_MAX (1024) parts.
            data = b"".join(self._parts)
            self._system.pwritev(self._fd, [data], self._written)
        except OSError as error:
            failure = from_os(error, f"segment {self.number}")
            self.broken = not (isinstance(failure, StoreFull) and self._taken_back())
            raise failure from None
        if self._hashed == self._written:
            self._digest.update(data)
            self._hashed += len(data)
        self._written += len(data)
        self._parts.clear()
        if self._written - self._begun >= limits.WRITE_BEHIND:
            # The barrier then waits for little. An aid: an error shows at the sync.
            with contextlib.suppress(OSError):
                self._system.write_behind(self._fd, self._begun, self._written - self._begun)
            self._begun = self._written

    def _taken_back(self) -> bool:
        try:
            self._system.truncate(self._fd, self._written)
        except OSError:
            return False
        return True

    def _hash_rest(self) -> None:
        """Hash what was not hashed while it was written (an adopted segment's older part, the header)."""
        if self._hashed == self.length:
            return
        self._digest = Digest()
        at = 0
        while at < self.length:
            data = self._system.pread(self._fd, min(4 * limits.MIB, self.length - at), at)
            if not data:
                raise HoldfastError(
                    f"segment {self.number}", expected=f"{self.length} bytes", found=f"{at}"
                )
            self._digest.update(data)
            at += len(data)
