"""What deleting points would free is what is freed; what tells of a deletion goes when it is not needed any more."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from engine import Store, limits
from engine.index import Table
from engine.index.rows import KIND_TOMBSTONE, chunk_row
from engine.live import ROOT
from tests.maintain.support import noise, put, restored, sound, three_points


def freed_as_foretold(store: Store, *points: str) -> None:
    told = store.would_free(points)
    assert told.points == list(dict.fromkeys(store.point(p).id for p in points))
    store.remove_points(points)
    before = _packs(store)
    done = store.collect()
    assert done.dead_chunks == told.chunks + told.waiting_chunks
    assert done.freed_bytes == told.freed_bytes + told.waiting_bytes
    assert (done.packs_removed, done.packs_rewritten) == (told.packs_removed, told.packs_rewritten)
    assert done.returned_bytes == told.returned_bytes
    # Trailers, and heads of new segments, come on top.
    assert abs(before - _packs(store) - told.returned_bytes) < 20_000


def _packs(store: Store) -> int:
    """Bytes of all pack files and segments."""
    home = Path(store.path)
    return sum(p.stat().st_size for p in (*home.glob("packs/*/*"), *home.glob("segments/*")))


@pytest.mark.parametrize("pack_max", [100_000, 300_000, limits.PACK_MAX])
def test_what_is_foretold_is_freed(
    store: Store, monkeypatch: pytest.MonkeyPatch, pack_max: int
) -> None:
    monkeypatch.setattr(limits, "PACK_MAX", pack_max)
    ids = three_points(store)
    freed_as_foretold(store, ids[0], ids[1], ids[0])
    tree = store.open_live("m")
    tree.unlink(ROOT, b"only")  # its chunks wait: the newest point and the tree's memory have them
    tree.barrier()
    tree.close()
    store.snapshot("m")
    freed_as_foretold(store, ids[2])
    freed_as_foretold(store, "m@latest")
    sound(store)


def test_chunks_that_other_points_need_are_not_counted(store: Store) -> None:
    tree = store.open_live("m")
    ids = []
    for day, content in enumerate([1, 1, 2]):
        put(tree, b"shared by two days", noise(300_000, content))
        put(tree, b"of one day", noise(100_000, 10 + day))
        tree.barrier()
        ids.append(store.snapshot("m").id)
    tree.close()
    alone = [store.would_free([one]).freed_bytes for one in ids]
    assert [one // 100_000 for one in alone] == [1, 1, 0]  # the tree has what the last has
    assert store.would_free(ids[:2]).freed_bytes // 100_000 == 5
    assert store.would_free([]).freed_bytes == 0
    assert store.collect(dry_run=True).freed_bytes == 0


def test_nothing_is_left_of_what_nobody_has(store: Store) -> None:
    """A tree remembers its last snapshot for the next one: not when all points are deleted."""
    ids = three_points(store)
    tree = store.open_live("m")
    for name in (b"db.dbf", b"only"):
        tree.unlink(ROOT, name)
    tree.close()
    freed_as_foretold(store, *ids)
    with store._open.context.index.read() as txn:
        kinds = {chunk_row(raw).kind for _, raw in txn.scan(Table.CHUNKS)}
        assert kinds == {KIND_TOMBSTONE}
        assert txn.count(Table.ROOTS) == 0
    tree = store.open_live("m")
    put(tree, b"new", noise(1000, 3))
    tree.close()
    view = store.glance(store.snapshot("m").id)
    names = [entry.name for entry in view.scan(view.root_entry)]
    assert names == [b"link0", b"link1", b"link2", b"new"]
    sound(store)


def tombstones(store: Store) -> int:
    with store._open.context.index.read() as txn:
        return sum(chunk_row(raw).kind == KIND_TOMBSTONE for _, raw in txn.scan(Table.CHUNKS))


def test_tombstones_go_when_no_pack_tells_of_their_points(
    home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(limits, "PACK_MAX", 8_000)
    monkeypatch.setattr(limits, "TOMBSTONES_KEPT", 4)
    ids = []
    with Store.open(str(home)) as store:
        store.create_mount("m")
        tree = store.open_live("m")
        for number in range(60):
            for name in range(20):
                put(tree, b"%d-%d" % (number % 3, name), noise(50, 100 * number + name))
            tree.barrier()
            ids.append(store.snapshot("m").id)
            if number >= 3:
                store.remove_point(ids[-4])
            if number % 6 == 5:
                told = store.would_free([])
                assert store.collect().dead_chunks == told.waiting_chunks
        tree.close()
        assert 4 <= tombstones(store) <= 40
        assert [p.id for p in store.points()] == ids[-3:]
        before = restored(store, ids[-1], tmp_path / "a")
        sound(store)
    os.truncate(home / "index" / "data.mdb", 8192)
    Store.rebuild_index(str(home))
    with Store.open(str(home)) as store:
        assert [p.id for p in store.points()] == ids[-3:]
        sound(store)
        assert restored(store, ids[-1], tmp_path / "b") == before
