"""Tombstones: how long the record that a point was deleted has to be kept.

An index made again from packs must not bring a deleted point back, so its tombstone is needed as long as any pack or
segment holds the point's own record, dead or alive.  After that it is a record for ever of nothing: a store that makes
and deletes points every hour would gain one with each.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator

from engine import limits
from engine.errors import HoldfastError
from engine.home import OpenStore
from engine.index.rows import KIND_DATA, KIND_POINT, ChunkRow
from engine.maintain import settle
from engine.nodes.point import decode_point, decode_tombstone

log = logging.getLogger("holdfast.engine.maintain")


def outlived(store: OpenStore, tombs: list[bytes]) -> list[bytes]:
    """Those tombstones (chunk ids) whose point no pack tells of; none when they are few, or a pack is damaged."""
    if len(tombs) <= limits.TOMBSTONES_KEPT:
        return []
    try:
        told = {decode_point(store.reader.load_at(*place).data).id for place in _records(store)}
        return [cid for cid in tombs if decode_tombstone(store.reader.read(cid)).id not in told]
    except HoldfastError as error:
        log.info("all tombstones are kept: %s", error)
        return []


def _records(store: OpenStore) -> Iterator[tuple[bytes, ChunkRow]]:
    """Every record of a point in any file, as if it had a row. Files are read as a rebuilding reads them: to their end,
    whatever the index says of them. Raises Corrupt when that cannot be done.
    """
    files, system = store.context.files, store.context.system
    for number, path in settle.pack_files(store.context):
        if files.header(number).kind == KIND_DATA:
            continue
        if path.endswith(".pack") or system.exists(files.pack_path(number)):
            for e in files.trailer(number):
                if e.kind == KIND_POINT:
                    yield e.id, ChunkRow(number, *e[1:7], 0, e.bases)
            continue
        for at, r in files.scan(number, files.size(number)):
            if r.kind == KIND_POINT:
                ids = tuple(base.id for base in r.bases)
                yield (
                    r.id,
                    ChunkRow(number, at, r.size, r.plain, r.kind, r.encoding, r.depth, 0, ids),
                )
