"""What is fuzzed: every decoder of bytes that come from a disk or a socket, and what must hold whatever they are fed.

Only the engine's error family comes out, and only where a decoder refuses; what it takes encodes to exactly the bytes
it was given.  The first byte of an input chooses the decoder of its group.  ``mended`` puts checks and hashes right
behind a mutation, so that the fuzzer gets past them.
"""

from __future__ import annotations

import os
import resource
import struct
from collections.abc import Callable
from typing import Any, NamedTuple
from zlib import crc32

from blake3 import blake3

from engine import codec, home, limits, registry
from engine.errors import Corrupt, HoldfastError
from engine.index import gcstate, inspect, layout, rows, structure
from engine.ingest import sketches
from engine.live import rows as live
from engine.nodes import dirnodes, entries, extents, filenodes, point, walk, xattrs
from engine.packs import records
from engine.seam import Os
from tools.torture.corrupt.talk import reply, request

Decode = Callable[[bytes], None]
GROWTH_MAX = 96 << 20  # bytes a process may grow by while it decodes: far above every bound


class Wrong(AssertionError):
    """A decoder took bytes that encode to others."""


def same(made: bytes, raw: bytes) -> None:
    """The only form of a content is the one that was decoded."""
    if made != raw:
        raise Wrong(f"{raw[:200].hex()} decodes, and encodes to {made[:200].hex()}")


# --- packs ------------------------------------------------------------------------------------------------


def header(raw: bytes) -> None:
    found = records.decode_header(raw)
    if any(raw[29:32]) or any(raw[40:60]):
        return  # room for later: not looked at
    same(records.encode_header(found), raw)


def record(raw: bytes) -> None:
    found = records.decode_record_head(raw)
    same(records.encode_record_head(*found), raw[: found.head])


def trailer(raw: bytes) -> None:
    end = raw[-records.FOOTER_LEN :]
    footer = records.decode_footer(end)
    some = records.decode_trailer(raw[: -records.FOOTER_LEN], footer)
    same(records.encode_trailer(some, footer.offset, footer.digest), raw)


def frame(raw: bytes) -> None:
    """Size u32, length of the prefix u16, prefix, frame."""
    if len(raw) < 6:
        return
    size, length = struct.unpack_from("<IH", raw)
    size %= limits.CHUNK_MAX + 1
    prefix, payload = raw[6 : 6 + length], raw[6 + length :]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        if len(prefix) >= 8 and size % 2:
            data = codec.Dictionary(prefix).decompress(payload, size)
        else:
            data = codec.decompress(payload, size, prefix if len(prefix) >= 8 else None)
        if len(data) != size:
            raise Wrong(f"{len(data)} bytes decoded where {size} were declared")
    finally:
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
        if grown > 16 << 20:
            raise Wrong(f"{grown} bytes taken to decode {size}")


def sketch(raw: bytes) -> None:
    same(b"".join(sketches.encode(*one) for one in sketches.decode(raw)), raw)


# --- nodes ------------------------------------------------------------------------------------------------


def directory(raw: bytes) -> None:
    node = dirnodes.decode_node(raw)
    same(dirnodes.encode_node(node.level, node.names, node.values), raw)
    list(walk.children(raw))
    if not node.level:
        for value in node.values:
            entry(value)


def entry(raw: bytes) -> None:
    found = entries.decode_entry(raw)
    same(entries.encode_entry(found), raw)
    assert entries.record_parts(raw)[0] == found.mode
    walk.of_entry(found.mode, found.xattrs, found.root)
    if found.xattrs[:1] == b"\0":
        attributes(found.xattrs)


def span(raw: bytes) -> None:
    some = extents.decode_extents(raw)
    same(extents.encode_extents(some), raw)
    assert extents.extent_ids(raw) == list(dict.fromkeys(cid for _, _, cid, _ in some))


def file_leaf(raw: bytes) -> None:
    same(filenodes.encode_leaf(filenodes.decode_leaf(raw)), raw)
    list(walk.children(raw))


def file_inner(raw: bytes) -> None:
    level = raw[2] if len(raw) > 2 else 1
    same(filenodes.encode_inner(level, filenodes.decode_inner(raw, level)), raw)
    list(walk.children(raw))


def attributes(raw: bytes) -> None:
    """A set that lies inline, or in nodes which here are parts of the input."""
    store = _Nodes()
    packed = raw
    if len(raw) > 255:
        parts = range(1, len(raw), limits.XATTR_NODE)
        ids = [store.put_node(b"X\1" + raw[at : at + limits.XATTR_NODE]) for at in parts]
        packed = b"\1" + b"".join(ids)
    same(xattrs.pack(store, xattrs.load(store, packed)), packed)


class _Nodes:
    """Nodes in memory."""

    def __init__(self) -> None:
        self._nodes: dict[bytes, bytes] = {}

    def put_node(self, data: bytes, like: bytes | None = None) -> bytes:
        cid = blake3(data).digest()
        self._nodes[cid] = data
        return cid

    def read_node(self, cid: bytes) -> bytes:
        if cid not in self._nodes:
            raise Corrupt("node", found="none")
        return self._nodes[cid]


def point_record(raw: bytes) -> None:
    same(point.encode_point(point.decode_point(raw)), raw)
    list(walk.children(raw))


