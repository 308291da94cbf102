"""Rows and files that disagree, mostly because a process died between two steps: brought together, nothing deleted.

| found                                           | because                         | done                  |
| a file in packs/, its row open, its owner dead  | died while sealing              | row mended            |
| a row of an empty segment, no file, owner dead  | died while creating it          | row deleted           |
| a file in segments/ or packs/ without a row     | the index is older or newer     | moved to quarantine/  |
| a segment whose owner is dead                   | died while appending            | left: it is adopted   |
| a tree's memory of its last snapshot, and no   | the points were deleted         | rows deleted          |
| point of its mount                             |                                 |                       |
| a group's dictionary without a chunk            | the chunk was collected         | row deleted           |
| a suspect that has no row, or is whole again   | it was collected, or healed     | row deleted           |
| a lock file without a row                      | the index was rebuilt           | file removed          |
| a hook that leads to no pack                    | the pack was removed            | row deleted           |
| a segment shorter than its row, or gone, that   | the disk has lost it, and what  | row shortened, or     |
| no chunk needs as long as that                  | it held was stored again        | deleted               |
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Collection, Iterator
from itertools import islice

from engine import limits, registry
from engine.chunks import Context, alive
from engine.chunks.workers import lock_path
from engine.codec import ID_LEN
from engine.errors import HoldfastError, NotFound
from engine.index import Table, Txn
from engine.index.rows import (
    FLAG_SUSPECT,
    PACK_IDLE,
    PACK_OPEN,
    PACK_SEALED,
    U32,
    U64,
    PackRow,
    chunk_row,
    pack_row,
)
from engine.live import rows
from engine.nodes.point import decode_point
from engine.packs.records import HEADER_LEN

log = logging.getLogger("holdfast.engine.maintain")


def pack_files(context: Context) -> Iterator[tuple[int, str]]:
    """(number, path) of every file that has the name of a segment or a pack; sealed packs last."""
    system = context.system
    segments, packs = (os.path.join(context.root, name) for name in ("segments", "packs"))
    folders = [(segments, ".seg")]
    folders += [
        (os.path.join(packs, name), ".pack") for name in system.listdir(packs) if name.isdecimal()
    ]
    for folder, ending in folders:
        for name in system.listdir(folder):
            stem = name.removesuffix(ending)
            if stem != name and stem.isdecimal() and len(stem) >= 8:
                yield int(stem), os.path.join(folder, name)


def _open_and_left(context: Context) -> list[tuple[int, PackRow]]:
    """Rows of segments whose owner has died."""
    with context.index.read() as txn:
        rows = [(U32.unpack(key)[0], pack_row(raw)) for key, raw in txn.scan(Table.PACKS)]
    return [
        (number, row)
        for number, row in rows
        if row.state == PACK_IDLE
        or (row.state == PACK_OPEN and not (row.owner and alive(context, row.owner)))
    ]


def sealed_packs(context: Context) -> list[int]:
    """Mend rows that say open of packs that are sealed; returns their numbers."""
    mended = []
    for number, row in _open_and_left(context):
        path = context.files.pack_path(number)
        if not context.system.exists(path):
            continue
        context.files.forget(number)  # perhaps opened under its old name
        try:
            footer = context.files.footer(number)
            context.files.trailer(number)
        except HoldfastError as error:
            log.warning("pack %d is sealed and unusable: %s", number, error)
            continue
        context.system.fsync_dir(os.path.dirname(path))
        fresh = PackRow(PACK_SEALED, row.kind, 0, footer.offset, footer.entries, 0, footer.digest)
        with context.index.write() as txn:
            if txn.get(Table.PACKS, U32.pack(number)) == row.pack_bytes():
                txn.put(Table.PACKS, U32.pack(number), fresh.pack_bytes())
                mended.append(number)
    return mended


def empty_rows(context: Context) -> list[int]:
    """Delete rows of segments that were never made; returns their numbers."""
    gone = []
    for number, row in _open_and_left(context):
        paths = (context.files.segment_path(number), context.files.pack_path(number))
        if row.length > HEADER_LEN or any(context.system.exists(path) for path in paths):
            continue
        with context.index.write() as txn:
            if txn.get(Table.PACKS, U32.pack(number)) == row.pack_bytes():
                txn.delete(Table.PACKS, U32.pack(number))
                gone.append(number)
    return gone


def short_segments(context: Context) -> list[int]:
    """Have rows of segments say no more than is there, where nothing needs more; returns their numbers."""
    short = {}
    for number, row in _open_and_left(context):
        try:
            size = context.files.size(number)
        except NotFound:
            size = 0
        except HoldfastError:
            continue
        if size < row.length:
            short[number] = (row, size)
    if not short:
        return []
    needed = dict.fromkeys(short, 0)
    with context.index.read() as txn:
        for _, raw in txn.scan(Table.CHUNKS):
            chunk = chunk_row(raw)
            if chunk.pack in needed:
                needed[chunk.pack] = max(needed[chunk.pack], chunk.offset + chunk.stored)
    mended = []
    for number, (row, size) in short.items():
        if needed[number] > size:
            continue  # for ``check`` to speak of
        with context.index.write() as txn:
            if txn.get(Table.PACKS, U32.pack(number)) != row.pack_bytes():
                continue
            if needed[number]:
                shorter = row._replace(length=needed[number])
                txn.put(Table.PACKS, U32.pack(number), shorter.pack_bytes())
            else:
                txn.delete(Table.PACKS, U32.pack(number))  # a file without a row goes to quarantine
            mended.append(number)
    return mended


def quarantine(context: Context, number: int, path: str) -> None:
    """Take a file that has no row out of the way. A row comes before its file and goes after it, so it had none."""
    name = f"{os.path.basename(path)}-{context.system.random(6).hex()}"
    target = os.path.join(context.root, "quarantine", name)
    context.files.forget(number)
    try:
        context.system.rename(path, target)
    except FileNotFoundError:
        return  # sealed or removed since it was listed
    context.system.fsync_dir(os.path.dirname(target))
    context.system.fsync_dir(os.path.dirname(path))
    log.info("%s belongs to no pack of the index; it is in quarantine", path)


def pointless(txn: Txn, without: Collection[str] = ()) -> set[bytes]:
    """Mounts (as keys of live rows begin) that have no point, or none but those."""
    points = (decode_point(raw) for _, raw in txn.scan(Table.POINTS))
    kept = {point.mount for point in points if point.id not in without}
    return {rows.meta_key(mount.id) for mount in registry.every(txn) if mount.name not in kept}


def memories(context: Context) -> int:
    """Forget what trees of mounts without a point remember of their last snapshot; returns rows deleted.

    It would keep what the last of the points had, for a next snapshot that may never come. The root directory's row
    goes first: without it a snapshot believes none of the others.
    """

    def some(txn: Txn) -> list[bytes]:
        mounts = sorted(pointless(txn))
        every = (key for mount in mounts for key in txn.keys(Table.ROOTS, prefix=mount))
        return list(islice(every, limits.GC_SWEEP_ROWS))

    forgotten = 0
    while True:
        with context.index.read() as txn:
            if not some(txn):
                return forgotten
        with context.index.write() as txn:
            for key in some(txn):
                forgotten += txn.delete(Table.ROOTS, key)


def dictionaries(context: Context) -> int:
    """Delete DICTS rows of which no chunk has a row; returns how many."""

    def lost(txn: Txn, _: bytes, value: bytes) -> bool:
        ids = [value[at : at + ID_LEN] for at in range(0, len(value), ID_LEN)]
        return all(txn.get(Table.CHUNKS, cid) is None for cid in ids)

    return _prune(context, Table.DICTS, lost)


def suspects(context: Context) -> int:
    """Delete SUSPECTS rows of chunks that have no row, or were stored anew, and of packs that are gone; how many.

    A chunk without a row is stored by whoever writes it next, wanted or not.
    """

    def lost(txn: Txn, cid: bytes, _: bytes) -> bool:
        if len(cid) != ID_LEN:
            return txn.get(Table.PACKS, cid) is None
        raw = txn.get(Table.CHUNKS, cid)
        return raw is None or not chunk_row(raw).flags & FLAG_SUSPECT

    return _prune(context, Table.SUSPECTS, lost)


def lock_files(context: Context) -> int:
    """Remove lock files that have no row, as those from before an index was rebuilt; returns how many."""
    folder = os.path.join(context.root, "workers")
    gone = 0
    with context.index.write() as txn:  # no worker makes its file and its row meanwhile
        for name in context.system.listdir(folder):
            try:
                worker = int(name.removesuffix(".lock"), 16)
            except ValueError:
                continue
            if txn.get(Table.WORKERS, U64.pack(worker)) is None and not alive(context, worker):
                path = lock_path(context, worker)
                if context.system.exists(path):
                    context.system.unlink(path)
                    gone += 1
    return gone


def hooks(context: Context) -> int:
    """Delete HOOKS rows that lead to no pack; returns how many."""

    def lost(txn: Txn, _: bytes, value: bytes) -> bool:
        return txn.get(Table.PACKS, value) is None

    return _prune(context, Table.HOOKS, lost)


def _prune(context: Context, table: Table, lost: Callable[[Txn, bytes, bytes], bool]) -> int:
    """Delete rows (key, value) that ``lost`` finds to lead nowhere, judged again in the transaction that does it."""
    start, pruned = b"", 0
    while True:
        found: list[bytes] = []
        with context.index.read() as txn:
            for key, value in txn.scan(table, start=start):
                if lost(txn, key, value):
                    found.append(key)
                    if len(found) == limits.GC_SWEEP_ROWS:
                        break
        if not found:
            return pruned
        start = found[-1]
        with context.index.write() as txn:
            for key in found:
                held = txn.get(table, key)
                if held is not None and lost(txn, key, held):
                    txn.delete(table, key)
                    pruned += 1
        if len(found) < limits.GC_SWEEP_ROWS:
            return pruned
