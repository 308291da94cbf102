"""What reading and writing chunks needs of a store, in one small bundle."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from engine import limits
from engine.codec import Bytes
from engine.errors import Corrupt
from engine.incidents import Journal
from engine.index import Index
from engine.packs.files import PackFiles
from engine.packs.records import Base, Record, encode_record_head
from engine.seam import Os

if TYPE_CHECKING:  # a store that is not sealed needs nothing of it
    from engine.keys import StoreSeal


@dataclass(frozen=True)
class Context:
    """One store as one process sees it. ``key``: 32 secret bytes that key all chunk ids of the store; ``seal``: of a
    sealed store. Records are sealed by ``record`` and opened by ``bare``, and nowhere else.
    """

    root: str
    store_id: bytes
    key: bytes
    index: Index
    files: PackFiles
    system: Os
    seal: StoreSeal | None = None

    @property
    def added(self) -> int:
        """Bytes that sealing adds to each record here."""
        return 0 if self.seal is None else limits.RECORD_SEAL

    def record(
        self, kind: int, encoding: int, depth: int, plain: int, payload: Bytes, cid: bytes,
        bases: tuple[Base, ...] = (),
    ) -> tuple[bytes, bytes]:  # fmt: skip
        """(head with bases, payload) of a record as it is stored here."""
        size = len(payload)
        if self.seal is None:
            head = encode_record_head(kind, encoding, depth, plain, size, cid, bases)
            return head, payload if isinstance(payload, bytes) else bytes(payload)
        size += limits.RECORD_SEAL
        head = encode_record_head(kind, encoding, depth, plain, size, cid, bases, sealed=True)
        return head, self.seal.seal(cid, head, payload)

    def bare(self, record: Record, raw: Bytes) -> tuple[Record, Bytes]:
        """A whole record without this store's seal: as it travels, and as it is decoded.

        Raises Corrupt, and NoKey when the key ring has none for it.
        """
        if not record.sealed:
            return record, raw
        if self.seal is None:
            raise Corrupt(
                "record", expected="one that is not sealed, as its store", found="another"
            )
        head, sealed = bytes(raw[: record.head]), memoryview(raw)[record.head :]
        payload = self.seal.open(record.id, head, sealed)
        record = record._replace(payload=len(payload), sealed=False)
        return record, encode_record_head(*record) + payload

    @property
    def incidents(self) -> Journal:
        """Where incidents are noted: one for all who have the store open in this process."""
        return self.index.journal
