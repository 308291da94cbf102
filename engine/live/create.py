"""The first rows of a live tree: counters and an empty root directory."""

from __future__ import annotations

import stat

from engine.index import Table, Txn
from engine.live import rows
from engine.live.inode import Inode
from engine.live.rows import ROOT, Meta

_FIRST_SEQ = 1


def create_tree(
    txn: Txn,
    mount: int,
    *,
    secret: bytes,
    now_ns: int,
    uid: int = 0,
    gid: int = 0,
    mode: int = 0o755,
) -> None:
    """Write the rows of a new, empty tree. ``secret``: 16 random bytes, the key of its name hash."""
    assert len(secret) == 16
    root = Inode(ROOT, stat.S_IFDIR | stat.S_IMODE(mode), uid, gid, now_ns, ROOT, 0)
    root.nlink = 2
    txn.put(Table.INODES, rows.inode_key(mount, ROOT), root.encode(_FIRST_SEQ, 0, 0, None))
    meta = Meta(ROOT + 1, _FIRST_SEQ, 0, 1, secret)
    txn.put(Table.LIVE_META, rows.meta_key(mount), meta.encode())
