"""What of a storage location its points need: bytes of each pack there, copies that nothing needs.

Chunks are marked from the points, by the rows that they have here. A record at the location may be of another form than
the one here (a chunk that was stored again is no delta any more): what that one is a delta of is needed as well.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from engine.copies import outbox, rows
from engine.copies.link import Link
from engine.copies.needs import Records
from engine.copies.rows import GOING, REMOVED, AwayRow, CopyRow
from engine.errors import Corrupt
from engine.home import OpenStore
from engine.index import Table, Txn
from engine.index.rows import ChunkRow, chunk_row
from engine.keys import FRAME_OVERHEAD
from engine.maintain.mark import Marker
from engine.maintain.marks import Marks
from engine.progress import Progress, Report


@dataclass
class Found:
    """Of a location: its packs, bytes needed of each (sealed), of them those that lie here in the same form, copies
    that are not needed (key in COPIES, flags), packs that rows of CHUNKS name without need, or as well, and packs
    that the server retains."""

    packs: dict[int, AwayRow] = field(default_factory=dict)
    live: Counter[int] = field(default_factory=Counter)
    here: Counter[int] = field(default_factory=Counter)
    dead: list[tuple[bytes, int]] = field(default_factory=list)
    held: set[int] = field(default_factory=set)
    locked: set[int] = field(default_factory=set)

    def empty(self) -> Iterator[int]:
        """Packs of which nothing is needed, not even by a row here; those that are going already among them."""
        return (
            number
            for number in self.packs
            if not self.live[number] and number not in self.held | self.locked
        )

    def retained(self) -> int:
        """How many packs of which nothing is needed the server retains."""
        return sum(not self.live[number] for number in self.locked - self.held)

    def waiting(self) -> int:
        """How many packs are only named by rows here, which the next collection frees."""
        return sum(not self.live[number] and number in self.held for number in self.packs)


class Needed:
    """What is needed at one moment: found in a read transaction, beside whoever uploads."""

    def __init__(self, store: OpenStore, link: Link, report: Report) -> None:
        self._store = store
        self._link = link
        self._report = report
        self._records = Records(link)

    def mark(self, txn: Txn) -> None:
        """Mark from the points of the location. Raises Corrupt: nothing may be freed then."""
        link = self._link
        self.begun = begun(txn, link)
        points: set[str] = set()
        self._extras: set[bytes] = set()
        for point, row in outbox.of_location(txn, link.row.id):
            if row.state != REMOVED:
                points.add(point)
                self._extras |= {bytes.fromhex(one) for one in row.extras}
        strange = sorted(one for one in points if txn.get(Table.POINTS, one.encode()) is None)
        if strange:
            raise Corrupt(
                f"location {link.name!r}", expected="every point there to be a point here, or deleted here",
                found=f"{len(strange)} that are neither, first {strange[0]}",
                do="nothing is freed; run 'holdfast check'",
            )  # fmt: skip
        self._marks = Marks(txn)
        lost: list[bytes] = []

        def step(done: int) -> None:
            self._report(Progress("mark", done, None, "references"))

        context = self._store.context
        Marker(self._marks, self._store.reader, context.key, lost.append).points(step, points)
        if lost:
            raise Corrupt(
                f"location {link.name!r}", expected="all that its points need",
                found=f"{len(lost)} chunks without a row", do="nothing is freed; run 'holdfast check'",
            )  # fmt: skip

    def still(self, txn: Txn) -> bool:
        """Whether nothing was sent since it was marked from: what is sent relies on what is there."""
        return begun(txn, self._link).items() <= self.begun.items()

    def look(self, txn: Txn) -> Found:
        """What is there, by what was marked. Raises Corrupt, and what reading the location raises."""
        found = Found()
        for key, raw in txn.scan(Table.AWAY):
            away = rows.away_row(raw)
            if away.location == self._link.row.id:
                found.packs[int.from_bytes(key, "big")] = away
                # Removing those would only hide them, and nobody would ever remove what is hidden.
                if away.locked_s * 10**9 > self._store.context.system.time_ns():
                    found.locked.add(int.from_bytes(key, "big"))
        prefix = rows.copy_key(self._link.row.id, b"")
        dead: dict[bytes, CopyRow] = {}
        other: list[bytes] = []
        for key, raw in txn.scan(Table.COPIES, prefix=prefix):
            copy, cid = rows.copy_row(raw), key[len(prefix) :]
            if cid not in self._extras and not self._marks.lives(cid):
                dead[cid] = copy  # the same bytes may be of a tree and the service's as well
                continue
            found.live[copy.pack] += copy.stored + FRAME_OVERHEAD
            here = txn.get(Table.CHUNKS, cid)
            row = None if here is None else chunk_row(here)
            if row is not None and rows.form_of(row) != copy.form:
                other.append(cid)
            elif row is not None and self._is_here(txn, row, copy):
                found.here[copy.pack] += copy.stored + FRAME_OVERHEAD
        self._bases(txn, found, other, dead)
        found.dead = [(prefix + cid, copy.flags) for cid, copy in dead.items()]
        for _, raw in txn.scan(Table.CHUNKS):
            pack = chunk_row(raw).pack
            if pack in found.packs:
                found.held.add(pack)
        return found

    def _bases(self, txn: Txn, found: Found, todo: list[bytes], dead: dict[bytes, CopyRow]) -> None:
        """Copies that these are deltas of at the location are needed there, and so on."""
        seen = set(todo)
        while todo:
            cid = todo.pop()
            raw = txn.get(Table.COPIES, rows.copy_key(self._link.row.id, cid))
            if raw is None:
                raise Corrupt(
                    f"location {self._link.name!r}", expected=f"chunk {cid.hex()}, of which another is a delta there",
                    found="none", do="nothing is freed; run 'holdfast check'",
                )  # fmt: skip
            copy = rows.copy_row(raw)
            if dead.pop(cid, None) is not None:
                found.live[copy.pack] += copy.stored + FRAME_OVERHEAD
            for base in self._records.bases(txn, cid, copy):
                if base not in seen:
                    seen.add(base)
                    todo.append(base)

    def _is_here(self, txn: Txn, row: ChunkRow, copy: CopyRow) -> bool:
        """Whether a record of the same form is the one there, and in a file of this store."""
        same = row.stored - self._store.context.added == copy.stored
        return same and txn.get(Table.AWAY, rows.away_key(row.pack)) is None


def begun(txn: Txn, link: Link) -> dict[str, tuple[int, int, int]]:
    """Points whose sending was ever begun, each with what changes when it is begun again: ``office.send`` writes that
    down before it looks at what the location has."""
    found = outbox.of_location(txn, link.row.id)
    return {
        point: (row.tries, row.entry, row.since_ns)
        for point, row in found
        if row.tries or row.entry
    }


def removable(row: AwayRow) -> bool:
    """Whether an entry has said that a pack is gone."""
    return row.state == GOING and row.said > 0
