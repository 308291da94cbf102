"""Written bytes of one span that are not sealed yet: runs at offsets, newest data, kept without copying.

Runs are sorted and never overlap; neighbours are kept apart (joining megabytes costs more than a list entry), except
that small appends are gathered in one growing buffer, so that a writer of single bytes costs bytes, not objects.
Not thread-safe: guarded by the tree's lock.  Frozen once handed to a seal thread.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator

Data = bytes | bytearray | memoryview

GATHER_MAX = 64 * 1024  # a gathered run does not grow beyond this: extending it may copy it
_SMALL = 4096  # appends below this are gathered


def _part(data: Data, start: int, end: int) -> Data:
    """A piece of a run. A view, unless it would keep alive more than twice its own size, or bytes that may move."""
    if isinstance(data, bytearray):
        return bytes(memoryview(data)[start:end])
    view = data if isinstance(data, memoryview) else memoryview(data)
    piece = view[start:end]
    if 2 * len(piece) < len(view.obj):  # type: ignore[arg-type]  # obj is the bytes below the view
        return bytes(piece)
    return piece


class Fragments:
    """Runs of new bytes. ``size``: bytes held; ``fresh``: nothing was allocated beneath them when they came."""

    __slots__ = ("_data", "_starts", "fresh", "size")

    def __init__(self, fresh: bool = False) -> None:
        self._starts: list[int] = []
        self._data: list[Data] = []
        self.size = 0
        self.fresh = fresh

    def put(self, start: int, data: Data) -> int:
        """Lay ``data`` (not empty) over what is there; returns by how many bytes more are held now."""
        starts = self._starts
        if starts:
            last = starts[-1]
            tail = self._data[-1]
            end = last + len(tail)
            if start >= end:
                if start == end and len(data) < _SMALL and len(tail) < GATHER_MAX:
                    self._gather(tail, data)
                else:
                    starts.append(start)
                    self._data.append(data)
                size = len(data)
                self.size += size
                return size
            return self._insert(start, data)
        starts.append(start)
        self._data.append(data)
        self.size = len(data)
        return self.size

    def _gather(self, tail: Data, data: Data) -> None:
        if isinstance(tail, bytearray):
            tail += data
        elif len(tail) < _SMALL:
            joined = bytearray(tail)
            joined += data
            self._data[-1] = joined
        else:
            self._starts.append(self._starts[-1] + len(tail))
            self._data.append(data)

    def _insert(self, start: int, data: Data) -> int:
        end = start + len(data)
        first, last, head, tail = self._hit(start, end)
        new_starts = [start]
        new_data: list[Data] = [data]
        if head is not None:
            new_starts.insert(0, head[0])
            new_data.insert(0, head[1])
        if tail is not None:
            new_starts.append(tail[0])
            new_data.append(tail[1])
        before = sum(map(len, self._data[first:last]))
        self._starts[first:last] = new_starts
        self._data[first:last] = new_data
        grown = sum(map(len, new_data)) - before
        self.size += grown
        return grown

    def _hit(
        self, start: int, end: int
    ) -> tuple[int, int, tuple[int, Data] | None, tuple[int, Data] | None]:
        """Runs first:last overlap start..end; what of them sticks out before and behind."""
        starts, runs = self._starts, self._data
        first = bisect_right(starts, start) - 1
        if first < 0 or starts[first] + len(runs[first]) <= start:
            first += 1
        last = bisect_left(starts, end)
        head = tail = None
        if first < last:
            if starts[first] < start:
                head = (starts[first], _part(runs[first], 0, start - starts[first]))
            at = starts[last - 1]
            if at + len(runs[last - 1]) > end:
                tail = (end, _part(runs[last - 1], end - at, len(runs[last - 1])))
        return first, last, head, tail

    def cut(self, end: int) -> int:
        """Drop everything from ``end`` on; returns the bytes dropped."""
        before = self.size
        first = bisect_left(self._starts, end)
        dropped = sum(map(len, self._data[first:]))
        del self._starts[first:], self._data[first:]
        if first:
            at = self._starts[-1]
            over = at + len(self._data[-1]) - end
            if over > 0:
                self._data[-1] = _part(self._data[-1], 0, end - at)
                dropped += over
        self.size = before - dropped
        return dropped

    def over(self, older: Fragments) -> Fragments:
        """These runs laid over older ones (both are used up): what a failed seal leaves behind."""
        for start, data in self.items():
            older._insert(start, data)
        return older

    def freeze(self) -> Fragments:
        """Called once, when a seal thread takes them: no run may move any more. Returns itself."""
        for i, data in enumerate(self._data):
            if isinstance(data, bytearray):
                self._data[i] = bytes(data)
        return self

    def items(self) -> list[tuple[int, Data]]:
        """(offset, bytes) of every run, in order."""
        return list(zip(self._starts, self._data, strict=True))

    def within(self, start: int, end: int) -> Iterator[tuple[int, int, Data]]:
        """(from, to, bytes) of the parts of runs inside start..end, in order."""
        starts, runs = self._starts, self._data
        i = bisect_right(starts, start) - 1
        if i < 0 or starts[i] + len(runs[i]) <= start:
            i += 1
        while i < len(starts) and starts[i] < end:
            at = starts[i]
            data = runs[i]
            low = max(start, at)
            high = min(end, at + len(data))
            if low == at and high == at + len(data) and not isinstance(data, bytearray):
                yield low, high, data
            else:
                yield low, high, memoryview(data)[low - at : high - at].tobytes()
            i += 1

    def first_at(self, floor: int) -> int | None:
        """Offset of the first held byte at or after ``floor``, or None."""
        i = bisect_right(self._starts, floor) - 1
        if i >= 0 and self._starts[i] + len(self._data[i]) > floor:
            return floor
        return self._starts[i + 1] if i + 1 < len(self._starts) else None

    @property
    def end(self) -> int:
        """Offset after the last held byte; 0 when empty."""
        return self._starts[-1] + len(self._data[-1]) if self._starts else 0

    def __bool__(self) -> bool:
        return bool(self._starts)
