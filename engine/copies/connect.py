"""Making a storage location of this store, and opening it again.

The index knows first: writer and location get their ids there, so that whatever was cut off goes on with the same ones.
This machine has a key of its own in the ring (``locations/NAME.key``, 0600): services start without a passphrase.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from engine import limits
from engine.chunks import Context
from engine.copies import journal, marker, outbox
from engine.copies.link import Link
from engine.copies.rows import FOLDER, KEEP, LocationRow, OutboxRow
from engine.errors import AlreadyExists, Corrupt, InvalidRequest, NotFound, Unsupported, from_os
from engine.index import Table
from engine.keys import COST, Key, Opener, Secret, Vault, load, make, parse, unlock
from engine.keys.primitives import Cost
from engine.locations import Credentials, Location, Retry, open_location
from engine.nodes.point import decode_point
from engine.seam import Os, save

RINGS = "keys/"
_MAKING = "it is not finished"


@dataclass(frozen=True)
class Wanted:
    """What a new location is to be. ``secrets``: who may open it beside this machine, at least one; ``mounts``: whose
    points go there, none for all; ``verify``: part of the packs that is read back; ``local``: KEEP or DROP."""

    url: str
    secrets: Sequence[Secret] = field(repr=False, default=())
    credentials: str = "environment"
    sealed: bool = True
    mounts: Sequence[str] = ()
    verify: float = 0.02
    local: str = KEEP


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
    location = opened(wanted.url, wanted.credentials, context.system)
    if not wanted.sealed and not location.shown.startswith("file:"):
        raise InvalidRequest(
            f"location {name!r}", expected="sealing of whatever leaves the machine", found="none"
        )
    if not location.features().create:
        raise Unsupported(
            location.shown, expected="a server that keeps conditional creates", found="one that does not",
            do="use another: two writers could not be told apart there",
        )  # fmt: skip
    row = _row(context, name, wanted)
    vault = _vault(context, name, row, location, wanted, cost)
    link = Link(context, name, location, vault)
    with link.alone():
        link.catch_up()
        if not link.row.seq:
            link.append(journal.Begin(context.store_id, b""))
        _activate(context, name)
    return open_link(context, name)


def open_link(context: Context, name: str, secret: Opener | None = None) -> Link:
    """A location of this store. ``secret``: what opens its ring, by default this machine's key."""
    with context.index.read() as txn:
        row = outbox.location(txn, name)
    location = opened(row.url, row.credentials, context.system)
    found = read_marker(location)
    if found.location.hex() != row.location or found.sealed != row.sealed:
        raise Corrupt(
            location.shown, expected=f"location {row.location}", found=found.location.hex(),
            do="look whether the URL still leads to the same place",
        )  # fmt: skip
    if not row.sealed:
        return Link(context, name, location, Vault(found.location, context.key, None))
    number, raw = newest_ring(location)
    vault = unlock(
        raw, secret or _machine_key(context, name), location=found.location, least=row.ring, system=context.system
    )  # fmt: skip
    if number > row.ring:
        with context.index.write() as txn:
            outbox.save(txn, name, replace(outbox.location(txn, name), ring=number))
    return Link(context, name, location, vault)


def newest_ring(location: Location) -> tuple[int, bytes]:
    """(number, bytes) of the key ring that counts. Raises NotFound."""
    numbers = [ring_number(one.name) for one in location.list(RINGS)]
    newest = max(numbers, default=0)
    if not newest:
        raise NotFound(
            f"key ring of {location.shown}", expected="one", found="none", do="is it a location?"
        )
    return newest, bounded(location, ring_path(newest), limits.RING_MAX)


def ring_path(number: int) -> str:
    """Where the key ring of this number lies."""
    return f"{RINGS}{number:08d}.json"


def ring_number(name: str) -> int:
    """The number of a key ring by its name; 0 when it is none."""
    text = name.removeprefix(RINGS).removesuffix(".json")
    return int(text) if text.isascii() and text.isdigit() and ring_path(int(text)) == name else 0


def opened(url: str, credentials: str, system: Os) -> Location:
    """The location of a URL, with retries. Raises InvalidRequest, NotFound, PermissionDenied for credentials."""
    given = None if url.startswith("file:") else Credentials.load(credentials)
    return Retry(open_location(url, given, system=system))


