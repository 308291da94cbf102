"""Sealed packs: built in memory, read whole, by suffix or frame by frame, checked by name without any key."""

from __future__ import annotations

import mmap
import re
import struct
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from typing import NamedTuple, NoReturn

from engine import codec, limits
from engine.codec import Bytes
from engine.errors import Corrupt, InvalidRequest
from engine.keys import FRAME_OVERHEAD, HEADER_LEN, PACK_MAGIC, FileSeal, Vault
from engine.packs import records
from engine.packs.records import ENTRY_LEN, Entry, Record

DATA, METADATA, SMALL = 1, 2, 3
"""Kinds of packs."""
END_MAGIC = b"HFSE"
_FOOTER = struct.Struct("<QI4s")  # offset and length of the trailer's frame
FOOTER_LEN = _FOOTER.size
_TRAILER = struct.Struct("<II")  # plain length, records; then zstd
_NAME = re.compile("[0-9a-f]{64}")
_FOLDER = "packs"


class PackRow(NamedTuple):
    """What a journal entry says of a pack: enough to read any frame of it without asking for anything else."""

    name: str
    size: int
    trailer_offset: int
    trailer_length: int
    records: int
    kind: int
    epoch: int
    salt: bytes

    def check(self) -> None:
        """Raises Corrupt for what no writer makes."""
        sound = (
            _NAME.fullmatch(self.name)
            and self.size <= limits.SEALED_PACK_MAX
            and self.trailer_offset + self.trailer_length + FOOTER_LEN == self.size
            and self.trailer_offset >= HEADER_LEN
            and _TRAILER.size + FRAME_OVERHEAD < self.trailer_length
            and 0 < self.records <= limits.SEALED_RECORDS_MAX
            and self.kind in (DATA, METADATA, SMALL)
            and 0 <= self.epoch < 1 << 32
            and len(self.salt) == 32
        )
        if not sound:
            raise Corrupt(
                "row of a sealed pack",
                expected="fields within their limits",
                found=ascii(self.name[:64]),
            )

    def seal(self, vault: Vault) -> FileSeal:
        """What opens the pack's frames. Raises PermissionDenied."""
        return vault.file(vault.header(PACK_MAGIC, self.kind, self.epoch, self.salt))


class SealedPack(NamedTuple):
    """A pack as it is put: its bytes, and what the journal and the index keep of it."""

    data: memoryview
    row: PackRow
    entries: list[Entry]


def path_of(name: str) -> str:
    """Where a pack of that name lies."""
    return f"{_FOLDER}/{name[:2]}/{name}"


def name_in(path: str) -> str | None:
    """The name of the pack that lies there; None when it is none."""
    name = path.rpartition("/")[2]
    return name if _NAME.fullmatch(name) and path == path_of(name) else None


def name_of(data: Bytes) -> str:
    """The name of a pack with these bytes."""
    digest = codec.Digest()
    digest.update(data)
    return digest.digest().hex()


def check_name(name: str, data: Bytes) -> None:
    """Whether the bytes are those of their name: needs no key. Raises Corrupt."""
    found = name_of(data)
    if found != name:
        raise Corrupt(
            f"sealed pack {name}", expected="bytes that hash to its name", found=found,
            do="get it from another copy",
        )  # fmt: skip


class Rooms:
    """Memory for packs, used again: fresh pages cost as much as the sealing does. Thread-safe."""

    def __init__(self) -> None:
        self._free: deque[memoryview] = deque()

    def take(self) -> memoryview:
        """Room for the largest pack; only what is written of it takes memory."""
        try:
            return self._free.pop()
        except IndexError:
            made = mmap.mmap(
                -1, limits.SEALED_PACK_MAX, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
            )
            with suppress(
                OSError
            ):  # in pages of 2 MiB, where the kernel has them: 6 ms instead of 30
                made.madvise(mmap.MADV_HUGEPAGE)
            return memoryview(made)

    def give(self, room: memoryview) -> None:
        """Nobody uses it any more."""
        self._free.append(room)


