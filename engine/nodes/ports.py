"""What nodes ask of storage, and the few things all their codecs share: kinds, numbers, refusals."""

from __future__ import annotations

import enum
from typing import NoReturn, Protocol

from engine.codec import ID_LEN
from engine.errors import Corrupt, InvalidRequest

VERSION = 1  # second byte of every node
_DO = "run holdfast check"


class NodeReader(Protocol):
    """Where nodes come from."""

    def read_node(self, cid: bytes) -> bytes:
        """The plaintext of a node by its id (32 bytes), verified. Raises Corrupt, naming the chunk."""
        ...


class NodeWriter(Protocol):
    """Where nodes go."""

    def put_node(self, data: bytes, like: bytes | None = None) -> bytes:
        """Store a node unless it is there; its id (32 bytes).

        ``like``: id of the node this one is a new version of, the best prefix for a delta.
        """
        ...


class NodeKind(enum.IntEnum):
    """First byte of a node: what it is."""

    DIR = 0x44  # D: a leaf or inner node of a directory
    FILE = 0x46  # F: an inner node of a file tree
    SPANS = 0x53  # S: a leaf of a file tree
    XATTRS = 0x58  # X: a part of an xattr set
    POINT = 0x50  # P: a point record
    TOMBSTONE = 0x54  # T: a point is deleted


class Ref(enum.Enum):
    """Kinds of chunks a node refers to."""

    NODE = "node"
    DATA = "data"


def corrupt(what: str, expected: str, found: object, cid: bytes = b"") -> NoReturn:
    """Refuse stored bytes. ``cid`` names the node when it is known."""
    name = f"{what} of node {cid.hex()}" if cid else what
    raise Corrupt(name, expected=expected, found=str(found), do=_DO)


def invalid(what: str, expected: str, found: object) -> NoReturn:
    """Refuse to encode what no decoder would take."""
    raise InvalidRequest(what, expected=expected, found=str(found), do="report this as a bug")


def check_head(data: bytes, kind: NodeKind, cid: bytes = b"") -> None:
    """Refuse a node that is not of this kind and version."""
    if len(data) < 2 or data[0] != kind:
        corrupt("kind", kind.name, data[:1].hex() or "nothing", cid)
    if data[1] != VERSION:
        corrupt("format version", str(VERSION), data[1], cid)


def check_id(cid: bytes) -> bytes:
    """A chunk id as it was given; refuses anything that is not one."""
    if len(cid) != ID_LEN:
        invalid("chunk id", f"{ID_LEN} bytes", len(cid))
    return cid


def put_varint(out: bytearray, number: int) -> None:
    """Append an unsigned number, 7 bits a byte, lowest first, the top bit set on all but the last."""
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)


def get_varint(data: bytes, at: int) -> tuple[int, int]:
    """(number, offset behind it). At most 4 bytes, the shortest form only. IndexError at the end of the data."""
    byte = data[at]
    if byte < 0x80:
        return byte, at + 1
    number = byte & 0x7F
    for index in range(1, 4):
        byte = data[at + index]
        number |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            if not byte:
                corrupt("number", "its shortest form", data[at : at + index + 1].hex())
            return number, at + index + 1
    corrupt("number", "at most 4 bytes", data[at : at + 4].hex())
