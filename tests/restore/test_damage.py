"""Restoring from a damaged store: what cannot be read is named, by path and range, and everything else comes back."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from engine import Store, limits
from engine.errors import Corrupt
from engine.index.rows import ENC_DELTA
from engine.nodes import Entry
from engine.nodes.dirnodes import ends_node, read_child, read_root
from engine.nodes.filenodes import Node, decode_inner, decode_root
from tests.restore.support import (
    MTIME,
    Maker,
    damage,
    found,
    noise,
    restored,
    seen,
    wanted,
    without,
)

Expect = Callable[[str], None]


def node_of(entry: Entry) -> Node:
    """The top node of a file whose content is a tree."""
    node = decode_root(entry.root)
    assert isinstance(node, Node)
    return node


def test_a_damaged_chunk_costs_its_bytes_alone(
    engine: Store, make: Maker, out: bytes, expect_log: Expect
) -> None:
    expect_log("suspect")
    make.folder(b"d")
    for number, name in enumerate((b"before", b"d/disk.img", b"later")):
        make.file(name, noise(5 * limits.SLOT + 77, number))
        make.tree.barrier()  # so that they share no chunk
    make.link(b"d/disk.img", b"second name")
    point = make.point(engine)
    expected = wanted(make.tree)
    view = engine.glance(point)
    extents = view.span(view.find(b"d/disk.img"), 0)
    lost = [extents[2], extents[-1]]  # the file ends where it did
    assert lost[0][:2] == (2 * limits.SLOT, limits.SLOT)
    told = []
    for start, length, cid, _ in lost:
        damage(engine, cid)
        told.append((b"d/disk.img", f"bytes {start} to {start + length}"))
        for path in (b"d/disk.img", b"second name"):
            expected = without(expected, path, start, start + length)
    report = restored(engine, point, out)
    assert found(report) == told
    assert seen(out) == expected
    assert report.bytes == 3 * (5 * limits.SLOT + 77) - sum(one[1] for one in lost)


def test_what_is_stored_as_a_difference_from_a_damaged_chunk_is_damaged_too(
    engine: Store, make: Maker, out: bytes, expect_log: Expect
) -> None:
    expect_log("suspect")
    data = noise(4 * limits.SLOT, 1)
    ino = make.file(b"f.img", data)
    make.file(b"other", noise(100_000, 2))
    first = make.point(engine)
    base = engine.glance(first).span(engine.glance(first).find(b"f.img"), 0)[1][2]
    make.tree.write(ino, limits.SLOT, data[limits.SLOT : 2 * limits.SLOT - 5] + b"other")
    second = make.point(engine)
    expected = wanted(make.tree)
    changed = engine.glance(second).span(engine.glance(second).find(b"f.img"), 0)[1][2]
    row = engine._open.reader.row(changed)
    assert row is not None
    assert (row.encoding, row.bases) == (ENC_DELTA, (base,))
    damage(engine, base)
    report = restored(engine, second, out)
    assert found(report) == [(b"f.img", f"bytes {limits.SLOT} to {2 * limits.SLOT}")]
    assert seen(out) == without(expected, b"f.img", limits.SLOT, 2 * limits.SLOT)


# --- nodes of files -----------------------------------------------------------------------------------------

LEAF = limits.FILE_LEAF_SPANS * limits.SPAN


def sparse(make: Maker, path: bytes, size: int, written: dict[int, bytes]) -> None:
    """A file of that size in which little is written."""
    ino = make.file(path)
    make.tree.setattr(ino, size=size, now_ns=1)
    for at, data in written.items():
        make.tree.write(ino, at, data)
    make.tree.setattr(ino, mtime_ns=MTIME + ino, now_ns=1)


def test_a_damaged_leaf_of_a_file_costs_its_spans(
    engine: Store, make: Maker, out: bytes, expect_log: Expect
) -> None:
    expect_log("suspect")
    written = {
        5: b"first leaf",
        LEAF: b"begins the second",
        LEAF + 3 * limits.SPAN: b"in its last span",
        2 * LEAF + limits.SPAN: b"third leaf",
    }
    sparse(make, b"f", 2 * LEAF + 2 * limits.SPAN + 9, written)
    make.file(b"other", b"whole")
    point = make.point(engine)
    expected = wanted(make.tree)
    top = node_of(engine.glance(point).find(b"f"))
    children = decode_inner(engine._open.reader.read_node(top.cid), top.level)
    assert sorted(children) == [0, 1, 2]
    damage(engine, children[1])
    report = restored(engine, point, out)
    assert found(report) == [(b"f", f"bytes {LEAF} to {2 * LEAF}")]
    assert seen(out) == without(expected, b"f", LEAF, 2 * LEAF)


def test_a_damaged_last_leaf_is_named_up_to_the_end_of_the_file(
    engine: Store, make: Maker, out: bytes, expect_log: Expect
) -> None:
    expect_log("suspect")
    size = LEAF + limits.SPAN + 77
    sparse(make, b"f", size, {0: b"kept", LEAF: b"lost", LEAF + limits.SPAN: b"lost as well"})
    point = make.point(engine)
    expected = wanted(make.tree)
    top = node_of(engine.glance(point).find(b"f"))
    damage(engine, decode_inner(engine._open.reader.read_node(top.cid), top.level)[1])
    report = restored(engine, point, out)
    assert found(report) == [(b"f", f"bytes {LEAF} to {size}")]
    assert seen(out) == without(expected, b"f", LEAF, size)


@pytest.mark.parametrize("how", ["inner", "top"])
def test_a_damaged_inner_node_of_a_file(
    engine: Store, make: Maker, out: bytes, expect_log: Expect, how: str
) -> None:
    expect_log("suspect")
    width = 256 * LEAF  # 2 GiB, of which next to nothing is written
    size = 2 * width + 1000
    marks = {at: b"written at %d" % at for at in (0, width, width + 9 * LEAF, 2 * width)}
    sparse(make, b"huge", size, marks)
    make.file(b"other", b"whole")
    point = make.point(engine)
    top = node_of(engine.glance(point).find(b"huge"))
    assert top.level == 2
    children = decode_inner(engine._open.reader.read_node(top.cid), top.level)
    damage(engine, children[1] if how == "inner" else top.cid)
    report = restored(engine, point, out)
    first, end = (width, 2 * width) if how == "inner" else (0, size)
    assert found(report) == [(b"huge", f"bytes {first} to {end}")]
    path = os.path.join(out, b"huge")
    assert os.stat(path).st_size == size
    assert os.stat(path).st_mtime_ns == MTIME + make.inodes[b"huge"]
    with open(path, "rb") as file:
        for at, data in marks.items():
            file.seek(at)
            lost = first <= at < end
            assert file.read(len(data)) == (bytes(len(data)) if lost else data), at
    with open(os.path.join(out, b"other"), "rb") as file:
        assert file.read() == b"whole"


# --- nodes of directories -----------------------------------------------------------------------------------


def links(make: Maker, folder: bytes, names: list[bytes]) -> None:
    """Symbolic links: entries that cost no chunk."""
    for name in names:
        make.symlink(folder + b"/" + name, b"to " + name)


def test_a_damaged_leaf_of_a_directory_costs_its_names(
    engine: Store, make: Maker, out: bytes, expect_log: Expect
) -> None:
    expect_log("suspect")
    make.folder(b"d", 0o750)
    links(make, b"d", [b"%04d" % number for number in range(400)])
    make.file(b"d/zz", b"behind")
    make.file(b"other", b"whole")
    point = make.point(engine)
    expected = wanted(make.tree)
    reader = engine._open.reader
    top = read_root(reader, engine.glance(point).find(b"d").root)
    assert top.level == 1 and len(top.names) >= 3
    low, high = top.names[0], top.names[1]
    damage(engine, top.values[1])
    report = restored(engine, point, out)
    assert found(report) == [(b"d", f"names behind {low!r} up to {high!r}")]
    lost = {path for path in expected if b"d/" + low < path <= b"d/" + high}
    assert len(lost) >= limits.DIR_NODE_MIN
    assert seen(out) == {path: row for path, row in expected.items() if path not in lost}


def test_a_damaged_inner_node_of_a_directory_costs_the_names_below_it(
    engine: Store, make: Maker, out: bytes, expect_log: Expect
) -> None:
    expect_log("suspect")
    # Names behind which leaves end as early as they may: three levels with few of them.
    every = (b"n%07d" % number for number in range(10**6))
    leaf = limits.DIR_NODE_MIN
    names: list[bytes] = []
    while len(names) < 40 * leaf:
        name = next(every)
        if ends_node(0, name) and (len(names) % leaf != leaf - 1 or ends_node(1, name)):
            names.append(name)
    make.folder(b"d")
    links(make, b"d", names)
    make.file(b"d/zz", b"behind")
    point = make.point(engine)
    expected = wanted(make.tree)
    reader = engine._open.reader
    top = read_root(reader, engine.glance(point).find(b"d").root)
    assert top.level == 2 and len(top.names) >= 2
    assert read_child(reader, top, 0, b"").level == 1
    damage(engine, top.values[0])
    report = restored(engine, point, out)
    assert found(report) == [(b"d", f"names behind {b''!r} up to {top.names[0]!r}")]
    kept = {p: row for p, row in expected.items() if p == b"d" or p > b"d/" + top.names[0]}
    assert 1 < len(kept) < len(expected)
    assert seen(out) == kept


def test_a_directory_that_cannot_be_read_at_all(
    engine: Store, make: Maker, out: bytes, expect_log: Expect
) -> None:
    expect_log("suspect")
    make.folder(b"d", 0o711)
    make.folder(b"d/lost")
    make.file(b"d/lost/file", b"x")
    make.folder(b"other")
    make.file(b"other/file", b"whole")
    point = make.point(engine)
    expected = wanted(make.tree)
    damage(engine, engine.glance(point).find(b"d").root)
    report = restored(engine, point, out)
    assert found(report) == [(b"d", f"names behind {b''!r}")]
    assert seen(out) == {p: row for p, row in expected.items() if not p.startswith(b"d/")}
    assert report.files == 3
    with Store.open(engine.path) as other, pytest.raises(Corrupt, match="chunk"):
        other.restore(point, b"d/lost/file", out + b"2")
    assert not os.path.lexists(out + b"2")


def test_the_top_directory_of_a_point_that_cannot_be_read(
    engine: Store, make: Maker, out: bytes, expect_log: Expect
) -> None:
    expect_log("suspect")
    make.file(b"f", b"x")
    make.tree.setattr(1, mode=0o711, mtime_ns=MTIME, now_ns=1)
    point = make.point(engine)
    damage(engine, engine.glance(point).root_entry.root)
    report = restored(engine, point, out)
    assert found(report) == [(b".", f"names behind {b''!r}")]
    assert report.files == 0
    assert os.listdir(out) == []
    assert os.stat(out).st_mode & 0o777 == 0o711
