"""Restore a recovery point from packs alone: plain Python, no Holdfast, no index.

    python3 rescue.py STORE                    list the recovery points found
    python3 rescue.py STORE POINT TARGET       restore one (id or a unique beginning of it) into a new directory

Of a sealed store the key comes from the files that HOLDFAST_KEY_FILE and HOLDFAST_PASSPHRASE_FILE name (both, where
both are needed), and the programs in ``location_rescue`` must lie beside this one, with what they need.

Reads ``format.json``, ``keys.json``, ``packs/*/*.pack`` and ``segments/*.seg`` of a store; what the bytes mean is
written in ``engine/FORMAT.md``.  Needs zstd with dictionaries: Python 3.14 has it, before that the package
``backports.zstd``.  With the package ``blake3`` every chunk is verified; without it a warning is printed.  A damaged
record is passed over; a file that needs it is reported, and everything else is restored.
"""

import json
import os
import stat
import struct
import sys
import unicodedata
from collections.abc import Iterator
from pathlib import Path

try:
    from compression import zstd  # type: ignore[import-not-found]  # Python 3.14
except ImportError:
    from backports import zstd
try:
    import blake3
except ImportError:
    blake3 = None  # type: ignore[assignment]

VERIFY = blake3 is not None
SPAN, SLOT, LEAF_SPANS, FANOUT = 2 << 20, 64 << 10, 4, 256
SEALED = 128  # in a record's encoding
RECORD, BASE = struct.Struct("<4sBBBBII32s"), struct.Struct("<32sII")
ENTRY = struct.Struct("<BBBHIIIIIQQQqqqq")
POINT = struct.Struct("<BB26sIQqQQHBHBHH")


class Opener:
    """The keys of a sealed store. Its ring is as at a location, and is opened by the program for those."""

    def __init__(self, store: Path, store_id: bytes) -> None:
        sys.path.insert(0, str(Path(__file__).resolve().parent / "location_rescue"))
        import rescue_location as ring
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        self._hkdf, self._aead, self._wrong = ring.hkdf, AESGCM, InvalidTag
        have = ring.Secrets()
        if name := os.environ.get("HOLDFAST_KEY_FILE"):
            have = ring.read_key(Path(name).read_bytes())
        if name := os.environ.get("HOLDFAST_PASSPHRASE_FILE"):
            text = unicodedata.normalize("NFC", Path(name).read_bytes().decode().rstrip("\r\n"))
            have = have._replace(passphrase=text.encode())
        error: Exception = ValueError("no key ring: keys.json and keys.copy.json are not there")
        for path in (store / "keys.json", store / "keys.copy.json"):
            try:
                raw = ring.load(path, ring.RING_MAX)
                self.epochs, self.id_key = ring.open_ring(raw, store_id, have)
            except (ring.Damage, ring.Stop) as one:
                print(f"{path.name}: {one}", file=sys.stderr)
                error = one
            else:
                return
        raise SystemExit(f"the store is sealed, and was not opened: {error}")

    def open(self, cid: bytes, context: bytes, data: bytes) -> bytes:
        """The payload of a record. ValueError when it is damaged, or sealed with a key that is not here."""
        key = self.epochs.get(int.from_bytes(data[:4], "little"))
        if key is None:
            raise ValueError(f"chunk {cid.hex()} is sealed with a key that is not in the ring")
        try:
            opened = self._aead(self._hkdf(key, "record", cid)).decrypt(
                data[4:16], data[16:], context
            )
        except (self._wrong, ValueError):
            raise ValueError(f"chunk {cid.hex()} is damaged") from None
        return bytes(opened)


