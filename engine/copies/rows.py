"""Rows of the index about copies: locations, the outbox, where a chunk lies at a location, sealed packs there."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, NamedTuple, Self
from zlib import crc32

from engine import strict
from engine.codec import ID_LEN
from engine.errors import Corrupt
from engine.index.rows import U32, U64, ChunkRow
from engine.packs.records import Entry

FOLDER = "locations"
"""Below the store's directory: this machine's keys to locations, and the locks of who writes to them."""

U16 = struct.Struct(">H")
_COPY = struct.Struct("<IIIIB")
_AWAY = struct.Struct("<HBBIQQIIQ32s32s")

QUEUED, UPLOADING, VERIFIED, FAILED = "queued", "uploading", "verified", "failed"
REMOVED = "removed"  # the point is deleted here, and the location has not been told
STATES = (QUEUED, UPLOADING, VERIFIED, FAILED)

MAKING, REMOVING = "it is not finished", "it is being removed"
"""Why nothing is sent to a location of which not all is in the index."""

KEEP, DROP = "keep", "drop"
"""What becomes of the bytes here once a point is verified there."""


@dataclass(frozen=True)
class LocationRow:
    """A storage location. ``id``: its number in keys of this index; ``location``, ``writer``: hex of 16 bytes;
    ``seq`` and ``last``: number and hash (hex) of the last journal entry that is known; ``credentials``: where they
    are, never what they are; ``mounts``: whose points go there, none for all; ``verify``: part of the packs that is
    read back; ``local``: KEEP or DROP; ``paused``: why nothing is sent, "" when it is; ``ring``: number of
    the newest key ring that was seen, ``ring_mark``: of its keys, see ``Vault.mark``;
    ``bandwidth``, ``read_bandwidth``: bytes a second of what is sent and fetched, as
    ``locations.parse_windows`` reads it, "" for no limit; ``requests``: asked of it so far by kind (and bytes);
    ``tidied_ns``: when leftovers of uploads were looked for last; ``ring_here``: this machine's key opens a ring that
    the store keeps, not the one there; ``object_lock``: what locked points need there is retained; ``held_s``: until
    when (s since the epoch), and of the journal and the rings what up to ``held_seq`` and ``held_ring``;
    ``checkpoints``: numbers of the last two journal entries of that kind; ``needed``: bytes of packs that were needed
    when that was last found out, -1 never; ``told``: what the journal there says is set for it, see ``told_of``."""

    id: int
    url: str
    location: str
    writer: str
    sealed: bool = True
    credentials: str = ""
    seq: int = 0
    last: str = ""
    mounts: list[str] = field(default_factory=list)
    verify: float = 0.02
    local: str = KEEP
    paused: str = ""
    ring: int = 0
    ring_mark: str = ""
    ring_here: bool = False
    bandwidth: str = ""
    read_bandwidth: str = ""
    requests: dict[str, int] = field(default_factory=dict)
    tidied_ns: int = 0
    object_lock: bool = False
    held_s: int = 0
    held_seq: int = 0
    held_ring: int = 0
    checkpoints: list[int] = field(default_factory=list)
    needed: int = -1
    told: str = ""

    def takes(self, mount: str) -> bool:
        """Do points of this mount go there?"""
        return not self.mounts or mount in self.mounts


@dataclass(frozen=True)
class OutboxRow:
    """How far the copy of a point is. ``since_ns``: in this state; ``reason``: why it failed, or waits; ``entry``: the
    journal entry that names it, 0 for none; ``extras``: chunk ids (hex) of what the service keeps with the point;
    ``requests``: asked of the location to send it; ``locked_ns``: until when the journal says that it is locked;
    ``retained_s``: until when all that it needs is retained there (s since the epoch)."""

    state: str = QUEUED
    since_ns: int = 0
    tries: int = 0
    sent: int = 0
    reason: str = ""
    entry: int = 0
    extras: list[str] = field(default_factory=list)
    requests: int = 0
    locked_ns: int = 0
    retained_s: int = 0

    def now(self, state: str, now_ns: int, **other: Any) -> Self:
        return replace(self, state=state, since_ns=now_ns, **other)


def encoded(row: LocationRow | OutboxRow) -> bytes:
    """JSON: there are few, and they get new fields."""
    return json.dumps(asdict(row), separators=(",", ":"), sort_keys=True).encode("ascii")


def told_of(place: Mapping[str, Any]) -> str:
    """What is told of a location, as its row remembers it: "" for nothing."""
    return strict.dump(dict(place)).decode() if place else ""


def _decoded(kind: type[Any], raw: bytes, what: str) -> Any:
    try:
        found = json.loads(raw)
        row = kind(**found)
        for one in fields(kind):
            if type(getattr(row, one.name)).__name__ != str(one.type).partition("[")[0]:
                raise TypeError(one.name)
    except (ValueError, TypeError, RecursionError) as error:
        raise Corrupt(what, expected="a row of this format", found=str(error)) from None
    return row


def location_row(raw: bytes) -> LocationRow:
    """Decode; raises Corrupt."""
    row: LocationRow = _decoded(LocationRow, raw, "index row of a location")
    return row


def outbox_row(raw: bytes) -> OutboxRow:
    """Decode; raises Corrupt."""
    row: OutboxRow = _decoded(OutboxRow, raw, "index row of the outbox")
    if row.state not in (*STATES, REMOVED):
        raise Corrupt(
            "index row of the outbox", expected=" or ".join(STATES), found=repr(row.state)
        )
    return row


WHOLE, EXTRA = 1, 2
"""Flags of a copy. WHOLE, of a node: what it refers to is there as well. EXTRA: the service's, of no point's tree."""


class CopyRow(NamedTuple):
    """Where a chunk's record lies at a location. ``stored``: bytes of the record without its seal; ``form``: see
    ``form_of``."""

    pack: int
    offset: int
    stored: int
    form: int
    flags: int = 0

    def pack_bytes(self) -> bytes:
        return _COPY.pack(*self)


def form_of(row: Entry | ChunkRow) -> int:
    """What tells one record of a chunk from another: the same chunk may be stored here and there in different ways."""
    return crc32(b"".join(row.bases), crc32(bytes((row.kind, row.encoding, row.depth))))


def copy_row(raw: bytes) -> CopyRow:
    """Decode; raises Corrupt."""
    if len(raw) != _COPY.size:
        raise Corrupt(
            "index row of a copy", expected=f"{_COPY.size} bytes", found=f"{len(raw)} bytes"
        )
    return CopyRow(*_COPY.unpack(raw))


def copy_key(location: int, cid: bytes) -> bytes:
    """Key of COPIES. ``cid``: a chunk id, or b"" for the prefix of all of a location."""
    assert len(cid) in (0, ID_LEN)
    return U16.pack(location) + cid


UNNAMED, NAMED, GOING = 1, 2, 3
"""States of a sealed pack: verified there, but in no journal entry yet; in one; about to be removed."""


class AwayRow(NamedTuple):
    """A sealed pack at a location. ``kind``: as in its header; ``trailer``, ``trailer_len``: its trailer's frame;
    ``locked_s``: retention until (s since the epoch), 0 none; ``said``: the journal entry that says it is gone, of one
    that is GOING."""

    location: int
    state: int
    kind: int
    epoch: int
    size: int
    trailer: int
    trailer_len: int
    records: int
    locked_s: int
    salt: bytes
    name: bytes
    said: int = 0

    def pack_bytes(self) -> bytes:
        return _AWAY.pack(*self[:-1]) + (U64.pack(self.said) if self.said else b"")


def away_row(raw: bytes) -> AwayRow:
    """Decode; raises Corrupt."""
    if len(raw) not in (_AWAY.size, _AWAY.size + U64.size):
        raise Corrupt(
            "index row of a sealed pack", expected=f"{_AWAY.size} bytes", found=f"{len(raw)} bytes"
        )
    said = U64.unpack_from(raw, _AWAY.size)[0] if len(raw) > _AWAY.size else 0
    row = AwayRow(*_AWAY.unpack_from(raw))._replace(said=said)
    if row.state not in (UNNAMED, NAMED, GOING):
        raise Corrupt("index row of a sealed pack", expected="a known state", found=str(row.state))
    return row


def away_key(number: int) -> bytes:
    """Key of AWAY."""
    return U32.pack(number)
