"""A part of a point as a tar stream, in the POSIX format with PAX headers, as GNU tar reads it with ``--xattrs``.

Names, owners, times to the nanosecond, extended attributes (access control lists are among them), hard links, devices
and large holes are kept; sockets are left out, as by tar itself. Memory is bounded, but for the names of hard links
whose other names are still to come.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from typing import NamedTuple

from daemon.service import walking
from engine import PointView
from engine.nodes import Entry

BLOCK = 512
RECORD = 20 * BLOCK  # a stream ends at a multiple of it
PIECE = 1 << 20
SPAN = 2 << 20  # bytes of the engine's spans: what is left out is whole spans of hole
HOLES_MIN = 8 << 20  # bytes of holes from which a file is written without them
_TYPES = {
    stat.S_IFREG: b"0", stat.S_IFLNK: b"2", stat.S_IFCHR: b"3", stat.S_IFBLK: b"4", stat.S_IFDIR: b"5",
    stat.S_IFIFO: b"6",
}  # fmt: skip
_HARD = b"1"
_OCTAL_11 = 8**11  # first number that does not fit the field of a size or a time
_OCTAL_7 = 8**7  # … of an owner


class _Map(NamedTuple):
    """Where the data of a file with holes is: how many parts, and how long all of them and their list are."""

    parts: int
    data: int
    text: int


def stream(view: PointView, top: Entry) -> Iterator[bytes]:
    """The tar stream of a directory with all below it, or of one other entry; in pieces of at most ``PIECE`` bytes.

    The pieces raise Corrupt for what cannot be read.
    """
    written = 0
    linked: dict[int, tuple[bytes, int]] = {}  # inode -> its first name, names still to come
    for name, entry in _members(view, top):
        for piece in _member(view, name, entry, linked):
            written += len(piece)
            yield piece
    yield bytes(2 * BLOCK + -(written + 2 * BLOCK) % RECORD)


def _members(view: PointView, top: Entry) -> Iterator[tuple[bytes, Entry]]:
    yield top.name or b".", top
    if not stat.S_ISDIR(top.mode):
        return
    before = top.name + b"/" if top.name else b""
    for path, entry in walking.below(view, top, folders=True):
        if not stat.S_ISSOCK(entry.mode):
            yield before + path, entry


def _member(
    view: PointView, name: bytes, entry: Entry, linked: dict[int, tuple[bytes, int]]
) -> Iterator[bytes]:
    if entry.nlink > 1 and not stat.S_ISDIR(entry.mode):
        first, left = linked.pop(entry.ino, (b"", entry.nlink))
        if left > 1:
            linked[entry.ino] = first or name, left - 1
        if first:
            yield from _head(name, entry, _HARD, 0, {}, first)
            return
    records = _xattrs(view, entry)
    if not stat.S_ISREG(entry.mode):
        shown = name + b"/" if stat.S_ISDIR(entry.mode) else name
        yield from _head(shown, entry, _TYPES[stat.S_IFMT(entry.mode)], 0, records, entry.target)
        return
    holes = _holes(view, entry)
    if holes is None:
        yield from _head(name, entry, b"0", entry.size, records)
        yield from _data(view, entry, 0, entry.size)
        yield bytes(-entry.size % BLOCK)
        return
    padded = holes.text + -holes.text % BLOCK
    records |= {
        b"GNU.sparse.major": b"1", b"GNU.sparse.minor": b"0", b"GNU.sparse.name": name,
        b"GNU.sparse.realsize": b"%d" % entry.size,
    }  # fmt: skip
    place = b"GNUSparseFile.0/" + os.path.basename(name)
    yield from _head(place, entry, b"0", padded + holes.data, records)
    yield from _map_text(view, entry, holes)
    yield bytes(padded - holes.text)
    for start, end in _parts(view, entry):
        yield from _data(view, entry, start, end)
    yield bytes(-holes.data % BLOCK)


# --- content ------------------------------------------------------------------------------------------------


def _data(view: PointView, entry: Entry, start: int, end: int) -> Iterator[bytes]:
    for at in range(start, end, PIECE):
        yield view.read(entry, at, min(PIECE, end - at))


def _parts(view: PointView, entry: Entry) -> Iterator[tuple[int, int]]:
    """(start, end) of what is not hole, by whole spans; in the end an empty one, if the file ends with a hole."""
    start = end = 0
    for number, _ in view.spans(entry):
        if number * SPAN != end:
            if end > start:
                yield start, end
            start = number * SPAN
        end = min((number + 1) * SPAN, entry.size)
    if end > start:
        yield start, end
    if end < entry.size:
        yield entry.size, entry.size


def _holes(view: PointView, entry: Entry) -> _Map | None:
    """None for a file without holes worth leaving out."""
    if entry.size - entry.allocated < HOLES_MIN:
        return None
    parts = data = text = 0
    for start, end in _parts(view, entry):
        parts += 1
        data += end - start
        text += len(b"%d\n%d\n" % (start, end - start))
    if entry.size - data < HOLES_MIN:
        return None
    return _Map(parts, data, text + len(b"%d\n" % parts))


def _map_text(view: PointView, entry: Entry, holes: _Map) -> Iterator[bytes]:
    text = bytearray(b"%d\n" % holes.parts)
    for start, end in _parts(view, entry):
        text += b"%d\n%d\n" % (start, end - start)
        if len(text) >= PIECE:
            yield bytes(text)
            text.clear()
    yield bytes(text)


# --- headers ------------------------------------------------------------------------------------------------


def _xattrs(view: PointView, entry: Entry) -> dict[bytes, bytes]:
    found = {}
    for name, value in (view.xattrs(entry) if entry.xattrs else {}).items():
        keyword = name.replace(b"%", b"%25").replace(b"=", b"%3D")
        found[b"SCHILY.xattr." + keyword] = value
    return found


def _head(
    name: bytes, entry: Entry, kind: bytes, size: int, records: dict[bytes, bytes], target: bytes = b""
) -> Iterator[bytes]:  # fmt: skip
    """The header of a member, after one with all that does not fit it."""
    records = dict(records)
    if len(name) > 100 or not name.isascii():
        records[b"path"] = name
    if len(target) > 100 or not target.isascii():
        records[b"linkpath"] = target
    if size >= _OCTAL_11:
        records[b"size"] = b"%d" % size
    for keyword, number in ((b"uid", entry.uid), (b"gid", entry.gid)):
        if number >= _OCTAL_7:
            records[keyword] = b"%d" % number
    seconds, rest = divmod(entry.mtime_ns, 10**9)
    if rest or not 0 <= seconds < _OCTAL_11:
        records[b"mtime"] = _time(entry.mtime_ns)
    if b"GNU.sparse.name" in records:
        records.pop(b"path", None)  # it stands there
    if records:
        body = b"".join(_record(keyword, value) for keyword, value in records.items())
        place = b"PaxHeaders/" + os.path.basename(name.rstrip(b"/"))
        yield _header(place, 0o644, 0, 0, len(body), 0, b"x", b"", 0)
        for at in range(0, len(body), PIECE):
            yield body[at : at + PIECE]
        yield bytes(-len(body) % BLOCK)
    yield _header(
        name, stat.S_IMODE(entry.mode), entry.uid, entry.gid, size, max(0, seconds), kind, target, entry.rdev
    )  # fmt: skip


def _record(keyword: bytes, value: bytes) -> bytes:
    """``LENGTH KEYWORD=VALUE``, the length counting itself."""
    rest = len(keyword) + len(value) + 3
    length = rest + len(str(rest))
    if len(str(length)) > len(str(rest)):
        length += 1
    return b"%d %s=%s\n" % (length, keyword, value)


def _time(time_ns: int) -> bytes:
    sign = b"-" if time_ns < 0 else b""
    seconds, rest = divmod(abs(time_ns), 10**9)
    return sign + b"%d.%09d" % (seconds, rest)


def _header(
    name: bytes, mode: int, uid: int, gid: int, size: int, seconds: int, kind: bytes, target: bytes,
    rdev: int,
) -> bytes:  # fmt: skip
    """512 bytes; what does not fit is cut, since a PAX header has it."""
    device = kind in (b"3", b"4")
    fields = [
        name[:100].ljust(100, b"\0"), b"%07o\0" % mode, _octal(uid, 7), _octal(gid, 7), _octal(size, 11),
        _octal(seconds, 11), b" " * 8, kind, target[:100].ljust(100, b"\0"), b"ustar\00000", bytes(64),
        _octal(os.major(rdev) if device else 0, 7), _octal(os.minor(rdev) if device else 0, 7), bytes(167),
    ]  # fmt: skip
    block = b"".join(fields)
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


def _octal(number: int, digits: int) -> bytes:
    return b"%0*o\0" % (digits, number if number < 8**digits else 0)
