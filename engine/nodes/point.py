"""Codec of the records that name and unname trees: the point record and the tombstone."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from engine.limits import LABEL_MAX, MOUNT_NAME_MAX, POINT_ID_LEN
from engine.nodes.entries import Entry, decode_root_entry, encode_root_entry
from engine.nodes.ports import VERSION, NodeKind, check_head, corrupt, invalid

# Crockford's base 32 in lower case: sorts as its numbers do, and has no letters that look like others.
_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_LETTERS = frozenset(_ALPHABET)
_RANDOM_LEN = 10
_ID_BITS = 48 + 8 * _RANDOM_LEN

# kind, version, id, mount, sequence, time, logical bytes, files, format;
# then the lengths of mount name, label, predecessor, lineage, root entry, which follow in this order.
_POINT = struct.Struct("<BB26sIQqQQHBHBHH")
_TOMBSTONE = struct.Struct("<BB26sq")

_I64 = 1 << 63


@dataclass(frozen=True, slots=True)
class Point:
    """A recovery point: which tree, of which mount, when.

    ``root``: the attributes of the root directory and its directory root, an entry without a name. ``sequence``
    counts the points of the mount from 1. ``predecessor``: id of the point this one was made from by update, "" for
    none. ``lineage``: name under which points of several mounts are versions of the same files. ``logical_bytes``:
    sum of the sizes of regular files, hard links once. ``files``: inodes of every type. ``format``: store format.
    """

    id: str
    mount: str
    mount_id: int
    sequence: int
    time_ns: int
    root: Entry
    label: str = ""
    logical_bytes: int = 0
    files: int = 0
    format: int = 1
    predecessor: str = ""
    lineage: str = ""


@dataclass(frozen=True, slots=True)
class Tombstone:
    """The record that a point was deleted, and when: rebuilding the index must not bring it back."""

    id: str
    time_ns: int


def new_point_id(time_ns: int, random: bytes) -> str:
    """An id of 26 characters that sorts by time: 48 bits of milliseconds since the epoch, then 10 random bytes."""
    milliseconds = time_ns // 1_000_000
    if not 0 <= milliseconds < 1 << 48 or len(random) != _RANDOM_LEN:
        invalid("point id", f"a time after 1970 and {_RANDOM_LEN} bytes", (time_ns, len(random)))
    number = milliseconds << 8 * _RANDOM_LEN | int.from_bytes(random, "big")
    places = range(5 * (POINT_ID_LEN - 1), -1, -5)
    return "".join(_ALPHABET[number >> place & 31] for place in places)


def is_point_id(text: str) -> bool:
    """Whether a text has the form of a point's id."""
    # The first character holds the 3 bits that 128 leave over.
    return len(text) == POINT_ID_LEN and text[0] < "8" and _LETTERS.issuperset(text)


def encode_point(point: Point) -> bytes:
    """The record of a point. Raises InvalidRequest."""
    if not is_point_id(point.id):
        invalid("point id", f"{POINT_ID_LEN} characters", point.id)
    if point.predecessor and not is_point_id(point.predecessor):
        invalid("id of a predecessor", f"none or {POINT_ID_LEN} characters", point.predecessor)
    root = encode_root_entry(point.root)
    try:
        texts = [
            text.encode() for text in (point.mount, point.label, point.predecessor, point.lineage)
        ]
    except UnicodeEncodeError as error:
        invalid("text of a point", "Unicode", error)
    for text, what, most in zip(texts, _TEXTS, _TEXT_MAX, strict=True):
        if len(text) > most:
            invalid(what, f"at most {most} bytes", len(text))
    if not texts[0] or not point.sequence:
        invalid("point", "a mount's name and a sequence from 1", (point.mount, point.sequence))
    try:
        head = _POINT.pack(
            NodeKind.POINT, VERSION, point.id.encode(), point.mount_id, point.sequence,
            point.time_ns, point.logical_bytes, point.files, point.format,
            *map(len, texts), len(root),
        )  # fmt: skip
    except struct.error as error:
        invalid("point", "numbers within their width", error)
    return b"".join((head, *texts, root))


_TEXTS = ("name of a mount", "label of a point", "id of a predecessor", "lineage of a point")
_TEXT_MAX = (MOUNT_NAME_MAX, LABEL_MAX, POINT_ID_LEN, LABEL_MAX)


def decode_point(data: bytes) -> Point:
    """The point of a record. Raises Corrupt."""
    check_head(data, NodeKind.POINT)
    if len(data) < _POINT.size:
        corrupt("point record", f"{_POINT.size} bytes or more", len(data))
    (
        _, _, raw_id, mount_id, sequence, time_ns, logical_bytes, files, format_, *lengths, root_len,
    ) = _POINT.unpack_from(data)  # fmt: skip
    size = _POINT.size + sum(lengths) + root_len
    if size != len(data):
        corrupt("point record", f"{size} bytes", len(data))
    at = _POINT.size
    texts = []
    for length, what, most in zip(lengths, _TEXTS, _TEXT_MAX, strict=True):
        if length > most:
            corrupt(what, f"at most {most} bytes", length)
        texts.append(_text(data[at : at + length], what))
        at += length
    mount, label, predecessor, lineage = texts
    if not mount or not sequence:
        corrupt("point record", "a mount's name and a sequence from 1", (mount, sequence))
    if predecessor:
        _id(predecessor.encode())
    root = decode_root_entry(data[at:])
    return Point(
        _id(raw_id), mount, mount_id, sequence, time_ns, root, label, logical_bytes, files,
        format_, predecessor, lineage,
    )  # fmt: skip


def encode_tombstone(tombstone: Tombstone) -> bytes:
    """The record of a deletion. Raises InvalidRequest."""
    if not is_point_id(tombstone.id) or not -_I64 <= tombstone.time_ns < _I64:
        invalid("tombstone", f"an id of {POINT_ID_LEN} characters and a time", tombstone)
    return _TOMBSTONE.pack(
        NodeKind.TOMBSTONE, VERSION, tombstone.id.encode(), tombstone.time_ns
    )  # fmt: skip


def decode_tombstone(data: bytes) -> Tombstone:
    """The deletion a record tells of. Raises Corrupt."""
    check_head(data, NodeKind.TOMBSTONE)
    if len(data) != _TOMBSTONE.size:
        corrupt("tombstone", f"{_TOMBSTONE.size} bytes", len(data))
    _, _, raw_id, time_ns = _TOMBSTONE.unpack(data)
    return Tombstone(_id(raw_id), time_ns)


def _text(raw: bytes, what: str) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        corrupt(what, "UTF-8", raw)


def _id(raw: bytes) -> str:
    text = raw.decode("latin-1")
    if not is_point_id(text):
        corrupt("point id", f"{POINT_ID_LEN} characters", raw)
    return text
