"""Journal entries: what each kind says, as frozen values, and their bytes. FORMAT-copies.md has the table.

A decoder takes nothing that no writer makes: Corrupt for what breaks the format, FormatTooNew for kinds and fields
that are not of this one.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from engine import codec, limits, strict
from engine.copies.rings import bounded
from engine.copies.sealed import PackRow
from engine.errors import Corrupt, FormatTooNew, HoldfastError, InvalidRequest, NotFound
from engine.keys import FRAME_OVERHEAD, HEADER_LEN, JOURNAL_MAGIC, Vault, epoch_in
from engine.locations import Location
from engine.nodes.point import is_point_id
from engine.registry import valid_name

FIRST_PREV = bytes(32)
"""``prev`` of entry 1."""
_PLAIN = struct.Struct("<I")
_NAME = re.compile("[0-9]{16}")
_SEQ_MAX = 10**16 - 1
FOLDER = "journal/"
_PACK_FIELDS = 8
_ROOM = limits.JOURNAL_PLAIN_MAX // 100  # packs of an entry: a row is longer than that


@dataclass(frozen=True, slots=True)
class Point:
    """A recovery point that is whole here. ``record``: chunk id of its record; ``extras``: chunk ids of what the
    service keeps with it; ``settings`` of its mount and ``keep`` are the service's own."""

    id: str
    mount: str
    record: bytes
    settings: Mapping[str, Any] = field(default_factory=dict)
    extras: tuple[bytes, ...] = ()
    keep: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Begin:
    """The writer of this entry is from now on the only one. ``replaces``: the one before it, b"" for none."""

    store: bytes
    replaces: bytes


@dataclass(frozen=True, slots=True)
class PointMade:
    """A point, and the packs it needs that no entry before names."""

    point: Point
    packs: tuple[PackRow, ...]


@dataclass(frozen=True, slots=True)
class Removed:
    """These points are deleted."""

    points: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PacksChanged:
    """Packs that replace others, and names of packs about to be deleted."""

    packs: tuple[PackRow, ...]
    gone: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Locked:
    """These points may not be removed before a time."""

    points: tuple[str, ...]
    until_ns: int


@dataclass(frozen=True, slots=True)
class Place:
    """What the store has set for the location itself, from now on."""

    settings: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """All that holds: entries before it may be deleted."""

    store: bytes
    points: tuple[Point, ...]
    packs: tuple[PackRow, ...]
    locks: Mapping[str, int]
    place: Mapping[str, Any] = field(default_factory=dict)


Body = Begin | PointMade | Removed | PacksChanged | Locked | Place | Checkpoint


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry. ``prev``: digest of the bytes of the one before; ``time_ns``: the client's clock, for people."""

    seq: int
    prev: bytes
    writer: bytes
    time_ns: int
    body: Body


def path_of(seq: int) -> str:
    """Where entry number ``seq`` lies."""
    assert 0 < seq <= _SEQ_MAX
    return f"{FOLDER}{seq:016d}"


def fetch(location: Location, seq: int) -> bytes:
    """The bytes that lie at entry number ``seq``, if one may have so many. Raises NotFound, Corrupt."""
    return bounded(location, path_of(seq), limits.JOURNAL_ENTRY_MAX)


def seq_of(name: str) -> int | None:
    """The number of an entry by the last part of its name, None when it is none."""
    return int(name) or None if _NAME.fullmatch(name) and name.isascii() else None


def epoch_at(location: Location, seq: int) -> int:
    """The epoch that the entry of this number is sealed in; 0 where it is not there (any more)."""
    try:
        return epoch_in(location.read(path_of(seq), 0, HEADER_LEN)) if seq else 0
    except NotFound:
        return 0


def refuse_older(raw: bytes, epoch: int, seq: int) -> int:
    """The epoch that an entry is sealed in. Raises Corrupt for one before ``epoch``, that of the entry before it: its
    keys may be known to somebody who has no others any more."""
    found = epoch_in(raw)
    if found < epoch:
        raise Corrupt(
            f"journal entry {seq}", expected=f"one of epoch {epoch} or later, as the one before it",
            found=f"one of epoch {found}", do="find out who wrote to the location",
        )  # fmt: skip
    return found


def digest(raw: bytes) -> bytes:
    """What the next entry calls ``prev``."""
    state = codec.Digest()
    state.update(raw)
    return state.digest()


# --- bytes ------------------------------------------------------------------------------------------------


