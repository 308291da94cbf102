"""Where packs and segments lie, and how they are read: names, descriptors, trailers, scans.

A segment is ``segments/<number>.seg`` while it is appended to and ``packs/<number // 1024>/<number>.pack`` once it is
sealed; the rename is the only change of name.  A reader that has looked a chunk up may find the segment already
renamed (it tries both names) or the pack gone because a collection rewrote it (it looks the chunk up again).
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import Protocol

from engine import limits
from engine.errors import UNREADABLE, Corrupt, HoldfastError, NotFound, from_os
from engine.incidents import Journal
from engine.packs import records
from engine.packs.records import Entry, Footer, PackHeader, Record
from engine.seam import Os

_SEARCH = 64 * limits.KIB  # bytes looked through at once for the next record behind damage
_OPEN_FILES = 64  # descriptors kept by one process
_GAP = 64 * limits.KIB  # bytes between two records worth reading along
_RUN_MAX = 4 * limits.MIB  # bytes of one read


class Elsewhere(Protocol):
    """Packs that are no files of this store."""

    def ranges(self, number: int, parts: Sequence[tuple[int, int]]) -> list[bytes] | None:
        """Of each (offset, length) its bytes; None when there is no pack of that number either."""

    def ahead(self, number: int, parts: Sequence[tuple[int, int]]) -> bool:
        """Have these be near when they are read soon; False when there is no pack of that number."""

    def bring(
        self, number: int, parts: Sequence[tuple[int, int, bool]], room: memoryview
    ) -> list[int] | None:
        """Have these, of (offset, length, whether it may be wanted again), in ``room``, one behind the other: of each
        how long it is there, 0 for one that is damaged; None when there is no pack of that number."""


class PackFiles:
    """Read access to all packs and segments of a store. Thread-safe."""

    def __init__(self, root: str, system: Os, incidents: Journal | None = None) -> None:
        self.root = root
        self.system = system
        self._incidents = incidents or Journal()
        self._lock = threading.Lock()
        self._open: OrderedDict[int, _Handle] = OrderedDict()
        self.elsewhere: Elsewhere | None = None

    def segment_path(self, number: int) -> str:
        return os.path.join(self.root, "segments", f"{number:08d}.seg")

    def pack_path(self, number: int) -> str:
        return os.path.join(self.root, "packs", f"{number // 1024:05d}", f"{number:08d}.pack")

    def read(self, number: int, offset: int, size: int) -> bytes:
        """Exactly ``size`` bytes of a pack. Raises NotFound when the file is gone, Corrupt when it is too short."""
        try:
            return self._read(number, offset, size)
        except NotFound:
            away = (
                None if self.elsewhere is None else self.elsewhere.ranges(number, [(offset, size)])
            )
            if away is None:
                raise
            return away[0]

    def _read(self, number: int, offset: int, size: int) -> bytes:
        handle = self._acquire(number)
        try:
            data = self.system.pread(handle.fd, size, offset)
        except OSError as error:
            raise self._failed(error, f"pack {number}") from None
        finally:
            self._release(handle)
        if len(data) != size:
            raise Corrupt(f"pack {number}", expected=f"{size} bytes at {offset}", found=f"{len(data)} (truncated)",
                          do="run 'holdfast check'")  # fmt: skip
        return data

    def ranges(self, number: int, parts: Sequence[tuple[int, int]]) -> list[bytes | memoryview]:
        """Of each (offset, length) of a pack its bytes; neighbours are read together. ``parts`` in order of offsets.

        Raises as ``read``.
        """
        found: list[bytes | memoryview] = []
        at = 0
        try:
            while at < len(parts):
                start, size = parts[at]
                end = start + size
                last = at + 1
                while last < len(parts):
                    offset, length = parts[last]
                    if offset - end > _GAP or offset + length - start > _RUN_MAX:
                        break
                    end = max(end, offset + length)
                    last += 1
                raw = memoryview(self._read(number, start, end - start))
                found += [raw[offset - start :][:length] for offset, length in parts[at:last]]
                at = last
        except NotFound:
            away = None if self.elsewhere is None else self.elsewhere.ranges(number, parts)
            if away is None:
                raise
            return [*away]
        return found

    def ahead(self, number: int, parts: Sequence[tuple[int, int]]) -> bool:
        """Have parts of a pack be near that are elsewhere; False when they are not. Raises what a location raises."""
        return self.elsewhere is not None and self.elsewhere.ahead(number, parts)

    def bring(
        self, number: int, parts: Sequence[tuple[int, int, bool]], room: memoryview
    ) -> list[int] | None:
        """As ``Elsewhere.bring``; None when they are not elsewhere. Raises what a location raises."""
        return None if self.elsewhere is None else self.elsewhere.bring(number, parts, room)

    def size(self, number: int) -> int:
        handle = self._acquire(number)
        try:
            return self.system.size(handle.fd)
        except OSError as error:
            raise self._failed(error, f"pack {number}") from None
        finally:
            self._release(handle)

    def drop_pages(self, number: int) -> None:
        """Have the next reading come from the disk."""
        handle = self._acquire(number)
        try:
            self.system.drop_pages(handle.fd)
        except OSError as error:
            raise from_os(error, f"pack {number}") from None
        finally:
            self._release(handle)

    def forget(self, number: int) -> None:
        """Drop the cached descriptor (the pack was removed)."""
        with self._lock:
            handle = self._open.pop(number, None)
            if handle is not None:
                self._put(handle)

    def close(self) -> None:
        with self._lock:
            while self._open:
                self._put(self._open.popitem()[1])

    def _acquire(self, number: int) -> _Handle:
        with self._lock:
            handle = self._open.get(number)
            if handle is None:
                handle = _Handle(self._open_file(number))
                self._open[number] = handle
                while len(self._open) > _OPEN_FILES:
                    self._put(self._open.popitem(last=False)[1])
            else:
                self._open.move_to_end(number)
            handle.users += 1
            return handle

    def _release(self, handle: _Handle) -> None:
        with self._lock:
            self._put(handle)

    def _put(self, handle: _Handle) -> None:
        handle.users -= 1
        if handle.users == 0:
            self.system.close(handle.fd)

    def _open_file(self, number: int) -> int:
        # A segment can be sealed (renamed) between the two tries, so look for the pack once more at the end.
        for path in (self.pack_path(number), self.segment_path(number), self.pack_path(number)):
            try:
                return self.system.open(path, os.O_RDONLY)
            except FileNotFoundError:
                continue
            except OSError as error:
                raise self._failed(error, path) from None
        raise NotFound(f"pack {number}", expected=self.pack_path(number), found="no such file",
                       do="run 'holdfast check'")  # fmt: skip

    def _failed(self, error: OSError, what: str) -> HoldfastError:
        """Noted here: a read that fails once and then not is no error for anybody, but the disk wants attention."""
        known = from_os(error, what)
        self._incidents.error(known)
        return known

    # --- whole-pack reading -----------------------------------------------------------------------------

    def header(self, number: int) -> PackHeader:
        """The pack's header; its number must be the file's."""
        header = records.decode_header(self.read(number, 0, records.HEADER_LEN))
        if header.number != number:
            raise Corrupt(
                f"pack {number}", expected="its own number in its header", found=str(header.number)
            )
        return header

    def footer(self, number: int) -> Footer:
        """The footer of a sealed pack. Raises Corrupt for a segment."""
        size = self.size(number)
        if size < records.HEADER_LEN + records.FOOTER_LEN:
            raise Corrupt(f"pack {number}", expected="a sealed pack", found=f"{size} bytes")
        footer = records.decode_footer(
            self.read(number, size - records.FOOTER_LEN, records.FOOTER_LEN)
        )
        if footer.offset + footer.length + records.FOOTER_LEN != size:
            raise Corrupt(f"pack {number}", expected="a footer at its end", found="another length")
        return footer

    def trailer(self, number: int) -> list[Entry]:
        """The records of a sealed pack."""
        footer = self.footer(number)
        return records.decode_trailer(self.read(number, footer.offset, footer.length), footer)

    def scan(self, number: int, end: int) -> Iterator[tuple[int, Record]]:
        """(offset, record head) of a segment up to ``end``, in file order; raises Corrupt at the first bad head."""
        offset = records.HEADER_LEN
        head_max = records.RECORD_HEAD + limits.DELTA_BASES_MAX * 40
        while offset < end:
            record = records.decode_record_head(
                self.read(number, offset, min(head_max, end - offset))
            )
            if offset + record.size > end:
                raise Corrupt(
                    f"pack {number}",
                    expected=f"a record ending by {end}",
                    found=f"{offset + record.size}",
                )
            yield offset, record
            offset += record.size

    def salvage(self, number: int) -> Iterator[tuple[int, Record]]:
        """(offset, record head) of every record with a sound head, in file order; what lies between is passed over.

        Records are found again behind damage by their magic and check: one torn record costs no other. Where a record
        is not followed by one, its length may be what is left of a longer file: the next one is looked for inside it.
        """
        end = self.size(number)
        head_max = records.RECORD_HEAD + limits.DELTA_BASES_MAX * 40
        offset = records.HEADER_LEN
        if not self._head(number, offset, min(head_max, max(0, end - offset))):
            offset = self._next_record(number, 0, end)  # the header may be shorter than it was
        while offset + records.RECORD_HEAD <= end:
            record = self._head(number, offset, min(head_max, end - offset))
            behind = offset + record.size if record is not None else end + 1
            if record is not None and behind <= end:
                yield offset, record
            if behind == end or (
                behind < end and self._head(number, behind, min(head_max, end - behind))
            ):
                offset = behind
            else:
                offset = self._next_record(number, offset + 1, end)

    def _head(self, number: int, offset: int, length: int) -> Record | None:
        try:
            return records.decode_record_head(self.read(number, offset, length))
        except UNREADABLE:
            return None

    def _next_record(self, number: int, start: int, end: int) -> int:
        """Where the next record may begin; ``end`` when none does. What the disk does not give is passed over."""
        overlap = len(records.RECORD_MAGIC) - 1
        for at in range(start, end, _SEARCH):
            try:
                raw = self.read(number, at, min(_SEARCH + overlap, end - at))
            except UNREADABLE:
                continue
            found = raw.find(records.RECORD_MAGIC)
            if found >= 0:
                return at + found
        return end


class _Handle:
    __slots__ = ("fd", "users")

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.users = 1  # the cache itself
