"""Which packs a point needs: found by what differs from another point, never one less than by walking all of it."""

from __future__ import annotations

import random

import pytest

from engine import Store
from engine.copies import rows
from engine.copies.connect import open_link
from engine.copies.link import Link
from engine.copies.needs import Needs, Records
from engine.index import Table
from engine.index.rows import chunk_row
from tests.copies.test_reach import reached, top
from tests.copies.test_rewrite import store_deltas_again
from tests.copies.test_upload import SECRET
from tests.locations.places import Place
from tests.restore.support import Maker, noise

pytestmark = pytest.mark.seldom


def finder(engine: Store, link: Link) -> Needs:
    return Needs(engine._open.reader, engine._open.context.index, link, lambda done: None)


def seen(needs: Needs, point: bytes, before: bytes = b"") -> set[bytes]:
    return {cid for cids in needs._new(point, before) for cid in cids}


class Life:
    """A mount that changes in every way that makes other nodes of it."""

    def __init__(self, make: Maker, seed: int) -> None:
        self.make, self.chance, self.count = make, random.Random(seed), 0
        self.files: list[bytes] = []
        self.folders = [b""]
        for _ in range(60):
            self.add()

    def add(self) -> None:
        self.count += 1
        parent = self.chance.choice(self.folders)
        name = b"%s%d" % (self.chance.choice((b"a", b"b", b"long name " * 9)), self.count)
        path = parent + b"/" + name if parent else name
        if self.chance.random() < 0.1:
            self.make.folder(path)
            self.folders.append(path)
            return
        size = self.chance.choice((0, 10, 3_000, 3_000, 90_000, 1_500_000))
        self.make.file(path, noise(size, self.count))
        self.files.append(path)

    def change(self) -> None:
        path = self.chance.choice(self.files)
        ino, tree = self.make.inodes[path], self.make.tree
        parent, _, name = path.rpartition(b"/")
        match self.chance.randrange(6):
            case 0:
                self.files.remove(path)
                tree.unlink(self.make.inodes[parent], name)
                tree.forgotten(self.make.inodes.pop(path))
            case 1:
                tree.setattr(ino, size=self.chance.choice((0, 1_000, 200_000)), now_ns=1)
            case 2:
                tree.write(ino, self.chance.randrange(100_000), noise(5_000, self.chance.random()))
            case 3:
                tree.setxattr(ino, b"user.x", noise(2_000, self.chance.random()))
            case 4:
                folder = self.chance.choice(self.folders)
                self.count += 1
                new = b"%s/moved%d" % (folder, self.count) if folder else b"moved%d" % self.count
                into, _, name_there = new.rpartition(b"/")
                tree.rename(self.make.inodes[parent], name, self.make.inodes[into], name_there)
                self.make.inodes[new] = self.make.inodes.pop(path)
                self.files[self.files.index(path)] = new
            case 5:
                self.add()


@pytest.mark.parametrize("seed", [1, 2])
def test_by_what_differs_nothing_is_missed(
    engine: Store, make: Maker, place: Place, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.limits.SEALED_PACK", 200_000)
    engine.copies.add("far", place.url, secrets=[SECRET])
    life = Life(make, seed)
    points = []
    for round_ in range(8):
        for _ in range(1 if round_ % 2 else 12):
            life.change()
        points.append(make.point(engine))
    engine.copies.send("far")
    link = open_link(engine._open.context, "far")
    tops = [top(engine, point) for point in points]
    full = [seen(finder(engine, link), one) for one in tops]
    packs = [finder(engine, link).packs(one) for one in tops]
    assert len(set().union(*packs)) > 8
    for point, cids in zip(points, full, strict=True):
        assert cids <= reached(engine, point)
    for at, one in enumerate(tops):
        for other, before in enumerate(tops):
            new = seen(finder(engine, link), one, before)
            assert full[at] - full[other] <= new <= full[at]
            found = finder(engine, link).packs(one, before=before)
            assert packs[at] <= packs[other] | found and found <= packs[at]
    again = finder(engine, link)  # one after the other, each by the one before it
    met: set[int] = set()
    for at, one in enumerate(tops):
        met |= again.packs(one, before=tops[at - 1] if at else b"")
        assert packs[at] <= met


def test_what_is_new_is_all_that_costs(engine: Store, make: Maker, place: Place) -> None:
    engine.copies.add("far", place.url, secrets=[SECRET])
    for folder in range(4):
        make.folder(b"d%d" % folder)
        for number in range(300):
            make.file(b"d%d/%d" % (folder, number), b"%d" % number)
    big = make.file(b"big", noise(3_000_000, 1))
    first = make.point(engine)
    make.file(b"d1/one more", b"one more")
    make.tree.write(big, 1_000_000, noise(4_096, 2))
    second = make.point(engine)
    engine.copies.send("far")
    link = open_link(engine._open.context, "far")
    one, other = (seen(finder(engine, link), top(engine, point)) for point in (first, second))
    new = seen(finder(engine, link), top(engine, second), top(engine, first))
    assert new == other - one and 3 * len(new) < len(other)
    assert seen(finder(engine, link), top(engine, first), top(engine, first)) == set()


def test_the_base_of_a_record_there_is_needed_though_it_is_none_here(
    engine: Store, make: Maker, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A chunk that was stored again here is no delta; at the location it is, of what is not here any more."""
    monkeypatch.setattr("engine.limits.SEALED_PACK", 100_000)
    engine.copies.add("far", place.url, secrets=[SECRET])
    context = engine._open.context
    base = make.file(b"base", noise(65_536, 30))
    points = [make.point(engine)]
    make.tree.write(base, 30_000, b"changed" * 4000)
    points.append(make.point(engine))
    engine.copies.send("far")
    deltas = store_deltas_again(engine)
    link = open_link(context, "far")
    needs = finder(engine, link)
    packs = needs.packs(top(engine, points[1]))
    assert not needs.unsure
    with context.index.read() as txn:
        for cid, bases in deltas.items():
            assert not chunk_row(txn.get(Table.CHUNKS, cid) or b"").bases
            raw = txn.get(Table.COPIES, rows.copy_key(1, cid))
            assert raw is not None and Records(link).bases(txn, cid, rows.copy_row(raw)) == bases
            for one in bases:
                raw = txn.get(Table.COPIES, rows.copy_key(1, one))
                assert raw is not None and rows.copy_row(raw).pack in packs
    place.delete(*place.names("packs/"))
    needs = finder(engine, open_link(context, "far"))
    needs.packs(top(engine, points[1]))
    assert needs.unsure, "a trailer that is not there: every pack is taken for needed"
