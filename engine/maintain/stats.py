"""Sizes and counts of a store, or of one mount."""

from __future__ import annotations

import os

from engine import registry
from engine.chunks import Context
from engine.index import Table
from engine.index.rows import ENC_DELTA, ENC_DICT, KIND_DATA, chunk_row
from engine.live import rows
from engine.maintain import scrub
from engine.points import snapshot


def stats(context: Context, name: str | None = None) -> dict[str, int | float]:
    """``logical_bytes``: what the points hold, together (of one mount, or all); ``stored_bytes``: everything in the
    store's directory, index included; ``ratio``: one by the other.  Chunk counts are the store's, whatever ``name``.
    ``index_bytes``: of the index's file; of these ``index_used_bytes`` hold rows, the rest is free for more.
    ``scrubbed_bytes``: verified in the scrub's cycle at hand; ``last_scrub_ns``: when one was complete, 0 for never.
    """
    with context.index.read() as txn:
        mount = None if name is None else registry.find(txn, name)
        points = [p for p in snapshot.every(txn) if name is None or p.mount == name]
        counts = {
            "chunks": 0,
            "delta_chunks": 0,
            "dictionary_chunks": 0,
            "plain_bytes": 0,
            "chunk_bytes": 0,
        }
        for _, raw in txn.scan(Table.CHUNKS):
            row = chunk_row(raw)
            if row.kind == KIND_DATA:
                counts["chunks"] += 1
                counts["delta_chunks"] += row.encoding == ENC_DELTA
                counts["dictionary_chunks"] += row.encoding == ENC_DICT
                counts["plain_bytes"] += row.plain
            counts["chunk_bytes"] += row.stored
        packs = txn.count(Table.PACKS)
        scrubbed = scrub.progress_of(txn)
        used = context.index.used(txn)
        live = [m.id for m in registry.every(txn) if mount is None or m.id == mount.id]
        metas = [txn.get(Table.LIVE_META, rows.meta_key(number)) for number in live]
    stored = _tree_bytes(context.root)
    logical = sum(point.logical_bytes for point in points)
    return {
        "logical_bytes": logical,
        "live_bytes": sum(rows.decode_meta(meta).used_bytes for meta in metas if meta is not None),
        "stored_bytes": stored,
        "ratio": logical / stored if stored else 0.0,
        "points": len(points),
        **counts,
        "packs": packs,
        "index_bytes": context.index.size(),
        "index_used_bytes": used,
        **scrubbed,
    }


def _tree_bytes(root: str) -> int:
    """Lengths of all files below a directory."""
    total = 0
    for folder, _, names in os.walk(root):
        for name in names:
            try:
                total += os.lstat(os.path.join(folder, name)).st_size
            except FileNotFoundError:
                continue
    return total
