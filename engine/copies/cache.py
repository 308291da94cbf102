"""A bounded cache on disk of what was fetched from storage locations: blocks of sealed packs, as they lie there.

Nothing is here that is not verified to be at a location, so anything may be removed at any time, by anybody; what
nobody else has lies in packs, which this does not see.  Blocks are files that appear whole (rename) and go whole.
They are still sealed: a block that rotted is found when a frame in it is opened, and fetched again.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import Future
from typing import NamedTuple

from engine import codec, limits
from engine.errors import Corrupt
from engine.locations import Location
from engine.seam import Os

_BLOCK = limits.AWAY_BLOCK
_TOUCH_S = 60.0  # a block's time says when it was used last, to a minute
_FULL_TO = 0.9  # of the bound, after an eviction
_PACKS = 256  # packs whose last reading is remembered


class Away(NamedTuple):
    """A pack at a location."""

    location: Location
    path: str
    size: int


class Straight:
    """No cache: ranges as they are asked for, for what is read once and here and there."""

    fetched_bytes = 0

    def ranges(self, pack: Away, parts: Sequence[tuple[int, int]]) -> list[memoryview]:
        """Of each (offset, length) its bytes. Raises what the location raises."""
        return pack.location.ranges(pack.path, parts)

    def passing(self, pack: Away, parts: Sequence[tuple[int, int]]) -> list[memoryview]:
        """The same."""
        return self.ranges(pack, parts)

    def ahead(self, pack: Away, parts: Sequence[tuple[int, int]]) -> None:
        """Nothing is kept."""

    def drop(self, pack: Away, offset: int, length: int) -> None:
        """Nothing is kept."""


class BlockCache:
    """Ranges of packs at locations, through files below ``folder`` of ``most`` bytes at most. Thread-safe; several
    processes may use one folder."""

    def __init__(self, folder: str, most: int, system: Os) -> None:
        self._folder = folder
        self._most = most
        self._system = system
        self._lock = threading.Lock()
        self._packs: OrderedDict[str, _Pack] = OrderedDict()
        self._going: dict[
            tuple[str, int], Future[codec.Bytes]
        ] = {}  # blocks that are being fetched
        self._written = -1  # bytes since the folder was looked through, -1: never
        self.fetched_bytes = 0

    def ranges(self, pack: Away, parts: Sequence[tuple[int, int]]) -> list[memoryview]:
        """Of each (offset, length) its bytes. Raises what the location raises; Corrupt for a part beyond the pack."""
        _within(pack, parts)
        wanted = sorted({number for part in parts for number in _numbers(*part)})
        found = self._blocks(pack, wanted) if wanted else {}
        return [_cut(found, offset, length) for offset, length in parts]

    def passing(self, pack: Away, parts: Sequence[tuple[int, int]]) -> list[memoryview]:
        """As ``ranges``, of what is wanted once: what is not here is fetched as it is asked for, and not kept."""
        _within(pack, parts)
        kept: dict[int, bool] = {}
        near: list[int] = []
        for index, part in enumerate(parts):
            for number in _numbers(*part):
                if number not in kept:
                    kept[number] = self._is_kept(pack, number)
            if all(kept[number] for number in _numbers(*part)):
                near.append(index)
        if not near:
            return pack.location.ranges(pack.path, parts)
        is_near = set(near)
        far = [index for index in range(len(parts)) if index not in is_near]
        found = dict(zip(near, self.ranges(pack, [parts[index] for index in near]), strict=True))
        if far:
            answers = pack.location.ranges(pack.path, [parts[index] for index in far])
            found |= zip(far, answers, strict=True)
        return [found[index] for index in range(len(parts))]

    def ahead(self, pack: Away, parts: Sequence[tuple[int, int]]) -> None:
        """Fetch what of these is not here, for who reads it soon, in whatever process. Raises as ``ranges``."""
        _within(pack, parts)
        wanted = sorted({number for part in parts for number in _numbers(*part)})
        self._fetch(pack, [number for number in wanted if not self._is_kept(pack, number)])

    def drop(self, pack: Away, offset: int, length: int) -> None:
        """Forget these bytes: they are not what they should be."""
        for number in _numbers(offset, length):
            with contextlib.suppress(OSError):
                self._system.unlink(self._file(pack.path, number))

    def _blocks(self, pack: Away, wanted: Sequence[int]) -> dict[int, codec.Bytes]:
        found: dict[int, codec.Bytes] = {}
        missing = []
        for number in wanted:
            data = self._kept(pack, number)
            if data is None:
                missing.append(number)
            else:
                found[number] = data
        count = -(-pack.size // _BLOCK)
        with self._lock:
            state = self._packs.setdefault(pack.path, _Pack())
            self._packs.move_to_end(pack.path)
            while len(self._packs) > _PACKS:
                self._packs.popitem(last=False)
            missing += state.following(wanted, missing, count)
        return found | self._fetch(pack, missing)

    def _fetch(self, pack: Away, missing: Sequence[int]) -> dict[int, codec.Bytes]:
        """Blocks from the location; those that another thread is fetching already, from that."""
        going: dict[int, Future[codec.Bytes]] = {}
        mine: dict[int, Future[codec.Bytes]] = {}
        with self._lock:
            for number in missing:
                key = (pack.path, number)
                if key in self._going:
                    going[number] = self._going[key]
                else:
                    self._going[key] = mine[number] = Future()
        try:
            spans = [(number * _BLOCK, min(_BLOCK, pack.size - number * _BLOCK)) for number in mine]
            answers = pack.location.ranges(pack.path, spans) if spans else []
            for number, data in zip(mine, answers, strict=True):
                self._keep(pack, number, data)
                mine[number].set_result(data)
        except BaseException as error:
            for future in mine.values():
                if not future.done():
                    future.set_exception(error)
            raise
        finally:
            with self._lock:
                for number in mine:
                    del self._going[pack.path, number]
        return {number: future.result() for number, future in (mine | going).items()}

    # --- files --------------------------------------------------------------------------------------------

    def _file(self, path: str, number: int) -> str:
        return os.path.join(self._folder, f"{path.rpartition('/')[2]}.{number}")

    def _kept(self, pack: Away, number: int) -> bytes | None:
        path = self._file(pack.path, number)
        size = min(_BLOCK, pack.size - number * _BLOCK)
        try:
            fd = self._system.open(path, os.O_RDONLY)
        except OSError:
            return None
        try:
            data = self._system.pread(fd, size + 1, 0)
            if time.time() - os.fstat(fd).st_mtime > _TOUCH_S:
                os.utime(fd)
        except OSError:
            return None
        finally:
            self._system.close(fd)
        return data if len(data) == size else None

    def _is_kept(self, pack: Away, number: int) -> bool:
        size = min(_BLOCK, pack.size - number * _BLOCK)
        try:
            return os.stat(self._file(pack.path, number)).st_size == size
        except OSError:
            return False

    def _keep(self, pack: Away, number: int, data: memoryview) -> None:
        """Without a sync: after a crash a block may be torn, and is found out like one that rotted."""
        self.fetched_bytes += len(data)
        path = self._file(pack.path, number)
        temporary = f"{path}.tmp-{self._system.random(6).hex()}"
        with contextlib.suppress(OSError):  # a cache that cannot be written is only slow
            self._make_room(len(data))
            fd = self._system.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
            try:
                self._system.pwritev(fd, [data], 0)
            finally:
                self._system.close(fd)
            self._system.rename(temporary, path)

    def _make_room(self, size: int) -> None:
        with self._lock:
            known = self._written >= 0
            if not self._system.exists(self._folder):  # never made, or somebody removed all of it
                self._system.mkdir(self._folder)
            self._written = max(self._written, 0) + size
            if known and self._written <= self._most // 16:
                return
            self._written = 0
        files = []
        for entry in os.scandir(self._folder):
            with contextlib.suppress(OSError):
                found = entry.stat(follow_symlinks=False)
                files.append((found.st_mtime, found.st_size, entry.path))
        total = sum(one[1] for one in files) + size
        if total <= self._most - self._most // 16:
            return
        for _, length, path in sorted(files):
            with contextlib.suppress(OSError):
                self._system.unlink(path)
            total -= length
            if total <= self._most * _FULL_TO - self._most // 16:
                return


class _Pack:
    """How a pack is being read: one after the other, or here and there."""

    __slots__ = ("last", "run")

    def __init__(self) -> None:
        self.last = -2
        self.run = 0

    def following(self, wanted: Sequence[int], missing: Sequence[int], count: int) -> list[int]:
        """Blocks after these worth fetching along: the more, the longer it was read in order."""
        if not missing:
            self.last = wanted[-1]
            return []
        first, last = wanted[0], missing[-1]
        self.run = (
            min(2 * self.run + 1, limits.AWAY_AHEAD) if first in (self.last, self.last + 1) else 0
        )
        more = list(range(last + 1, min(last + 1 + self.run, count)))
        self.last = max([wanted[-1], *more])
        return more


def _within(pack: Away, parts: Sequence[tuple[int, int]]) -> None:
    if any(offset < 0 or offset + length > pack.size for offset, length in parts):
        raise Corrupt(pack.path, expected=f"a part of its {pack.size} bytes", found="one beyond")


def _numbers(offset: int, length: int) -> range:
    return range(offset // _BLOCK, -(-(offset + length) // _BLOCK))


def _cut(blocks: dict[int, codec.Bytes], offset: int, length: int) -> memoryview:
    """A part of a block as a view of it; only what lies in several is copied."""
    parts = []
    for number in _numbers(offset, length):
        first = number * _BLOCK
        view = memoryview(blocks[number])
        parts.append(view[max(offset - first, 0) : max(offset + length - first, 0)])
    return memoryview(codec.join(parts)) if parts else memoryview(b"")
