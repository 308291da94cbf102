"""What lies at a location: its keys, its journal, its packs, and the chunks in them. Part of holdfast_rescue."""

import base64
import hashlib
import hmac
import json
import os
import re
import stat
import struct
import sys
import zlib
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from blake3 import blake3
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

try:
    from compression import zstd  # type: ignore[import-not-found]  # Python 3.14
except ImportError:
    from backports import zstd

SPAN, SLOT, LEAF_SPANS, FANOUT, CHUNK_MAX, TAG = 2 << 20, 64 << 10, 4, 256, 256 << 10, 16
PACK_MAX, ENTRY_MAX, JSON_MAX, RING_MAX = 48 << 20, 33 << 20, 32 << 20, 1 << 20
HEADER, FOOTER = struct.Struct("<8s16sIB3s32s"), struct.Struct("<QI4s")
LISTED, RECORD, BASE = (
    struct.Struct("<32sIIIBBBB"),
    struct.Struct("<4sBBBBII32sI"),
    struct.Struct("<32sII"),
)
MEMBER, POINT = struct.Struct("<BBBHIIIIIQQQqqqq"), struct.Struct("<BB26sIQqQQHBHBHH")
USAGE, NO_POINT, CLOSED, DAMAGED = 2, 10, 14, 20


class Damage(Exception):
    """Bytes that are not what they should be, or are not there."""


class Stop(Exception):
    """Nothing more can be done; with the exit code."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


def need(sound: object, text: str) -> None:
    if not sound:
        raise Damage(text)


def shown(name: bytes) -> str:
    """A name for a terminal: nothing of it is obeyed."""
    text = name.decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def opened(path: Path) -> BinaryIO:
    """A file to be read; what is none does not hold anybody up. OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise Damage(f"{path}: no file")
    return os.fdopen(fd, "rb")


def load(path: Path, most: int) -> bytes:
    try:
        with opened(path) as file:
            need(os.fstat(file.fileno()).st_size <= most, f"{path}: more than {most} bytes")
            return file.read(most)
    except OSError as error:
        raise Damage(f"{path}: {error.strerror}") from None


def read_json(raw: bytes, what: str) -> Any:
    try:
        return json.loads(raw)
    except (ValueError, RecursionError):
        raise Damage(f"{what}: no JSON") from None


def unzstd(frame: bytes, size: int, prefix: bytes = b"") -> bytes:
    """Exactly ``size`` bytes: the frame's own word is compared before anything is decoded."""
    try:
        need(zstd.get_frame_info(frame).decompressed_size == size, "a frame of another size")
        options = {zstd.DecompressionParameter.window_log_max: 21}
        context = zstd.ZstdDict(prefix, is_raw=True).as_prefix if prefix else None
        decoder = zstd.ZstdDecompressor(context, options=options)
        data = decoder.decompress(frame)
    except (zstd.ZstdError, EOFError) as error:
        raise Damage(f"zstd: {error}") from None
    need(len(data) == size and decoder.eof and not decoder.unused_data, "a damaged frame")
    return bytes(data)


# --- keys -------------------------------------------------------------------------------------------------


def hkdf(key: bytes, name: str, salt: bytes = bytes(32)) -> bytes:
    middle = hmac.digest(salt, key, "sha256")
    return hmac.digest(middle, b"holdfast 1 " + name.encode() + b"\1", "sha256")


def unwrap(key: bytes, wrapped: str, context: bytes) -> bytes | None:
    data = base64.b64decode(wrapped)
    try:
        return AESGCM(key).decrypt(data[:12], data[12:], context)
    except (InvalidTag, ValueError):
        return None


