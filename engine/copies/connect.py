"""Making a storage location of this store, and opening it again.

The index knows first: writer and location get their ids there, so that whatever was cut off goes on with the same ones.
This machine has a key of its own in the ring (``locations/NAME.key``, 0600): services start without a passphrase.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from engine.chunks import Context
from engine.copies import journal, marker, outbox, policy
from engine.copies.link import Link
from engine.copies.rings import LocationRings, bounded, machine_key, new_machine_key, own_ring
from engine.copies.rows import KEEP, MAKING, LocationRow, OutboxRow
from engine.errors import (
    AlreadyExists,
    Corrupt,
    FormatTooNew,
    HoldfastError,
    InvalidRequest,
    NotFound,
    PermissionDenied,
    Unsupported,
)
from engine.index import Table, Txn
from engine.keys import COST, Keyring, Opener, Secret, Vault, bearing, make, unlock
from engine.keys.primitives import Cost
from engine.locations import (
    Bandwidth,
    Credentials,
    Features,
    Location,
    Retry,
    Throttle,
    open_location,
    parse_windows,
)
from engine.locations.url import parse
from engine.nodes.point import decode_point
from engine.seam import Os


@dataclass(frozen=True)
class Wanted:
    """What a new location is to be. ``secrets``: who may open it beside this machine, at least one; ``mounts``: whose
    points go there, none for all; ``verify``: part of the packs that is read back; ``local``: KEEP or DROP;
    ``bandwidth``, ``read_bandwidth``: bytes a second of what is sent and fetched, by the time of day; ``object_lock``:
    have the server retain what locked points need."""

    url: str
    secrets: Sequence[Secret] = field(repr=False, default=())
    credentials: str = "environment"
    sealed: bool = True
    mounts: Sequence[str] = ()
    verify: float = 0.02
    local: str = KEEP
    bandwidth: str = ""
    read_bandwidth: str = ""
    object_lock: bool = False


def add(context: Context, name: str, wanted: Wanted, *, cost: Cost = COST) -> Link:
    """A new location, or one whose making was cut off. Points there are of its mounts are queued.

    Raises AlreadyExists when it belongs to another store, Unsupported, InvalidRequest, and what the location raises.
    """
    if wanted.sealed and not wanted.secrets:
        raise InvalidRequest(
            f"location {name!r}", expected="a passphrase, a key or a recipient", found="none",
            do="without one its content dies with this machine",
        )  # fmt: skip
    if context.seal is not None and not wanted.sealed:
        raise InvalidRequest(
            f"location {name!r}", expected="a sealed one, as the store is", found="none",
            do="the key of the store's chunk ids would lie open there",
        )  # fmt: skip
    parse_windows(wanted.bandwidth), parse_windows(wanted.read_bandwidth)
    _refuse_own(context, wanted.url)
    location = opened(wanted.url, wanted.credentials, context.system)
    if not wanted.sealed and not location.shown.startswith("file:"):
        raise InvalidRequest(
            f"location {name!r}", expected="sealing of whatever leaves the machine", found="none"
        )
    features = location.features()
    if wanted.object_lock:
        refuse_without_lock(location, features)
    refuse_without_create(location, features)
    row = _row(context, name, wanted)
    number, vault = _keys(context, name, row, location, wanted, cost)
    link = Link(context, name, location, vault, number)
    with link.alone():
        link.catch_up()
        if not link.row.seq:
            link.append(journal.Begin(context.store_id, b""))
        policy.tell(link)
        _activate(context, name)
    return open_link(context, name)


def _refuse_own(context: Context, url: str) -> None:
    """Raises InvalidRequest for a directory that is lost with the store: in its own, or in what is mounted of one."""
    place = parse(url)
    if place.scheme != "file":
        return
    path, own = os.path.realpath(place.path), os.path.realpath(context.root)
    if os.path.commonpath((path, own)) == own:
        found = "one in the store's own directory"
    elif os.path.exists(path) and _is_mounted(os.stat(path).st_dev):
        found = "one on a mount of Holdfast, whose content would be what is kept of it"
    else:
        return
    raise InvalidRequest(place.shown, expected="a directory that outlives the store", found=found,
                         do="give one on another disk")  # fmt: skip


def _is_mounted(device: int) -> bool:
    """Whether it is a mount of Holdfast."""
    number = f"{os.major(device)}:{os.minor(device)}"
    with open("/proc/self/mountinfo", encoding="latin-1") as table:
        return any(f" {number} " in line and " - fuse.holdfast " in line for line in table)


def refuse_without_create(location: Location, features: Features) -> None:
    """Raises Unsupported where two writers could not be told apart."""
    if not features.create:
        raise Unsupported(
            location.shown, expected="a server that keeps conditional creates", found="one that does not",
            do="use another, as two writers could not be told apart there; or a bucket that keeps versions, with"
            " versions=1 in its URL",
        )  # fmt: skip


def refuse_without_lock(location: Location, features: Features) -> None:
    """Raises Unsupported where the server retains nothing."""
    if not features.lock:
        raise Unsupported(
            location.shown, expected="a bucket made with Object Lock", found="one without",
            do="make such a bucket, or leave out --object-lock",
        )  # fmt: skip


def open_link(
    context: Context, name: str, secret: Opener | None = None, *, reading: bool = False
) -> Link:
    """A location of this store. ``secret``: what opens its ring, by default this machine's key; ``reading``: nothing is
    to be sealed, so that the ring that was seen last will do where the newest is none."""
    with context.index.read() as txn:
        row = outbox.location(txn, name)
    location = opened(row.url, row.credentials, context.system, lambda: _bandwidth(context, row.id))
    found = look(location, row)
    if not row.sealed:
        return Link(context, name, location, Vault(found.location, context.key, None))
    if row.ring_here and secret is None:
        raw, key = own_ring(context, name), machine_key(context, name)
        return Link(context, name, location, unlock(raw, key, location=found.location))
    opener = secret or machine_key(context, name)
    rings = LocationRings(location)

    def unlocked(number: int, raw: bytes) -> Vault:
        vault = unlock(raw, opener, location=found.location, least=row.ring, system=context.system)
        return bearing(vault, row.ring_mark, f"key ring {number} of {location.shown}")

    try:
        number, raw = rings.newest()
        vault = unlocked(number, raw)
        seen_ring(context, name, number, vault)
    except (Corrupt, FormatTooNew, PermissionDenied) as error:
        if not reading or not row.ring:
            raise
        number = row.ring
        try:
            vault = unlocked(number, rings.numbered(number))
        except HoldfastError:
            raise error from None
    return Link(context, name, location, vault, number, opener)


def look(location: Location, row: LocationRow) -> marker.Marker:
    """See that this is the location of the row. Raises Corrupt, NotFound."""
    found = read_marker(location)
    if found.location.hex() != row.location or found.sealed != row.sealed:
        raise Corrupt(
            location.shown, expected=f"location {row.location}", found=found.location.hex(),
            do="look whether the URL still leads to the same place",
        )  # fmt: skip
    return found


def seen_ring(context: Context, name: str, number: int, vault: Vault) -> None:
    """No key ring of the location with a lower number, or without these keys, is taken from now on."""
    with context.index.read() as txn:
        row = outbox.location(txn, name)
        if row.ring > number or (row.ring, row.ring_mark) == (number, vault.mark):
            return
    with context.index.write() as txn:
        row = outbox.location(txn, name)
        if row.ring <= number:
            outbox.save(txn, name, replace(row, ring=number, ring_mark=vault.mark))


def opened(
    url: str, credentials: str, system: Os, bandwidth: Callable[[], Bandwidth] = Bandwidth
) -> Location:
    """The location of a URL, with its limits, retries, and a count of requests.

    Each try is paid for and counted; the wait for a turn is no part of the time that a location may be gone. Raises
    InvalidRequest, NotFound, PermissionDenied for credentials.
    """
    given = None if url.startswith("file:") else Credentials.load(credentials)
    counted = Throttle(open_location(url, given, system=system), bandwidth)
    return Retry(counted, clock=counted.working)


def _bandwidth(context: Context, number: int) -> Bandwidth:
    """The limits of a location as they are now; none of one that is forgotten."""
    with context.index.read() as txn:
        for row in outbox.locations(txn).values():
            if row.id == number:
                return Bandwidth(parse_windows(row.bandwidth), parse_windows(row.read_bandwidth))
    return Bandwidth()


def read_marker(location: Location) -> marker.Marker:
    """What the location says it is. Raises NotFound, Corrupt, FormatTooNew."""
    try:
        return marker.decode(bounded(location, marker.NAME, marker.MAX))
    except NotFound:
        raise NotFound(
            location.shown, expected=f"a location of a store, with {marker.NAME}", found="none",
            do="give the right URL, or add it anew",
        ) from None  # fmt: skip


def _row(context: Context, name: str, wanted: Wanted) -> LocationRow:
    """The row of a location that is being made: that of an earlier try, when there is one."""
    with context.index.write() as txn:
        known = outbox.locations(txn).get(name)
        if known is not None:
            if known.paused != MAKING or known.url != wanted.url:
                raise AlreadyExists(f"location {name!r}", expected="a new name", found=known.url)
            if known.sealed != wanted.sealed:
                kind = "sealed" if known.sealed else "not sealed"
                raise AlreadyExists(
                    f"location {name!r}", expected=f"one that is {kind}, as it was begun", found="the other",
                    do="'holdfast location remove' it, and give another prefix",
                )  # fmt: skip
            again = replace(
                known, credentials=wanted.credentials, mounts=list(wanted.mounts), verify=float(wanted.verify),
                local=wanted.local, bandwidth=wanted.bandwidth, read_bandwidth=wanted.read_bandwidth,
                object_lock=known.object_lock or wanted.object_lock,
            )  # fmt: skip
            outbox.save(txn, name, again)
            return again
        row = LocationRow(
            0, wanted.url, context.system.random(16).hex(), context.system.random(16).hex(),
            wanted.sealed, wanted.credentials, mounts=list(wanted.mounts), verify=float(wanted.verify),
            local=wanted.local, paused=MAKING, bandwidth=wanted.bandwidth, read_bandwidth=wanted.read_bandwidth,
            object_lock=wanted.object_lock,
        )  # fmt: skip
        return outbox.add(txn, name, row)


def _keys(
    context: Context, name: str, row: LocationRow, location: Location, wanted: Wanted, cost: Cost
) -> tuple[int, Vault]:
    """Marker and key ring, made or found; of a ring that was there, with slots for these secrets as well."""
    here = bytes.fromhex(row.location)
    made = marker.Marker(here, context.store_id, row.sealed, b"" if row.sealed else context.key)
    begun = not location.create(marker.NAME, marker.encode(made))
    if begun:
        found = read_marker(location)
        if (found.location, found.store) != (here, context.store_id):
            with context.index.write() as txn:
                txn.delete(Table.LOCATIONS, name.encode())
            raise AlreadyExists(
                location.shown, expected="a place with nothing of Holdfast in it",
                found=f"location {found.location.hex()} of store {found.store.hex()}",
                do="give another prefix, or 'holdfast adopt' it",
            )  # fmt: skip
    if not row.sealed:
        return 0, Vault(here, context.key, None)
    key = new_machine_key(context, name)
    system = context.system
    rings = LocationRings(location, partial(seen_ring, context, name))
    if not (begun and rings.any()):
        raw, vault = make(
            here, context.key, [*wanted.secrets, key], now_ns=system.time_ns(), cost=cost, system=system
        )  # fmt: skip
        if rings.create(1, raw):
            rings.seen(1, vault)
            return 1, vault
    ring = Keyring(rings, here, key, key, row.ring, cost, system, row.ring_mark)
    now = ring.change(missing=wanted.secrets)
    rings.seen(now.number, now.vault)
    return now.number, now.vault


def _activate(context: Context, name: str) -> None:
    """From now on points go there: those that are here, and those to come."""
    now = context.system.time_ns()
    with context.index.write() as txn:
        # What is new has no leftovers of uploads.
        row = replace(outbox.location(txn, name), paused="", tidied_ns=now)
        outbox.save(txn, name, row)
        enqueue_all(txn, row, now)


def enqueue_all(txn: Txn, row: LocationRow, now_ns: int) -> None:
    """Points that are here and go there, and are not queued yet."""
    for _, raw in txn.whole(Table.POINTS):
        point = decode_point(raw)
        if row.takes(point.mount) and outbox.get(txn, row.id, point.id) is None:
            outbox.put(txn, row.id, point.id, OutboxRow(since_ns=now_ns))
