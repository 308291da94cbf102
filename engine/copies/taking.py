"""What a journal entry of this store says is done: the index follows, in one transaction.

An entry that is read, and not written just now, may be one of a time that this index does not know: a machine that was
put back from an image, or a second one that was made of it. Such an index is refused where it
does not know packs that an entry names; points that it has again are sent again.
"""

from __future__ import annotations

from dataclasses import replace

from engine import locks
from engine.chunks import Context
from engine.copies import journal, outbox, rows
from engine.copies.journal import Entry
from engine.copies.rows import GOING, NAMED, REMOVED, VERIFIED, LocationRow, OutboxRow
from engine.copies.sealed import PackRow
from engine.errors import Corrupt
from engine.index import Table, Txn


def take(
    context: Context, name: str, shown: str, entry: Entry, raw: bytes, *, found: bool
) -> LocationRow:
    """Take an entry (and its bytes) of the location ``name``, whose row it answers. Raises Corrupt, and nothing has
    changed, when this index is older than the entry and does not know its packs.

    ``found``: it was there, and is not relied on to say all that holds.
    """
    with context.index.write() as txn:
        row = outbox.location(txn, name)
        row = replace(row, seq=entry.seq, last=journal.digest(raw).hex())
        if isinstance(entry.body, journal.Checkpoint) and not found:
            row = replace(row, checkpoints=[*row.checkpoints[-1:], entry.seq])
        if isinstance(entry.body, journal.Place):
            row = replace(row, told=rows.told_of(entry.body.settings))
        outbox.save(txn, name, row)
        match entry.body:
            case journal.PointMade(point, packs):
                _name(txn, shown, row.id, packs)
                _verified(context, txn, row.id, point, entry.seq)
            case journal.PacksChanged(packs, gone):
                _name(txn, shown, row.id, packs, gone, entry.seq)
            case journal.Removed(names):
                now = context.system.time_ns()
                for point_id in names:
                    outbox.removed_there(txn, row.id, point_id, entry.time_ns, now)
            case journal.Locked(names, until_ns):
                here = [point_id for point_id in names if txn.get(Table.POINTS, point_id.encode())]
                locks.put(context, txn, dict.fromkeys(here, until_ns))
                for point_id in names:
                    known = outbox.get(txn, row.id, point_id)
                    if known is not None and known.locked_ns < until_ns:
                        outbox.put(txn, row.id, point_id, replace(known, locked_ns=until_ns))
    return row


def _name(
    txn: Txn, shown: str, place: int, packs: tuple[PackRow, ...], gone: tuple[str, ...] = (), seq: int = 0
) -> None:  # fmt: skip
    """States of packs, as an entry says them. A pack has a row before it is named, and is going before it is gone."""
    named = {bytes.fromhex(pack.name) for pack in packs}
    going = {bytes.fromhex(name) for name in gone}
    known = (
        [(key, rows.away_row(raw)) for key, raw in txn.scan(Table.AWAY)] if named | going else []
    )
    for key, row in known:
        if row.location != place:
            continue
        if row.name in going and row.state == GOING:
            txn.put(Table.AWAY, key, row._replace(said=seq).pack_bytes())
            going.remove(row.name)
        elif row.name in named and row.state != GOING:
            txn.put(Table.AWAY, key, row._replace(state=NAMED).pack_bytes())
            named.remove(row.name)
    if named | going:
        raise Corrupt(
            f"{shown}: journal", expected="packs that this store's index knows",
            found=f"{len(named | going)} that it does not",
            do="if this store was put back from an older copy, adopt the location anew",
        )  # fmt: skip


def _verified(context: Context, txn: Txn, place: int, point: journal.Point, seq: int) -> None:
    # One deleted since is there all the same, until an entry says so.
    state = REMOVED if txn.get(Table.POINTS, point.id.encode()) is None else VERIFIED
    row = outbox.get(txn, place, point.id) or OutboxRow()
    extras = [cid.hex() for cid in point.extras]
    now = context.system.time_ns()
    outbox.put(txn, place, point.id, row.now(state, now, entry=seq, extras=extras, reason=""))
