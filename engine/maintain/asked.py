"""Locations that do not answer, for who looks at all that is stored: each is asked once, nothing is damaged by it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from engine.copies import outbox
from engine.copies.rows import away_row
from engine.errors import Away, Corrupt, HoldfastError, NotFound
from engine.home import OpenStore
from engine.index import Table, Txn
from engine.index.rows import U32
from engine.packs.files import Elsewhere

AWAY = "away"
"""Code of a problem that is no damage: what could not be looked at."""


def only_away(codes: Iterable[str]) -> bool:
    """Whether there are problems, and none of them is damage. ``codes``: of all that were found."""
    return set(codes) == {AWAY}


class Asked:
    """Packs at locations, for who looks at all of them: a location that could not be read is not asked again.

    ``unread``: how many chunks could not be looked at.
    """

    def __init__(self, inner: Elsewhere | None, txn: Txn) -> None:
        self._inner = inner
        self._gone: dict[int, str] = {}
        self.unread = 0
        self._names = {row.id: name for name, row in outbox.locations(txn).items()}
        self._places = {
            U32.unpack(key)[0]: away_row(raw).location for key, raw in txn.scan(Table.AWAY)
        }

    def told(self) -> Iterator[tuple[str, str]]:
        """(location, what to say of it) of each that could not be read."""
        for place, why in self._gone.items():
            text = f", so {self.unread} chunks could not be looked at" if self.unread else ""
            yield f"location {self._names.get(place, place)}", f"cannot be read{text}: {why}"

    @contextmanager
    def asking(self, place: int) -> Iterator[None]:
        """Raises Away where location number ``place`` cannot be read, or could not be before."""
        if place in self._gone:
            raise Away(self._gone[place])
        try:
            yield
        except (Corrupt, NotFound):
            raise
        except HoldfastError as error:
            self._gone[place] = str(error)
            raise Away(str(error)) from None

    def is_gone(self, place: int) -> bool:
        """Whether it could not be read before."""
        return place in self._gone

    def place_of(self, number: int) -> int:
        """The location of a pack, -1 when it lies at none."""
        return self._places.get(number, -1)

    def ranges(self, number: int, parts: Sequence[tuple[int, int]]) -> list[bytes] | None:
        with self.asking(self.place_of(number)):
            return None if self._inner is None else self._inner.ranges(number, parts)

    def ahead(self, number: int, parts: Sequence[tuple[int, int]]) -> bool:
        with self.asking(self.place_of(number)):
            return self._inner is not None and self._inner.ahead(number, parts)

    def bring(
        self, number: int, parts: Sequence[tuple[int, int, bool]], room: memoryview
    ) -> list[int] | None:
        with self.asking(self.place_of(number)):
            return None if self._inner is None else self._inner.bring(number, parts, room)


@contextmanager
def asked_once(store: OpenStore) -> Iterator[Asked]:
    """What the block reads from locations is read through ``Asked``."""
    files = store.context.files
    before = files.elsewhere
    with store.context.index.read() as txn:
        asked = Asked(before, txn)
    files.elsewhere = asked
    try:
        yield asked
    finally:
        files.elsewhere = before
