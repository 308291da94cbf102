"""The fetcher, once something is read that is not here: most processes never load what it needs."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

from engine.chunks import Context
from engine.copies import rows
from engine.index import Table

if TYPE_CHECKING:
    from engine.copies.fetch import Fetcher


class Elsewhere:
    """What ``PackFiles`` asks for packs that are no files of the store. Thread-safe."""

    def __init__(self, context: Context, most: int | None = None) -> None:
        """``most``: bytes of the cache, as far as there is room; None: as is usual."""
        self._context = context
        self._most = most
        self._lock = threading.Lock()
        self._fetcher: Fetcher | None = None

    def ranges(self, number: int, parts: Sequence[tuple[int, int]]) -> list[bytes] | None:
        """As ``Fetcher.ranges``."""
        fetcher = self._fetcher or self._needed(number)
        return None if fetcher is None else fetcher.ranges(number, parts)

    def ahead(self, number: int, parts: Sequence[tuple[int, int]]) -> bool:
        """As ``Fetcher.ahead``."""
        fetcher = self._fetcher or self._needed(number)
        return fetcher is not None and fetcher.ahead(number, parts)

    def bring(
        self, number: int, parts: Sequence[tuple[int, int, bool]], room: memoryview
    ) -> list[int] | None:
        """As ``Fetcher.bring``."""
        fetcher = self._fetcher or self._needed(number)
        return None if fetcher is None else fetcher.bring(number, parts, room)

    def filled(self) -> tuple[int, int]:
        """Bytes that were fetched so far, and those that the cache takes."""
        fetcher = self._fetcher
        return (fetcher.cache.fetched_bytes, fetcher.most) if fetcher is not None else (0, 1)

    def _needed(self, number: int) -> Fetcher | None:
        with self._context.index.read() as txn:
            if txn.get(Table.AWAY, rows.away_key(number)) is None:
                return None
        from engine.copies.fetch import Fetcher

        with self._lock:
            if self._fetcher is None:
                self._fetcher = Fetcher(self._context, self._most)
            return self._fetcher

    def close(self) -> None:
        with self._lock:
            if self._fetcher is not None:
                self._fetcher.close()
                self._fetcher = None
