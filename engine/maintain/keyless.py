"""What can be verified of a store without its key: that nothing was damaged since it was written.

Heads and trailers of packs are never sealed, digests are over what is stored: so each pack that has one is read whole
and must match its digest, each record's head its check and its trailer, and each row of CHUNKS must lead to the head
of its record.  Payloads in open segments, which have no digest yet, are not covered; nor is what a key is needed for:
that content is what its name says, and that points have all they refer to.  Nothing is changed.
"""

from __future__ import annotations

from collections.abc import Iterator

from engine import home
from engine.errors import Corrupt, HoldfastError
from engine.index import Index, Table, Txn
from engine.index.rows import PACK_DOOMED, PACK_SEALED, U32, PackRow, chunk_row, pack_row
from engine.maintain import verify
from engine.maintain.check import CheckReport, Problem
from engine.packs.files import PackFiles
from engine.packs.records import HEADER_LEN
from engine.progress import Progress, Report
from engine.seam import REAL, Os

UNPROVED = "bytes of segments, which have no digest yet"
Place = tuple[bytes, int]
"""(chunk id, length of its record)."""


def check(path: str, *, report: Report, system: Os = REAL) -> CheckReport:
    """What is wrong, and what was looked at. Raises NotFound, FormatTooNew, Corrupt, Busy."""
    with home.without_key(path, system) as (store_id, index, files):
        found = _Checker(store_id, index, files, report).run()
    if home.is_sealed(path, system):
        from engine import storering

        found.problems += [Problem("keys", *one) for one in storering.faults(path, system)]
    return found


class _Checker:
    def __init__(self, store_id: bytes, index: Index, files: PackFiles, report: Report) -> None:
        self._store_id = store_id
        self._index = index
        self._files = files
        self._report = report
        self._found = CheckReport()
        self._read = 0

    def run(self) -> CheckReport:
        problems, counts = self._found.problems, self._found.counts
        torn = self._index.structure()
        problems += [Problem("index", f"index {self._index.path}", text) for text in torn]
        if torn:
            return self._found
        with self._index.read() as txn:
            for table in Table:
                for key in txn.damaged(table):
                    self._wrong(
                        "index", f"row {table.name.lower()}/{key[:40].hex()}", "fails its check"
                    )
            if problems:
                return self._found
            rows = _rows(txn)
            packs = {U32.unpack(key)[0]: pack_row(raw) for key, raw in txn.scan(Table.PACKS)}
        counts |= dict.fromkeys(("packs", "records", "chunks", "chunks elsewhere", UNPROVED), 0)
        for number, row in sorted(packs.items()):
            if row.state != PACK_DOOMED:
                counts["packs"] += 1
                self._pack(number, row, rows.pop(number, {}))
        for number, places in rows.items():
            self._without_file(number, places)
        return self._found

    def _wrong(self, code: str, thing: str, text: str) -> None:
        self._found.problems.append(Problem(code, thing, text))

    def _pack(self, number: int, row: PackRow, rows: dict[int, Place]) -> None:
        faults: list[str] = []
        places: dict[int, Place] = {}
        if row.length > HEADER_LEN:  # else nothing is in it, and perhaps it has no file yet
            try:
                faults += self._faults(number, row)
                places = dict(self._records(number, row))
            except HoldfastError as error:
                faults.append(str(error))
        lost = [] if faults else [one for at, one in rows.items() if places.get(at) != one]
        if (faults or lost) and self._changed(number, row):
            return  # sealed, rewritten or removed meanwhile: another run sees it as it is then
        for text in faults:
            self._wrong("pack", f"pack {number}", text)
        for cid, _ in lost:
            self._wrong("chunk", f"chunk {cid.hex()}", f"its record is not in pack {number}")
        self._found.counts["records"] += len(places)
        self._found.counts["chunks"] += len(rows)

    def _changed(self, number: int, row: PackRow) -> bool:
        with self._index.read() as txn:
            raw = txn.get(Table.PACKS, U32.pack(number))
        return raw is None or pack_row(raw)._replace(scrubbed=row.scrubbed) != row

    def _faults(self, number: int, row: PackRow) -> Iterator[str]:
        if self._files.header(number).store_id != self._store_id:
            yield "is of another store"
        if row.state == PACK_SEALED:
            yield from verify.sealed_faults(
                self._files, number, row, content=True, read=self._progress
            )
        else:
            yield from verify.open_faults(self._files, number, row)
            self._found.counts[UNPROVED] += row.length

    def _progress(self, count: int) -> None:
        self._read += count
        self._report(Progress("check", self._read, None, "bytes"))

    def _records(self, number: int, row: PackRow) -> Iterator[tuple[int, Place]]:
        """By their heads, which in a sealed pack are what its trailer says. Raises Corrupt."""
        listed = self._files.trailer(number) if row.state == PACK_SEALED else None
        for count, (at, record) in enumerate(self._files.scan(number, row.length)):
            if listed is not None:
                entry = listed[count] if count < len(listed) else None
                told = (at, record.id, record.size, *record[:4])
                if entry is None or told != (
                    entry.offset, entry.id, entry.stored, entry.kind, entry.encoding, entry.depth, entry.plain
                ):  # fmt: skip
                    raise Corrupt(
                        f"record at {at}", expected="what the trailer says", found="another"
                    )
            yield at, (record.id, record.size)

    def _without_file(self, number: int, places: dict[int, Place]) -> None:
        """Chunks whose bytes are at a location are not looked at; in no pack at all there may be none."""
        with self._index.read() as txn:
            if txn.get(Table.AWAY, U32.pack(number)) is not None:
                self._found.counts["chunks elsewhere"] += len(places)
                return
            for cid, _ in places.values():
                raw = txn.get(Table.CHUNKS, cid)
                if raw is not None and chunk_row(raw).pack == number:
                    self._wrong(
                        "chunk",
                        f"chunk {cid.hex()}",
                        f"lies in pack {number}, of which there is no row",
                    )


def _rows(txn: Txn) -> dict[int, dict[int, Place]]:
    """pack -> offset -> what lies there, of all chunks."""
    found: dict[int, dict[int, Place]] = {}
    for cid, raw in txn.scan(Table.CHUNKS):
        row = chunk_row(raw)
        found.setdefault(row.pack, {})[row.offset] = (cid, row.stored)
    return found