def encode(vault: Vault, entry: Entry) -> bytes:
    """The bytes of an entry. Raises InvalidRequest for what no decoder would take."""
    kind, fields = _fields_of(entry.body)
    plain = strict.dump(
        {
            "seq": entry.seq, "prev": entry.prev.hex(), "writer": entry.writer.hex(),
            "time_ns": entry.time_ns, "kind": kind, **fields,
        }
    )  # fmt: skip
    if len(plain) > limits.JOURNAL_PLAIN_MAX:
        raise InvalidRequest(
            f"journal entry {entry.seq}", expected=f"at most {limits.JOURNAL_PLAIN_MAX} bytes", found=f"{len(plain)}"
        )  # fmt: skip
    try:
        _decode_plain(plain, entry.seq)
    except HoldfastError as error:
        raise InvalidRequest(f"journal entry {entry.seq}", found=str(error)) from None
    squeezed = codec.compress(plain, limits.ZSTD_LEVEL_MODEST)
    seal = vault.new_file(JOURNAL_MAGIC, 0)
    return seal.header + seal.seal(HEADER_LEN, _PLAIN.pack(len(plain)) + squeezed)


def decode(vault: Vault, seq: int, raw: bytes) -> Entry:
    """The entry that lies at the name of number ``seq``. Raises Corrupt, FormatTooNew, PermissionDenied."""
    what = f"journal entry {seq}"
    if len(raw) > limits.JOURNAL_ENTRY_MAX or len(raw) < HEADER_LEN + FRAME_OVERHEAD + _PLAIN.size:
        strict.refuse(what, f"at most {limits.JOURNAL_ENTRY_MAX} bytes", len(raw))
    seal = vault.file(raw[:HEADER_LEN])
    if seal.header[: len(JOURNAL_MAGIC)] != JOURNAL_MAGIC:
        strict.refuse(what, "a journal entry", "a sealed pack")
    body = seal.open(HEADER_LEN, memoryview(raw)[HEADER_LEN:])
    (size,) = _PLAIN.unpack_from(body)
    if size > limits.JOURNAL_PLAIN_MAX:
        strict.refuse(what, f"at most {limits.JOURNAL_PLAIN_MAX} bytes", size)
    return _decode_plain(codec.decompress(memoryview(body)[_PLAIN.size :], size), seq)


def _fields_of(body: Body) -> tuple[str, dict[str, object]]:
    match body:
        case Begin(store, replaces):
            return "begin", {"store": store.hex(), "from": replaces.hex()}
        case PointMade(point, packs):
            return "point", _point_fields(point) | {"packs": [_row_list(row) for row in packs]}
        case Removed(points):
            return "remove", {"points": list(points)}
        case PacksChanged(packs, gone):
            return "packs", {"packs": [_row_list(row) for row in packs], "gone": list(gone)}
        case Locked(points, until_ns):
            return "lock", {"points": list(points), "until_ns": until_ns}
        case Place(settings):
            return "place", {"place": dict(settings)}
        case Checkpoint(store, made, packs, locks, place):
            return "checkpoint", ({"place": dict(place)} if place else {}) | {
                "store": store.hex(),
                "points": [_point_fields(point) for point in made],
                "packs": [_row_list(row) for row in packs],
                "locks": dict(locks),
            }


def _point_fields(point: Point) -> dict[str, object]:
    return {
        "point": point.id, "mount": point.mount, "record": point.record.hex(), "settings": point.settings,
        "extras": [cid.hex() for cid in point.extras], "keep": point.keep,
    }  # fmt: skip


def _row_list(row: PackRow) -> list[object]:
    return [*row[:-1], strict.encoded(row.salt)]


# --- decoding ---------------------------------------------------------------------------------------------

_HEAD = ("seq", "prev", "writer", "time_ns", "kind")
_POINT = ("point", "mount", "record", "settings", "extras", "keep")
_FIELDS: dict[str, tuple[str, ...]] = {
    "begin": ("store", "from"),
    "point": (*_POINT, "packs"),
    "remove": ("points",),
    "packs": ("packs", "gone"),
    "lock": ("points", "until_ns"),
    "place": ("place",),
    "checkpoint": ("store", "points", "packs", "locks"),
}


def _decode_plain(plain: bytes, seq: int) -> Entry:
    what = f"journal entry {seq}"
    value = strict.parse(plain, what)
    kind = value.get("kind") if isinstance(value, dict) else None
    if not isinstance(kind, str):
        strict.refuse(what, "an object with a kind", type(value).__name__)
    if kind not in _FIELDS:
        raise FormatTooNew(
            what, expected=", ".join(_FIELDS), found=ascii(kind)[:80], do="use the Holdfast that wrote it"
        )  # fmt: skip
    names = (*_HEAD, *_FIELDS[kind])
    if kind == "checkpoint" and "place" in value:
        names = (*names, "place")
    fields = strict.Fields(value, what, names)
    if fields.number("seq", 1, _SEQ_MAX) != seq:
        strict.refuse(what, "its own number in it", value["seq"])
    return Entry(
        seq,
        fields.digits("prev", 32),
        fields.digits("writer", 16),
        fields.number("time_ns", -strict.I63, strict.I63),
        _BODIES[kind](fields, what),
    )


