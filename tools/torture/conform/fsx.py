"""An exerciser of one file: every way to read, write, map, cut and lengthen it, each read checked against memory.

    python -m tools.torture.conform.fsx DIR --ops 100000 --seed 7

Works on any file system; what one does not support (punching holes, direct I/O) is noticed and left out.
"""

from __future__ import annotations

import argparse
import ctypes
import errno
import mmap
import os
import random
import sys
from collections import deque
from collections.abc import Callable

SIZE_MAX = 5 << 20  # bytes: two spans and a half of a store, so that operations cross their borders
PIECE = 100_000  # longest single operation, more than a slot
PAGE = 4096
HISTORY = 4000  # operations remembered, to say which touched a place
KEEP_SIZE, PUNCH_HOLE, ZERO_RANGE = 1, 2, 16
BORDERS = (4096, 65_536, 2 << 20)
WEIGHTS = {
    "read": 20, "write": 20, "rewrite": 6, "append": 5, "jump": 2, "map_read": 8, "map_write": 8,
    "shrink": 4, "grow": 4,
    "empty": 1, "fsync": 2, "reopen": 3, "forget": 2, "direct_read": 2, "direct_write": 2, "allocate": 1, "punch": 1,
    "zero": 1, "copy": 2, "vector": 3,
}  # fmt: skip
OPTIONAL = ("direct_read", "direct_write", "allocate", "punch", "zero", "copy")
REFUSALS = (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.EXDEV)
_libc = ctypes.CDLL(None, use_errno=True)


class Different(Exception):
    """The file is not what was written."""


