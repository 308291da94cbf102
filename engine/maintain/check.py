"""Check: every invariant that can be verified from what is on disk, and every stored byte when asked.

Nothing is changed, except that with ``read_data`` a chunk found damaged is marked suspect, so that the next write of
its content stores it again, and a sealed pack too, so that the next collection writes what is needed of it anew.  A
chunk that was suspect and is whole again, as its base was stored anew or a disk is back, is suspect no longer.  What
cannot be looked at, as a location does not answer, is told and counted, and is no damage.
"""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass, field

from engine import limits, locks, registry
from engine.copies.rows import away_row
from engine.errors import Away, HoldfastError
from engine.home import OpenStore
from engine.index import Table, Txn
from engine.index.gcstate import Phase
from engine.index.gcstate import load as load_gc
from engine.index.rows import (
    FLAG_CONDEMNED,
    FLAG_SUSPECT,
    PACK_DOOMED,
    PACK_SEALED,
    U32,
    ChunkRow,
    PackRow,
    chunk_row,
    pack_row,
)
from engine.live import problems as live_problems
from engine.maintain import verify
from engine.maintain.affected import affected
from engine.maintain.asked import AWAY, asked_once
from engine.maintain.mark import Marker
from engine.maintain.marks import Marks
from engine.nodes.point import decode_point
from engine.packs.records import HEADER_LEN, decode_record_head
from engine.progress import Progress, Report

log = logging.getLogger("holdfast.engine.maintain")

_HEAD_MAX = 52 + 40 * limits.DELTA_BASES_MAX


@dataclass(frozen=True)
class Problem:
    """``code`` names the kind, ``thing`` what is damaged, ``text`` what is wrong with it."""

    code: str
    thing: str
    text: str


@dataclass
class CheckReport:
    """``counts``: what was looked at."""

    problems: list[Problem] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)


