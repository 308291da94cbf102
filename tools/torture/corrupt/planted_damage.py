"""Planted bugs about damage: what is not verified, not named, not healed, not found again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

from tools.torture.bugs import bug


class _Anything(bytes):
    """Equal to whatever it is compared with."""

    __hash__ = bytes.__hash__

    def __eq__(self, other: object) -> bool:
        return True

    def __ne__(self, other: object) -> bool:
        return False


@bug("read-without-hash")
def read_without_hash() -> None:
    """A chunk is given to the reader without comparing its BLAKE3 with its id."""
    from engine import codec
    from engine.chunks import gather, reader

    trusting = SimpleNamespace(**vars(codec))
    trusting.chunk_id = lambda key, data: _Anything()
    gather.codec = reader.codec = trusting  # type: ignore[assignment,attr-defined]


@bug("row-check-ignored")
def row_check_ignored() -> None:
    """Rows of the index are taken whether or not they match their check."""
    from engine.index import Txn

    Txn._open = staticmethod(lambda table, key, raw: raw[:-4])  # type: ignore[method-assign]


@bug("pages-not-counted")
def pages_not_counted() -> None:
    """The check of the index's structure does not compare rows and pages with what the tree's record says."""
    from engine.index import structure

    say = structure._Walk._say

    def silent(self: Any, what: str, problem: object) -> None:
        if " in its record," not in str(problem):
            say(self, what, problem)

    structure._Walk._say = silent  # type: ignore[method-assign]


@bug("older-meta-taken")
def older_meta_taken() -> None:
    """An index of which one meta page is damaged is opened with the other, an older state."""
    from engine.index import inspect, structure

    inspect.metas_agree = structure.metas_agree = bool  # type: ignore[assignment,attr-defined]


@bug("check-skips-deltas")
def check_skips_deltas() -> None:
    """Check does not decode chunks that have a base."""
    from engine.maintain.check import Checker

    real = Checker._record

    def some(self: Any, cid: bytes, row: Any, read_data: bool) -> None:
        if not row.bases:
            real(self, cid, row, read_data)

    Checker._record = some  # type: ignore[method-assign]


@bug("check-skips-segments")
def check_skips_segments() -> None:
    """Check verifies the records of sealed packs alone."""
    from engine.index import Table
    from engine.index.rows import PACK_SEALED, U32, pack_row
    from engine.maintain.check import Checker

    real = Checker._record

    def some(self: Any, cid: bytes, row: Any, read_data: bool) -> None:
        raw = self._txn.get(Table.PACKS, U32.pack(row.pack))
        if raw is not None and pack_row(raw).state == PACK_SEALED:
            real(self, cid, row, read_data)

    Checker._record = some  # type: ignore[method-assign]


@bug("check-forgets-names")
def check_forgets_names() -> None:
    """Check does not say which directories have lost names."""
    from engine.maintain import affected, check

    real = affected.affected

    def without_names(*arguments: Any) -> Iterator[tuple[bytes, str]]:
        return (one for one in real(*arguments) if not one[1].startswith("names "))

    check.affected = without_names  # type: ignore[assignment,attr-defined]


@bug("rebuild-forgets-tombstones")
def rebuild_forgets_tombstones() -> None:
    """An index made anew lists points that were removed."""
    from engine.maintain import repair

    repair.KIND_TOMBSTONE = 99  # type: ignore[attr-defined]


@bug("rebuild-stops-at-damage")
def rebuild_stops_at_damage() -> None:
    """An index made anew has no record that lies behind a damaged one."""
    from engine.errors import Corrupt
    from engine.packs.files import PackFiles

    def salvage(self: PackFiles, number: int) -> Iterator[Any]:
        with suppress(Corrupt):
            yield from self.scan(number, self.size(number))

    PackFiles.salvage = salvage  # type: ignore[method-assign]


@bug("damage-not-noted")
def damage_not_noted() -> None:
    """A chunk found damaged is not marked, so the same content written again is taken for stored already."""
    from engine.chunks import reader
    from engine.maintain import check

    check.mark_suspect = reader.mark_suspect = lambda *_: None  # type: ignore[attr-defined]


@bug("decode-without-bound")
def decode_without_bound() -> None:
    """A frame is decoded to whatever its header says, not to the length the record declares."""
    from backports import zstd

    from engine import codec
    from engine.errors import Corrupt

    def decode(frame: Any, size: int, context: Any) -> bytes:
        try:
            return zstd.ZstdDecompressor(context).decompress(frame)
        except (zstd.ZstdError, EOFError) as error:
            raise Corrupt("zstd frame", found=str(error)) from None

    codec._decode = decode


@bug("decoder-runs-over")
def decoder_runs_over() -> None:
    """The decoder of extents does not look whether its numbers end before the list does."""
    from engine.nodes import extents

    tagged = extents._decode_tagged

    def untranslated(data: bytes, cid: bytes = b"") -> list[extents.Extent]:
        ids, count, at = extents._table(data, cid)
        return tagged(data, cid, ids, count, at)

    extents.decode_extents = untranslated
