"""Reading what is stored and judging it: one pack, one record. Check and scrub do it by the same rules."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator

from engine import codec, limits
from engine.chunks import Context
from engine.chunks.reader import mark_suspect, take_back
from engine.errors import Away, HoldfastError, NoKey
from engine.home import OpenStore
from engine.index import Table
from engine.index.rows import (
    FLAG_CONDEMNED,
    FLAG_SUSPECT,
    U32,
    ChunkRow,
    PackRow,
    chunk_row,
    pack_row,
)
from engine.packs.files import PackFiles

log = logging.getLogger("holdfast.engine.maintain")

_WINDOW = 1 * limits.MIB
_CONTENT = "its content does not match its digest"


def sealed_faults(
    files: PackFiles, number: int, row: PackRow, *, content: bool, read: Callable[[int], None]
) -> Iterator[str]:
    """What is wrong with a sealed pack as a whole. ``content``: read all of it; ``read`` hears of each part's bytes.

    Raises HoldfastError for what cannot be read at all.
    """
    files.header(number)
    footer = files.footer(number)
    files.trailer(number)
    said = (footer.digest, footer.offset, footer.entries)
    if said != (row.digest, row.length, row.records):
        yield "its footer says other than its row"
    if not content:
        return
    digest = codec.Digest()
    for at in range(0, footer.offset, _WINDOW):
        size = min(_WINDOW, footer.offset - at)
        digest.update(files.read(number, at, size))
        read(size)
    if digest.digest() != footer.digest:
        yield _CONTENT


def note(context: Context, number: int, fault: str) -> None:
    """Have the next collection write anew what is whole in a sealed pack whose content is not what it was."""
    if fault != _CONTENT:
        return
    try:
        with context.index.write() as txn:
            txn.put(Table.SUSPECTS, U32.pack(number), fault.encode())
    except HoldfastError as error:
        log.warning("pack %d could not be marked: %s", number, error)


def open_faults(files: PackFiles, number: int, row: PackRow) -> Iterator[str]:
    """What is wrong with a segment as a whole. Raises HoldfastError."""
    files.header(number)
    if files.size(number) < row.length:
        yield f"is shorter than its {row.length} committed bytes"


def unchanged(store: OpenStore, number: int, row: PackRow) -> bool:
    """Whether the pack is what it was: not sealed, appended to or removed meanwhile."""
    with store.context.index.read() as txn:
        raw = txn.get(Table.PACKS, U32.pack(number))
    return raw is not None and pack_row(raw)._replace(scrubbed=row.scrubbed) == row


def record_fault(store: OpenStore, cid: bytes, row: ChunkRow) -> str:
    """What is wrong with a chunk, read from where it lies; it is marked suspect then. Empty when nothing is, and such a
    mark is taken back.

    A collection may have moved the record or removed it since ``row`` was looked up: then that is judged. Raises Away
    when what it is a delta of lies at a location that does not answer (see ``asked_once``): it is not marked then.
    """
    while True:
        try:
            store.reader.load_at(cid, row)
            if row.flags & FLAG_SUSPECT:
                take_back(store.context, cid, row)
            return ""
        except Away:
            raise
        except NoKey as error:
            return str(error)  # there is no key for it: nothing says that it is damaged
        except HoldfastError as error:
            fault = str(error)
        now = moved(store, cid, row)
        if now is None:
            return ""  # collected meanwhile
        if now is row:
            break
        row = now
    suspect(store, cid, fault)
    return fault


def suspect(store: OpenStore, cid: bytes, fault: str) -> None:
    """Have the chunk be known to be damaged, so that what is written again is stored again."""
    try:
        mark_suspect(store.context, cid, fault)
    except HoldfastError as error:
        log.warning("chunk %s could not be marked: %s", cid.hex(), error)


def moved(store: OpenStore, cid: bytes, row: ChunkRow) -> ChunkRow | None:
    """``row`` itself when the chunk lies there still, where it lies now otherwise; None when it is gone, or going:
    condemned since, so that what it is a delta of may be gone before it.
    """
    with store.context.index.read() as txn:
        raw = txn.get(Table.CHUNKS, cid)
    if raw is None:
        return None
    now = chunk_row(raw)
    if now.flags & ~row.flags & FLAG_CONDEMNED:
        return None
    return row if (now.pack, now.offset) == (row.pack, row.offset) else now