class Checker:
    """One check, in one read transaction."""

    def __init__(self, store: OpenStore, txn: Txn, report: Report) -> None:
        self._store = store
        self._context = store.context
        self._txn = txn
        self._report = report
        self.result = CheckReport()
        self._bad: dict[bytes, str] = {}  # damaged chunks and why
        self._read_data = False

    def run(self, read_data: bool) -> CheckReport:
        """All checks, cheapest first; later ones go on where earlier ones found damage."""
        self._read_data = read_data
        if self._rows():
            return self.result  # nothing built on damaged rows can be trusted further
        if self._context.seal is not None:
            from engine import storering

            for name, text in storering.faults(self._store.path, self._context.system):
                self._found("keys", name, text)
        packs = {U32.unpack(key)[0]: pack_row(raw) for key, raw in self._txn.scan(Table.PACKS)}
        self._away = {
            U32.unpack(key)[0]: away_row(raw).trailer for key, raw in self._txn.scan(Table.AWAY)
        }
        with asked_once(self._store) as self._asked:
            self._contents(packs, read_data)
            if read_data:
                self._journals()
            if self._asked.unread:
                self.result.counts["chunks not looked at"] = self._asked.unread
            for thing, text in self._asked.told():
                self._found(AWAY, thing, text)
        return self.result

    def _contents(self, packs: dict[int, PackRow], read_data: bool) -> None:
        self._packs(packs, read_data)
        self._chunks(packs, read_data)
        for mount in registry.every(self._txn):
            for text in live_problems(self._txn, mount.id):
                self._found("live", f"mount {mount.name}", text)
        for point in locks.missing(self._context, self._txn):
            self._found(
                "lock", f"point {point}", f"its lock is not in {locks.FILE}; run 'holdfast repair'"
            )
        self._reach(read_data)
        if self._bad:
            self._affected()

    def _found(self, code: str, thing: str, text: object) -> None:
        self.result.problems.append(Problem(code, thing, str(text)))

    def _rows(self) -> bool:
        count = 0
        for table in Table:
            count += self._txn.count(table)
            for key in self._txn.damaged(table):
                self._found(
                    "index", f"row {table.name.lower()}/{key[:40].hex()}", "fails its check"
                )
        self.result.counts["index rows"] = count
        return bool(self.result.problems)

    def _packs(self, packs: dict[int, PackRow], read_data: bool) -> None:
        for number, row in packs.items():
            if row.state == PACK_DOOMED:
                continue  # no row points into it, and its file may be gone already
            try:
                files = self._context.files
                if row.state == PACK_SEALED:
                    for text in verify.sealed_faults(
                        files, number, row, content=read_data, read=lambda count: None
                    ):
                        self._found("pack", f"pack {number}", text)
                        verify.note(self._context, number, text)
                elif row.records or row.length > HEADER_LEN:
                    for text in verify.open_faults(files, number, row):
                        self._found("pack", f"segment {number}", text)
            except HoldfastError as error:
                if verify.unchanged(self._store, number, row):
                    self._found("pack", f"pack {number}", error)
        self.result.counts["packs"] = len(packs)

    def _chunks(self, packs: dict[int, PackRow], read_data: bool) -> None:
        idle = load_gc(self._txn).phase == Phase.IDLE
        placed: list[tuple[int, int, bytes, ChunkRow]] = []
        for cid, raw in self._txn.scan(Table.CHUNKS):
            row = chunk_row(raw)
            placed.append((row.pack, row.offset, cid, row))
            length = packs[row.pack].length if row.pack in packs else self._away.get(row.pack, 0)
            if row.offset + row.stored > length:
                self._damage(cid, f"lies outside pack {row.pack}")
            for base in row.bases:
                # What is dead may have lost its base to a sweep already; if it is not, ``_reach`` tells.
                if self._txn.get(Table.CHUNKS, base) is None and not row.flags & FLAG_CONDEMNED:
                    self._damage(cid, f"needs chunk {base.hex()}, which has no row")
            if row.flags & FLAG_SUSPECT and not read_data:
                self._damage(cid, "was found damaged before")
        placed.sort()
        away: list[tuple[int, int, bytes, ChunkRow]] = []
        for i, one in enumerate(placed):
            _, _, cid, row = one
            if row.pack in self._away:
                away.append(one)
            elif cid not in self._bad and not row.flags & FLAG_CONDEMNED:
                self._record(cid, row, read_data)
            if not i % 512:
                self._report(Progress("check", i, len(placed), "chunks"))
        if read_data and away:
            self._far(away)
        self.result.counts["chunks"] = len(placed)
        self.result.counts["chunks elsewhere"] = len(away)
        self.result.counts["condemned chunks"] = (
            sum(bool(r.flags & FLAG_CONDEMNED) for *_, r in placed) if idle else 0
        )

    def _journals(self) -> None:
        from engine.maintain import journals  # most stores have no location

        if self._txn.count(Table.LOCATIONS) and (
            unread := journals.look(
                self._store, self._asked, lambda *one: self._found("location", *one), self._report
            )
        ):
            self.result.counts["journals not looked at"] = unread

    def _far(self, placed: list[tuple[int, int, bytes, ChunkRow]]) -> None:
        """All of it is fetched."""
        from engine.maintain.far import Far

        wanted = [
            one for one in placed if one[2] not in self._bad and not one[3].flags & FLAG_CONDEMNED
        ]
        Far(
            self._store, self._asked, damage=self._damage,
            done=lambda count: self._report(Progress("check elsewhere", count, len(wanted), "chunks")),
        ).check(wanted)  # fmt: skip

    def _record(self, cid: bytes, row: ChunkRow, read_data: bool) -> None:
        if read_data:
            try:
                fault = verify.record_fault(self._store, cid, row)
            except Away:  # of what it is a delta of
                self._asked.unread += 1
                return
            if fault:
                self._damage(cid, fault)
            return
        try:
            head = decode_record_head(
                self._context.files.read(row.pack, row.offset, min(_HEAD_MAX, row.stored))
            )
            same = (head.id, head.size, head.plain, head.kind, head.encoding, head.depth)
            if same != (cid, row.stored, row.plain, row.kind, row.encoding, row.depth):
                self._damage(cid, f"its record in pack {row.pack} at {row.offset} is another")
        except HoldfastError as error:
            now = verify.moved(self._store, cid, row)
            if now is row:
                self._damage(cid, str(error))
            elif now is not None:
                self._record(cid, now, read_data)

    def _damage(self, cid: bytes, text: str) -> None:
        if cid not in self._bad:
            self._bad[cid] = text
            self._found("chunk", f"chunk {cid.hex()}", text)

    def _reach(self, read_data: bool) -> None:
        """Everything referred to is there."""
        marks = Marks(self._txn)
        marker = Marker(
            marks,
            self._store.reader,
            self._context.key,
            lambda cid: self._damage(cid, "has no row"),
            self._no_node,
        )
        try:
            marker.run(lambda done: self._report(Progress("reach", done, None, "references")))
        except HoldfastError as error:
            self._found("tree", "a manifest", error)
            return
        self.result.counts["chunks in use"] = marks.reached()
        for at in (
            marks.flagged()
        ):  # condemned once, in use again: a later collection takes the flag back
            found = marks.row(self._txn, at)
            if found is not None and found[0] not in self._bad:
                self._record(*found, read_data)

    def _no_node(self, cid: bytes, error: HoldfastError) -> None:
        if not isinstance(error, Away):
            self._damage(cid, f"is a manifest node that cannot be read: {error}")
        elif not self._read_data:
            self._asked.unread += 1

    def _affected(self) -> None:
        """Points, files and byte ranges that need a damaged chunk."""
        bad = self._dependents()
        for _, raw in self._txn.scan(Table.POINTS):
            point = decode_point(raw)
            try:
                for path, text in affected(self._store.reader, point.root, bad):
                    self._found(
                        "file", f"point {point.id}: {path.decode(errors='backslashreplace')}", text
                    )
            except HoldfastError as error:
                self._found("point", f"point {point.id}", error)

    def _dependents(self) -> set[bytes]:
        """The damaged chunks and those stored as deltas of them."""
        users: dict[bytes, list[bytes]] = {}
        for cid, raw in self._txn.scan(Table.CHUNKS):
            for base in chunk_row(raw).bases:
                users.setdefault(base, []).append(cid)
        todo, found = list(self._bad), set(self._bad)
        while todo:
            for user in users.get(todo.pop(), ()):
                if user not in found:
                    found.add(user)
                    todo.append(user)
        return found


def check(store: OpenStore, *, read_data: bool, report: Report) -> CheckReport:
    """Verify the store; what is wrong is in the report, worst first."""
    log.debug("check begins")
    index = store.context.index
    torn = index.structure()  # before LMDB follows any page: a damaged one may kill the process
    if torn:
        return CheckReport([Problem("index", f"index {index.path}", text) for text in torn])
    with index.read() as txn:
        result = Checker(store, txn, report).run(read_data)
    order = Counter({"file": 3, "point": 2, "tree": 1})
    result.problems.sort(key=lambda problem: -order[problem.code])
    return result