def _begin(fields: strict.Fields, what: str) -> Body:
    before = fields.text("from", 32)
    return Begin(fields.digits("store", 16), fields.digits("from", 16) if before else b"")


def _point_made(fields: strict.Fields, what: str) -> Body:
    return PointMade(_point(fields, what), _rows(fields, what))


def _removed(fields: strict.Fields, what: str) -> Body:
    return Removed(_points(fields, what))


def _packs_changed(fields: strict.Fields, what: str) -> Body:
    rows = _rows(fields, what)
    names = [
        strict.digits(one, 32, f"gone of {what}").hex() for one in fields.items("gone", 0, _ROOM)
    ]
    if len({*names, *(row.name for row in rows)}) != len(names) + len(rows):
        strict.refuse(f"gone of {what}", "each pack once", "one again")
    return PacksChanged(rows, tuple(names))


def _locked(fields: strict.Fields, what: str) -> Body:
    return Locked(_points(fields, what), fields.number("until_ns", 1, strict.I63))


def _place(fields: strict.Fields, what: str) -> Body:
    return Place(fields.free("place", limits.JOURNAL_FREE_MAX))


def _checkpoint(fields: strict.Fields, what: str) -> Body:
    made = [
        _point(strict.Fields(one, f"point of {what}", _POINT), what)
        for one in fields.items("points", 0, limits.JOURNAL_NAMES_MAX)
    ]
    ids = {point.id for point in made}
    locks = fields.mapping("locks", limits.JOURNAL_NAMES_MAX)
    for name, until in locks.items():
        strict.number(until, 1, strict.I63, f"lock of {what}")
        if name not in ids:
            strict.refuse(f"lock of {what}", "a point that is there", name)
    if len(ids) != len(made):
        strict.refuse(f"points of {what}", "each once", "one again")
    place: Mapping[str, Any] = {}
    if fields.has("place") and not (place := fields.free("place", limits.JOURNAL_FREE_MAX)):
        strict.refuse(f"place of {what}", "something in it, or no such field", "nothing")
    return Checkpoint(fields.digits("store", 16), tuple(made), _rows(fields, what), locks, place)


_BODIES: dict[str, Callable[[strict.Fields, str], Body]] = {
    "begin": _begin,
    "point": _point_made,
    "remove": _removed,
    "packs": _packs_changed,
    "lock": _locked,
    "place": _place,
    "checkpoint": _checkpoint,
}


def _point(fields: strict.Fields, what: str) -> Point:
    mount = fields.text("mount", limits.MOUNT_NAME_MAX)
    try:
        valid_name(mount)
    except InvalidRequest as error:
        raise Corrupt(f"mount of {what}", found=str(error)) from None
    extras = [
        strict.digits(one, codec.ID_LEN, f"extras of {what}")
        for one in fields.items("extras", 0, limits.JOURNAL_NAMES_MAX)
    ]
    return Point(
        _point_id(fields.text("point", limits.POINT_ID_LEN), what),
        mount,
        fields.digits("record", codec.ID_LEN),
        fields.free("settings", limits.JOURNAL_FREE_MAX),
        tuple(extras),
        fields.free("keep", limits.JOURNAL_FREE_MAX),
    )


def _point_id(found: Any, what: str) -> str:
    if not isinstance(found, str) or not is_point_id(found):
        strict.refuse(f"points of {what}", "the id of a point", found)
    return found


def _points(fields: strict.Fields, what: str) -> tuple[str, ...]:
    found = fields.items("points", 1, limits.JOURNAL_NAMES_MAX)
    names = tuple(_point_id(one, what) for one in found)
    if len(set(names)) != len(names):
        strict.refuse(f"points of {what}", "each once", "one again")
    return names


def _rows(fields: strict.Fields, what: str) -> tuple[PackRow, ...]:
    rows = tuple(_row(one, f"packs of {what}") for one in fields.items("packs", 0, _ROOM))
    if len({row.name for row in rows}) != len(rows):
        strict.refuse(f"packs of {what}", "each once", "one again")
    return rows


def _row(found: Any, what: str) -> PackRow:
    if not isinstance(found, list) or len(found) != _PACK_FIELDS:
        strict.refuse(what, f"lists of {_PACK_FIELDS}", type(found).__name__)
    name, *numbers, salt = found
    size, offset, length, count, kind, epoch = (
        strict.number(one, 0, strict.I63, what) for one in numbers
    )
    name, salt = strict.digits(name, 32, what).hex(), strict.decoded(salt, 32, what)
    row = PackRow(name, size, offset, length, count, kind, epoch, salt)
    row.check()
    return row
