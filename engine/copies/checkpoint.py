"""Checkpoints of a journal: an entry that says all that holds, and removal of entries that are of no use after it.

Two checkpoints stay with all that came after the first of them, so that one that is damaged costs nothing; and every
``begin`` entry stays, so that a writer who was replaced long ago finds the one that replaced him where he would append.

Where the newest one is damaged or missing, its writer does as readers do and goes on from the one before: what that one
said is what the entries before it add up to, and those behind it are bound to the last one, which he knows.
"""

from __future__ import annotations

from engine import limits
from engine.copies import journal, outbox
from engine.copies.chain import Chain
from engine.copies.link import Link
from engine.copies.rows import NAMED, LocationRow, away_row
from engine.errors import Corrupt, InvalidRequest, NotFound, PermissionDenied
from engine.index import Table
from engine.progress import Progress, Report

_UNREAD = (Corrupt, NotFound, PermissionDenied)  # the last: its epoch is one that the ring has not


def due(link: Link) -> bool:
    """Whether enough entries were written since the last one, or that one cannot be read."""
    row: LocationRow = link.row
    if row.seq - (row.checkpoints[-1] if row.checkpoints else 0) >= limits.CHECKPOINT_EVERY:
        return True
    return bool(row.checkpoints) and not isinstance(
        _body(link, row.checkpoints[-1]), journal.Checkpoint
    )


def write(link: Link, report: Report) -> int:
    """Write one, and remove what came before the one before it; how many entries. Whoever calls has the location alone.

    Raises Corrupt when the journal cannot be read up to the entry that is known to be the last.
    """
    chain, spoiled = _read(link, report)
    if spoiled:
        link.context.incidents.note("corrupt", f"journal of location {link.name}", _text(spoiled))
    try:
        for _ in range(2 if spoiled else 1):  # two that can be read
            link.append(chain.state.checkpoint())
    except InvalidRequest:  # more than an entry may hold: entries stay
        return 0
    return _prune(link, spoiled)


def fault(link: Link, report: Report) -> str:
    """What is wrong with the journal as far as this store knows it, "" when nothing is: read from the newest checkpoint
    on. Raises what the location raises."""
    try:
        spoiled = _read(link, report)[1]
    except Corrupt as error:
        return str(error)
    return _text(spoiled) if spoiled else ""


def _text(spoiled: int) -> str:
    return f"entry {spoiled}, a checkpoint, is damaged or missing; the next reclaiming writes another in its place"


def _body(link: Link, seq: int) -> journal.Body | None:
    """What an entry says; None for one that cannot be read."""
    try:
        return journal.decode(link.vault, seq, journal.fetch(link.location, seq)).body
    except _UNREAD:
        return None


def _read(link: Link, report: Report) -> tuple[Chain, int]:
    """All that the journal says, and the newest checkpoint if that could not be read. Raises Corrupt."""
    row = link.row
    numbers = [seq for seq in _listed(link) if seq <= row.seq]
    before, newest = [1, 1, *row.checkpoints][-2:]
    chain = _run(link, [seq for seq in numbers if seq >= newest], 0, report)
    if chain.digest.hex() == row.last:
        return chain, 0
    if row.checkpoints:
        again = _run(link, [seq for seq in numbers if seq >= before], newest, report)
        if again.seq == row.seq and again.digest.hex() in ("", row.last) and _complete(link, again):
            return again, newest
    raise Corrupt(
        f"{link.location.shown}: journal", expected=f"entries up to {row.seq}, as this store wrote them",
        found=f"that they can be read up to {chain.seq}", do="find out who wrote to the location",
    )  # fmt: skip


def _run(link: Link, numbers: list[int], without: int, report: Report) -> Chain:
    """What these add up to, but for checkpoint ``without``; from the first on from which it can be read to the end."""
    chain = Chain(link.vault)
    for done, seq in enumerate(sorted({*numbers, without} - {0})):
        report(Progress("read journal", done, len(numbers), "entries"))
        if seq == without and chain.seq == seq - 1:
            chain.pass_over(seq)
            continue
        try:
            chain.take(seq, journal.fetch(link.location, seq))
        except _UNREAD:
            chain = Chain(link.vault)  # behind what was removed it begins with a checkpoint
    return chain


def _complete(link: Link, chain: Chain) -> bool:
    """Whether it says all that this store knows to be named there."""
    with link.context.index.read() as txn:
        points = {point for point, row in outbox.of_location(txn, link.row.id) if row.entry}
        found = [away_row(raw) for _, raw in txn.scan(Table.AWAY)]
    packs = {row.name.hex() for row in found if row.location == link.row.id and row.state == NAMED}
    return points <= chain.state.points.keys() and packs <= chain.state.packs.keys()


def _listed(link: Link) -> list[int]:
    folder = journal.FOLDER
    found = (journal.seq_of(one.name.removeprefix(folder)) for one in link.location.list(folder))
    return [seq for seq in found if seq is not None]


def _prune(link: Link, spoiled: int) -> int:
    """Remove entries before the last but one checkpoint, but for who began to write. ``spoiled``: one of them that is
    known to be none of those, though it cannot be read."""
    if link.row.object_lock:
        return 0  # they are retained: removing them would only hide them
    kept = link.row.checkpoints[0] if len(link.row.checkpoints) > 1 else 0
    gone = [
        seq for seq in _listed(link) if seq < kept and (seq == spoiled or not _stays(link, seq))
    ]
    for at in range(0, len(gone), limits.LIST_PAGE):
        some = gone[at : at + limits.LIST_PAGE]
        link.location.remove([journal.path_of(seq) for seq in some])
    return len(gone)


def _stays(link: Link, seq: int) -> bool:
    body = _body(link, seq)
    return body is None or isinstance(body, journal.Begin)
