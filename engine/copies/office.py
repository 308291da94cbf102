"""What the facade offers of copies: locations of a store, how far each point is, and sending what is queued."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from engine import limits, registry
from engine.chunks import Context
from engine.copies import change as changing
from engine.copies import connect, listing, outbox, ownring, policy, rows
from engine.copies.connect import Wanted
from engine.copies.holding import Brought, Holding
from engine.copies.link import Link
from engine.copies.listing import LocationInfo
from engine.copies.rows import FAILED, QUEUED, UPLOADING, VERIFIED, LocationRow, OutboxRow
from engine.copies.turns import alone
from engine.copies.upload import Uploader, UploadReport
from engine.errors import Busy, HoldfastError, NotFound, ShuttingDown
from engine.home import OpenStore
from engine.index import Table
from engine.index.rows import U32, chunk_row
from engine.nodes.point import decode_point
from engine.progress import Report

log = logging.getLogger("holdfast.engine.copies")

Extras = Callable[[str], Sequence[bytes]]
"""What else is kept with a point, by its id; each at most a chunk."""
Settings = Callable[[str], Mapping[str, Any]]
"""Settings of a mount, by its name, for whoever adopts the location."""


def add(context: Context, name: str, wanted: Wanted) -> LocationInfo:
    """See ``connect.add``."""
    connect.add(context, name, wanted).location.close()
    return next(one for one in listing.locations(context) if one.name == name)


def change(context: Context, name: str, fields: Mapping[str, Any]) -> LocationInfo:
    """See ``change.change``."""
    changing.change(context, name, fields)
    return next(one for one in listing.locations(context) if one.name == name)


def retry(context: Context, location: str) -> int:
    """Queue again what failed, and go on where a location was paused by a failure; how many points."""
    with context.index.write() as txn:
        row = outbox.location(txn, location)
        # What an entry names already cannot be sent again: it was found not to be whole there.
        found = outbox.of_location(txn, row.id)
        failed = [one for one in found if one[1].state == FAILED and not one[1].entry]
        for point, one in failed:
            outbox.put(txn, row.id, point, one.now(QUEUED, context.system.time_ns(), tries=0))
    return len(failed)


def send(
    store: OpenStore, location: str, *, extras: Extras, settings: Settings, report: Report,
    stop: Callable[[], bool],
) -> list[UploadReport]:  # fmt: skip
    """Every point that is queued, failed half way or was cut off, oldest first.

    A failure that may pass leaves its point queued and ends the run, as the next would meet it too; any other is that
    point's. Raises Busy while another process sends there or another writer took over, and what may pass.
    """
    context = store.context
    done = []
    with _sending(context, location, stop) as link:
        link.tell_removed()
        holding = Holding(store, link, report=report, stop=stop)
        trouble = None
        for point, mount in _waiting(context, link.row):
            if stop():
                break
            found = _send_one(
                store,
                link,
                point,
                extras(point),
                _settings(context, mount, settings),
                report,
                stop,
            )
            if found is not None:
                done.append(found)
                trouble = _bring(holding) or trouble
        trouble = (_bring(holding) if not done else None) or trouble
        _tidy(context, link)
        if trouble is not None:
            raise trouble
    return done


def _bring(holding: Holding) -> HoldfastError | None:
    """Bring locks; what failed for good, which keeps no point from being sent. Raises what may pass."""
    try:
        holding.bring()
    except HoldfastError as error:
        if error.kind.retryable:
            raise
        return error
    return None


def bring_locks(store: OpenStore, location: str, *, report: Report) -> Brought:
    """Have a location know the locks of the points it has, now. Raises Busy while another process sends there, and
    what the location raises."""
    with _sending(store.context, location, _never) as link:
        return Holding(store, link, report=report, stop=_never).bring()


def _never() -> bool:
    return False


@contextmanager
def _sending(context: Context, location: str, stop: Callable[[], bool]) -> Iterator[Link]:
    """A location that this process alone sends to, as long as the block runs. Raises Busy."""
    link = connect.open_link(context, location)
    try:
        if link.row.paused:
            raise Busy(f"location {location!r}", expected="one that is sent to", found=link.row.paused,
                       do="see 'holdfast location list'")  # fmt: skip
        with link.alone(limits.ALONE_WAIT, stop):
            link.forget_older_rings()
            link.catch_up()
            policy.tell(link)
            yield link
    finally:
        link.close()


def _tidy(context: Context, link: Link) -> None:
    """Once in a while: what uploads left half done that were cut off. Where that cannot be, nothing is worse for it."""
    now = context.system.time_ns()
    with context.index.read() as txn:
        row = outbox.location(txn, link.name)
    if 0 <= now - row.tidied_ns < limits.LEFTOVER_AGE * 1e9:
        return
    try:
        removed = link.location.tidy(limits.LEFTOVER_AGE)
        log.debug("location %s: %d unfinished uploads removed", link.name, removed)
    except HoldfastError as error:
        log.info("location %s: no look for unfinished uploads: %s", link.name, error)
    with context.index.write() as txn:
        outbox.save(txn, link.name, replace(outbox.location(txn, link.name), tidied_ns=now))


def _settings(context: Context, mount: str, settings: Settings) -> dict[str, Any]:
    """A mount's settings as its caller has them, with those that the index has: a mount is made again with them."""
    with context.index.read() as txn:
        found = next((one for one in registry.every(txn) if one.name == mount), None)
    own = (
        {"quota": found.quota, "max_files": found.files, "chunking": found.chunking}
        if found
        else {}
    )
    return {**settings(mount), **own}


