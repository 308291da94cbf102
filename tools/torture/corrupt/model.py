"""What a store holds, found out without Holdfast: which record of which pack serves which bytes of which points.

The manifests are walked with the functions of ``tools/rescue.py``, from packs alone; of the index only the rows that
say where each chunk lies are taken.  From a changed copy of the packs ``Damage`` then works out by itself which chunks
cannot be had any more, and so which names, attributes and ranges of which points: what ``check`` must name, what
reading must refuse, and what must still come back.
"""

from __future__ import annotations

import stat
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple
from zlib import crc32

from backports import zstd
from blake3 import blake3

from engine.index import Index, Table
from engine.index.rows import PACK_SEALED, U32, chunk_row, pack_row
from tools import rescue
from tools.torture.corrupt.made import Files, read_files

Ranges = list[tuple[int, int]]


class Place(NamedTuple):
    """Where the index says that a chunk's record lies."""

    file: str
    offset: int
    size: int


class Piece(NamedTuple):
    """Bytes of a file that stand or fall with a chunk (data, or a node of the file's tree)."""

    start: int
    end: int
    cid: bytes
    node: bool = False


@dataclass
class Member:
    """An entry of a point. ``nodes``: all that lead to its name; ``attributes``: those of its xattrs."""

    mode: int
    ino: int
    nodes: tuple[bytes, ...]
    content: bytes = b""
    target: bytes = b""
    pieces: list[Piece] = field(default_factory=list)
    xattrs: dict[bytes, bytes] = field(default_factory=dict)
    attributes: list[bytes] = field(default_factory=list)


class _Packs(rescue.Packs):
    """Also what removes points."""

    def __init__(self, store: Path) -> None:
        self.tombs: dict[str, bytes] = {}
        super().__init__(store)

    def _point(self, kind: int, cid: bytes) -> None:
        super()._point(kind, cid)
        if kind == 4:
            data = self.read(cid)
            self.tombs[data[2:28].decode()] = data