class Exerciser:
    """One file and what it must contain."""

    def __init__(self, path: str, chance: random.Random, size_max: int = SIZE_MAX) -> None:
        self.path = path
        self.done = 0
        self.unsupported: set[str] = set()
        self._chance = chance
        self._most = size_max
        self._mirror = bytearray()
        self._history: deque[tuple[int, str, int, int]] = deque(maxlen=HISTORY)
        self._names = list(WEIGHTS)
        self._shares = list(WEIGHTS.values())
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)

    def run(self, operations: int) -> None:
        """So many operations. Raises Different."""
        while operations > 0:
            batch = min(operations, 1000)
            for name in self._chance.choices(self._names, self._shares, k=batch):
                self.done += 1
                if name not in self.unsupported:
                    self._try(name)
            operations -= batch

    def _try(self, name: str) -> None:
        try:
            getattr(self, f"_{name}")()
        except OSError as error:
            if name not in OPTIONAL or error.errno not in REFUSALS:
                raise Different(f"{name}: {error}") from None
            self.unsupported.add(name)  # refused: nothing happened

    # --- what is where --------------------------------------------------------------------------------------

    def _place(self, end: int) -> int:
        """An offset up to ``end``, often at a border."""
        chance = self._chance
        if chance.random() < 0.3:
            border = chance.choice(BORDERS)
            at = chance.randrange(end // border + 1) * border + chance.choice((-1, 0, 0, 1))
            return max(0, min(end, at))
        return chance.randrange(end + 1)

    def _length(self) -> int:
        chance = self._chance
        return chance.choice(
            (
                1,
                PAGE,
                chance.randrange(1, 300),
                chance.randrange(1, 20_000),
                chance.randrange(1, PIECE),
            )
        )

    def _inside(self) -> tuple[int, int]:
        """A part of the file; its length may be 0."""
        offset = self._place(len(self._mirror))
        return offset, min(self._length(), len(self._mirror) - offset)

    def _data(self, size: int) -> bytes:
        """Bytes that tell which operation wrote them, never zero; now and then noise."""
        if self._chance.random() < 0.1:
            return self._chance.randbytes(size)
        unit = b"%08x" % (self.done * 2_654_435_761 % (1 << 32))
        return (unit * (size // 8 + 1))[:size]

    def _laid(self, name: str, offset: int, data: bytes) -> None:
        """The file must contain this there from now on."""
        end = offset + len(data)
        if offset > len(self._mirror):
            self._mirror.extend(bytes(offset - len(self._mirror)))
        self._mirror[offset:end] = data
        self._history.append((self.done, name, offset, end))

    def _cut(self, name: str, size: int) -> None:
        if size < len(self._mirror):
            del self._mirror[size:]
        else:
            self._mirror.extend(bytes(size - len(self._mirror)))
        self._history.append((self.done, name, size, self._most))

    def _check(self, how: str, offset: int, have: bytes, size: int) -> None:
        want = self._mirror[offset : offset + size]
        if have == want:
            return
        at = next(
            (i for i, (a, b) in enumerate(zip(have, want, strict=False)) if a != b),
            min(len(have), len(want)),
        )
        place = offset + at
        touched = [one for one in self._history if one[2] <= place < one[3]][-6:]
        raise Different(
            f"{how} of {size} at {offset}: {len(have)} bytes, from {place} on {have[at : at + 16]!r} instead of"
            f" {bytes(want[at : at + 16])!r}; the file has {len(self._mirror)}; touched by {touched}"
        )

    # --- operations -----------------------------------------------------------------------------------------

    def _read(self) -> None:
        offset, size = self._inside()
        extra = self._chance.choice((0, 0, 10))
        self._check("read", offset, os.pread(self._fd, size + extra, offset), size + extra)

    def _write_at(self, name: str, offset: int, size: int) -> None:
        data = self._data(min(size, self._most - offset))
        if os.pwrite(self._fd, data, offset) != len(data):
            raise Different(f"a short write at {offset}")
        self._laid(name, offset, data)

    def _write(self) -> None:
        self._write_at("write", self._place(min(len(self._mirror), self._most - 1)), self._length())

    def _rewrite(self) -> None:
        offset, size = self._inside()
        if size:
            self._write_at("rewrite", offset, size)

    def _append(self) -> None:
        size = min(self._length(), self._most - len(self._mirror))
        if size <= 0:
            return
        data = self._data(size)
        fd = os.open(self.path, os.O_WRONLY | os.O_APPEND)
        try:
            os.write(fd, data)
        finally:
            os.close(fd)
        self._laid("append", len(self._mirror), data)

    def _jump(self) -> None:
        """Write behind the end: what is between is zeros."""
        offset = len(self._mirror) + self._chance.choice((1, 5000, 70_000, 2 << 20))
        if offset < self._most:
            self._write_at("jump", offset, self._length())

    def _vector(self) -> None:
        offset = self._place(min(len(self._mirror), self._most - PIECE))
        parts = [self._data(self._chance.randrange(1, 5000)) for _ in range(3)]
        data = b"".join(parts)
        if offset + len(data) <= self._most:
            os.pwritev(self._fd, parts, offset)
            self._laid("vector", offset, data)
            into = [bytearray(len(part)) for part in parts]
            os.preadv(self._fd, into, offset)
            self._check("vector", offset, b"".join(into), len(data))

    def _mapped(self, offset: int, size: int, work: Callable[[mmap.mmap, int], None]) -> None:
        start = offset // mmap.ALLOCATIONGRANULARITY * mmap.ALLOCATIONGRANULARITY
        with mmap.mmap(self._fd, offset + size - start, offset=start) as mapping:
            work(mapping, offset - start)

    def _map_read(self) -> None:
        offset, size = self._inside()

        def work(mapping: mmap.mmap, at: int) -> None:
            self._check("mapped read", offset, mapping[at : at + size], size)

        if size:
            self._mapped(offset, size, work)

    def _map_write(self) -> None:
        offset, size = self._inside()
        data = self._data(size)

        def work(mapping: mmap.mmap, at: int) -> None:
            mapping[at : at + size] = data
            if self._chance.random() < 0.3:
                mapping.flush()

        if size:
            self._mapped(offset, size, work)
            self._laid("map_write", offset, data)

    def _shrink(self) -> None:
        size = self._place(len(self._mirror))
        os.ftruncate(self._fd, size)
        self._cut("shrink", size)

    def _grow(self) -> None:
        size = min(self._most, len(self._mirror) + self._chance.choice((1, 3000, 65_536, 300_000)))
        os.truncate(self.path, size)
        self._cut("grow", size)

    def _empty(self) -> None:
        os.close(os.open(self.path, os.O_WRONLY | os.O_TRUNC))
        self._cut("empty", 0)

    def _fsync(self) -> None:
        (os.fsync if self._chance.random() < 0.5 else os.fdatasync)(self._fd)

    def reopen(self) -> None:
        """Close the file and open it again; its size is what it should be."""
        self.close()
        self._fd = os.open(self.path, os.O_RDWR)
        size = os.fstat(self._fd).st_size
        if size != len(self._mirror):
            raise Different(f"the file has {size} bytes instead of {len(self._mirror)}")

    _reopen = reopen

    def _forget(self) -> None:
        """Let the kernel drop its pages: the next reads are asked of the file system."""
        os.fsync(self._fd)
        os.posix_fadvise(self._fd, 0, 0, os.POSIX_FADV_DONTNEED)

    def _direct(self) -> int:
        return os.open(self.path, os.O_RDWR | os.O_DIRECT)

    def _pages(self) -> tuple[int, int]:
        """Whole pages inside the file: offset and size, 0 when there are none."""
        pages = len(self._mirror) // PAGE
        if not pages:
            return 0, 0
        first = self._chance.randrange(pages)
        return first * PAGE, self._chance.randrange(1, min(16, pages - first) + 1) * PAGE

    def _direct_read(self) -> None:
        offset, size = self._pages()
        fd = self._direct()
        try:
            with mmap.mmap(-1, size or PAGE) as page:
                got = os.preadv(fd, [page], offset)
                self._check("direct read", offset, page[: min(got, size)], size)
        finally:
            os.close(fd)

    def _direct_write(self) -> None:
        offset, size = self._pages()
        if not size:
            return
        data = self._data(size)
        fd = self._direct()
        try:
            with mmap.mmap(-1, size) as page:
                page[:] = data
                if os.pwritev(fd, [page], offset) != size:
                    raise Different(f"a short direct write at {offset}")
        finally:
            os.close(fd)
        self._laid("direct_write", offset, data)

    def _allocate(self) -> None:
        offset, size = self._place(self._most - PIECE), self._length()
        os.posix_fallocate(self._fd, offset, size)
        if offset + size > len(self._mirror):
            self._cut("allocate", offset + size)

    def _fallocate(self, mode: int) -> tuple[int, int]:
        offset, size = self._inside()
        size = size or 1
        given = (self._fd, mode, ctypes.c_long(offset), ctypes.c_long(size))
        if _libc.fallocate(*given):
            raise OSError(ctypes.get_errno(), "fallocate")
        return offset, min(size, max(0, len(self._mirror) - offset))

    def _punch(self) -> None:
        offset, size = self._fallocate(PUNCH_HOLE | KEEP_SIZE)
        self._laid("punch", offset, bytes(size))

    def _zero(self) -> None:
        offset, size = self._fallocate(ZERO_RANGE | KEEP_SIZE)
        self._laid("zero", offset, bytes(size))

    def _copy(self) -> None:
        """copy_file_range from one part of the file to another."""
        source, size = self._inside()
        target = self._place(min(len(self._mirror), self._most - PIECE))
        if not size or abs(target - source) < size:
            return
        data = bytes(self._mirror[source : source + size])
        at = 0
        while at < size:
            got = os.copy_file_range(self._fd, self._fd, size - at, source + at, target + at)
            if not got:
                raise Different(f"copy_file_range at {source + at} copied nothing")
            at += got
        self._laid("copy", target, data)

    # --- the end --------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Close the file; harmless when it is closed."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def whole(self) -> None:
        """Every byte, in large pieces."""
        for offset in range(0, len(self._mirror) + 1, 1 << 20):
            self._check("whole", offset, os.pread(self._fd, 1 << 20, offset), 1 << 20)

    @property
    def content(self) -> bytes:
        """What the file must contain."""
        return bytes(self._mirror)


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.torture.conform.fsx", description=__doc__
    )
    parser.add_argument("directory")
    parser.add_argument("--ops", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--size", type=int, default=SIZE_MAX, help="the file's largest size in bytes"
    )
    options = parser.parse_args()
    path = os.path.join(options.directory, f"fsx-{options.seed}")
    one = Exerciser(path, random.Random(options.seed), options.size)
    try:
        one.run(options.ops)
        one.reopen()
        one.whole()
    except Different as error:
        print(f"after about {one.done} operations of seed {options.seed}: {error}")
        return 1
    left = f"; not supported: {', '.join(sorted(one.unsupported))}" if one.unsupported else ""
    print(f"{options.ops} operations of seed {options.seed}: the file is what was written{left}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
