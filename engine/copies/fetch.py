"""Reading chunks that lie at a storage location only: the packs of this store whose bytes are elsewhere.

A row of CHUNKS that names such a pack is like any other; ``PackFiles`` asks here when it has no file of that number.
Locations are opened when something is read from them first, with this machine's key.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence

from engine import limits
from engine.chunks import Context
from engine.copies import connect, outbox, rows
from engine.copies.cache import Away, BlockCache, Straight
from engine.copies.link import Link, pack_of
from engine.copies.sealed import path_of
from engine.errors import Corrupt, LocationUnavailable, NotFound, from_os
from engine.index import Table
from engine.keys import FRAME_OVERHEAD, FileSeal

_OPEN = 256  # packs whose keys are kept
FOLDER = "cache"


class Fetcher:
    """What ``PackFiles`` asks for packs that are elsewhere. Thread-safe."""

    def __init__(
        self, context: Context, most: int | None = None, links: Iterable[Link] = ()
    ) -> None:  # fmt: skip
        """``most``: bytes of the cache, 0 for none, None for as many as there is room for; ``links``: locations that
        are open already."""
        self._context = context
        self._lock = threading.Lock()
        self._links = {link.row.id: link for link in links}
        self._packs: OrderedDict[int, tuple[Away, FileSeal]] = OrderedDict()
        folder = os.path.join(context.root, FOLDER)
        self.most = _room(context, most)
        self.cache = BlockCache(folder, self.most, context.system) if self.most else Straight()

    def ranges(self, number: int, parts: Sequence[tuple[int, int]]) -> list[bytes] | None:
        """Records by their place, without their seals; None when no location has a pack of that number.

        Raises Corrupt, LocationUnavailable and what else the location raises.
        """
        opened = self._pack(number)
        if opened is None:
            return None
        pack, seal = opened
        places = [(offset, size + FRAME_OVERHEAD) for offset, size in parts]
        frames = self.cache.ranges(pack, places)
        found = []
        for (offset, length), frame in zip(places, frames, strict=True):
            try:
                found.append(seal.open(offset, frame))
            except Corrupt:  # perhaps only here
                self.cache.drop(pack, offset, length)
                again = self.cache.ranges(pack, [(offset, length)])[0]
                found.append(seal.open(offset, again))
        return found

    def ahead(self, number: int, parts: Sequence[tuple[int, int]]) -> bool:
        """Have records be near when they are read soon; whether a location has a pack of that number. Raises as
        ``ranges``."""
        opened = self._pack(number)
        if opened is None:
            return False
        self.cache.ahead(opened[0], [(offset, size + FRAME_OVERHEAD) for offset, size in parts])
        return True

    def bring(
        self, number: int, parts: Sequence[tuple[int, int, bool]], room: memoryview
    ) -> list[int] | None:
        """Records into ``room``, one behind the other, of (offset, length, whether it may be wanted again): of each
        how long it is there, 0 for one that cannot be opened; None and what is raised as ``ranges``."""
        opened = self._pack(number)
        if opened is None:
            return None
        pack, seal = opened
        places = [(offset, size + FRAME_OVERHEAD) for offset, size, _ in parts]
        frames: dict[int, memoryview] = {}
        for fetch, kept in ((self.cache.passing, False), (self.cache.ranges, True)):
            some = [index for index, part in enumerate(parts) if part[2] is kept]
            if some:
                frames |= zip(some, fetch(pack, [places[index] for index in some]), strict=True)
        lengths = []
        at = 0
        for index, (offset, length) in enumerate(places):
            try:
                lengths.append(seal.open_into(offset, frames.pop(index), room[at:]))
            except Corrupt:  # whoever reads it finds out whether it is so only here
                self.cache.drop(pack, offset, length)
                lengths.append(0)
            at += lengths[-1]
        return lengths

    def close(self) -> None:
        with self._lock:
            links, self._links = self._links, {}
            self._packs.clear()
        for link in links.values():
            link.close()

    def _pack(self, number: int) -> tuple[Away, FileSeal] | None:
        with self._lock:
            known = self._packs.get(number)
            if known is not None:
                self._packs.move_to_end(number)
                return known
        with self._context.index.read() as txn:
            raw = txn.get(Table.AWAY, rows.away_key(number))
        if raw is None:
            return None
        row = rows.away_row(raw)
        link = self._link(row.location)
        opened = (
            Away(link.location, path_of(row.name.hex()), row.size),
            link.seal_of(pack_of(row)),
        )
        with self._lock:
            self._packs[number] = opened
            while len(self._packs) > _OPEN:
                self._packs.popitem(last=False)
        return opened

    def _link(self, location: int) -> Link:
        with self._lock:
            found = self._links.get(location)
            if found is None:
                with self._context.index.read() as txn:
                    names = [
                        name for name, row in outbox.locations(txn).items() if row.id == location
                    ]
                if not names:
                    raise NotFound(
                        f"location number {location}", expected="a row of it", found="none",
                        do="add the location again",
                    )  # fmt: skip
                found = self._links[location] = self._opened(names[0])
            return found

    def _opened(self, name: str) -> Link:
        try:
            return connect.open_link(self._context, name, reading=True)
        except (
            Corrupt,
            NotFound,
        ) as error:  # no chunk is damaged because of a disk that is not the one
            raise LocationUnavailable(f"location {name!r}", found=str(error)) from None


def _room(context: Context, wanted: int | None) -> int:
    """Bytes that the cache may take: what is stored on the same disk goes before."""
    if not wanted and wanted is not None:
        return 0
    try:
        free, _ = context.system.space(context.root)
    except OSError as error:
        raise from_os(error, context.root) from None
    if wanted is not None:
        return min(wanted, int(free * limits.AWAY_MOST))
    return min(limits.AWAY_CACHE, free // limits.AWAY_PART)