def tombstone(raw: bytes) -> None:
    same(point.encode_tombstone(point.decode_tombstone(raw)), raw)


def any_node(raw: bytes) -> None:
    list(walk.children(raw))


# --- rows -------------------------------------------------------------------------------------------------


def chunk_row(raw: bytes) -> None:
    same(rows.chunk_row(raw).pack_bytes(), raw)


def pack_row(raw: bytes) -> None:
    same(rows.pack_row(raw).pack_bytes(), raw)


def worker_row(raw: bytes) -> None:
    same(rows.worker_row(raw).pack_bytes(), raw)


def inode_row(raw: bytes) -> None:
    row = live.decode_inode(raw)
    same(live.encode_inode(*row), raw)
    assert row.rdev >= 0


def dirent_row(raw: bytes) -> None:
    same(live.encode_dirent(*live.decode_dirent(raw)), raw)


def live_meta(raw: bytes) -> None:
    same(live.decode_meta(raw).encode(), raw)


def live_cut(raw: bytes) -> None:
    same(live.decode_cut(raw).encode(), raw)


def changed_row(raw: bytes) -> None:
    same(live.decode_changed(raw).encode(), raw)


def sequence(raw: bytes) -> None:
    same(live.encode_seq(live.decode_seq(raw)), raw)


class _OneRow:
    """A transaction in which every row has one value."""

    def __init__(self, raw: bytes) -> None:
        self.raw = raw

    def get(self, table: object, key: bytes) -> bytes:
        return self.raw

    def put(self, table: object, key: bytes, value: bytes) -> None:
        self.raw = value


def mount_row(raw: bytes) -> None:
    txn: Any = _OneRow(raw)
    registry.save(txn, registry.find(txn, "m"))
    same(txn.raw, raw)


def collection_row(raw: bytes) -> None:
    txn: Any = _OneRow(raw)
    gcstate.save(txn, gcstate.load(txn))
    same(txn.raw, raw)


# --- files and pages --------------------------------------------------------------------------------------


class _OneFile(Os):
    def __init__(self, raw: bytes) -> None:
        self._raw = raw

    def open(self, path: str, flags: int, mode: int = 0o600) -> int:
        return -1

    def close(self, fd: int) -> None:
        return

    def pread(self, fd: int, size: int, offset: int) -> bytes:
        return self._raw[offset : offset + size]


def format_file(raw: bytes) -> None:
    found: dict[str, Any] = dict(home._read_format("store", _OneFile(raw)))
    assert len(bytes.fromhex(found["id_key"])) == 32 and found["format"] == home.FORMAT


def page(raw: bytes) -> None:
    """One page of the index, number 3."""
    for decode in (layout.branch, layout.leaf, layout.overflow):
        try:
            decode(raw, 3)
        except layout.Damaged:
            continue


def index_file(raw: bytes) -> None:
    folder = os.path.abspath(f"fuzzed-{os.getpid()}")  # where the rig works
    os.makedirs(folder, exist_ok=True)
    path = f"{folder}/data.mdb"
    with open(path, "wb") as file:
        file.write(raw)
    try:
        for transaction in (rows.U64.unpack(raw[144:152][::-1].rjust(8, b"\0"))[0], 23, 24):
            structure.problems(path, transaction)
        inspect.inspect(folder)
    finally:
        os.unlink(path)
        os.rmdir(folder)


class Group(NamedTuple):
    """Decoders that one process fuzzes. ``mend``: puts the checks of an input right."""

    decoders: tuple[Decode, ...]
    most: int  # bytes of an input


def _crc(raw: bytes, size: int) -> bytes:
    return raw[:size] + struct.pack("<I", crc32(raw[:size])) + raw[size + 4 :]


def mended(decode: Decode, raw: bytes) -> bytes:
    """The same input with what guards it right again."""
    if decode is header and len(raw) >= 64:
        return _crc(b"HFPACK01" + raw[8:], 60)[:64]
    if decode is record and len(raw) >= 52:
        count = raw[6] % (limits.DELTA_BASES_MAX + 1)
        body = b"HFR1" + raw[4:6] + bytes((count,)) + raw[7:48]
        tail = raw[52 : 52 + 40 * count].ljust(40 * count, b"\1")
        return body + struct.pack("<I", crc32(tail, crc32(body))) + tail + raw[52 + 40 * count :]
    if decode is trailer and len(raw) >= 88:
        end, body = bytearray(raw[-88:]), raw[:-88]
        end[:8] = b"HFPKEND1"
        end[12:16] = struct.pack("<I", len(body))
        end[52:84] = blake3(body).digest()
        return body + _crc(bytes(end), 84)
    return raw


def feed(decode: Decode, raw: bytes) -> None:
    """One input to one decoder. Raises what must never come out of it."""
    try:
        decode(raw)
    except HoldfastError:
        return


GROUPS = {
    "packs": Group((header, record, trailer, frame, sketch), 20_000),
    "nodes": Group(
        (directory, entry, span, file_leaf, file_inner, attributes, point_record, tombstone, any_node), 20_000
    ),
    "rows": Group(
        (chunk_row, pack_row, worker_row, inode_row, dirent_row, live_meta, live_cut, changed_row, sequence,
         mount_row, collection_row), 500,
    ),
    "files": Group((format_file, page, index_file), 150_000),
    "control": Group((request, reply), 9_000),
}  # fmt: skip
