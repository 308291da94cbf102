"""The nodes of a point: its record, directories, contents of files, attributes. Part of holdfast_rescue."""

import stat
import struct
from collections.abc import Iterator

from rescue_location import (
    CHUNK_MAX,
    FANOUT,
    LEAF_SPANS,
    MEMBER,
    POINT,
    SLOT,
    SPAN,
    Damage,
    Location,
    need,
    shown,
)


class Entry:
    """One record of a directory."""

    def __init__(self, record: bytes) -> None:
        (a, b, _, self.mode, self.uid, self.gid, self.nlink, _, self.rdev, self.ino, self.size, _, self.mtime, _,
         self.atime, _) = MEMBER.unpack_from(record)  # fmt: skip
        self.name = record[MEMBER.size : MEMBER.size + a]
        self.xattrs = record[MEMBER.size + a : MEMBER.size + a + b]
        self.rest = record[MEMBER.size + a + b :]
        need(self.size <= 16 << 40 and len(record) >= MEMBER.size + a + b, "an entry out of bounds")

    @property
    def is_dir(self) -> bool:
        return stat.S_ISDIR(self.mode)


def varint(data: bytes, at: int) -> tuple[int, int]:
    number = 0
    for shift in (0, 7, 14, 21):
        number |= (data[at] & 0x7F) << shift
        at += 1
        if data[at - 1] < 0x80:
            return number, at
    raise Damage("a number of more than 4 bytes")


def extents(data: bytes) -> list[tuple[int, int, bytes, int]]:
    """(offset, length, chunk id, offset in chunk) of an encoded list."""
    need(3 <= len(data) <= 4000, "extents of another length")
    count, at = varint(data, 1)
    named, at = varint(data, at)
    ids = [data[at + 32 * i : at + 32 * i + 32] for i in range(min(named, 4000))]
    at += 32 * named
    result, used, end = [], 0, 0
    for _ in range(count):
        tag, at = data[at], at + 1
        gap, length, number, start = 0, SLOT, used, 0
        if tag & 1:
            gap, at = varint(data, at)
        if tag & 2:
            length, at = varint(data, at)
        if tag & 4:
            number, at = varint(data, at)
        else:
            used += 1
        if tag & 8:
            start, at = varint(data, at)
        end += gap + length
        need(
            end <= SPAN and start + length <= CHUNK_MAX and len(ids[number]) == 32,
            "an extent out of bounds",
        )
        result.append((end - length, length, ids[number], start))
    return result


def spans(place: Location, root: bytes) -> Iterator[tuple[int, list[tuple[int, int, bytes, int]]]]:
    """(number, extents) of a content root."""
    if not root:
        return
    if root[0] == 0:
        yield 0, extents(root[1:])
        return
    need(len(root) == 34 and root[1] <= 3, "another content root")
    todo = [(root[1], 0, root[2:])]
    while todo:
        level, number, cid = todo.pop()
        try:
            data = place.read(cid)
            if level:
                need(data[:3] == bytes((0x46, 1, level)), f"node {cid.hex()} is none of a file")
                there = [i for i in range(FANOUT) if data[3 + i // 8] >> i % 8 & 1]
                need(len(data) == 35 + 32 * len(there), f"node {cid.hex()}: another length")
                todo += [
                    (level - 1, FANOUT * number + child, data[35 + 32 * i : 67 + 32 * i])
                    for i, child in enumerate(there)
                ]
                continue
            need(data[:2] == b"S\1", f"node {cid.hex()} is no leaf of a file")
            there = [i for i in range(LEAF_SPANS) if data[2] >> i & 1]
            lengths = struct.unpack_from(f"<{len(there)}H", data, 3)
            at = 3 + 2 * len(there)
            for index, length in zip(there, lengths, strict=True):
                yield LEAF_SPANS * number + index, extents(data[at : at + length])
                at += length
        except (Damage, IndexError, struct.error) as error:
            place.problem(f"{FANOUT**level * LEAF_SPANS * SPAN >> 20} MiB of a file: {error}")


def members(place: Location, root: bytes) -> Iterator[Entry]:
    """Entries of a directory, in name order; what cannot be read is told of and passed over."""
    todo, last = [(root, -1)] if root else [], b""
    while todo:
        cid, level = todo.pop()
        try:
            data = place.read(cid)
            kind, version, found, count = struct.unpack_from("<BBBH", data)
            need((kind, version) == (0x44, 1) and 0 < count <= 256 and found <= 8, "no directory")
            need(level in (-1, found), "a node of another level")
            if found:
                at = 5 + count + sum(data[5 : 5 + count])
                need(len(data) == at + 32 * count, "another length")
                children = [data[at + 32 * i : at + 32 * i + 32] for i in range(count)]
                todo += [(child, found - 1) for child in reversed(children)]
                continue
            at = 5 + 2 * count
            for length in struct.unpack_from(f"<{count}H", data, 5):
                entry = Entry(data[at : at + length])
                at += length
                name = entry.name
                need(name > last and name not in (b".", b"..") and b"/" not in name and b"\0" not in name,
                     f"a name that may not be there: {shown(name)}")  # fmt: skip
                last = name
                yield entry
        except (Damage, IndexError, struct.error) as error:
            place.problem(f"directory node {cid.hex()}: {error}")


def xattrs(place: Location, packed: bytes) -> Iterator[tuple[bytes, bytes]]:
    data = packed[1:]
    if packed[:1] == b"\1":
        data = b"".join(
            place.read(packed[i : i + 32])[2:] for i in range(1, min(len(packed), 129), 32)
        )
    at = 0
    while at < len(data):
        size = int.from_bytes(data[at + 1 : at + 5], "little")
        name = data[at + 5 : at + 5 + data[at]]
        at += 5 + data[at]
        need(
            len(name) > 0 and size <= 1 << 16 and at + size <= len(data), "attributes out of bounds"
        )
        yield name, data[at : at + size]
        at += size


def point_root(place: Location, point: str) -> tuple[Entry, str, int]:
    """(root entry, mount, inodes) of a point."""
    data = place.read(place.points[point])
    fields = POINT.unpack_from(data)
    need(data[:2] == b"P\1" and fields[2] == point.encode(), "the record of another point")
    texts = data[POINT.size :]
    need(len(texts) == sum(fields[9:13]) + fields[13], "the record of a point: another length")
    root = Entry(texts[sum(fields[9:13]) :])
    need(root.is_dir and not root.name, "a point without a root directory")
    return root, texts[: fields[9]].decode("utf-8", "replace"), fields[7]