class PackBuilder:
    """One pack, gathered in ``room`` up to ``SEALED_PACK``. Not for two threads at once."""

    def __init__(self, vault: Vault, kind: int, room: memoryview | None = None) -> None:
        self._seal = vault.new_file(PACK_MAGIC, kind)
        self.room = Rooms().take() if room is None else room
        self.room[:HEADER_LEN] = self._seal.header
        self._at = HEADER_LEN
        self._trailer = 0
        self._ids: set[bytes] = set()
        self.entries: list[Entry] = []

    @property
    def kind(self) -> int:
        """What is in it."""
        return self._seal.kind

    @property
    def size(self) -> int:
        """Bytes so far."""
        return self._at

    def __len__(self) -> int:
        return len(self.entries)

    def __contains__(self, cid: bytes) -> bool:
        return cid in self._ids

    def fits(self, entry: Entry, most: int | None = None) -> bool:
        """Whether there is room for one more, in ``most`` bytes of the whole pack (None: ``SEALED_PACK``): always in a
        pack that is empty."""
        if not self.entries:
            return True
        most = limits.SEALED_PACK if most is None else most
        trailer = self._trailer + ENTRY_LEN + codec.ID_LEN * len(entry.bases)
        return (
            self._at + entry.stored + FRAME_OVERHEAD + _end_of(trailer) <= most
            and len(self.entries) < limits.SEALED_RECORDS_MAX
            and trailer <= limits.SEALED_TRAILER_MAX
        )

    def add(self, head: Bytes, payload: Bytes, entry: Entry) -> int:
        """Seal one record; where its frame is. ``entry``: as its pack's trailer has it, at whatever offset.

        Raises Corrupt when head and entry are not of the same record: what is wrong here is not sent further.
        """
        if len(head) + len(payload) != entry.stored:
            _differs(entry)
        record = records.decode_record_head(head)
        entry = entry._replace(bases=_distinct(record))  # a trailer names each base once
        _same_record(record, entry)
        return self.take(entry, b"".join((head, payload)))

    def take(self, entry: Entry, raw: Bytes) -> int:
        """As ``add``, of a whole record and what ``entry_of`` says of its head."""
        assert self.fits(entry) and entry.id not in self._ids and len(raw) == entry.stored
        at = self._at
        self._at += self._seal.seal_into(at, raw, self.room[at:])
        self.entries.append(entry._replace(offset=at))
        self._ids.add(entry.id)
        self._trailer += ENTRY_LEN + codec.ID_LEN * len(entry.bases)
        return at

    def finish(self) -> SealedPack:
        """The whole pack, in its room. The builder is of no use after it. Raises InvalidRequest for an empty one."""
        if not self.entries:
            raise InvalidRequest("sealed pack", expected="a record", found="none")
        plain = records.encode_entries(self.entries)
        head = _TRAILER.pack(len(plain), len(self.entries))
        squeezed = codec.compress(plain, limits.ZSTD_LEVEL_MODEST)
        length = self._seal.seal_into(self._at, head + squeezed, self.room[self._at :])
        end = self._at + length + FOOTER_LEN
        self.room[end - FOOTER_LEN : end] = _FOOTER.pack(self._at, length, END_MAGIC)
        data = self.room[:end]
        row = PackRow(
            name_of(data), end, self._at, length, len(self.entries),
            self._seal.kind, self._seal.epoch, self._seal.salt,
        )  # fmt: skip
        row.check()
        return SealedPack(data, row, self.entries)


def _end_of(plain: int) -> int:
    """What a trailer so long, and the footer, take at most: zstd makes what it cannot squeeze a little longer."""
    return _TRAILER.size + plain + (plain >> 8) + 64 + FRAME_OVERHEAD + FOOTER_LEN


def entry_of(record: Record) -> Entry:
    """What a pack's trailer says of a record, but for its offset. Raises Corrupt for one with a store's own seal."""
    entry = Entry(
        record.id, 0, record.size, record.plain, record.kind, record.encoding, record.depth, _distinct(record)
    )  # fmt: skip
    if record.sealed:
        _differs(entry)
    return entry


# --- reading ----------------------------------------------------------------------------------------------


