"""Packs at a location of which little is needed: what is needed is sealed anew, some packs together, and they are gone.

Records that lie here in the same form are taken from here; the others are fetched. Nothing is decoded. What a crash
leaves, and why nothing needed is ever missing: FORMAT-copies.md, "Reclaiming".
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from engine import limits
from engine.chunks.segments import next_pack
from engine.copies import rows
from engine.copies.link import Link, away_of, pack_of, put_just_now
from engine.copies.rows import GOING, NAMED, UNNAMED, AwayRow
from engine.copies.sealed import (
    PackBuilder,
    SealedPack,
    check_name,
    path_of,
    read_record,
    read_trailer,
)
from engine.errors import Corrupt, HoldfastError, NotFound
from engine.home import OpenStore
from engine.index import Table, Txn
from engine.index.rows import ChunkRow, chunk_row
from engine.keys import FRAME_OVERHEAD
from engine.maintain.needed import Found
from engine.packs.records import Entry, decode_record_head

log = logging.getLogger("holdfast.engine.maintain")

_Place = tuple[int, int]  # number of a pack, offset


def worth(pack: AwayRow, live: int) -> bool:
    """Whether a pack is rewritten for what is needed of it (bytes, sealed)."""
    dead = pack.size - live
    return 0 < live <= pack.size * limits.RECLAIM_BELOW and dead >= limits.RECLAIM_LEAST


def groups(found: Found) -> list[list[int]]:
    """Packs that are rewritten together: of one kind, what is needed of them about fills a pack. Those that gain most
    for what they cost come first."""
    chosen = [
        number
        for number, row in found.packs.items()
        if row.state == NAMED and number not in found.locked and worth(row, found.live[number])
    ]
    chosen.sort(key=lambda number: found.live[number] / found.packs[number].size)
    made: list[list[int]] = []
    open_: dict[int, tuple[list[int], int]] = {}
    for number in chosen:
        kind, live = found.packs[number].kind, found.live[number]
        group, size = open_.get(kind, ([], 0))
        if not group or size + live > limits.SEALED_PACK:
            group, size = [], 0
            made.append(group)
        group.append(number)
        open_[kind] = group, size + live
    return made


@dataclass
class Rewritten:
    """What rewriting some packs came to. ``new``: bytes put; ``left``: packs that are left as they are."""

    packs: int = 0
    new: int = 0
    left: int = 0


class _Old(NamedTuple):
    """A pack that is rewritten: all that it holds, and what of it is needed."""

    number: int
    row: AwayRow
    entries: list[Entry]
    needed: list[Entry]


@dataclass
class _New:
    """A pack in the making, and where each of its records came from."""

    builder: PackBuilder
    origins: dict[bytes, _Place] = field(default_factory=dict)


class Rewriter:
    """Rewrites packs of one location. Whoever calls has it alone."""

    def __init__(self, store: OpenStore, link: Link) -> None:
        self._store = store
        self._index = store.context.index
        self._link = link

    def run(self, numbers: Sequence[int]) -> Rewritten:
        """Put anew what is needed of these packs, move its rows; the packs are *going* then. The entry is the caller's.

        A pack that cannot be read, or that something else needs, stays. Raises what the location raises.
        """
        result = Rewritten()
        old: list[_Old] = []
        new: _New | None = None
        for number in numbers:
            try:
                one = self._old(number)
                records = None if one is None else self._records(one)
            except (Corrupt, NotFound) as error:
                log.warning(
                    "location %s: pack %d is left as it is: %s", self._link.name, number, error
                )
                self._store.context.incidents.error(error, f"location {self._link.name}")
                one = records = None
            if one is None or records is None:
                result.left += 1
                continue
            for entry in one.needed:
                if new is not None and not new.builder.fits(entry):
                    result.new += self._put(new)
                    new = None
                if new is None:
                    new = _New(PackBuilder(self._link.newest_vault(), one.row.kind))
                raw = records[entry.id]
                head = decode_record_head(raw).head
                new.builder.add(memoryview(raw)[:head], memoryview(raw)[head:], entry)
                new.origins[entry.id] = number, entry.offset
            old.append(one)
        if new is not None:
            result.new += self._put(new)
        for one in old:
            result.packs += self._going(one)
        return result

    # --- reading ------------------------------------------------------------------------------------------

    def _old(self, number: int) -> _Old | None:
        """What a pack holds; None when it is not to be rewritten now."""
        with self._index.read() as txn:
            raw = txn.get(Table.AWAY, rows.away_key(number))
            row = None if raw is None else rows.away_row(raw)
        if row is None or row.state != NAMED:
            return None
        pack = pack_of(row)
        frame = self._link.location.read(path_of(pack.name), row.trailer, row.trailer_len)
        entries = read_trailer(pack.seal(self._link.vault), row.trailer, frame)
        needed = []
        with self._index.read() as txn:
            for entry in entries:
                if self._copied(txn, entry.id) == (number, entry.offset):
                    needed.append(entry)
                elif (chunk := self._chunk(txn, entry.id)) is not None and chunk.pack == number:
                    return None  # named by a row here alone: the next collection frees it first
        live = sum(entry.stored + FRAME_OVERHEAD for entry in needed)
        return _Old(number, row, entries, needed) if worth(row, live) else None

    def _copied(self, txn: Txn, cid: bytes) -> _Place | None:
        raw = txn.get(Table.COPIES, rows.copy_key(self._link.row.id, cid))
        if raw is None:
            return None
        copy = rows.copy_row(raw)
        return copy.pack, copy.offset

    @staticmethod
    def _chunk(txn: Txn, cid: bytes) -> ChunkRow | None:
        raw = txn.get(Table.CHUNKS, cid)
        return None if raw is None else chunk_row(raw)

    def _records(self, old: _Old) -> Mapping[bytes, bytes | memoryview]:
        """The needed records of a pack: from here, where they are of the same form, else from there."""
        found: dict[bytes, bytes | memoryview] = {}
        with self._index.read() as txn:
            here = [entry for entry in old.needed if self._is_here(txn, entry)]
        for some in _some(here):
            try:
                got = self._store.reader.records([entry.id for entry in some])
            except HoldfastError as error:  # told by who reads; the copy is as good
                log.info("records are fetched that cannot be read here: %s", error)
                continue
            for entry in some:
                record, raw = got[entry.id]
                bases = tuple(dict.fromkeys(base.id for base in record.bases))
                same = (record.size, *record[:4], bases)
                if same == (
                    entry.stored,
                    entry.kind,
                    entry.encoding,
                    entry.depth,
                    entry.plain,
                    entry.bases,
                ):
                    found[entry.id] = raw
        away = [entry for entry in old.needed if entry.id not in found]
        pack = pack_of(old.row)
        seal = pack.seal(self._link.vault)
        parts = [(entry.offset, entry.stored + FRAME_OVERHEAD) for entry in away]
        frames = self._link.location.ranges(path_of(pack.name), parts) if parts else []
        for entry, frame in zip(away, frames, strict=True):
            found[entry.id] = read_record(seal, entry, frame)[1]
        return found

    def _is_here(self, txn: Txn, entry: Entry) -> bool:
        row = self._chunk(txn, entry.id)
        if row is None or not row.usable:
            return False
        bare = row.stored - self._store.context.added  # what travels has no seal of the store
        same = bare == entry.stored and rows.form_of(row) == rows.form_of(entry)
        return same and txn.get(Table.AWAY, rows.away_key(row.pack)) is None

    # --- writing ------------------------------------------------------------------------------------------

    def _put(self, new: _New) -> int:
        """Put a pack, read all of it back, give it a row, move the rows of what it holds; its bytes."""
        sealed = new.builder.finish()
        location, path = self._link.location, path_of(sealed.row.name)
        location.put(path, sealed.data)
        with put_just_now(f"{location.shown}: {path}"):
            read = location.read(path, 0, sealed.row.size)
            check_name(sealed.row.name, read)  # what it replaces will go
        with self._index.write() as txn:
            number = next_pack(txn)
            row = away_of(sealed.row, self._link.row.id, UNNAMED)
            txn.put(Table.AWAY, rows.away_key(number), row.pack_bytes())
        self._move(sealed, number, new.origins)
        return sealed.row.size

    def _move(self, sealed: SealedPack, number: int, origins: Mapping[bytes, _Place]) -> None:
        """Rows that still name the old places."""
        for at in range(0, len(sealed.entries), limits.GC_SWEEP_ROWS):
            with self._index.write() as txn:
                for entry in sealed.entries[at : at + limits.GC_SWEEP_ROWS]:
                    origin = origins[entry.id]
                    key = rows.copy_key(self._link.row.id, entry.id)
                    raw = txn.get(Table.COPIES, key)
                    if raw is not None:
                        copy = rows.copy_row(raw)
                        if (copy.pack, copy.offset) == origin:
                            copy = copy._replace(pack=number, offset=entry.offset)
                            txn.put(Table.COPIES, key, copy.pack_bytes())
                    chunk = self._chunk(txn, entry.id)
                    if chunk is not None and (chunk.pack, chunk.offset) == origin:
                        chunk = chunk._replace(pack=number, offset=entry.offset)
                        txn.put(Table.CHUNKS, entry.id, chunk.pack_bytes())

    def _going(self, old: _Old) -> bool:
        """An old pack is about to be removed; False when something still names it: then it stays."""
        with self._index.read() as txn:
            for entry in old.entries:
                copied, chunk = self._copied(txn, entry.id), self._chunk(txn, entry.id)
                if (copied is not None and copied[0] == old.number) or (
                    chunk is not None and chunk.pack == old.number
                ):
                    log.warning("pack %d at %s is kept: chunk %s is still in it", old.number,
                                self._link.name, entry.id.hex())  # fmt: skip
                    return False
        with self._index.write() as txn:
            row = old.row._replace(state=GOING)
            txn.put(Table.AWAY, rows.away_key(old.number), row.pack_bytes())
        return True


def _some(entries: Sequence[Entry]) -> Iterator[Sequence[Entry]]:
    step = limits.GATHER_CHUNKS
    return (entries[at : at + step] for at in range(0, len(entries), step))
