"""Reading and writing file content: admission, back-pressure, and reads assembled from their pieces."""

from __future__ import annotations

import errno

from engine import limits
from engine.errors import Corrupt, HoldfastError, PosixError
from engine.live.commit import Committer
from engine.live.content import Contents
from engine.live.fragments import Data
from engine.live.inode import Inode
from engine.live.ports import Reader
from engine.live.seal import Sealing
from engine.live.space import Space
from engine.live.spans import Piece
from engine.live.state import State, repeated

_ZEROS = memoryview(bytes(limits.SPAN))
_HOLE = bytes(limits.MIB)  # the largest request: handed out as it is, a copy of it takes 0.13 ms
_READ_TRIES = 3  # chunks of a plan may move or go while it is read; a new plan knows where they are


class FileIO:
    """All methods take the tree's lock; those marked [T] wait without it."""

    def __init__(
        self,
        state: State,
        contents: Contents,
        space: Space,
        sealing: Sealing,
        commits: Committer,
        reader: Reader,
    ) -> None:
        self._state = state
        self._contents = contents
        self._space = space
        self._sealing = sealing
        self._commits = commits
        self._reader = reader

    def _file(self, ino: int) -> Inode:
        inode = self._state.get(ino)
        if not inode.is_file:
            raise PosixError(errno.EISDIR if inode.is_dir else errno.EINVAL)
        return inode

    def write(self, ino: int, offset: int, data: Data, touch: bool = True) -> int:
        """Buffer bytes (kept, not copied); returns their number. Raises EFBIG, ENOSPC, EDQUOT.

        ``touch``: set the file's times to now.  Set-user-id bits are left alone: the kernel clears them itself, and
        late writes of its cache must not.
        """
        size = len(data)
        if size == 0:
            return 0
        end = offset + size
        if end > limits.FILE_MAX:
            raise PosixError(errno.EFBIG)
        state = self._state
        with state.lock:
            inode = state.inodes.get(ino) or state.get(ino)
            if not inode.is_file:
                self._file(ino)
            self._space.admit_write(inode, end, size)
            full = self._contents.write(inode, offset, data)
            if touch:
                inode.mtime = inode.ctime = state.clock.now_ns()
            state.touch(inode)
            if full is not None:
                self._sealing.full(inode, full)
            self._sealing.check_pressure()
        return size

    def over_limit(self) -> bool:
        """So much is waiting that the caller of ``write`` (or of any change) should ``wait_room`` now."""
        return self._contents.dirty_bytes > limits.DIRTY_MAX or self._state.crowded

    def wait_room(self) -> None:
        """[T] Wait until ``over_limit`` is false. Raises what keeps waiting data from being stored, if it is stuck."""
        state = self._state
        while True:
            with state.lock:
                if not self.over_limit():
                    return
                crowded = state.crowded
                if not crowded:
                    self._sealing.keep_up()
                    if self._sealing.idle:
                        raise repeated(self._stuck())
                    self._contents.room.wait(1.0)
            if crowded:
                self._commits.commit()

    def _stuck(self) -> HoldfastError:
        for inode, _ in self._contents.waiting.values():
            if inode.error is not None:
                return inode.error
        return self._state.failure or HoldfastError("live tree", found="data that is not sealed")

    def read_now(self, ino: int, offset: int, size: int) -> bytes | None:
        """The bytes, if all of them are in memory; None when ``read`` must be called in a thread."""
        with self._state.lock:
            pieces = self._contents.plan(self._file(ino), offset, size)
            cached = self._reader.cached
            parts: list[Data] = []
            for piece in pieces:
                if isinstance(piece, tuple):
                    cid, start, length = piece
                    chunk = cached(cid)
                    if chunk is None:
                        return None
                    parts.append(_slice(chunk, cid, start, length))
                else:
                    parts.append(_plain(piece))
        return _join(parts)

    def read(self, ino: int, offset: int, size: int) -> bytes:
        """[T] The bytes, cut at the end of the file. Raises Corrupt, naming the chunk."""
        previous: list[Piece] = []
        for attempt in range(_READ_TRIES):
            with self._state.lock:
                pieces = self._contents.plan(self._file(ino), offset, size)
            try:
                return self._fetch(pieces)
            except Corrupt:
                if attempt == _READ_TRIES - 1 or pieces == previous:
                    raise
                previous = pieces
        raise AssertionError("unreachable")

    def _fetch(self, pieces: list[Piece]) -> bytes:
        read = iter(self._reader.read_parts([p for p in pieces if isinstance(p, tuple)]))
        return _join([next(read) if isinstance(p, tuple) else _plain(p) for p in pieces])


def _slice(chunk: bytes, cid: bytes, start: int, length: int) -> Data:
    if start + length > len(chunk):
        raise Corrupt(f"chunk {cid.hex()}", expected=f"{start + length} bytes", found=str(len(chunk)),
                      do="run 'holdfast check'")  # fmt: skip
    return chunk if length == len(chunk) else memoryview(chunk)[start : start + length]


def _plain(piece: Data | int) -> Data:
    if isinstance(piece, int):
        return _HOLE if piece == len(_HOLE) else _ZEROS[:piece]
    return piece


def _join(parts: list[Data]) -> bytes:
    if len(parts) == 1:
        return bytes(parts[0])
    return b"".join(parts)