class Packs:
    """Where every chunk lies, found by reading all packs and segments once."""

    def __init__(self, store: Path) -> None:
        identity = json.loads((store / "format.json").read_text())
        self.store_id = bytes.fromhex(identity["store_id"])
        self.opener = None if "id_key" in identity else Opener(store, self.store_id)
        self.key = self.opener.id_key if self.opener else bytes.fromhex(identity["id_key"])
        self.places: dict[
            bytes, list[tuple[Path, int]]
        ] = {}  # an old record may be of no use any more
        self.points: dict[str, bytes] = {}
        self.dead: set[str] = set()
        self.cache: dict[bytes, bytes] = {}
        for path in sorted([*store.glob("packs/*/*.pack"), *store.glob("segments/*.seg")]):
            self._scan(path)

    def _scan(self, path: Path) -> None:
        size = path.stat().st_size
        with path.open("rb") as file:
            at = 64
            while at + 52 <= size:
                file.seek(at)
                magic, kind, _, bases, _, _, payload, cid = RECORD.unpack(file.read(48))
                if magic != b"HFR1":
                    break  # the trailer, or a torn end
                end = at + 52 + 40 * bases + payload
                if end > size:
                    break
                self.places.setdefault(cid, []).insert(0, (path, at))
                if kind in (3, 4):
                    self._point(kind, cid)
                at = end

    def _point(self, kind: int, cid: bytes) -> None:
        try:
            data = self.read(cid)
        except (OSError, ValueError, KeyError) as error:
            print(f"a point's record cannot be read: {error}", file=sys.stderr)
            return
        name = data[2:28].decode("ascii")
        if kind == 3:
            self.points[name] = data
        else:
            self.dead.add(name)

    def read(self, cid: bytes, level: int = 0) -> bytes:
        """The plaintext of a chunk; KeyError when it is nowhere, ValueError when it is damaged."""
        if cid in self.cache:
            return self.cache[cid]
        places = self.places[cid] if level < 8 else []
        error: Exception = ValueError(f"chunk {cid.hex()} is a delta of itself")
        for path, at in places:
            try:
                return self._record(cid, path, at, level)
            except (OSError, KeyError, ValueError) as one:
                error = one
        raise error

    def _record(self, cid: bytes, path: Path, at: int, level: int) -> bytes:
        with path.open("rb") as file:
            file.seek(at)
            head = file.read(52)
            _, _, encoding, count, _, plain, size, _ = RECORD.unpack(head[:48])
            head += file.read(40 * count)
            bases = list(BASE.iter_unpack(head[52:]))
            data = file.read(size)
        if encoding >= SEALED:
            if self.opener is None:
                raise ValueError(f"chunk {cid.hex()} is sealed, and its store is not")
            data = self.opener.open(cid, self.store_id + head, data)
        if encoding % SEALED:
            prefix = b"".join(
                self.read(base, level + 1)[low : low + length] for base, low, length in bases
            )
            try:
                data = zstd.decompress(data, zstd.ZstdDict(prefix, is_raw=True) if bases else None)
            except zstd.ZstdError as error:
                raise ValueError(f"chunk {cid.hex()}: {error}") from None
        if len(data) != plain or (VERIFY and blake3.blake3(data, key=self.key).digest() != cid):
            raise ValueError(f"chunk {cid.hex()} is damaged")
        while len(self.cache) > 400:
            del self.cache[next(iter(self.cache))]
        self.cache[cid] = data
        return data


