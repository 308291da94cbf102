"""What the next snapshot is told: enough, and not much more."""

from __future__ import annotations

import pytest

from engine import limits
from engine.index import Table
from engine.live import rows
from engine.live.rows import NOWHERE
from tests.live.rig import CTX, MOUNT, MemoryRig, write_file

SPAN = limits.SPAN


def cut(memory: MemoryRig) -> int:
    """A snapshot of everything so far, finished."""
    memory.tree.barrier()
    with memory.index.write() as txn:
        seq = rows.decode_meta(txn.get(Table.LIVE_META, rows.meta_key(MOUNT))).seq
        txn.put(Table.LIVE_META, rows.cut_key(MOUNT), rows.Cut(seq, seq).encode())
        for table in (Table.CHANGED, Table.CHANGED_NAMES, Table.CHANGED_SPANS):
            for key in list(txn.keys(table)):
                txn.delete(table, key)
    return seq


def told(memory: MemoryRig) -> tuple[dict[int, int], set[tuple[int, bytes]], set[tuple[int, int]]]:
    """(inode -> first span to look at, changed names, changed spans)."""
    memory.tree.barrier()
    with memory.index.read() as txn:
        inodes = {
            rows.split_inode_key(key): rows.decode_changed(raw).first
            for key, raw in txn.scan(Table.CHANGED)
        }
        names = {(rows.split_inode_key(k[:12]), k[12:]) for k in txn.keys(Table.CHANGED_NAMES)}
        spans = {
            (rows.split_inode_key(k[:12]), rows.split_span_key(k))
            for k in txn.keys(Table.CHANGED_SPANS)
        }
    return inodes, names, spans


def test_what_is_new_since_the_cut_needs_no_marks(memory: MemoryRig) -> None:
    sub = memory.tree.mkdir(1, b"sub", 0o755, CTX).ino
    write_file(memory.tree, sub, b"file", b"x" * SPAN)
    assert told(memory) == ({}, set(), set())
    cut(memory)
    fresh = memory.tree.mkdir(sub, b"fresh", 0o755, CTX).ino
    ino = write_file(memory.tree, fresh, b"file", b"x" * 3 * SPAN)
    memory.tree.barrier()
    memory.tree.write(ino, SPAN, b"y")
    memory.tree.rename(fresh, b"file", fresh, b"other")
    assert told(memory) == ({sub: NOWHERE}, {(sub, b"fresh")}, set())


def test_names_that_came_went_or_moved(memory: MemoryRig) -> None:
    a = memory.tree.mkdir(1, b"a", 0o755, CTX).ino
    file = write_file(memory.tree, a, b"file", b"")
    write_file(memory.tree, a, b"gone", b"")
    cut(memory)
    memory.tree.rename(a, b"file", 1, b"moved")
    memory.tree.unlink(a, b"gone")
    memory.tree.link(file, a, b"second")
    inodes, names, spans = told(memory)
    assert names == {(a, b"file"), (a, b"gone"), (a, b"second"), (1, b"moved")}
    assert {1, a, file} <= set(inodes)
    assert spans == set()


def test_attributes_alone(memory: MemoryRig) -> None:
    ino = write_file(memory.tree, 1, b"f", b"x" * (3 * SPAN))
    cut(memory)
    memory.tree.setattr(ino, mode=0o600, now_ns=1)
    assert told(memory) == ({ino: NOWHERE}, set(), set())


def test_spans_are_told_singly_in_a_large_file(memory: MemoryRig) -> None:
    ino = memory.tree.create(1, b"f", 0o600, CTX).ino
    for number in range(40):
        memory.tree.write(ino, number * SPAN, b"%d" % number)
    cut(memory)
    memory.tree.write(ino, 3 * SPAN + 5, b"x")
    memory.tree.write(ino, 20 * SPAN, b"x")
    assert told(memory) == ({ino: NOWHERE}, set(), {(ino, 3), (ino, 20)})
    memory.tree.write(ino, 4 * SPAN, b"y")
    assert told(memory) == ({ino: NOWHERE}, set(), {(ino, 3), (ino, 4), (ino, 20)})


@pytest.mark.parametrize("how", ["append", "truncate", "rewrite"])
def test_the_end_of_a_file_is_told_by_its_start(memory: MemoryRig, how: str) -> None:
    ino = memory.tree.create(1, b"f", 0o600, CTX).ino
    for number in range(20):
        memory.tree.write(ino, number * SPAN, b"%d" % number)
    cut(memory)
    if how == "append":
        for number in range(19, 40):
            memory.tree.write(ino, number * SPAN + 100, b"more %d" % number)
        first = 19
    elif how == "truncate":
        memory.tree.setattr(ino, size=5 * SPAN + 1, now_ns=1)
        memory.tree.setattr(ino, size=20 * SPAN, now_ns=1)
        first = 6
    else:
        memory.tree.setattr(ino, size=0, now_ns=1)
        for number in range(20):
            memory.tree.write(ino, number * SPAN, b"new %d" % number)
        first = 0
    inodes, _, spans = told(memory)
    assert inodes == {ino: first}
    assert spans == set()


def test_marks_add_up_over_commits(memory: MemoryRig) -> None:
    ino = memory.tree.create(1, b"f", 0o600, CTX).ino
    for number in range(20):
        memory.tree.write(ino, number * SPAN, b"%d" % number)
    cut(memory)
    memory.tree.setattr(ino, size=10 * SPAN, now_ns=1)
    memory.tree.barrier()
    memory.tree.write(ino, 0, b"x")
    memory.tree.barrier()
    memory.tree.setattr(ino, mode=0o640, now_ns=1)
    inodes, _, spans = told(memory)
    assert inodes == {ino: 10}
    assert spans == {(ino, 0)}


def test_a_cut_that_was_begun_counts_for_what_is_old(memory: MemoryRig) -> None:
    """A snapshot reads a state; what changes while it builds must be told to the next, whether it ends or dies."""
    ino = write_file(memory.tree, 1, b"f", b"x")
    memory.tree.barrier()
    with memory.index.write() as txn:
        seq = rows.decode_meta(txn.get(Table.LIVE_META, rows.meta_key(MOUNT))).seq
        txn.put(Table.LIVE_META, rows.cut_key(MOUNT), rows.Cut(seq, 0).encode())
    memory.tree.write(ino, 0, b"y")
    inodes, _, _ = told(memory)
    assert inodes == {ino: 0}


def test_removal_takes_its_marks_along(memory: MemoryRig) -> None:
    sub = memory.tree.mkdir(1, b"sub", 0o755, CTX).ino
    ino = memory.tree.create(sub, b"f", 0o600, CTX).ino
    for number in range(20):
        memory.tree.write(ino, number * SPAN, b"%d" % number)
    cut(memory)
    memory.tree.write(ino, 0, b"x")
    told(memory)
    memory.tree.unlink(sub, b"f")
    memory.tree.forgotten(ino)
    memory.tree.rmdir(1, b"sub")
    memory.tree.forgotten(sub)
    assert told(memory) == ({1: NOWHERE}, {(1, b"sub")}, set())
