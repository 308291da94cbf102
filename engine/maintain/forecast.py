"""What deleting points, and the collection after it, would free: the same marking, nothing changed.

On a store that nobody writes to meanwhile the next collection frees exactly this.  One marking pass serves both
questions: first without the points, which gives what dies; then from them, and what is reached now dies because of
them, while the rest waits for a collection already.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from engine.home import OpenStore
from engine.index import Table, Txn
from engine.index.rows import PACK_DOOMED, PACK_SEALED, U32, chunk_row, pack_row
from engine.maintain import compact, settle, tombs
from engine.maintain.mark import Marker
from engine.maintain.marks import Marks
from engine.points import snapshot
from engine.progress import Progress, Report

log = logging.getLogger("holdfast.engine.maintain")


@dataclass
class Forecast:
    """``points``: ids, in the order given.

    ``chunks``, ``freed_bytes``: chunks that only these points need, and the bytes of their records.
    ``waiting_chunks``, ``waiting_bytes``: those that nothing needs even now.
    ``returned_bytes``: what the next collection gives back to the file system, of both together: of packs it removes
    (``packs_removed``), less what it writes anew of them (``packs_rewritten``). The rest stays in packs that are
    mostly alive, and in segments, until more of them is dead.
    """

    points: list[str] = field(default_factory=list)
    chunks: int = 0
    freed_bytes: int = 0
    waiting_chunks: int = 0
    waiting_bytes: int = 0
    returned_bytes: int = 0
    packs_removed: int = 0
    packs_rewritten: int = 0


def forecast(store: OpenStore, references: Iterable[str], *, report: Report) -> Forecast:
    """Raises NotFound; Corrupt when a node is unreadable."""
    with store.context.index.read() as txn:
        names = [point.id for point in snapshot.find_all(txn, references)]
        result = Forecast(names)

        def step(done: int) -> None:
            report(Progress("mark", done, None, "references"))

        lost: list[bytes] = []
        marker = Marker(Marks(txn), store.reader, store.context.key, lost.append)
        marks = marker.marks
        marker.run(step, without=names, forgotten=settle.pointless(txn, names))
        marks.let_go(tombs.outlived(store, marks.tombs))
        dead_chunks, dead_bytes = _packs(store, txn, marks, result)
        marker.points(step, names)
        marker.memories(step, settle.pointless(txn))
        for at in marks.dead():
            found = marks.row(txn, at)
            assert found is not None
            result.waiting_chunks += 1
            result.waiting_bytes += found[1].stored
        result.chunks = dead_chunks - result.waiting_chunks
        result.freed_bytes = dead_bytes - result.waiting_bytes
    if lost:
        log.warning("%d chunks that are needed have no row; run 'holdfast check'", len(lost))
    return result


def _packs(store: OpenStore, txn: Txn, marks: Marks, result: Forecast) -> tuple[int, int]:
    """Judge packs as the compaction would; returns (chunks, record bytes) that are dead."""
    live: Counter[int] = Counter()
    chunks = freed = 0
    for at, (_, raw) in enumerate(txn.scan(Table.CHUNKS)):
        row = chunk_row(raw)
        if marks.alive(at):
            live[row.pack] += row.stored
        else:
            chunks += 1
            freed += row.stored
    for key, raw in txn.scan(Table.PACKS):
        number, pack = U32.unpack(key)[0], pack_row(raw)
        if pack.state not in (PACK_SEALED, PACK_DOOMED) or not compact.worth(pack, live[number]):
            continue
        gain = compact.gain(store.context, number, pack, live[number], marks.lives)
        if gain is not None:
            result.packs_removed += 1
            result.packs_rewritten += bool(live[number])
            result.returned_bytes += gain
    return chunks, freed