def varint(data: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        byte = data[at]
        number |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return number, at


def extents(data: bytes) -> list[tuple[int, int, bytes, int]]:
    """(offset, length, chunk id, offset in chunk) of an encoded list."""
    count, at = varint(data, 1)
    named, at = varint(data, at)
    ids = [data[at + 32 * i : at + 32 * i + 32] for i in range(named)]
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
        result.append((end + gap, length, ids[number], start))
        end += gap + length
    return result


def spans(packs: Packs, root: bytes) -> Iterator[tuple[int, list[tuple[int, int, bytes, int]]]]:
    """(number, extents) of a content root."""
    if not root:
        return
    if root[0] == 0:
        yield 0, extents(root[1:])
        return
    todo = [(root[1], 0, root[2:])]
    while todo:
        level, number, cid = todo.pop()
        data = packs.read(cid)
        if level:
            at = 35
            for child in range(FANOUT):
                if data[3 + child // 8] >> child % 8 & 1:
                    todo.append((level - 1, FANOUT * number + child, data[at : at + 32]))
                    at += 32
            continue
        there = [i for i in range(LEAF_SPANS) if data[2] >> i & 1]
        at = 3 + 2 * len(there)
        for i, index in enumerate(there):
            length = int.from_bytes(data[3 + 2 * i : 5 + 2 * i], "little")
            yield LEAF_SPANS * number + index, extents(data[at : at + length])
            at += length


class Entry:
    """One record of a directory."""

    def __init__(self, record: bytes) -> None:
        (a, b, _, self.mode, self.uid, self.gid, self.nlink, _, self.rdev, self.ino, self.size, _, self.mtime, _,
         self.atime, _) = ENTRY.unpack_from(record)  # fmt: skip
        self.name = record[ENTRY.size : ENTRY.size + a]
        self.xattrs = record[ENTRY.size + a : ENTRY.size + a + b]
        self.rest = record[ENTRY.size + a + b :]


def members(packs: Packs, root: bytes) -> "Iterator[Entry]":
    """Entries of a directory, in name order."""
    if not root:
        return
    data = packs.read(root)
    count = int.from_bytes(data[3:5], "little")
    if data[2]:
        at = 5 + count + sum(data[5 : 5 + count])
        if len(data) != at + 32 * count:
            raise ValueError(f"directory node {root.hex()} has another length")
        for i in range(count):
            yield from members(packs, data[at + 32 * i : at + 32 * i + 32])
        return
    lengths = [int.from_bytes(data[5 + 2 * i : 7 + 2 * i], "little") for i in range(count)]
    at = 5 + 2 * count
    for length in lengths:
        yield Entry(data[at : at + length])
        at += length


def xattrs(packs: Packs, packed: bytes) -> dict[bytes, bytes]:
    if not packed:
        return {}
    data = packed[1:]
    if packed[0]:
        data = b"".join(packs.read(packed[i : i + 32])[2:] for i in range(1, len(packed), 32))
    result, at = {}, 0
    while at < len(data):
        size = int.from_bytes(data[at + 1 : at + 5], "little")
        name = data[at + 5 : at + 5 + data[at]]
        result[name] = data[at + 5 + data[at] : at + 5 + data[at] + size]
        at += 5 + data[at] + size
    return result


class Rescue:
    """Writes one point below a new directory."""

    def __init__(self, packs: Packs) -> None:
        self.packs = packs
        self.links: dict[int, bytes] = {}
        self.damaged = 0

    def directory(self, entry: Entry, path: bytes) -> None:
        os.mkdir(path, 0o700)
        try:
            for child in members(self.packs, entry.rest):
                if child.name in (b"", b".", b"..") or b"/" in child.name:
                    raise ValueError(f"name {child.name!r}")
                self.member(child, path + b"/" + child.name)
        except (KeyError, ValueError) as error:
            self.report(path, error)
        self.attributes(entry, path)

    def member(self, entry: Entry, path: bytes) -> None:
        if stat.S_ISDIR(entry.mode):
            self.directory(entry, path)
            return
        if entry.nlink > 1 and self.links.setdefault(entry.ino, path) != path:
            os.link(self.links[entry.ino], path)
            return
        if stat.S_ISREG(entry.mode):
            self.file(entry, path)
        elif stat.S_ISLNK(entry.mode):
            os.symlink(entry.rest, path)
        else:
            try:
                os.mknod(path, entry.mode, entry.rdev)
            except PermissionError as error:
                self.report(path, error)
                return
        self.attributes(entry, path)

    def file(self, entry: Entry, path: bytes) -> None:
        with open(path, "xb") as out:
            out.truncate(entry.size)
            try:
                for number, parts in spans(self.packs, entry.rest):
                    for offset, length, cid, start in parts:
                        try:
                            data = self.packs.read(cid)[start : start + length]
                        except (KeyError, ValueError) as error:
                            self.report(path, error)
                            continue
                        out.seek(number * SPAN + offset)
                        out.write(data)
            except (KeyError, ValueError) as error:
                self.report(path, error)

    def attributes(self, entry: Entry, path: bytes) -> None:
        if os.geteuid() == 0:
            os.chown(path, entry.uid, entry.gid, follow_symlinks=False)
        for name, value in xattrs(self.packs, entry.xattrs).items():
            try:
                os.setxattr(path, name, value, follow_symlinks=False)
            except OSError as error:
                self.report(path, error)
        if not stat.S_ISLNK(entry.mode):
            os.chmod(path, stat.S_IMODE(entry.mode))
        os.utime(path, ns=(entry.atime, entry.mtime), follow_symlinks=False)

    def report(self, path: bytes, error: Exception) -> None:
        self.damaged += 1
        print(f"{os.fsdecode(path)!r}: {type(error).__name__}: {error}", file=sys.stderr)


def main(arguments: list[str]) -> int:
    if len(arguments) not in (1, 3):
        print(__doc__, file=sys.stderr)
        return 2
    if not VERIFY:
        print("warning: without the package blake3 nothing is verified", file=sys.stderr)
    packs = Packs(Path(arguments[0]))
    alive = {name: data for name, data in sorted(packs.points.items()) if name not in packs.dead}
    if len(arguments) == 1:
        for name, data in alive.items():
            fields = POINT.unpack_from(data)
            texts = data[POINT.size :]
            mount, label = texts[: fields[9]], texts[fields[9] : fields[9] + fields[10]]
            print(name, mount.decode(), f"no {fields[4]}", ascii(label.decode()))
        return 0
    found = [data for name, data in alive.items() if name.startswith(arguments[1])]
    if len(found) != 1:
        print(f"{len(found)} points begin with {arguments[1]!r}", file=sys.stderr)
        return 10
    fields = POINT.unpack_from(found[0])
    rescue = Rescue(packs)
    rescue.directory(Entry(found[0][POINT.size + sum(fields[9:13]) :]), os.fsencode(arguments[2]))
    print(f"restored to {arguments[2]}, {rescue.damaged} damaged")
    return 20 if rescue.damaged else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
