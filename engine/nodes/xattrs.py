"""Codec of the extended attributes of one inode: in the directory entry when small, else in nodes of their own."""

from __future__ import annotations

import struct
from collections.abc import Mapping

from engine.codec import ID_LEN
from engine.limits import (
    XATTR_INLINE_MAX,
    XATTR_NAME_MAX,
    XATTR_NODE,
    XATTR_NODES_MAX,
    XATTR_TOTAL_MAX,
    XATTR_VALUE_MAX,
)
from engine.nodes.entries import INLINE, TREE
from engine.nodes.ports import (
    VERSION,
    NodeKind,
    NodeReader,
    NodeWriter,
    check_head,
    check_id,
    corrupt,
    invalid,
)

_LENGTHS = struct.Struct("<BI")  # bytes of the name, bytes of the value
_HEAD = bytes((NodeKind.XATTRS, VERSION))


def pack(writer: NodeWriter, values: Mapping[bytes, bytes]) -> bytes:
    """Store the xattrs of an inode; what ``Entry.xattrs`` takes, b"" for none.

    Raises InvalidRequest over the limits of names, values and their sum.
    """
    parts: list[bytes] = []
    total = 0
    for name in sorted(values):
        value = values[name]
        total += len(name) + len(value)
        if not 0 < len(name) <= XATTR_NAME_MAX or b"\0" in name or len(value) > XATTR_VALUE_MAX:
            invalid("xattr", f"a name to {XATTR_NAME_MAX}, a value to {XATTR_VALUE_MAX}", name)
        parts += (_LENGTHS.pack(len(name), len(value)), name, value)
    if total > XATTR_TOTAL_MAX:
        invalid("xattrs of an inode", f"at most {XATTR_TOTAL_MAX} bytes", total)
    body = b"".join(parts)
    if not body:
        return b""
    if len(body) <= XATTR_INLINE_MAX:
        return bytes((INLINE,)) + body
    starts = range(0, len(body), XATTR_NODE)
    if len(starts) > XATTR_NODES_MAX:
        invalid("xattrs of an inode", f"at most {XATTR_NODES_MAX} nodes", len(starts))
    ids = [check_id(writer.put_node(_HEAD + body[at : at + XATTR_NODE])) for at in starts]
    return bytes((TREE,)) + b"".join(ids)


def load(reader: NodeReader, packed: bytes) -> dict[bytes, bytes]:
    """The mapping ``pack`` was given, sorted by name. Raises Corrupt."""
    if not packed:
        return {}
    if packed[0] == INLINE:
        return _decode(packed[1:])
    body = b""
    for cid in node_ids(packed):
        if len(body) % XATTR_NODE:
            corrupt("xattrs", "only the last node short", len(body), cid)
        body += decode_part(reader.read_node(cid), cid)
    if len(body) <= XATTR_INLINE_MAX:
        corrupt("xattrs", f"over {XATTR_INLINE_MAX} bytes in nodes", len(body))
    return _decode(body)


def decode_part(data: bytes, cid: bytes = b"") -> bytes:
    """The part of an encoded xattr set that a node holds. Raises Corrupt."""
    check_head(data, NodeKind.XATTRS, cid)
    if not 2 < len(data) <= 2 + XATTR_NODE:
        corrupt("xattrs", f"1 to {XATTR_NODE} bytes", len(data) - 2, cid)
    return data[2:]


def node_ids(packed: bytes) -> list[bytes]:
    """The nodes that packed xattrs refer to. Raises Corrupt."""
    if not packed or packed[0] == INLINE:
        return []
    count, rest = divmod(len(packed), ID_LEN)
    if packed[0] != TREE or rest != 1 or not 1 <= count <= XATTR_NODES_MAX:
        corrupt("xattrs", f"1 to {XATTR_NODES_MAX} ids", f"{len(packed) - 1} bytes")
    return [packed[at : at + ID_LEN] for at in range(1, len(packed), ID_LEN)]


def _decode(body: bytes) -> dict[bytes, bytes]:
    values: dict[bytes, bytes] = {}
    at = total = 0
    last = b""
    while at < len(body):
        if len(body) - at < _LENGTHS.size:
            corrupt("xattrs", "a complete list", f"{len(body)} bytes")
        name_len, value_len = _LENGTHS.unpack_from(body, at)
        at += _LENGTHS.size
        end = at + name_len + value_len
        if value_len > XATTR_VALUE_MAX or end > len(body):
            corrupt("xattr value", f"at most {len(body) - at} bytes", value_len)
        name = body[at : at + name_len]
        if name <= last or b"\0" in name:
            corrupt("xattr name", f"one sorted behind {last!r}", name)
        values[name] = body[at + name_len : end]
        total += name_len + value_len
        at = end
        last = name
    if not values or total > XATTR_TOTAL_MAX:
        corrupt("xattrs of an inode", f"1 to {XATTR_TOTAL_MAX} bytes", total)
    return values