class Model:
    """A sound store: its files, its chunks, its points."""

    def __init__(self, store: Path, points: list[str]) -> None:
        self.files: Files = read_files(store)
        self._packs = _Packs(store)
        self.key = self._packs.key
        self.plain: dict[bytes, bytes] = {}
        self.bases: dict[bytes, list[tuple[bytes, int, int]]] = {}
        self.places: dict[bytes, Place] = {}
        self.sealed: set[str] = set()
        self.committed: dict[str, int] = {}  # bytes of segments that count
        self._read_rows(store)
        self.points = {point: dict(self._walk(point)) for point in points}
        self.records = {point: self._id(self._packs.points[point]) for point in points}
        self.removed = {point: self._id(data) for point, data in self._packs.tombs.items()}

    def _id(self, data: bytes) -> bytes:
        return blake3(data, key=self.key).digest()

    def _read_rows(self, store: Path) -> None:
        index = Index(str(store / "index"))
        with index.read() as txn:
            names = {int(Path(name).stem): name for name in self.files.packs}
            for key, raw in txn.scan(Table.PACKS):
                number = U32.unpack(key)[0]
                if pack_row(raw).state == PACK_SEALED:
                    self.sealed.add(names[number])
                else:
                    self.committed[names[number]] = pack_row(raw).length
            for cid, raw in txn.scan(Table.CHUNKS):
                row = chunk_row(raw)
                self.places[cid] = Place(names[row.pack], row.offset, row.stored)
                self.plain[cid] = self._packs.read(cid)
        index.close()
        for cid, place in self.places.items():
            self.bases[cid] = _bases(self.files.packs[place.file][place.offset :])

    def _walk(self, point: str) -> Iterator[tuple[bytes, Member]]:
        data = self._packs.points[point]
        fields = rescue.POINT.unpack_from(data)
        top = rescue.Entry(data[rescue.POINT.size + sum(fields[9:13]) :])
        yield b"", self._member(top, ())
        yield from self._below(top.rest, b"", ())

    def _below(
        self, root: bytes, path: bytes, above: tuple[bytes, ...]
    ) -> Iterator[tuple[bytes, Member]]:
        if not root:
            return
        data = self.plain[root]
        nodes = (*above, root)
        if data[2]:
            count = int.from_bytes(data[3:5], "little")
            for at in range(len(data) - 32 * count, len(data), 32):
                yield from self._below(data[at : at + 32], path, nodes)
            return
        for entry in rescue.members(self._packs, root):
            here = path + b"/" + entry.name if path else entry.name
            yield here, self._member(entry, nodes)
            if stat.S_ISDIR(entry.mode):
                yield from self._below(entry.rest, here, nodes)

    def _member(self, entry: rescue.Entry, nodes: tuple[bytes, ...]) -> Member:
        member = Member(
            entry.mode, entry.ino, nodes, xattrs=rescue.xattrs(self._packs, entry.xattrs)
        )
        if entry.xattrs[:1] == b"\1":
            member.attributes = [
                entry.xattrs[at : at + 32] for at in range(1, len(entry.xattrs), 32)
            ]
        if stat.S_ISLNK(entry.mode):
            member.target = entry.rest
        elif stat.S_ISREG(entry.mode):
            member.pieces = [
                piece for piece in self._pieces(entry.rest) if piece.start < entry.size
            ]
            content = bytearray(entry.size)
            for number, parts in rescue.spans(self._packs, entry.rest):
                for offset, length, cid, start in parts:
                    at = number * rescue.SPAN + offset
                    content[at : at + length] = self.plain[cid][start : start + length]
                    member.pieces.append(Piece(at, at + length, cid))
            member.pieces = [one._replace(end=min(one.end, entry.size)) for one in member.pieces]
            member.content = bytes(content)
        return member

    def _pieces(self, root: bytes) -> Iterator[Piece]:
        """The ranges that nodes of a file tree serve."""
        if root[:1] != b"\1":
            return
        todo = [(root[1], 0, root[2:])]
        while todo:
            level, number, cid = todo.pop()
            width = rescue.SPAN * rescue.LEAF_SPANS * rescue.FANOUT**level
            yield Piece(number * width, (number + 1) * width, cid, True)
            data = self.plain[cid]
            at = 35
            for child in range(rescue.FANOUT if level else 0):
                if data[3 + child // 8] >> child % 8 & 1:
                    todo.append((level - 1, rescue.FANOUT * number + child, data[at : at + 32]))
                    at += 32


def _bases(raw: bytes) -> list[tuple[bytes, int, int]]:
    count = raw[6]
    return [rescue.BASE.unpack_from(raw, 52 + 40 * i) for i in range(count)]


@dataclass
class Loss:
    """What a point has lost: the empty path is its top directory.

    A delta whose base is damaged counts as lost; where it needs nothing of the damaged part it may yet be read.
    """

    hidden: set[bytes] = field(default_factory=set)  # names that cannot be found
    folders: set[bytes] = field(default_factory=set)  # whose names those are
    ranges: dict[bytes, Ranges] = field(default_factory=dict)
    surely: dict[bytes, Ranges] = field(
        default_factory=dict
    )  # those of them no luck can bring back
    attributes: set[bytes] = field(default_factory=set)

    def __bool__(self) -> bool:
        return bool(self.hidden or self.ranges or self.attributes)


class Damage:
    """What changed packs mean for the points of a model."""

    def __init__(self, model: Model, packs: dict[str, bytes]) -> None:
        """``packs``: the files that there are now, all of them."""
        self._model = model
        self._packs = packs
        self.hurt = {cid for cid, place in model.places.items() if self._is_hurt(cid, place)}
        self.lost = set(self.hurt)  # … and whatever is a delta of them
        todo = list(self.hurt)
        users: dict[bytes, list[bytes]] = {}
        for cid, bases in model.bases.items():
            for base, _, _ in bases:
                users.setdefault(base, []).append(cid)
        while todo:
            for user in users.get(todo.pop(), ()):
                if user not in self.lost:
                    self.lost.add(user)
                    todo.append(user)

    def _is_hurt(self, cid: bytes, place: Place) -> bool:
        model = self._model
        old = model.files.packs[place.file][place.offset : place.offset + place.size]
        data = self._packs.get(place.file, b"")[place.offset : place.offset + place.size]
        return data != old and not self._harmless(cid, data, len(old))

    def _harmless(self, cid: bytes, data: bytes, size: int) -> bool:
        """Whether other bytes still say the same: zstd frames have bits that mean nothing."""
        if len(data) != size or data[:4] != b"HFR1":
            return False
        end = 52 + 40 * data[6]
        (check,) = struct.unpack_from("<I", data, 48)
        if check != crc32(data[52:end], crc32(data[:48])) or data[16:48] != cid:
            return False
        bases = _bases(data)
        prefix = b"".join([self._model.plain[one][low : low + size] for one, low, size in bases])
        plain = self._model.plain[cid]
        if not data[5]:
            return data[end:] == plain
        try:
            dictionary = zstd.ZstdDict(prefix, is_raw=True) if bases else None
            return zstd.decompress(data[end:], dictionary) == plain
        except zstd.ZstdError:
            return False

    def told(self) -> set[str]:
        """Files whose change ``check`` must tell of whatever it hits: sealed packs, heads and lengths of segments."""
        found = set()
        for name, old in self._model.files.packs.items():
            now = self._packs.get(name)
            headless = now is None or now[:64] != old[:64]
            short = len(now or b"") < self._model.committed.get(name, 0)
            if now != old and (name in self._model.sealed or headless or short):
                found.add(name)
        return found

    def of_point(self, point: str) -> Loss:
        """What the point has lost."""
        loss = Loss()
        for path, member in self._model.points[point].items():
            gone = next((at for at, node in enumerate(member.nodes) if node in self.lost), None)
            if gone is not None:
                loss.hidden.add(path)
                continue
            ranges = merged([(p.start, p.end) for p in member.pieces if p.cid in self.lost])
            if ranges:
                loss.ranges[path] = ranges
                loss.surely[path] = merged(
                    [
                        (p.start, p.end)
                        for p in member.pieces
                        if p.cid in self.lost and (p.node or p.cid in self.hurt)
                    ]
                )
            if self.lost.intersection(member.attributes):
                loss.attributes.add(path)
        for path in loss.hidden:
            folder = path.rpartition(b"/")[0] if b"/" in path else b""
            if folder not in loss.hidden:
                loss.folders.add(folder)
        return loss


def merged(ranges: Ranges) -> Ranges:
    """Sorted, and those that touch made one."""
    result: Ranges = []
    for start, end in sorted(ranges):
        if result and start <= result[-1][1]:
            result[-1] = (result[-1][0], max(end, result[-1][1]))
        elif start < end:
            result.append((start, end))
    return result
