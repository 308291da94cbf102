"""A storage location made by hand from a store: all its chunks in sealed packs, its points in a journal.

What the uploader does in steps, with retries and a network, is here a few lines: for tests of whoever reads a location.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from engine import Store, codec, keys
from engine.copies import marker, sealed
from engine.copies.chain import Chain
from engine.copies.journal import Begin, Body, Checkpoint, PointMade, encode, path_of
from engine.copies.journal import Point as PointCopy
from engine.copies.marker import Marker
from engine.copies.sealed import PackBuilder, PackRow
from engine.index import Table
from engine.index.rows import KIND_DATA, ChunkRow, chunk_row
from engine.keys import Secret, Vault
from engine.nodes.point import encode_point
from engine.packs.records import Entry, decode_record_head
from engine.points import snapshot
from tests.keys.support import CHEAP
from tests.locations.places import Place

LOCATION = b"location" * 2
WRITER = b"writer.." * 2


@dataclass
class Made:
    """What lies at a place, and what is known of it. ``chain``: to append further entries with ``append``."""

    place: Place
    vault: Vault
    chain: Chain
    rows: list[PackRow]
    names: set[str] = field(default_factory=set)

    def put(self, path: str, data: bytes) -> None:
        assert path not in self.names, "nothing is written twice"
        self.names.add(path)
        self.place.write(path, data)

    def append(self, body: Body, time_ns: int = 1, writer: bytes = WRITER) -> None:
        """One more journal entry."""
        raw = encode(self.vault, self.chain.next(writer, time_ns, body))
        seq = self.chain.seq + 1
        self.chain.take(seq, raw)
        self.put(path_of(seq), raw)


def location(
    place: Place, store: Store, secrets: list[Secret], *, pack_size: int = 200_000, checkpoint: bool = False
) -> Made:  # fmt: skip
    """Everything of the store at a place; without secrets it is not sealed."""
    opened = store._open
    id_key, store_id = opened.context.key, opened.context.store_id
    ring = b""
    if secrets:
        ring, vault = keys.make(LOCATION, id_key, secrets, now_ns=1, cost=CHEAP)
    else:
        vault = Vault(LOCATION, id_key, None)
    made = Made(place, vault, Chain(vault), [])
    mark = Marker(LOCATION, store_id, bool(secrets), b"" if secrets else id_key)
    made.put(marker.NAME, marker.encode(mark))
    if ring:
        made.put("keys/00000001.json", ring)
    made.append(Begin(store_id, b""))
    packs = list(packed(store, vault, pack_size))
    for pack in packs:
        made.put(sealed.path_of(pack.row.name), pack.data)
        made.rows.append(pack.row)
    with opened.context.index.read() as txn:
        points = list(snapshot.every(txn))
    rows = tuple(made.rows)
    for point in points:
        cid = codec.chunk_id(id_key, encode_point(point))
        made.append(PointMade(PointCopy(point.id, point.mount, cid, {"quota": 0}), rows))
        rows = ()
    if checkpoint:
        body = made.chain.state.checkpoint()
        assert isinstance(body, Checkpoint)
        made.append(body)
    return made


def packed(store: Store, vault: Vault, pack_size: int) -> Iterator[sealed.SealedPack]:
    """The record of every chunk of a store in sealed packs of about this size, data and metadata apart."""
    index, files = store._open.context.index, store._open.context.files
    with index.read() as txn:
        rows = [(cid, chunk_row(raw)) for cid, raw in txn.scan(Table.CHUNKS)]
    for kind, wanted in ((sealed.METADATA, False), (sealed.DATA, True)):
        chosen = [(cid, row) for cid, row in rows if (row.kind == KIND_DATA) == wanted]
        yield from _packed(files, vault, kind, chosen, pack_size)


def _packed(
    files: object, vault: Vault, kind: int, rows: Iterable[tuple[bytes, ChunkRow]], pack_size: int
) -> Iterator[sealed.SealedPack]:
    builder = PackBuilder(vault, kind)
    for cid, row in rows:
        raw = files.read(row.pack, row.offset, row.stored)  # type: ignore[attr-defined]
        head = decode_record_head(raw).head
        entry = Entry(cid, 0, row.stored, row.plain, row.kind, row.encoding, row.depth, row.bases)
        if len(builder) and (builder.size >= pack_size or not builder.fits(entry)):
            yield builder.finish()
            builder = PackBuilder(vault, kind)
        builder.add(raw[:head], raw[head:], entry)
    if len(builder):
        yield builder.finish()