def canonical(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


class Secrets(NamedTuple):
    """What the person gave: each b"" or all there is of it."""

    passphrase: bytes = b""
    key: bytes = b""
    identity: bytes = b""


def read_key(raw: bytes) -> Secrets:
    """A key file: 32 bytes, or the printed form."""
    if len(raw) == 32:
        return Secrets(key=raw)
    name, colon, rest = raw.decode("ascii", "replace").strip().rpartition(":")
    text = re.sub(r"[\s-]", "", rest).upper()
    try:
        data = base64.b32decode(text + "=")
    except ValueError:
        data = b""
    if len(data) != 34 or hashlib.sha256(data[:32]).digest()[:2] != data[32:]:
        raise Stop(USAGE, "the key file holds no key, or a mistyped one")
    if name == "recipient":
        raise Stop(USAGE, "the key file holds a recipient's public key: its identity is needed")
    return Secrets(identity=data[:32]) if colon else Secrets(key=data[:32])


def slot_key(slot: dict[str, Any], have: Secrets) -> bytes | None:
    """The key that wraps this slot, None when it is not for what we have."""
    kind = slot["kind"]
    if kind == "key" and have.key:
        return hkdf(have.key, "key")
    if kind == "recipient" and have.identity:
        public = base64.b64decode(slot["public"])
        private = X25519PrivateKey.from_private_bytes(have.identity)
        shared = private.exchange(X25519PublicKey.from_public_bytes(public))
        return hkdf(shared, "recipient", public + private.public_key().public_bytes_raw())
    if (
        kind not in ("passphrase", "both")
        or not have.passphrase
        or (kind == "both" and not have.key)
    ):
        return None
    memory, passes, lanes = int(slot["memory_kib"]), int(slot["passes"]), int(slot["lanes"])
    need(memory <= 1 << 20 and passes <= 16 and lanes <= 16, "a slot that costs more than is sound")
    salt = base64.b64decode(slot["salt"])
    stretched = Argon2id(
        salt=salt, length=32, iterations=passes, lanes=lanes, memory_cost=memory
    ).derive(have.passphrase)
    return hkdf(stretched + have.key, "both") if kind == "both" else stretched


def open_ring(raw: bytes, location: bytes, have: Secrets) -> tuple[dict[int, bytes], bytes]:
    """(data keys by epoch, key of chunk ids) of a key ring."""
    ring = read_json(raw, "key ring")
    try:
        need(bytes.fromhex(ring["location"]) == location, "key ring of another location")
        need(len(ring["slots"]) <= 16, "key ring with too many slots")
        work = sum(one.get("memory_kib", 0) * one.get("passes", 0) for one in ring["slots"])
        need(work <= 16 << 20, "key ring that costs more than is sound")
        for slot in ring["slots"]:
            rest = {name: value for name, value in slot.items() if name != "wrapped"}
            key = slot_key(slot, have)
            master = key and unwrap(key, slot["wrapped"], canonical(rest) + location)
            if master:
                break
        else:
            raise Stop(
                CLOSED,
                f"what was given opens none of the {len(ring['slots'])} slots of the key ring",
            )
        body = canonical({name: value for name, value in ring.items() if name != "mac"})
        mac = hmac.digest(hkdf(master, "ring"), body, "sha256")
        need(hmac.compare_digest(mac, base64.b64decode(ring["mac"])), "the key ring was changed")
        epochs = {}
        for one in ring["epochs"]:
            context = location + int(one["epoch"]).to_bytes(4, "little")
            epochs[one["epoch"]] = unwrap(hkdf(master, "epoch"), one["wrapped"], context) or b""
        secrets = unwrap(hkdf(master, "secrets"), ring["secrets"], location) or b""
        return epochs, bytes.fromhex(json.loads(secrets)["id_key"])
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise Damage(f"key ring: {type(error).__name__}") from None


# --- the location -----------------------------------------------------------------------------------------


class Place(NamedTuple):
    """Where a record lies: number of the pack, offset of its frame, its length."""

    pack: int
    offset: int
    length: int


class Location:
    """What lies in a directory: its packs by their own trailers, its points by the journal."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.problems = 0
        self.packs: list[tuple[Path, bytes]] = []  # path, header
        self.places: dict[bytes, list[Place]] = {}
        self.points: dict[str, bytes] = {}  # id -> chunk id of its record
        self.locks: dict[str, int] = {}  # point: until when
        self.named: dict[str, int] = {}  # packs the journal names, and their sizes
        self.epochs: dict[int, bytes] = {}
        self.cache: dict[bytes, bytes] = {}
        try:
            mark = read_json(load(root / "holdfast.json", 4096), "holdfast.json")
            self.location, self.sealed = bytes.fromhex(mark["location"]), mark["sealed"]
            need(
                type(self.sealed) is bool and len(self.location) == 16,
                "holdfast.json: other fields",
            )
            if mark["holdfast"] != 1:
                raise Stop(DAMAGED, f"format {mark['holdfast']!r}: a newer program is needed")
            self.id_key = b"" if self.sealed else bytes.fromhex(mark["id_key"])
        except (KeyError, TypeError, ValueError) as error:
            raise Damage(f"holdfast.json: {type(error).__name__}") from None

    def problem(self, text: object) -> None:
        self.problems += 1
        print(f"damaged: {text}", file=sys.stderr)

    def unlock(self, have: Secrets) -> None:
        if not self.sealed:
            if any(have):
                raise Stop(
                    CLOSED,
                    "holdfast.json says that nothing is sealed here: give no secret if that is so",
                )
            return
        rings = [
            path for path in self.root.glob("keys/*.json") if re.fullmatch("[0-9]{8}", path.stem)
        ]
        error: Exception = Stop(DAMAGED, "no key ring: keys/ is empty")
        for path in sorted(rings, reverse=True):
            try:
                self.epochs, self.id_key = open_ring(load(path, RING_MAX), self.location, have)
            except (Damage, Stop) as one:
                error = one
                if isinstance(one, Stop):
                    break  # an older ring may open: but that is for a person to decide
                self.problem(f"{path.name}: {one}")
            else:
                mark = hkdf(self.id_key, "fingerprint", self.location)[:8].hex()
                print(f"opened with key ring {int(path.stem)}, fingerprint {mark}", file=sys.stderr)
                return
        raise error

    def frame(self, header: bytes, offset: int, data: bytes) -> bytes:
        """What is in a frame of a file with this header."""
        magic, location, epoch, _, zero, salt = HEADER.unpack(header)
        need(magic in (b"HFSEAL01", b"HFJRNL01") and zero == bytes(3), "another kind of file")
        need(
            location == self.location and (epoch != 0) == self.sealed, "a file of another location"
        )
        nonce = offset.to_bytes(12, "big")
        need(len(data) >= TAG, "a frame cut short")
        if not self.sealed:
            tag = blake3(header + nonce + data[:-TAG], key=salt).digest(TAG)
            need(hmac.compare_digest(tag, data[-TAG:]), f"the frame at {offset} was changed")
            return data[:-TAG]
        need(self.epochs.get(epoch), f"no key of epoch {epoch}")
        name = "pack" if magic == b"HFSEAL01" else "journal"
        try:
            return AESGCM(hkdf(self.epochs[epoch], name, salt)).decrypt(nonce, data, header)
        except InvalidTag:
            raise Damage(f"the frame at {offset} was changed") from None

    # --- journal

    def read_journal(self) -> None:
        """The points that hold, and the packs they need. Entries that do not follow are told of, and used all the same:
        each was written by someone who has the keys, and a rescue wants what there is."""
        names = sorted(
            p.name for p in self.root.glob("journal/*") if re.fullmatch("[0-9]{16}", p.name)
        )
        read: list[tuple[int, dict[str, Any], bytes]] = []
        for name in names:
            try:
                raw = load(self.root / "journal" / name, ENTRY_MAX)
                read.append((int(name), self._entry(raw, int(name)), blake3(raw).digest()))
            except (Damage, struct.error) as error:
                self.problem(f"journal entry {name}: {error}")
        starts = [at for at, (_, entry, _) in enumerate(read) if entry["kind"] == "checkpoint"]
        for (before, _, digest), (seq, entry, _) in pairwise(read[starts[-1] if starts else 0 :]):
            if seq != before + 1 or entry["prev"] != digest.hex():
                self.problem(
                    f"journal entry {seq} does not follow {before}: what was between is not known"
                )
        if read and not starts and read[0][0] != 1:
            self.problem("the journal's first entries are missing")
        epoch = 0
        for seq, entry, _ in read:
            try:
                need(entry["epoch"] >= epoch, f"of epoch {entry['epoch']}, behind one of {epoch}")
                epoch = entry["epoch"]
                self._apply(entry)
            except Damage as error:
                self.problem(f"journal entry {seq}: {error}")
            except (LookupError, TypeError, ValueError, AttributeError) as error:
                self.problem(f"journal entry {seq}: {type(error).__name__}")
        if not read:
            self.problem("no journal entry can be read: points are looked for in the packs")

    def _entry(self, raw: bytes, seq: int) -> dict[str, Any]:
        header = raw[:64]
        need(header[:8] == b"HFJRNL01", "no journal entry")
        body = self.frame(header, 64, raw[64:])
        size = int.from_bytes(body[:4], "little")
        need(size <= JSON_MAX, f"{size} bytes of JSON")
        entry = read_json(unzstd(body[4:], size), "journal entry")
        need(isinstance(entry, dict) and entry.get("seq") == seq, "another number in it")
        need(isinstance(entry.get("kind"), str) and isinstance(entry.get("prev"), str), "no kind")
        return dict(entry) | {"epoch": HEADER.unpack(header)[2]}

    def _apply(self, entry: dict[str, Any]) -> None:
        kind = entry["kind"]
        if kind == "checkpoint":
            self._checkpoint(entry)
        if kind == "point":
            self._point(entry["point"], bytes.fromhex(entry["record"]))
        self.named.update((str(row[0]), int(row[1])) for row in entry.get("packs", ()))
        for name in entry.get("gone", ()):
            self.named.pop(name, None)
        for name in entry["points"] if kind == "lock" else ():
            self.locks[name] = max(int(entry["until_ns"]), self.locks.get(name, 0))
        for name in entry["points"] if kind == "remove" else ():
            if self.locks.get(name, 0) > int(entry["time_ns"]):
                print(
                    f"point {name!a} stays: entry {entry['seq']} deletes it while it is locked",
                    file=sys.stderr,
                )
            else:
                self.points.pop(name, None)
        if kind not in ("begin", "point", "remove", "packs", "lock", "place", "checkpoint"):
            self.problem(f"journal entry {entry['seq']} is of the newer kind {kind!a}")

    def _checkpoint(self, entry: dict[str, Any]) -> None:
        """It says all that holds; but what it forgets stays, if entries before it have it locked."""
        says = {str(one["point"]): bytes.fromhex(one["record"]) for one in entry["points"]}
        locks = {str(name): int(until) for name, until in entry["locks"].items()}
        for name, until in self.locks.items():
            cid = self.points.get(name)
            if cid and until > int(entry["time_ns"]) and says.get(name) != cid:
                self.problem(
                    f"journal entry {entry['seq']} forgets point {name!a}, which is locked"
                )
                says[name] = cid
        kept = {name: until for name, until in self.locks.items() if name in says}
        self.points.clear()
        self.named.clear()
        self.locks = {name: max(locks.get(name, 0), kept.get(name, 0)) for name in (*locks, *kept)}
        for name, cid in says.items():
            self._point(name, cid)

    def _point(self, point: str, cid: bytes) -> None:
        if not re.fullmatch("[0-7][0-9a-hjkmnp-tv-z]{25}", point) or len(cid) != 32:
            raise ValueError("not the id of a point")
        self.points[point] = cid

    # --- packs

    def pack_paths(self) -> Iterator[Path]:
        for path in sorted(self.root.glob("packs/*/*")):
            if re.fullmatch("[0-9a-f]{64}", path.name) and path.name[:2] == path.parent.name:
                yield path
            else:
                self.problem(f"{path}: not the name of a pack")

    def read_packs(self) -> None:
        for path in self.pack_paths():
            try:
                header, entries = self.trailer(path)
            except (Damage, struct.error) as error:
                self.problem(f"pack {path.name}: {error}")
                continue
            number = len(self.packs)
            self.packs.append((path, header))
            for cid, offset, length, kind in entries:
                self.places.setdefault(cid, []).append(Place(number, offset, length))
                if kind == 3 and not self.named:
                    self._found_point(cid)
        there = {path.name for path, _ in self.packs}
        for name in sorted(set(self.named) - there):
            self.problem(f"pack {name!a}: missing, or cannot be read")

    def _found_point(self, cid: bytes) -> None:
        try:
            self._point(self.read(cid)[2:28].decode("ascii", "replace"), cid)
        except (Damage, ValueError) as error:
            self.problem(f"record of a point {cid.hex()}: {error}")

    def trailer(self, path: Path) -> tuple[bytes, list[tuple[bytes, int, int, int]]]:
        """(header, (id, offset, length, kind) of each record) of a pack."""
        try:
            with opened(path) as file:
                size = os.fstat(file.fileno()).st_size
                need(64 + TAG + 16 < size <= PACK_MAX, f"{size} bytes")
                header = file.read(64)
                file.seek(size - 16)
                at, length, end = FOOTER.unpack(file.read(16))
                need(end == b"HFSE" and at >= 64 and at + length + 16 == size, "another footer")
                file.seek(at)
                body = self.frame(header, at, file.read(length))
        except OSError as error:
            raise Damage(str(error.strerror)) from None
        plain, count = struct.unpack_from("<II", body)
        need(plain <= 12 << 20 and 48 * count <= plain and count <= 131_072, "another trailer")
        data = unzstd(body[8:], plain)
        entries, position = [], 64
        for number in range(count):
            cid, offset, stored, _, kind, *_ = LISTED.unpack_from(data, 48 * number)
            position += stored + TAG
            need(offset + stored + TAG == position <= at and stored >= 52, "records that overlap")
            entries.append((cid, offset, stored, kind))
        need(position == at, "records that do not reach the trailer")
        return header, entries

    def read(self, cid: bytes, level: int = 0) -> bytes:
        """The plaintext of a chunk, verified."""
        if cid in self.cache:
            return self.cache[cid]
        need(level <= 8, f"chunk {cid.hex()} is a delta of itself")
        error = Damage(f"chunk {cid.hex()} is in no pack")
        for place in self.places.get(cid, ()):
            try:
                data = self._record(cid, place, level)
            except (Damage, struct.error, OSError) as one:
                error = Damage(f"chunk {cid.hex()}: {one}")
                continue
            while len(self.cache) > 400:
                del self.cache[next(iter(self.cache))]
            self.cache[cid] = data
            return data
        raise error

    def _record(self, cid: bytes, place: Place, level: int) -> bytes:
        path, header = self.packs[place.pack]
        with path.open("rb") as file:
            file.seek(place.offset)
            raw = self.frame(header, place.offset, file.read(place.length + TAG))
        magic, _, encoding, count, _, plain, size, found, check = RECORD.unpack_from(raw)
        end = 52 + 40 * count
        need(
            magic == b"HFR1" and found == cid and count <= 16 and plain <= CHUNK_MAX,
            "another record",
        )
        need(
            end + size == len(raw) and check == zlib.crc32(raw[52:end], zlib.crc32(raw[:48])),
            "its head",
        )
        bases = [BASE.unpack_from(raw, at) for at in range(52, end, 40)]
        need(sum(length for _, _, length in bases) <= 512 << 10, "too long a prefix")
        prefix = b"".join(
            self.read(base, level + 1)[low : low + length] for base, low, length in bases
        )
        data = unzstd(raw[end:], plain, prefix) if encoding else raw[end:]
        need(len(data) == plain and blake3(data, key=self.id_key).digest() == cid, "other bytes")
        return data
