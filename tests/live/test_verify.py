"""The checker of a tree's rows finds what it is there to find."""

from __future__ import annotations

import stat
from collections.abc import Callable

import pytest

from engine import limits
from engine.index import Table, Txn
from engine.live import problems, rows
from engine.live.rows import InodeRow
from tests.live.rig import CTX, MOUNT, MemoryRig, write_file

SPAN = limits.SPAN


@pytest.fixture
def inos(memory: MemoryRig) -> dict[str, int]:
    tree = memory.tree
    sub = tree.mkdir(1, b"sub", 0o755, CTX).ino
    file = write_file(tree, sub, b"file", bytes(range(1, 250)) * 20_000)
    small = write_file(tree, 1, b"small", b"x")
    tree.link(file, 1, b"second")
    tree.setxattr(small, b"user.a", b"1")
    tree.symlink(sub, b"link", b"target", CTX)
    tree.close()
    memory.verify()
    memory.tree = memory.open()
    return {"sub": sub, "file": file, "small": small, "root": 1}


def edit(txn: Txn, ino: int, **changes: object) -> None:
    key = rows.inode_key(MOUNT, ino)
    row = rows.decode_inode(txn.get(Table.INODES, key))._replace(**changes)
    txn.put(Table.INODES, key, encoded(row))


def encoded(row: InodeRow) -> bytes:
    return rows.encode_inode(*row)


def drop(txn: Txn, table: Table, number: int = 0) -> None:
    txn.delete(table, list(txn.keys(table))[number])


def set_meta(txn: Txn, **changes: int) -> None:
    key = rows.meta_key(MOUNT)
    txn.put(
        Table.LIVE_META,
        key,
        rows.decode_meta(txn.get(Table.LIVE_META, key))._replace(**changes).encode(),
    )


def add_entry(txn: Txn, parent: int, cookie: int, ino: int, kind: int) -> None:
    value = rows.encode_dirent(ino, kind, b"planted")
    txn.put(Table.DIRENTS, rows.dirent_key(MOUNT, parent, cookie), value)


FAULTS: dict[str, tuple[Callable[[Txn, dict[str, int]], None], str]] = {
    "link count": (lambda t, i: edit(t, i["file"], nlink=3), "link count"),
    "directory links": (lambda t, i: edit(t, i["sub"], nlink=3), "links and counts 3"),
    "directory size": (lambda t, i: edit(t, i["root"], size=9), "entries and counts 9"),
    "allocation": (lambda t, i: edit(t, i["small"], alloc=5), "not hole"),
    "size": (lambda t, i: edit(t, i["file"], size=70_000), "behind the end"),
    "parent": (lambda t, i: edit(t, i["sub"], parent=i["file"]), "not where"),
    "own ancestor": (lambda t, i: edit(t, i["sub"], parent=i["sub"]), "lead up to the root"),
    "root's parent": (lambda t, i: edit(t, i["root"], parent=i["sub"]), "root and has a parent"),
    "future birth": (lambda t, i: edit(t, i["sub"], born=10**6), "born after"),
    "xattr flag": (lambda t, i: edit(t, i["small"], flags=rows.F_INLINE), "extended attributes"),
    "links flag": (lambda t, i: edit(t, i["file"], flags=0), "more links"),
    "content of a fifo": (
        lambda t, i: edit(t, i["small"], mode=stat.S_IFIFO, flags=2, tail=b""), "no file and has"
    ),
    "lost inode": (lambda t, i: t.delete(Table.INODES, rows.inode_key(MOUNT, i["small"])), "does not exist"),
    "lost directory": (lambda t, i: t.delete(Table.INODES, rows.inode_key(MOUNT, i["sub"])), "directory"),
    "lost name": (lambda t, i: drop(t, Table.DIRENTS), "has 0 names|entries and counts|with 0 names"),
    "lost span": (lambda t, i: drop(t, Table.SPANS), "not hole"),
    "lost xattr": (lambda t, i: drop(t, Table.XATTRS), "extended attributes"),
    "lost link": (lambda t, i: drop(t, Table.PARENTS), "places"),
    "span twice": (
        lambda t, i: t.put(Table.SPANS, rows.span_key(MOUNT, i["small"], 0),
                           t.get(Table.SPANS, rows.span_key(MOUNT, i["file"], 0))), "twice"),
    "empty span": (
        lambda t, i: t.put(Table.SPANS, rows.span_key(MOUNT, i["file"], 1), bytes((1, 0, 0))), "without extents"
    ),
    "stray span": (
        lambda t, i: t.put(Table.SPANS, rows.span_key(MOUNT, 999, 0),
                           t.get(Table.SPANS, rows.span_key(MOUNT, i["file"], 0))), "spans has rows"),
    "stray mark": (
        lambda t, i: t.put(Table.CHANGED, rows.inode_key(MOUNT, 999), rows.Changed(1, 0).encode()), "changed has"
    ),
    "used bytes": (lambda t, i: set_meta(t, used_bytes=1), "counters say"),
    "used inodes": (lambda t, i: set_meta(t, used_inodes=99), "counters say"),
    "next number": (lambda t, i: set_meta(t, next_ino=2), "not given yet"),
    "misplaced name": (lambda t, i: add_entry(t, 1, 4 * 77, i["small"], 8), "wrong place"),
    "second name of a directory": (lambda t, i: add_entry(t, 1, 4 * 77, i["sub"], 4), "directory with 2 names"),
    "entry of nothing": (lambda t, i: add_entry(t, 1, 4 * 77, 12345, 8), "inode 12345, which does not exist"),
    "no tree": (lambda t, i: t.delete(Table.LIVE_META, rows.meta_key(MOUNT)), "no live tree"),
    "torn row": (
        lambda t, i: t.put(Table.INODES, rows.inode_key(MOUNT, i["small"]), b"short"), "cannot be read"
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_found(memory: MemoryRig, inos: dict[str, int], fault: str) -> None:
    plant, complaint = FAULTS[fault]
    with memory.index.write() as txn:
        plant(txn, inos)
    with memory.index.read() as txn:
        found = list(problems(txn, MOUNT))
    assert any(part in line for line in found for part in complaint.split("|")), found
