"""An open location: its data keys, and the sealing of one file at a time.

Each file has a key of its own, from its salt, and is written once from its start to its end; so the offset of a frame
is a nonce that never comes again. Who cannot go on with the very same bytes begins a new file, with another salt.
"""

from __future__ import annotations

import struct
from typing import NoReturn

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from engine import codec
from engine.errors import Corrupt, FormatTooNew, PermissionDenied
from engine.keys import primitives
from engine.keys.primitives import KEY_LEN, NONCE_LEN, TAG_LEN
from engine.seam import REAL, Os

PACK_MAGIC = b"HFSEAL01"
JOURNAL_MAGIC = b"HFJRNL01"
FRAME_OVERHEAD = TAG_LEN
LOCATION_LEN = 16
KINDS = {PACK_MAGIC: (1, 2, 3), JOURNAL_MAGIC: (0,)}
"""What the header of a file may say it holds. Pack: 1 data, 2 metadata, 3 small data."""

_HEADER = struct.Struct("<8s16sIBxxx32s")  # magic, location, epoch, kind, salt
HEADER_LEN = _HEADER.size
_PURPOSES = {PACK_MAGIC: "pack", JOURNAL_MAGIC: "journal"}
_UNSEALED = 0  # the epoch in headers of a location that is not sealed


def epoch_in(header: bytes) -> int:
    """The epoch that the first bytes of a file name."""
    epoch: int = _HEADER.unpack_from(header)[2]
    return epoch


class FileSeal:
    """Seals the frames of one new file, or opens those of one that is there. Opening is thread-safe."""

    __slots__ = ("_aead", "_next", "epoch", "header", "kind", "salt")

    def __init__(self, header: bytes, key: bytes | None, *, new: bool) -> None:
        self.epoch: int
        self.kind: int
        self.salt: bytes
        _, _, self.epoch, self.kind, self.salt = _HEADER.unpack(header)
        self.header = header
        self._aead = None if key is None else AESGCM(key)
        self._next = HEADER_LEN if new else -1

    def __repr__(self) -> str:
        return f"<FileSeal of {self.header[:8].decode()}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a seal stays in its process")

    def seal(self, offset: int, plain: codec.Bytes) -> bytes:
        """The frame of these bytes at this offset of the file. Never two at one offset, never backwards."""
        assert 0 < self._next <= offset, "a nonce would be used twice"
        self._next = offset + len(plain) + FRAME_OVERHEAD
        nonce = offset.to_bytes(NONCE_LEN, "big")
        if self._aead is None:
            tag = codec.tag(self.salt, self.header + nonce, plain)
            return b"".join((plain, tag))
        return self._aead.encrypt(nonce, plain, self.header)

    def seal_into(self, offset: int, plain: codec.Bytes, room: memoryview) -> int:
        """As ``seal``, into the start of ``room``; how long the frame is."""
        length = len(plain) + FRAME_OVERHEAD
        if self._aead is None:
            room[:length] = self.seal(offset, plain)
            return length
        assert 0 < self._next <= offset, "a nonce would be used twice"
        self._next = offset + length
        nonce = offset.to_bytes(NONCE_LEN, "big")
        return self._aead.encrypt_into(nonce, plain, self.header, room[:length])

    def open(self, offset: int, frame: codec.Bytes) -> bytes:
        """What was sealed in the frame at this offset. Raises Corrupt."""
        nonce = offset.to_bytes(NONCE_LEN, "big")
        if len(frame) < FRAME_OVERHEAD:
            self._damaged(offset, f"{len(frame)} bytes")
        if self._aead is not None:
            try:
                return self._aead.decrypt(nonce, frame, self.header)
            except InvalidTag:
                self._damaged(offset, "other bytes")
        plain, tag = bytes(frame[:-FRAME_OVERHEAD]), bytes(frame[-FRAME_OVERHEAD:])
        if not primitives.same(tag, codec.tag(self.salt, self.header + nonce, plain)):
            self._damaged(offset, "other bytes")
        return plain

    def open_into(self, offset: int, frame: codec.Bytes, room: memoryview) -> int:
        """As ``open``, into the start of ``room``; how long it is. After an error there may be anything."""
        length = len(frame) - FRAME_OVERHEAD
        if self._aead is None or length < 0:
            room[:length] = self.open(offset, frame)
            return length
        try:
            return self._aead.decrypt_into(
                offset.to_bytes(NONCE_LEN, "big"), frame, self.header, room[:length]
            )
        except InvalidTag:
            self._damaged(offset, "other bytes")

    def _damaged(self, offset: int, found: str) -> NoReturn:
        what = "journal entry" if self.header.startswith(JOURNAL_MAGIC) else "sealed pack"
        raise Corrupt(
            f"frame at {offset} of a {what}", expected="bytes as they were sealed", found=found
        )