def trailer_place(footer: bytes, size: int) -> tuple[int, int]:
    """(offset, length) of the trailer's frame, by the last bytes of a pack of that size. Raises Corrupt."""
    what = "footer of a sealed pack"
    if len(footer) != FOOTER_LEN or size > limits.SEALED_PACK_MAX:
        raise Corrupt(
            what, expected=f"a pack of at most {limits.SEALED_PACK_MAX} bytes", found=f"{size}"
        )
    offset, length, magic = _FOOTER.unpack(footer)
    sound = offset >= HEADER_LEN and length > FRAME_OVERHEAD + _TRAILER.size
    if magic != END_MAGIC or not sound or offset + length + FOOTER_LEN != size:
        raise Corrupt(what, expected="a trailer that ends there", found="other bytes")
    return offset, length


def read_trailer(seal: FileSeal, offset: int, frame: Bytes) -> list[Entry]:
    """The records of a pack, by the frame of its trailer. Raises Corrupt."""
    body = seal.open(offset, frame)
    what = "trailer of a sealed pack"
    if len(body) < _TRAILER.size:
        raise Corrupt(what, expected="its length", found=f"{len(body)} bytes")
    size, count = _TRAILER.unpack_from(body)
    # A record in the trailer's place says HFR1 here, which is more than any of these.
    least = count * ENTRY_LEN
    most = min(limits.SEALED_TRAILER_MAX, least + count * limits.DELTA_BASES_MAX * codec.ID_LEN)
    if not 0 < count <= limits.SEALED_RECORDS_MAX or not least <= size <= most:
        raise Corrupt(
            what, expected=f"at most {limits.SEALED_RECORDS_MAX} records", found=f"{count} in {size} bytes"
        )  # fmt: skip
    plain = codec.decompress(memoryview(body)[_TRAILER.size :], size)
    entries = records.decode_entries(plain, count, offset, FRAME_OVERHEAD)
    if len({entry.id for entry in entries}) != count:
        raise Corrupt(what, expected="each record once", found="one again")
    return entries


def read_record(seal: FileSeal, entry: Entry, frame: Bytes) -> tuple[Record, bytes]:
    """(head, whole record) of a frame, which is what its entry says. The plaintext is for the caller to verify.

    Raises Corrupt.
    """
    if len(frame) != entry.stored + FRAME_OVERHEAD:
        _differs(entry)
    body = seal.open(entry.offset, frame)
    record = records.decode_record_head(body)
    if record.size != len(body):
        _differs(entry)
    _same_record(record, entry)
    return record, body


def read_pack(
    vault: Vault, data: Bytes
) -> tuple[list[Entry], Iterator[tuple[Entry, Record, bytes]]]:
    """(entries, (entry, head, record) of each) of a whole pack. Raises Corrupt, also while it is iterated."""
    view = memoryview(data)
    seal = vault.file(bytes(view[:HEADER_LEN]))
    offset, length = trailer_place(bytes(view[-FOOTER_LEN:]), len(view))
    entries = read_trailer(seal, offset, view[offset : offset + length])

    def every() -> Iterator[tuple[Entry, Record, bytes]]:
        for entry in entries:
            end = entry.offset + entry.stored + FRAME_OVERHEAD
            yield entry, *read_record(seal, entry, view[entry.offset : end])

    return entries, every()


def row_of(vault: Vault, data: Bytes) -> PackRow:
    """The row of a pack that is there whole: for a pack no journal entry names. Raises Corrupt."""
    view = memoryview(data)
    seal = vault.file(bytes(view[:HEADER_LEN]))
    offset, length = trailer_place(bytes(view[-FOOTER_LEN:]), len(view))
    count = len(read_trailer(seal, offset, view[offset : offset + length]))
    return PackRow(
        name_of(view), len(view), offset, length, count, seal.kind, seal.epoch, seal.salt
    )


def _same_record(record: Record, entry: Entry) -> None:
    told = (entry.stored, entry.kind, entry.encoding, entry.depth, entry.plain, entry.id)
    found = (record.size, *record[:4], record.id)
    if record.sealed:  # a store's own seal stays in the store
        _differs(entry)
    if found != told or _distinct(record) != entry.bases:
        _differs(entry)


def _distinct(record: Record) -> tuple[bytes, ...]:
    """The bases in the order in which the parts of the prefix first name them."""
    return tuple(dict.fromkeys(base.id for base in record.bases)) if record.bases else ()


def _differs(entry: Entry) -> NoReturn:
    raise Corrupt(
        f"record {entry.id.hex()}", expected="what its pack's trailer says", found="another record"
    )
