"""Restoring when attributes, records or whole packs cannot be read: for good, or as long as a disk is unwell."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from engine import Store, limits
from engine.codec import chunk_id
from engine.home import OpenStore
from engine.index import Table
from engine.index.rows import KIND_DATA, KIND_NODE, U32, pack_row
from engine.nodes import xattrs
from engine.seam import Os
from tests.restore.support import Maker, Seen, damage, found, noise, restored, seen, wanted, without

Expect = Callable[[str], None]


def test_damaged_attributes_cost_nothing_else(
    engine: Store, make: Maker, out: bytes, expect_log: Expect
) -> None:
    expect_log("suspect")
    make.folder(b"d")
    for number, path in enumerate((b"d", b"d/file", b"kept")):
        if path != b"d":
            make.file(path, noise(1000, number))
        make.tree.setxattr(make.inodes[path], b"user.large", noise(3000, 10 + number))
    point = make.point(engine)
    expected = wanted(make.tree)
    view = engine.glance(point)
    for path in (b"d", b"d/file"):
        nodes = xattrs.node_ids(view.find(path).xattrs)
        assert len(nodes) == 1
        damage(engine, nodes[0])
        expected[path] = (*expected[path][:6], {})
    report = restored(engine, point, out)
    assert found(report) == [(b"d", "extended attributes"), (b"d/file", "extended attributes")]
    assert seen(out) == expected


def test_a_points_record_is_not_needed_while_the_index_has_it(
    engine: Store, make: Maker, out: bytes
) -> None:
    make.file(b"f", b"x")
    point = make.point(engine)
    with engine._open.context.index.read() as txn:
        record = txn.get(Table.POINTS, point.encode())
        assert record is not None
    damage(engine, chunk_id(engine._open.context.key, record))
    assert restored(engine, point, out).damaged == []
    assert seen(out) == wanted(make.tree)


def lost_with(store: Store, point: str, pack: int) -> list[tuple[bytes, str]]:
    """What ``found`` must say of a point's files when a pack cannot be read."""
    view = store.glance(point)
    lost = []
    for entry in view.scan(view.root_entry):
        for number, extents in view.spans(entry):
            for offset, length, cid, _ in extents:
                row = store._open.reader.row(cid)
                assert row is not None
                if row.pack == pack:
                    first = number * limits.SPAN + offset
                    lost.append((entry.name, f"bytes {first} to {first + length}"))
    return sorted(lost)


def zeroed(content: Seen, lost: list[tuple[bytes, str]]) -> Seen:
    for path, text in lost:
        start, end = map(int, re.findall(r"\d+", text))
        content = without(content, path, start, end)
    return content


@pytest.fixture
def packs(engine: Store, make: Maker, monkeypatch: pytest.MonkeyPatch) -> tuple[str, list[int]]:
    """A point whose content lies in several packs of which two are sealed, and the numbers of those."""
    monkeypatch.setattr(limits, "PACK_MAX", 400_000)
    for number in range(6):
        make.file(b"%d" % number, noise(3 * limits.SLOT, number))
        make.tree.barrier()
    point = make.point(engine)
    with engine._open.context.index.read() as txn:
        rows = [(U32.unpack(key)[0], pack_row(raw)) for key, raw in txn.scan(Table.PACKS)]
    full = [number for number, row in rows if row.kind == KIND_DATA and row.digest != bytes(32)]
    assert len(full) >= 2
    return point, full


def test_a_pack_that_is_missing_costs_what_is_in_it(
    engine: Store, make: Maker, out: bytes, packs: tuple[str, list[int]], expect_log: Expect
) -> None:
    expect_log("suspect")
    point, numbers = packs
    expected = wanted(make.tree)
    lost = lost_with(engine, point, numbers[0])
    assert 0 < len({path for path, _ in lost}) < 6
    os.unlink(engine._open.context.files.pack_path(numbers[0]))
    assert found(restored(engine, point, out)) == lost
    assert seen(out) == zeroed(expected, lost)


def test_a_missing_pack_of_nodes_costs_the_names(
    engine: Store, make: Maker, out: bytes, expect_log: Expect
) -> None:
    expect_log("suspect")
    make.file(b"f", noise(100_000))
    point = make.point(engine)
    with engine._open.context.index.read() as txn:
        rows = [(U32.unpack(key)[0], pack_row(raw)) for key, raw in txn.scan(Table.PACKS)]
    for number, row in rows:
        if row.kind == KIND_NODE:
            os.unlink(engine._open.context.files.segment_path(number))
    report = restored(engine, point, out)
    assert found(report) == [(b".", f"names behind {b''!r}")]
    assert os.listdir(out) == []


class BadDisk(Os):
    """Reads of one file answer with an I/O error, as long as ``bad`` names it."""

    def __init__(self, bad: str) -> None:
        self.bad = bad

    def pread(self, fd: int, size: int, offset: int) -> bytes:
        if self.bad and os.readlink(f"/proc/self/fd/{fd}") == self.bad:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return super().pread(fd, size, offset)


def test_a_disk_that_answers_with_errors_costs_what_is_there_for_as_long_as_it_does(
    engine: Store, make: Maker, out: bytes, packs: tuple[str, list[int]]
) -> None:
    point, numbers = packs
    expected = wanted(make.tree)
    lost = lost_with(engine, point, numbers[1])
    assert lost
    system = BadDisk(engine._open.context.files.pack_path(numbers[1]))
    with Store(OpenStore(engine.path, system=system)) as store:
        report = store.restore(point, b"", out)
        assert found(report) == lost
        assert all("error" in d.text.lower() for d in report.damaged)
        assert seen(out) == zeroed(expected, lost)
        with store._open.context.index.read() as txn:
            assert txn.count(Table.SUSPECTS) == 0  # the disk is at fault, not the chunks
        system.bad = ""
        assert store.restore(point, b"", out + b"2").damaged == []
    assert seen(out + b"2") == expected


def test_a_disk_with_errors_below_the_nodes(
    engine: Store, make: Maker, out: bytes, home: Path
) -> None:
    make.folder(b"d")
    make.file(b"d/f", b"x")
    point = make.point(engine)
    row = engine._open.reader.row(engine.glance(point).root_entry.root)
    assert row is not None
    system = BadDisk(str(home / "segments" / f"{row.pack:08d}.seg"))
    with Store(OpenStore(engine.path, system=system)) as store:
        report = store.restore(point, b"", out)
    assert found(report) == [(b".", f"names behind {b''!r}")]