def bounded(location: Location, name: str, most: int) -> bytes:
    """All of a small thing. Raises Corrupt when it is larger than it may be, before any of it is fetched."""
    size = location.stat(name).size
    if size > most:
        raise Corrupt(
            f"{location.shown}: {name}", expected=f"at most {most} bytes", found=str(size),
            do="find out who wrote it",
        )  # fmt: skip
    return location.read(name, 0, size)


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
            if known.paused != _MAKING or known.url != wanted.url:
                raise AlreadyExists(f"location {name!r}", expected="a new name", found=known.url)
            return known
        row = LocationRow(
            0, wanted.url, context.system.random(16).hex(), context.system.random(16).hex(),
            wanted.sealed, wanted.credentials, mounts=list(wanted.mounts), verify=float(wanted.verify),
            local=wanted.local, paused=_MAKING,
        )  # fmt: skip
        return outbox.add(txn, name, row)


def _vault(
    context: Context, name: str, row: LocationRow, location: Location, wanted: Wanted, cost: Cost
) -> Vault:
    """Marker and key ring, made or found."""
    here = bytes.fromhex(row.location)
    made = marker.Marker(here, context.store_id, row.sealed, b"" if row.sealed else context.key)
    if not location.create(marker.NAME, marker.encode(made)):
        found = marker.decode(location.read(marker.NAME))
        if (found.location, found.store) != (here, context.store_id):
            with context.index.write() as txn:
                txn.delete(Table.LOCATIONS, name.encode())
            raise AlreadyExists(
                location.shown, expected="a place with nothing of Holdfast in it",
                found=f"location {found.location.hex()} of store {found.store.hex()}",
                do="give another prefix, or 'holdfast adopt' it",
            )  # fmt: skip
    if not row.sealed:
        return Vault(here, context.key, None)
    key = _new_machine_key(context, name)
    raw, vault = make(
        here, context.key, [*wanted.secrets, key],
        now_ns=context.system.time_ns(), cost=cost, system=context.system,
    )  # fmt: skip
    if location.create(ring_path(1), raw):
        return vault
    return unlock(newest_ring(location)[1], key, location=here, system=context.system)


def key_path(context: Context, name: str) -> str:
    """Where this machine's key to a location lies."""
    return os.path.join(context.root, FOLDER, f"{name}.key")


def _machine_key(context: Context, name: str) -> Key:
    path = key_path(context, name)
    if context.seal is None:
        key = load(path, context.system)
    else:
        try:
            fd = context.system.open(path, os.O_RDONLY)
        except OSError as error:
            raise from_os(error, f"key file {path}") from None
        try:
            line = context.system.pread(fd, limits.KEY_FILE_MAX, 0)
        finally:
            context.system.close(fd)
        key = parse(context.seal.unwrap(f"{FOLDER}/{name}.key", line).decode("ascii"))
    assert isinstance(key, Key)
    return key


def save_key(context: Context, name: str, key: Key) -> None:
    """Write this machine's key to a location; a sealed store seals it. Raises OSError."""
    data = f"{key.printed()}\n".encode("ascii")
    if context.seal is not None:
        data = context.seal.wrap(f"{FOLDER}/{name}.key", data)
    save(context.system, key_path(context, name), data)


def _new_machine_key(context: Context, name: str) -> Key:
    """Written before the ring that needs it; that of an earlier try, when there is one."""
    path = key_path(context, name)
    try:
        folder = os.path.dirname(path)
        if not context.system.exists(folder):
            context.system.mkdir(folder)
            context.system.fsync_dir(context.root)
        if context.system.exists(path):
            return _machine_key(context, name)
        key = Key.new(context.system)
        save_key(context, name, key)
    except OSError as error:
        raise from_os(error, path) from None
    return key


def _activate(context: Context, name: str) -> None:
    """From now on points go there: those that are here, and those to come."""
    now = context.system.time_ns()
    with context.index.write() as txn:
        row = replace(outbox.location(txn, name), paused="", ring=1)
        outbox.save(txn, name, row)
        for _, raw in txn.whole(Table.POINTS):
            point = decode_point(raw)
            if row.takes(point.mount) and outbox.get(txn, row.id, point.id) is None:
                outbox.put(txn, row.id, point.id, OutboxRow(since_ns=now))
