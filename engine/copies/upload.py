"""Sending a point to a storage location: only what the location lacks, in sealed packs, then the journal entry.

One thread walks the tree, reads records, checks what they hold, and seals them; others close packs, put them and look
at them there.  A pack is taken into the index as soon as it is verified, and is not sent again whatever happens; but
only when what its records are deltas of is, and one of nodes only when all packs that were closed before it are: a
chunk that is known to be there can be decoded there, a node that is known to be whole is.

Memory: the packs that are being filled (3), those on their way (``UPLOADS``) and one that waits for its turn, each at
most ``SEALED_PACK``.  What a crash leaves: FORMAT-copies.md, "Crash table".
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Any

from engine import codec, limits
from engine.chunks.segments import next_pack
from engine.copies import journal, rows
from engine.copies.link import Link, away_of, put_just_now
from engine.copies.reach import Need, missing
from engine.copies.rows import EXTRA, UNNAMED, WHOLE, CopyRow
from engine.copies.sealed import (
    DATA,
    METADATA,
    SMALL,
    PackBuilder,
    PackRow,
    Rooms,
    check_name,
    entry_of,
    path_of,
)
from engine.errors import Corrupt, NotFound, ShuttingDown
from engine.home import OpenStore
from engine.index import Table, Txn
from engine.nodes.point import decode_point
from engine.packs.records import Entry, decode_record_head
from engine.progress import Progress, Report


@dataclass
class UploadReport:
    """What sending a point took. ``bytes``: of sealed packs; ``read_back``: packs whose bytes were compared;
    ``requests``: as a server bills them; ``entry``: the journal entry that names it."""

    point: str
    packs: int = 0
    chunks: int = 0
    bytes: int = 0
    read_back: int = 0
    requests: int = 0
    entry: int = 0


def requests(counts: Mapping[str, int]) -> int:
    """How many they are of all kinds."""
    return sum(count for kind, count in counts.items() if not kind.startswith("bytes"))


@dataclass(eq=False)
class _Batch:
    """A closed pack on its way, and what is to be known once it is there. ``sent``: its row, and whether its bytes were
    read back."""

    pack: PackBuilder
    whole: set[bytes]
    sent: Future[tuple[PackRow, bool]]
    marks: list[bytes] = field(default_factory=list)


class Uploader:
    """Sends points to one location. Not thread-safe; one at a time (see ``Link``)."""

    def __init__(
        self,
        store: OpenStore,
        link: Link,
        *,
        report: Report,
        stop: Callable[[], bool] = lambda: False,
        threads: int = limits.UPLOADS,
        chance: random.Random | None = None,
    ) -> None:
        self._store = store
        self._index = store.context.index
        self._link = link
        self._report = report
        self._stop = stop
        self._threads = threads
        self._chance = chance or random.Random()
        self._flight: dict[bytes, int] = {}  # sent or about to be, not in COPIES yet -> flags
        self._wanted: list[Need] = []
        self._lanes: dict[int, PackBuilder] = {}
        self._whole: set[bytes] = set()
        self._marks: list[bytes] = []
        self._sent: deque[_Batch] = deque()
        self._early: list[tuple[Entry, CopyRow]] = []  # deltas that came before their bases
        self._rooms = Rooms()
        self._full = min(limits.SEALED_FIRST, limits.SEALED_PACK)  # bytes of a pack, for now

    def upload(
        self, point: str, extras: Sequence[bytes] = (), settings: Mapping[str, Any] | None = None
    ) -> UploadReport:
        """Have the location hold a point whole. ``extras``: what else is kept with it, each at most a chunk;
        ``settings``: of its mount.

        Raises NotFound, ShuttingDown, Busy when another writer took over, and what the location raises; what was sent
        until then stays sent.
        """
        self._made = UploadReport(point)
        before = requests(self._link.location.counts())
        self._settings = dict(settings or {})
        with self._index.read() as txn:
            record = txn.get(Table.POINTS, point.encode())
        if record is None:
            raise NotFound(f"point {point}", expected="a point of this store", found="none")
        self._link.catch_up()
        known = self._link.entry_of(point)
        if known is None:
            top = codec.chunk_id(self._store.context.key, record)
            with ThreadPoolExecutor(self._threads, "holdfast-put") as pool:
                self._pool = pool
                try:
                    for need in missing(self._store.reader, self._has, top):
                        self._want(need)
                    ids = [self._extra(one) for one in extras]
                    self._fetch()
                    self._close_all()
                    self._settle(0)
                    self._see_none_early()
                    self._mark_whole(self._marks)
                except ShuttingDown:
                    self._link.location.close()  # who waits for his turn to put waits no longer
                    raise
                finally:
                    self._forget()
            known = self._name(point, record, top, ids)
        self._made.entry = known
        self._made.requests = requests(self._link.location.counts()) - before
        return self._made

    def _name(self, point: str, record: bytes, top: bytes, extras: Sequence[bytes]) -> int:
        """The journal entry: from here on the location has the point."""
        made = journal.Point(point, decode_point(record).mount, top, self._settings, tuple(extras))
        return self._link.append(journal.PointMade(made, self._link.to_name()))

    # --- what the location has ----------------------------------------------------------------------------

    def _has(self, cid: bytes) -> CopyRow | None:
        flags = self._flight.get(cid)
        if flags is not None:
            return CopyRow(0, 0, 0, 0, flags)
        with self._index.read() as txn:
            raw = txn.get(Table.COPIES, rows.copy_key(self._link.row.id, cid))
        return None if raw is None else rows.copy_row(raw)

    # --- filling packs ------------------------------------------------------------------------------------

    def _want(self, need: Need) -> None:
        self._go_on()
        self._flight[need.cid] = WHOLE if need.whole else 0
        if need.whole and not need.there:
            self._whole.add(need.cid)
        self._wanted.append(need)
        if len(self._wanted) >= limits.GATHER_CHUNKS:
            self._fetch()

    def _go_on(self) -> None:
        """Raises ShuttingDown when asked to stop."""
        if self._stop():
            raise ShuttingDown(f"upload of point {self._made.point}", found="a request to stop",
                            do="it goes on where it was, next time")  # fmt: skip

    def _fetch(self) -> None:
        self._take_done()
        wanted, self._wanted = self._wanted, []
        found = self._store.reader.records([need.cid for need in wanted if not need.there])
        for need in wanted:
            if need.there:  # in its turn: a pack that closes before must not say that it is whole
                self._marks.append(need.cid)
                continue
            record, raw = found[need.cid]
            self._add(
                METADATA if need.node else SMALL if len(raw) < limits.SMALL_RECORD else DATA,
                entry_of(record),
                raw,
            )

    def _add(self, kind: int, entry: Entry, raw: codec.Bytes) -> None:
        pack = self._lanes.get(kind)
        if pack is not None and not pack.fits(entry, self._full):
            self._close(kind)
            pack = None
        if pack is None:
            pack = self._lanes[kind] = PackBuilder(
                self._link.newest_vault(), kind, self._rooms.take()
            )
        pack.take(entry, raw)

    def _extra(self, data: bytes) -> bytes:
        """A chunk of the service's own; of no tree, so its copy says so."""
        cid, raw = self._link.record(data)
        if self._has(cid) is None:
            self._flight[cid] = EXTRA
            self._add(SMALL, entry_of(decode_record_head(raw)), raw)
        return cid

    def _close_all(self) -> None:
        for kind in (DATA, SMALL, METADATA):
            self._close(kind)

    def _close(self, kind: int) -> None:
        """A pack goes its way. What nodes refer to goes before them."""
        if kind == METADATA:
            self._fetch()
            for before in (DATA, SMALL):
                self._close(before)
        pack = self._lanes.pop(kind, None)
        if pack is None:
            return
        whole = {entry.id for entry in pack.entries if entry.id in self._whole}
        self._whole -= whole
        marks: list[bytes] = []
        if kind == METADATA:
            marks, self._marks = self._marks, []
        self._settle(self._threads)
        self._full = min(2 * self._full, limits.SEALED_PACK)
        sent = self._pool.submit(self._put, pack)
        self._sent.append(_Batch(pack, whole, sent, marks))

    # --- on the threads -----------------------------------------------------------------------------------

    def _put(self, pack: PackBuilder) -> tuple[PackRow, bool]:
        """Close a pack, put it and see what the location says of it; with whether its bytes were read back as well."""
        location = self._link.location
        row = (sealed := pack.finish()).row
        path = path_of(row.name)
        location.put(path, sealed.data)
        self._rooms.give(pack.room)
        with put_just_now(f"{location.shown}: {path}"):
            found = location.stat(path).size
        if found != row.size:
            raise Corrupt(f"{location.shown}: {path}", expected=f"{row.size} bytes", found=str(found),
                          do="try again; if it stays so, look at the server")  # fmt: skip
        if self._chance.random() >= self._link.row.verify:
            return row, False
        check_name(row.name, location.ranges(path, [(0, row.size)])[0])
        return row, True

    # --- what is known to be there ------------------------------------------------------------------------

    def _settle(self, most: int) -> None:
        """Wait until at most so many packs are on their way. Raises what went wrong with one, and ShuttingDown."""
        self._take_done()
        while len(self._sent) > most:
            # One of nodes that is there waits for those before it, which are not.
            under_way = [batch.sent for batch in self._sent if not batch.sent.done()]
            wait(under_way, limits.STOP_LOOK, FIRST_COMPLETED)
            self._go_on()
            self._take_done()

    def _take_done(self) -> None:
        """Take packs that are there into the index; those of nodes in order, behind all that they refer to."""
        for batch in list(self._sent):
            if batch.sent.done() and (batch is self._sent[0] or batch.pack.kind != METADATA):
                self._sent.remove(batch)
                self._take(batch)

    def _take(self, batch: _Batch) -> None:
        pack, read_back = batch.sent.result()
        number = 0
        for at in range(0, len(batch.pack.entries), limits.GC_SWEEP_ROWS):
            with self._index.write() as txn:
                if not number:  # with rows of its chunks: without them it would be sent again
                    number = next_pack(txn)
                    row = away_of(pack, self._link.row.id, UNNAMED)
                    txn.put(Table.AWAY, rows.away_key(number), row.pack_bytes())
                for entry in batch.pack.entries[at : at + limits.GC_SWEEP_ROWS]:
                    flags = WHOLE if entry.id in batch.whole else self._flight[entry.id] & EXTRA
                    copy = CopyRow(number, entry.offset, entry.stored, rows.form_of(entry), flags)
                    self._there(txn, entry, copy)
        self._take_early()
        if batch.marks:
            self._mark_whole(batch.marks)
        made = self._made
        made.packs += 1
        made.chunks += len(batch.pack.entries)
        made.bytes += pack.size
        made.read_back += read_back
        self._report(Progress("upload", made.bytes, None, "bytes"))

    def _take_early(self) -> None:
        """Deltas whose base has come since count from now on."""
        left = -1
        while self._early and len(self._early) != left:  # one may be the base of another
            left = len(self._early)
            with self._index.write() as txn:
                early, self._early = self._early, []
                for entry, copy in early:
                    self._there(txn, entry, copy)

    def _see_none_early(self) -> None:
        """Raises Corrupt: no point is named of which a base was not sent."""
        for entry, _ in self._early:
            raise Corrupt(f"chunk {entry.id.hex()}", expected="what it is a delta of at the location", found="none",
                          do="report it: this is a bug")  # fmt: skip

    def _there(self, txn: Txn, entry: Entry, copy: CopyRow) -> None:
        """A record is there. A delta whose base is not is of no use to anybody: it counts when the base has come, and
        after a crash before that it is sent again."""
        place = self._link.row.id
        if any(txn.get(Table.COPIES, rows.copy_key(place, base)) is None for base in entry.bases):
            self._early.append((entry, copy))
            return
        txn.put(Table.COPIES, rows.copy_key(place, entry.id), copy.pack_bytes())
        self._flight.pop(entry.id, None)

    def _mark_whole(self, cids: Sequence[bytes]) -> None:
        with self._index.write() as txn:
            for cid in cids:
                key = rows.copy_key(self._link.row.id, cid)
                raw = txn.get(Table.COPIES, key)
                if raw is not None:
                    row = rows.copy_row(raw)
                    txn.put(Table.COPIES, key, row._replace(flags=row.flags | WHOLE).pack_bytes())
                self._flight.pop(cid, None)

    def _forget(self) -> None:
        """After an error: packs on their way are waited for, so that nothing is put after this returned."""
        for batch in self._sent:
            batch.sent.cancel()
        self._sent.clear()
        self._early.clear()
        self._flight.clear()
        self._wanted.clear()
        self._lanes.clear()
        self._whole.clear()
        self._marks.clear()
