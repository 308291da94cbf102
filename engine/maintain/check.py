"""Check: every invariant that can be verified from what is on disk, and every stored byte when asked.

What a collection has condemned is no damage unless something needs it: its bases may be swept before it.

Nothing is changed, except that with ``read_data`` a chunk found damaged is marked suspect, so that the next write of
its content stores it again.
"""

from __future__ import annotations

import logging
import stat
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from engine import codec, limits, registry
from engine.chunks.reader import mark_suspect
from engine.errors import HoldfastError
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
from engine.maintain.mark import Marker
from engine.maintain.marks import DEAD, Marks
from engine.nodes import Entry
from engine.nodes.point import decode_point
from engine.packs.records import decode_record_head
from engine.points.view import PointView
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
        self._waiting: dict[
            bytes, str
        ] = {}  # the same of condemned ones: damage only if they are needed

    def run(self, read_data: bool) -> CheckReport:
        """All checks, cheapest first; later ones go on where earlier ones found damage."""
        if self._rows():
            return self.result  # nothing built on damaged rows can be trusted further
        packs = {U32.unpack(key)[0]: pack_row(raw) for key, raw in self._txn.scan(Table.PACKS)}
        self._packs(packs, read_data)
        self._chunks(packs, read_data)
        for mount in registry.every(self._txn):
            for text in live_problems(self._txn, mount.id):
                self._found("live", f"mount {mount.name}", text)
        self._reach()
        if self._bad:
            self._affected()
        return self.result

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
                if row.state == PACK_SEALED:
                    self._sealed(number, row, read_data)
                elif row.records or row.length > 64:
                    self._context.files.header(number)
                    if self._context.files.size(number) < row.length:
                        self._found(
                            "pack",
                            f"segment {number}",
                            f"is shorter than its {row.length} committed bytes",
                        )
            except HoldfastError as error:
                if self._now(Table.PACKS, U32.pack(number)) == row.pack_bytes():
                    self._found("pack", f"pack {number}", error)
        self.result.counts["packs"] = len(packs)

    def _sealed(self, number: int, row: PackRow, read_data: bool) -> None:
        files = self._context.files
        files.header(number)
        footer = files.footer(number)
        files.trailer(number)
        if (
            footer.digest != row.digest
            or footer.offset != row.length
            or footer.entries != row.records
        ):
            self._found("pack", f"pack {number}", "its footer says other than its row")
        if read_data:
            digest = codec.Digest()
            for at in range(0, footer.offset, 4 * limits.MIB):
                digest.update(files.read(number, at, min(4 * limits.MIB, footer.offset - at)))
            if digest.digest() != footer.digest:
                self._found("pack", f"pack {number}", "its content does not match its digest")

    def _chunks(self, packs: dict[int, PackRow], read_data: bool) -> None:
        idle = load_gc(self._txn).phase == Phase.IDLE
        placed: list[tuple[int, int, bytes, ChunkRow]] = []
        for cid, raw in self._txn.scan(Table.CHUNKS):
            row = chunk_row(raw)
            placed.append((row.pack, row.offset, cid, row))
            found = self._damage if not row.flags & FLAG_CONDEMNED else self._waiting.setdefault
            pack = packs.get(row.pack)
            if pack is None or row.offset + row.stored > pack.length:
                found(cid, f"lies outside pack {row.pack}")
            for base in row.bases:
                if self._txn.get(Table.CHUNKS, base) is None:
                    found(cid, f"needs chunk {base.hex()}, which has no row")
            if row.flags & FLAG_SUSPECT:
                found(cid, "was found damaged before")
        placed.sort()
        for i, (_, _, cid, row) in enumerate(placed):
            if cid not in self._bad and cid not in self._waiting:
                self._record(cid, row, read_data)
            if not i % 512:
                self._report(Progress("check", i, len(placed), "chunks"))
        self.result.counts["chunks"] = len(placed)
        self.result.counts["condemned chunks"] = (
            sum(bool(r.flags & FLAG_CONDEMNED) for *_, r in placed) if idle else 0
        )

    def _record(self, cid: bytes, row: ChunkRow, read_data: bool) -> None:
        try:
            if read_data:
                self._store.reader.load_at(cid, row)
                return
            head = decode_record_head(
                self._context.files.read(row.pack, row.offset, min(_HEAD_MAX, row.stored))
            )
            same = (head.id, head.size, head.plain, head.kind, head.encoding, head.depth)
            if same != (cid, row.stored, row.plain, row.kind, row.encoding, row.depth):
                self._damage(cid, f"its record in pack {row.pack} at {row.offset} is another")
        except HoldfastError as error:
            now = self._now(Table.CHUNKS, cid)
            if now is None:
                return  # collected meanwhile
            moved = chunk_row(now)
            if (moved.pack, moved.offset) != (row.pack, row.offset):
                self._record(cid, moved, read_data)
                return
            if moved.flags & FLAG_CONDEMNED:  # its base may have gone before it
                self._waiting[cid] = str(error)
                return
            self._damage(cid, str(error))
            if read_data:
                mark_suspect(self._context, cid, str(error))

    def _now(self, table: Table, key: bytes) -> bytes | None:
        """A row as it is by now: a collection may have moved records and removed packs since this check began."""
        with self._context.index.read() as txn:
            return txn.get(table, key)

    def _damage(self, cid: bytes, text: str) -> None:
        if cid not in self._bad:
            self._bad[cid] = text
            self._found("chunk", f"chunk {cid.hex()}", text)

    def _reach(self) -> None:
        """Everything referred to is there."""
        marks = Marks(self._txn)
        marker = Marker(
            marks,
            self._store.reader,
            self._context.key,
            lambda cid: self._damage(cid, "has no row"),
            lambda cid, error: self._damage(
                cid, f"is a manifest node that cannot be read: {error}"
            ),
        )
        try:
            marker.run(lambda done: self._report(Progress("reach", done, None, "references")))
        except HoldfastError as error:
            self._found("tree", "a manifest", error)
            return
        for cid, text in self._waiting.items():
            if marks.raise_to(cid, DEAD) != DEAD:
                self._damage(cid, text)
        self.result.counts["chunks in use"] = marks.reached()

    def _affected(self) -> None:
        """Points, files and byte ranges that need a damaged chunk."""
        bad = self._dependents()
        for _, raw in self._txn.scan(Table.POINTS):
            point = decode_point(raw)
            view = PointView(self._store.reader, point.root)
            try:
                for path, start, length in _damaged_ranges(view, point.root, b"", bad.__contains__):
                    self._found("file", f"point {point.id}: {path.decode(errors='backslashreplace')}",
                                f"bytes {start} to {start + length} cannot be read")  # fmt: skip
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


def _damaged_ranges(
    view: PointView, entry: Entry, path: bytes, bad: Callable[[bytes], bool]
) -> Iterator[tuple[bytes, int, int]]:
    for child in view.scan(entry):
        here = path + b"/" + child.name if path else child.name
        if stat.S_ISDIR(child.mode):
            yield from _damaged_ranges(view, child, here, bad)
        elif stat.S_ISREG(child.mode):
            for number, extents in view.spans(child):
                for offset, length, cid, _ in extents:
                    if bad(cid):
                        yield here, number * limits.SPAN + offset, length


def check(store: OpenStore, *, read_data: bool, report: Report) -> CheckReport:
    """Verify the store; what is wrong is in the report, worst first."""
    log.debug("check begins")
    with store.context.index.read() as txn:
        result = Checker(store, txn, report).run(read_data)
    order = Counter({"file": 3, "point": 2, "tree": 1})
    result.problems.sort(key=lambda problem: -order[problem.code])
    return result
