"""An open sealed store: its data keys, and the sealing of one record at a time. FORMAT.md, "Sealed stores".

Each chunk id has a key of its own in each epoch and each record a random nonce: nothing is counted, so no crash, copy
of the store or clock brings a nonce twice.
"""

from __future__ import annotations

import base64
import binascii
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NoReturn

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from engine import limits
from engine.codec import Bytes
from engine.errors import Corrupt, NoKey
from engine.keys import primitives
from engine.keys.primitives import KEY_LEN, NONCE_LEN, TAG_LEN
from engine.seam import REAL, Os

_EPOCH = struct.Struct("<I")
_AT = _EPOCH.size + NONCE_LEN
assert _AT + TAG_LEN == limits.RECORD_SEAL
_SMALL = b"sealed:"


@dataclass(frozen=True, slots=True)
class Master:
    """The master key of a ring that was opened: what a process hands to its children, and never writes anywhere."""

    data: bytes = field(repr=False)

    def __post_init__(self) -> None:
        assert len(self.data) == KEY_LEN

    def __reduce__(self) -> NoReturn:
        raise TypeError("a master key stays in its process")


class StoreSeal:
    """The keys of a sealed store. ``epochs``: data keys by number; ``lacking``: those that records named and the ring
    has not. Thread-safe."""

    __slots__ = (
        "_epochs",
        "_lock",
        "_newest",
        "_reload",
        "_system",
        "id_key",
        "lacking",
        "master",
        "store",
    )

    def __init__(
        self, store: bytes, id_key: bytes, master: Master, epochs: dict[int, bytes], system: Os = REAL
    ) -> None:  # fmt: skip
        self.store = store
        self.id_key = id_key
        self.master = master
        self.lacking: set[int] = set()
        self._system = system
        self._lock = threading.Lock()
        self._reload: Callable[[], dict[int, bytes]] = dict
        self._take(epochs)

    def __repr__(self) -> str:
        return f"<StoreSeal of store {self.store.hex()}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a seal stays in its process")

    @property
    def epoch(self) -> int:
        """The epoch that records are sealed in."""
        return self._newest

    def follow(self, reload: Callable[[], dict[int, bytes]]) -> None:
        """``reload``: the data keys of the ring as it is now, asked for when a record has a newer epoch."""
        self._reload = reload

    def _take(self, epochs: dict[int, bytes]) -> None:
        self._epochs = epochs
        self._newest = max(epochs)

    def seal(self, cid: bytes, head: bytes, payload: Bytes) -> bytes:
        """The payload of a record as it is stored. ``head``: all of the record before it."""
        epoch = self._newest
        nonce = self._system.random(NONCE_LEN)
        key = primitives.derive(self._epochs[epoch], "record", cid)
        sealed = AESGCM(key).encrypt(nonce, payload, self.store + head)
        return b"".join((_EPOCH.pack(epoch), nonce, sealed))

    def open(self, cid: bytes, head: bytes, sealed: Bytes) -> bytes:
        """What was sealed. Raises Corrupt; NoKey when the ring has no key of its epoch."""
        if len(sealed) < limits.RECORD_SEAL:
            self._damaged(cid, f"{len(sealed)} bytes")
        key = primitives.derive(self._key(sealed, f"record of chunk {cid.hex()}"), "record", cid)
        try:
            return AESGCM(key).decrypt(
                bytes(sealed[_EPOCH.size : _AT]), sealed[_AT:], self.store + head
            )
        except InvalidTag:
            self._damaged(cid, "other bytes")

    def _damaged(self, cid: bytes, found: str) -> NoReturn:
        raise Corrupt(f"record of chunk {cid.hex()}", expected="what was sealed", found=found)

    def wrap(self, name: str, plain: bytes) -> bytes:
        """A small file of the store, as it is written: one line."""
        epoch = self._newest
        key = primitives.derive(self._epochs[epoch], "file")
        wrapped = primitives.wrap(
            key, self._system.random(NONCE_LEN), plain, self.store + name.encode()
        )
        return _SMALL + base64.b64encode(_EPOCH.pack(epoch) + wrapped) + b"\n"

    def unwrap(self, name: str, line: bytes) -> bytes:
        """What is in a small file. Raises Corrupt, NoKey."""
        try:
            data = base64.b64decode(line.removeprefix(_SMALL).strip(), validate=True)
        except (binascii.Error, ValueError):
            data = b""
        if line.startswith(_SMALL) and len(data) > limits.RECORD_SEAL:
            key = primitives.derive(self._key(data, name), "file")
            plain = primitives.unwrap(key, data[_EPOCH.size :], self.store + name.encode())
            if plain is not None:
                return plain
        raise Corrupt(name, expected="what this store sealed", found="other bytes")

    def _key(self, sealed: Bytes, what: str) -> bytes:
        epoch: int = _EPOCH.unpack_from(sealed)[0]
        key = self._epochs.get(epoch)
        if key is None and epoch > self._newest:
            with self._lock:
                if epoch not in self._epochs:
                    self._take({**self._reload(), **self._epochs})
            key = self._epochs.get(epoch)
        if key is None:
            self.lacking.add(epoch)
            raise NoKey(
                what, expected=f"an epoch up to {self._newest}, of the key ring that was opened",
                found=f"epoch {epoch}", do="put the newest keys.json of the store back; nothing is damaged",
            )  # fmt: skip
        return key
