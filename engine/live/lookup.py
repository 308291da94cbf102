"""Reading a live tree's rows without the tree: names, extended attributes (for snapshots, check, repair)."""

from __future__ import annotations

from _blake2 import blake2b  # what hashlib has, without loading OpenSSL for it

from engine.errors import Corrupt
from engine.index import Table, Txn
from engine.live import rows

PLACES = 4  # names with the same hash that one directory can hold


def name_hash(secret: bytes, name: bytes) -> int:
    """The cookie of a name is this times ``PLACES``, plus a place."""
    digest = blake2b(name, digest_size=8, key=secret).digest()
    # 62 bits in all: a cookie is a positive off_t. 0 is the start of a directory, so no hash is 0.
    return (int.from_bytes(digest, "big") >> 4) or 1


def find_name(txn: Txn, mount: int, secret: bytes, parent: int, name: bytes) -> int | None:
    """The inode number a directory has under a name, or None."""
    first = name_hash(secret, name) * PLACES
    for cookie in range(first, first + PLACES):
        raw = txn.get(Table.DIRENTS, rows.dirent_key(mount, parent, cookie))
        if raw is not None:
            row = rows.decode_dirent(raw)
            if row.name == name:
                return row.ino
    return None


def read_xattrs(txn: Txn, mount: int, ino: int) -> dict[bytes, bytes]:
    """Extended attributes of an inode, their parts joined. Raises Corrupt when a part is missing."""
    prefix = rows.inode_key(mount, ino)
    values: dict[bytes, bytes] = {}
    parts: dict[bytes, int] = {}
    for key, value in txn.scan(Table.XATTRS, prefix=prefix):
        name, part = key[len(prefix) : -2], key[-1]
        if key[-2] or part != parts.get(name, 0):
            raise Corrupt(f"extended attributes of inode {ino}", expected="all parts of a value",
                          found=f"part {part}", do="run 'holdfast check'")  # fmt: skip
        parts[name] = part + 1
        values[name] = values.get(name, b"") + value
    return values