class Vault:
    """An opened location. ``id_key`` verifies chunk ids; ``epochs``: data keys by number, None if not sealed."""

    __slots__ = ("_epochs", "_system", "id_key", "location")

    def __init__(
        self, location: bytes, id_key: bytes, epochs: dict[int, bytes] | None, system: Os = REAL
    ) -> None:
        assert len(location) == LOCATION_LEN and len(id_key) == KEY_LEN
        assert epochs is None or (epochs and _UNSEALED not in epochs)
        self.location = location
        self.id_key = id_key
        self._epochs = epochs
        self._system = system

    def __repr__(self) -> str:
        return f"<Vault of location {self.location.hex()}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a vault stays in its process")

    @property
    def sealed(self) -> bool:
        return self._epochs is not None

    @property
    def epoch(self) -> int:
        """The epoch new files are sealed in; 0 when nothing is sealed."""
        return max(self._epochs) if self._epochs else _UNSEALED

    def goes_on(self, other: Vault) -> bool:
        """Whether all data keys of the other are ours as well."""
        return (self._epochs or {}).items() >= (other._epochs or {}).items()

    @property
    def mark(self) -> str:
        """What tells the newest data key from another, and nothing of it; "" when nothing is sealed."""
        return self._mark(self.epoch)

    def bears(self, mark: str) -> bool:
        """Whether the data key is here that ``mark`` was of; "" is of none."""
        epoch = mark.partition(" ")[0]
        return not mark or (epoch.isdecimal() and self._mark(int(epoch)) == mark)

    def _mark(self, epoch: int) -> str:
        key = (self._epochs or {}).get(epoch)
        if key is None:
            return ""
        return f"{epoch} {primitives.derive(key, 'mark', self.location)[:16].hex()}"

    @property
    def fingerprint(self) -> str:
        """16 hex digits, no secret, the same as long as the location lives: what a person compares who opened it by a
        recipient's key, for which anybody who knows the public half could have made up a location."""
        return primitives.derive(self.id_key, "fingerprint", self.location)[:8].hex()

    def new_file(self, magic: bytes, kind: int) -> FileSeal:
        """A file to be written, in the newest epoch, with a salt and so a key of its own."""
        assert kind in KINDS[magic]
        salt = self._system.random(KEY_LEN)
        header = _HEADER.pack(magic, self.location, self.epoch, kind, salt)
        return FileSeal(header, self._key(header), new=True)

    def header(self, magic: bytes, kind: int, epoch: int, salt: bytes) -> bytes:
        """The header of a file of which these are known."""
        return _HEADER.pack(magic, self.location, epoch, kind, salt)

    def file(self, header: bytes) -> FileSeal:
        """A file that is there, by its first 64 bytes.

        Raises Corrupt, FormatTooNew, or PermissionDenied when its epoch is none of ours.
        """
        if len(header) != HEADER_LEN:
            raise Corrupt(
                "header", expected=f"{HEADER_LEN} bytes", found=f"{len(header)} (truncated)"
            )
        magic, location, epoch, kind, salt = _HEADER.unpack(header)
        if magic not in KINDS:
            self._unknown(magic)
        if location != self.location:
            raise Corrupt(
                "header", expected=f"location {self.location.hex()}", found=location.hex()
            )
        if kind not in KINDS[magic] or header != self.header(magic, kind, epoch, salt):
            raise Corrupt("header", expected="fields within their limits", found="others")
        # Whoever writes to the bucket must not be believed that it never was sealed.
        if (epoch == _UNSEALED) == self.sealed:
            expected = "a sealed file" if self.sealed else "a file that is not sealed"
            raise Corrupt("header", expected=expected, found=f"epoch {epoch}")
        return FileSeal(header, self._key(header), new=False)

    def _unknown(self, magic: bytes) -> NoReturn:
        if any(magic.startswith(known[:6]) and magic[6:].isdigit() for known in KINDS):
            raise FormatTooNew(
                "file at a location", expected="HFSEAL01 or HFJRNL01",
                found=magic.decode("ascii", "backslashreplace"), do="use the Holdfast that wrote it",
            )  # fmt: skip
        raise Corrupt("header", expected="HFSEAL01 or HFJRNL01", found="other bytes")

    def _key(self, header: bytes) -> bytes | None:
        if self._epochs is None:
            return None
        magic, _, epoch, _, salt = _HEADER.unpack(header)
        key = self._epochs.get(epoch)
        if key is None:
            raise PermissionDenied(
                f"file of epoch {epoch}", expected=f"an epoch up to {self.epoch} of the key ring that was opened",
                found="none of its keys", do="open the newest key ring, or adopt the location anew",
            )  # fmt: skip
        return primitives.derive(key, _PURPOSES[magic], salt)
