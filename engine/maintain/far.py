"""Reading what lies at storage locations only, for a check: straight from there, so that no cache hides damage.

Records that lie near each other are fetched together.  A location that does not answer is asked once and told once,
and no chunk is damaged by it: neither what lies there nor what is here as a delta of that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import groupby

from engine import limits
from engine.chunks.reader import take_back
from engine.copies.fetch import Fetcher
from engine.errors import Away, Corrupt, HoldfastError, NotFound
from engine.home import OpenStore
from engine.index.rows import FLAG_SUSPECT, ChunkRow
from engine.maintain import verify
from engine.maintain.asked import Asked

Placed = tuple[int, int, bytes, ChunkRow]
"""Pack, offset, id, row."""


class Far:
    """Verifies chunks at locations. ``damage`` hears of each that is not right, ``done`` of the number of chunks that
    were looked at, and ``asked`` counts those that could not be."""

    def __init__(
        self, store: OpenStore, asked: Asked, *, damage: Callable[[bytes, str], None],
        done: Callable[[int], None],
    ) -> None:  # fmt: skip
        self._store = store
        self._asked = asked
        self._damage = damage
        self._done = done

    def check(self, placed: list[Placed]) -> None:
        """Read these, which are in order of packs and places."""
        fetcher = Fetcher(self._store.context, 0)
        read = 0
        try:
            for number, rows in groupby(placed, lambda one: one[0]):
                for group in _groups(rows):
                    self._group(fetcher, number, group)
                    read += len(group)
                    self._done(read)
        finally:
            fetcher.close()

    def _group(self, fetcher: Fetcher, number: int, group: list[Placed]) -> None:
        parts = [(offset, row.stored) for _, offset, _, row in group]
        try:
            with self._asked.asking(self._asked.place_of(number)):
                found = fetcher.ranges(number, parts)
        except Away:
            self._asked.unread += len(group)
            return
        except (Corrupt, NotFound):
            if len(group) > 1:
                for one in group:
                    self._group(fetcher, number, [one])
                return
            found = None
        for (_, _, cid, row), raw in zip(group, found or [b""] * len(group), strict=True):
            try:
                self._one(cid, row, raw)
            except Away:  # of what it is a delta of
                self._asked.unread += 1

    def _one(self, cid: bytes, row: ChunkRow, raw: bytes) -> None:
        """``raw``: the record, b"" when it could not be had."""
        try:
            if not raw:
                raise Corrupt(
                    f"record in pack {row.pack}", expected="what was sealed", found="none"
                )
            self._store.reader.load_at(cid, row, raw=raw)
        except (Corrupt, NotFound) as error:
            self._wrong(cid, row, error)
        else:
            if row.flags & FLAG_SUSPECT:
                take_back(self._store.context, cid, row)

    def _wrong(self, cid: bytes, row: ChunkRow, error: HoldfastError) -> None:
        now = verify.moved(self._store, cid, row)
        if now is row:
            verify.suspect(self._store, cid, str(error))
            self._damage(cid, str(error))
        elif now is not None and (fault := verify.record_fault(self._store, cid, now)):
            self._damage(cid, fault)


def _groups(rows: Iterator[Placed]) -> Iterator[list[Placed]]:
    """Of one pack, so many together as one answer may hold."""
    group: list[Placed] = []
    for one in rows:
        if group and one[1] + one[3].stored - group[0][1] > limits.RANGE_MAX:
            yield group
            group = []
        group.append(one)
    if group:
        yield group
