"""Reading many chunks at once: one look-up transaction, neighbouring records in one read, bases decoded once.

For restores and long reads.  Only the chunks that were asked for are verified: bases that were wrong would give
content that does not hash to its name.  Whatever goes wrong for a chunk, it is left out here; the caller reads it by
itself then, which finds out what is damaged and says so.

Measured, a restore of 285 MB of database files on one thread: 0.85 s of processor time chunk by chunk, 0.55 s so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from engine import codec, limits
from engine.chunks.context import Context
from engine.errors import HoldfastError
from engine.index import Table
from engine.index.rows import ENC_DELTA, ENC_DICT, ENC_RAW, KIND_NODE, ChunkRow, chunk_row
from engine.packs.records import Record, decode_record_head


class Loaded(NamedTuple):
    """A chunk in memory. ``depth``: frames that had to be decoded beside its own."""

    data: bytes
    depth: int


Overlay = Callable[[bytes], ChunkRow | None]
Stored = dict[bytes, tuple[Record, memoryview]]
"""What there is of chunks: of each its record's head, decoded, and the whole record, without the store's seal."""


def gather(
    context: Context,
    cids: Iterable[bytes],
    known: Callable[[bytes], bytes | None],
    dictionary: Callable[[bytes], codec.Dictionary],
    overlay: Overlay | None,
    make_readable: Callable[[int, int], None] | None,
    here: Stored,
) -> dict[bytes, Loaded]:
    """Those of the chunks that are not in memory and could be read and verified.

    ``known(cid)``: the plaintext when it is in memory; ``dictionary(cid)``: a group's dictionary, digested; ``here``:
    records that need not be read.
    """
    plain: dict[bytes, bytes] = {}
    rows: dict[bytes, ChunkRow] = {}
    try:
        look_up(context, cids, known, overlay, plain, rows, here)
        if make_readable is not None:
            for row in rows.values():
                make_readable(row.pack, row.offset + row.stored)
        stored = {**here, **_fetch(context, rows)} if rows else here
    except HoldfastError:
        stored = here
    return {
        cid: Loaded(data, stored[cid][0].depth)
        for cid, data in _verified(context, cids, stored, plain, dictionary)
    }


def records(
    context: Context,
    cids: Iterable[bytes],
    dictionary: Callable[[bytes], codec.Dictionary],
    overlay: Overlay | None,
    make_readable: Callable[[int, int], None] | None,
) -> Stored:
    """As ``gather``, but records without the store's seal, of chunks whose content was found to be right in them.

    Of the contents only those stay in memory that others here are deltas of: the next is decoded into memory that is
    there already. With all of them kept, fresh pages cost as much again as decoding and hashing.
    """
    rows: dict[bytes, ChunkRow] = {}
    try:
        look_up(context, cids, lambda cid: None, overlay, {}, rows, {})
        if make_readable is not None:
            for row in rows.values():
                make_readable(row.pack, row.offset + row.stored)
        stored = _fetch(context, rows)
    except HoldfastError:
        return {}
    bases = {
        base.id
        for record, _ in stored.values()
        if record.encoding == ENC_DELTA
        for base in record.bases
    }
    plain: dict[bytes, bytes] = {}
    found: Stored = {}
    for cid, _ in _verified(context, cids, stored, plain, dictionary):
        found[cid] = stored[cid]
        if cid not in bases:
            del plain[cid]
    return found


def ahead(
    context: Context,
    cids: Iterable[bytes],
    known: Callable[[bytes], bytes | None],
    overlay: Overlay | None,
) -> bool:
    """Have the records of chunks, and of what they are deltas of, be near that are elsewhere; whether any is.

    Raises what a location raises.
    """
    rows: dict[bytes, ChunkRow] = {}
    look_up(context, cids, known, overlay, {}, rows, {})
    places: dict[int, list[tuple[int, int]]] = {}
    for row in rows.values():
        places.setdefault(row.pack, []).append((row.offset, row.stored))
    far = [context.files.ahead(pack, sorted(here)) for pack, here in places.items()]
    return any(far)


def _verified(
    context: Context,
    cids: Iterable[bytes],
    stored: Stored,
    plain: dict[bytes, bytes],
    dictionary: Callable[[bytes], codec.Dictionary],
) -> Iterator[tuple[bytes, bytes]]:
    """(chunk, its content) of those whose content is right."""
    for cid in cids:
        if cid not in stored:
            continue
        try:
            data = plain[cid] if cid in plain else _decode(cid, stored, plain, dictionary, 0)
        except (HoldfastError, KeyError):
            continue
        if codec.chunk_id(context.key, data) == cid:
            yield cid, data
        del data  # its memory is the next one's


def unpacked(context: Context, parts: Iterable[memoryview]) -> Stored:
    """Whole records that were read already; what is none is left out."""
    found: Stored = {}
    for one in parts:
        try:
            record = decode_record_head(one)
            if record.size != len(one):
                continue
            if record.sealed:
                record, bare = context.bare(record, one)
                one = memoryview(bare)
        except HoldfastError:
            continue  # who reads the chunk by itself says what is wrong
        found[record.id] = (record, one)
    return found


def look_up(
    context: Context,
    cids: Iterable[bytes],
    known: Callable[[bytes], bytes | None],
    overlay: Overlay | None,
    plain: dict[bytes, bytes],
    rows: dict[bytes, ChunkRow],
    here: Stored,
    *,
    dictionaries: bool = False,
) -> None:
    """Rows of the chunks and, level by level, of what they are deltas of; of what is ``here`` none is looked for.

    ``dictionaries``: and of those; else whoever has them in memory is asked.
    """
    todo = list(dict.fromkeys(cids))
    with context.index.read() as txn:
        for _ in range(limits.DELTA_DEPTH_MAX + 1):
            bases: list[bytes] = []
            for cid in todo:
                if cid in rows or cid in plain:
                    continue
                data = known(cid)
                if data is not None:
                    plain[cid] = data
                    continue
                if cid in here:
                    record = here[cid][0]
                    if record.encoding != ENC_DICT:
                        bases += [base.id for base in record.bases]
                    continue
                row = overlay(cid) if overlay is not None else None
                if row is None:
                    raw = txn.get(Table.CHUNKS, cid)
                    if raw is None:
                        continue
                    row = chunk_row(raw)
                rows[cid] = row
                if dictionaries or row.encoding != ENC_DICT:
                    bases += row.bases
            todo = bases


def _fetch(context: Context, rows: dict[bytes, ChunkRow]) -> Stored:
    """Records, read in runs of neighbours."""
    stored: Stored = {}
    places: dict[int, list[tuple[int, int, bytes]]] = {}
    for cid, row in rows.items():
        places.setdefault(row.pack, []).append((row.offset, row.stored, cid))
    for pack, here in places.items():
        here.sort()
        found = context.files.ranges(pack, [(offset, size) for offset, size, _ in here])
        for (_, size, cid), raw in zip(here, found, strict=True):
            one = memoryview(raw)
            record = decode_record_head(one)
            if record.id == cid and record.size == size:
                if record.sealed:
                    record, bare = context.bare(record, one)
                    one = memoryview(bare)
                stored[cid] = (record, one)
    return stored


def _decode(
    cid: bytes,
    stored: Stored,
    plain: dict[bytes, bytes],
    dictionary: Callable[[bytes], codec.Dictionary],
    level: int,
) -> bytes:
    """Decode with its bases; what is decoded is kept in ``plain``. Raises KeyError for what is not there."""
    record, whole_record = stored[cid]
    payload = whole_record[record.head :]
    if record.kind == KIND_NODE or level > limits.DELTA_DEPTH_MAX:
        raise KeyError(cid)
    if record.encoding == ENC_RAW:
        data = bytes(payload)
    elif record.encoding == ENC_DICT:
        data = dictionary(record.bases[0].id).decompress(payload, record.plain)
    else:
        parts: list[codec.Bytes] = []
        for base in record.bases:
            whole = plain[base.id] if base.id in plain else _decode(
                base.id, stored, plain, dictionary, level + 1
            )  # fmt: skip
            if base.offset + base.length > len(whole):
                raise KeyError(cid)
            entire = base.length == len(whole)
            parts.append(whole if entire else memoryview(whole)[base.offset :][: base.length])
        data = codec.decompress(payload, record.plain, codec.join(parts) if parts else None)
    plain[cid] = data
    return data
