"""What a location lacks of a point: everything once, and nothing before what it needs."""

from __future__ import annotations

import pytest

from engine import Store, codec
from engine.copies.reach import Need, missing
from engine.copies.rows import WHOLE, CopyRow
from engine.index import Table
from engine.nodes import walk
from engine.nodes.ports import Ref
from tests.restore.support import Maker, noise


class There:
    """A location in memory: what it has, and whether that is whole."""

    def __init__(self) -> None:
        self.flags: dict[bytes, int] = {}

    def __call__(self, cid: bytes) -> CopyRow | None:
        flags = self.flags.get(cid)
        return None if flags is None else CopyRow(0, 0, 0, 0, flags)

    def take(self, store: Store, point: str) -> list[Need]:
        """Send all that is missing; it must be sound after each step."""
        reader = store._open.reader
        sent = []
        for need in missing(reader, self, top(store, point)):
            row = reader.row(need.cid)
            assert row is not None and all(base in self.flags for base in row.bases)
            if need.whole:
                for kind, child in walk.children(reader.read_node(need.cid), need.cid):
                    assert child in self.flags, "a child comes first"
                    assert kind is Ref.DATA or self.flags[child] & WHOLE
            assert need.there == (need.cid in self.flags)
            self.flags[need.cid] = WHOLE if need.whole else 0
            sent.append(need)
        return sent


def top(store: Store, point: str) -> bytes:
    with store._open.context.index.read() as txn:
        raw = txn.get(Table.POINTS, point.encode())
    assert raw is not None
    return codec.chunk_id(store._open.context.key, raw)


def reached(store: Store, point: str) -> set[bytes]:
    """All that a point needs, found another way."""
    reader = store._open.reader
    todo, found = [(Ref.NODE, top(store, point))], set()
    while todo:
        kind, cid = todo.pop()
        if cid in found:
            continue
        found.add(cid)
        row = reader.row(cid)
        assert row is not None
        todo += [(Ref.DATA, base) for base in row.bases]
        if kind is Ref.NODE:
            todo += walk.children(reader.read_node(cid), cid)
    return found


@pytest.fixture
def grown(engine: Store, make: Maker) -> list[str]:
    """Three points of a tree that grows and changes a little."""
    points = []
    for folder in range(3):
        make.folder(b"d%d" % folder)
        for number in range(40):
            make.file(b"d%d/f%d" % (folder, number), noise(3000 + number, folder * 100 + number))
    big = make.file(b"big", noise(3_000_000, 7))
    points.append(make.point(engine))
    make.tree.write(big, 1_000_000, noise(8192, 8))
    make.file(b"d1/new", noise(70_000, 9))
    make.file(b"d1/copy", noise(3001, 1))
    points.append(make.point(engine))
    make.tree.unlink(make.inodes[b"d0"], b"f3")
    points.append(make.point(engine))
    return points


def test_everything_is_sent_once_and_in_order(engine: Store, grown: list[str]) -> None:
    there = There()
    for point in grown:
        sent = [need.cid for need in there.take(engine, point) if not need.there]
        assert len(set(sent)) == len(sent)
        assert reached(engine, point) <= set(there.flags)
    assert set(there.flags) == set().union(*(reached(engine, point) for point in grown))


def test_what_changed_little_costs_little(engine: Store, grown: list[str]) -> None:
    there = There()
    first = len(there.take(engine, grown[0]))
    assert len(there.take(engine, grown[1])) < first / 4
    assert there.take(engine, grown[1]) == []


def test_the_newest_point_first(engine: Store, grown: list[str]) -> None:
    """A node that came as the base of another is walked when it is met as a node of a tree."""
    there = There()
    for point in reversed(grown):
        there.take(engine, point)
        assert reached(engine, point) <= set(there.flags)


def test_cut_off_anywhere_it_goes_on(engine: Store, grown: list[str]) -> None:
    there = There()
    reader = engine._open.reader
    whole = len(There().take(engine, grown[1]))
    for stop in range(0, whole, 7):
        for count, need in enumerate(missing(reader, there, top(engine, grown[1]))):
            if count == stop:
                break
            there.flags[need.cid] = WHOLE if need.whole else 0
    there.take(engine, grown[1])
    assert reached(engine, grown[1]) <= set(there.flags)
