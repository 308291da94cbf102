"""Checkpoints of a journal: an entry that says all that holds, and removal of entries that are of no use after it.

Two checkpoints stay with all that came after the first of them, so that one that is damaged costs nothing; and every
``begin`` entry stays, so that a writer who was replaced long ago finds the one that replaced him where he would append.
"""

from __future__ import annotations

from engine import limits
from engine.copies import journal
from engine.copies.chain import Chain
from engine.copies.link import Link
from engine.copies.rows import LocationRow
from engine.errors import Corrupt, InvalidRequest, NotFound
from engine.progress import Progress, Report


def due(link: Link) -> bool:
    """Whether enough entries were written since the last one."""
    row: LocationRow = link.row
    return row.seq - (row.checkpoints[-1] if row.checkpoints else 0) >= limits.CHECKPOINT_EVERY


def write(link: Link, report: Report) -> int:
    """Write one, and remove what came before the one before it; how many entries. Whoever calls has the location alone.

    Raises Corrupt when the journal cannot be read up to the entry that is known to be the last.
    """
    chain = _read(link, report)
    if chain.digest.hex() != link.row.last:
        raise Corrupt(
            f"{link.location.shown}: journal", expected=f"entries up to {link.row.seq}, as this store wrote them",
            found=f"that they can be read up to {chain.seq}", do="find out who wrote to the location",
        )  # fmt: skip
    body = chain.state.checkpoint()
    try:
        link.append(body)
    except InvalidRequest:  # more than an entry may hold: entries stay
        return 0
    return _prune(link)


def _read(link: Link, report: Report) -> Chain:
    """All that the journal says, from a checkpoint on that is known, or the first from which it can be read."""
    row = link.row
    first = row.checkpoints[-1] if row.checkpoints else 1
    numbers = [seq for seq in _listed(link) if first <= seq <= row.seq]
    chain = Chain(link.vault)
    for done, seq in enumerate(numbers):
        report(Progress("read journal", done, len(numbers), "entries"))
        try:
            chain.take(seq, journal.fetch(link.location, seq))
        except Corrupt:
            chain = Chain(link.vault)  # behind what was removed it begins with a checkpoint
    return chain


def _listed(link: Link) -> list[int]:
    folder = journal.FOLDER
    found = (journal.seq_of(one.name.removeprefix(folder)) for one in link.location.list(folder))
    return [seq for seq in found if seq is not None]


def _prune(link: Link) -> int:
    """Remove entries before the last but one checkpoint, but for who began to write."""
    if link.row.object_lock:
        return 0  # they are retained: removing them would only hide them
    kept = link.row.checkpoints[0] if len(link.row.checkpoints) > 1 else 0
    gone = [seq for seq in _listed(link) if seq < kept and not _stays(link, seq)]
    for at in range(0, len(gone), limits.LIST_PAGE):
        some = gone[at : at + limits.LIST_PAGE]
        link.location.remove([journal.path_of(seq) for seq in some])
    return len(gone)


def _stays(link: Link, seq: int) -> bool:
    try:
        entry = journal.decode(link.vault, seq, journal.fetch(link.location, seq))
    except (Corrupt, NotFound):
        return True
    return isinstance(entry.body, journal.Begin)