def _waiting(context: Context, place: LocationRow) -> list[tuple[str, str]]:
    """(point, mount) of what is to be sent, oldest first."""
    found = []
    with context.index.read() as txn:
        for point, row in outbox.of_location(txn, place.id):
            raw = txn.get(Table.POINTS, point.encode())
            if raw is not None and row.state in (QUEUED, UPLOADING):
                made = decode_point(raw)
                found.append((made.time_ns, point, made.mount))
    return [(point, mount) for _, point, mount in sorted(found)]


def _send_one(
    store: OpenStore, link: Link, point: str, extras: Sequence[bytes], settings: Mapping[str, Any],
    report: Report, stop: Callable[[], bool],
) -> UploadReport | None:  # fmt: skip
    before = _state(store.context, link, point, UPLOADING, "", tried=True)
    if before is None:
        return None  # deleted meanwhile
    try:
        made = Uploader(store, link, report=report, stop=stop).upload(point, extras, settings)
    except NotFound:
        if _state(store.context, link, point, QUEUED, "") is None:
            return None
        raise
    except HoldfastError as error:
        passing = error.kind.retryable or isinstance(error, ShuttingDown | Busy)
        state = _state(store.context, link, point, QUEUED if passing else FAILED, str(error))
        if passing:
            raise
        if state is None:
            return None  # deleted meanwhile, and collected
        store.context.incidents.error(error, f"copy of point {point} at {link.name}")
        return None
    _state(store.context, link, point, VERIFIED, "", sent=made.bytes, requests=made.requests)
    link.tally()
    return made


def _state(
    context: Context, link: Link, point: str, state: str, reason: str, *, sent: int = 0, requests: int = 0,
    tried: bool = False,
) -> OutboxRow | None:  # fmt: skip
    """Write down how far a copy is; None when the point is gone."""
    with context.index.write() as txn:
        row = outbox.get(txn, link.row.id, point)
        if row is None or txn.get(Table.POINTS, point.encode()) is None:
            return None
        row = row.now(
            state, context.system.time_ns(), reason=reason[: limits.INCIDENT_TEXT],
            tries=row.tries + tried, sent=row.sent + sent, requests=row.requests + requests,
        )  # fmt: skip
        outbox.put(txn, link.row.id, point, row)
        return row


def take_over(context: Context, name: str) -> None:
    """Be the only writer of a location that was adopted; see ``ownring.take_over``."""
    link = connect.open_link(context, name)
    try:
        with link.alone():
            ownring.take_over(link)
            policy.still_retains(link)
    finally:
        link.close()


def remove(context: Context, name: str) -> None:
    """Forget a location, in steps that may be cut off; what lies there stays. Raises NotFound, and Busy while bytes of
    points are there only, or while somebody sends there, reclaims or drops local bytes: it waits for its turn, as they
    do."""
    with context.index.read() as txn:
        row = outbox.location(txn, name)
    with alone(context, name, row, limits.ALONE_WAIT):
        _forget(context, name, row.id)


def _forget(context: Context, name: str, number: int) -> None:
    with context.index.write() as txn:
        row = outbox.location(txn, name)
        if row.id != number:
            raise Busy(
                f"location {name!r}", found="another of that name since", do="look, and try again"
            )
        mine = {key for key, raw in txn.scan(Table.AWAY) if rows.away_row(raw).location == row.id}
        if mine and any(U32.pack(chunk_row(raw).pack) in mine for _, raw in txn.scan(Table.CHUNKS)):
            raise Busy(
                f"location {name!r}", expected="nothing that is only there",
                found="bytes of points that were given up here", do="delete those points and collect first",
            )  # fmt: skip
        outbox.save(txn, name, replace(row, paused=rows.REMOVING))
    with context.index.read() as txn:
        copies = list(txn.keys(Table.COPIES, prefix=rows.copy_key(row.id, b"")))
        queued = list(txn.keys(Table.OUTBOX, prefix=rows.U16.pack(row.id)))
    for table, keys in ((Table.COPIES, copies), (Table.OUTBOX, queued), (Table.AWAY, sorted(mine))):
        for at in range(0, len(keys), limits.TXN_DELETES_MAX):
            with context.index.write() as txn:
                for key in keys[at : at + limits.TXN_DELETES_MAX]:
                    txn.delete(table, key)
    with context.index.write() as txn:
        txn.delete(Table.LOCATIONS, name.encode())
