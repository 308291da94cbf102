"""Collection, check, repair, rescue: on a real store with points, beside a writer, with damage, without an index."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from engine import Store, limits
from engine.errors import Busy, Corrupt
from engine.index import Table, Txn
from engine.index.rows import FLAG_CONDEMNED, chunk_row
from engine.live import ROOT
from engine.maintain import collect as collecting
from engine.maintain.marks import Marks
from engine.maintain.report import CollectReport
from tests.maintain.support import damage, noise, put, restored, sound, three_points

RESCUE = Path(__file__).parents[2] / "tools" / "rescue.py"


def test_collection_frees_what_only_deleted_points_reach(home: Path, tmp_path: Path) -> None:
    with Store.open(str(home)) as store:
        store.create_mount("m")
        ids = three_points(store)
        before = restored(store, ids[2], tmp_path / "a")
    with Store.open(str(home)) as store:
        for point in ids[:2]:
            store.remove_point(point)
        promise = store.collect(dry_run=True)
        freed = store.collect()
        assert freed.freed_bytes == promise.freed_bytes >= 600_000
        sound(store)
        assert restored(store, ids[2], tmp_path / "b") == before
        assert store.collect().dead_chunks == 0


def test_a_chunk_held_by_work_in_progress_survives_a_collection(
    store: Store, tmp_path: Path
) -> None:
    ids = three_points(store)
    store.remove_point(ids[0])
    session = store._open.session
    data = noise(300_000, 10)  # what only the deleted point had
    tree = store.open_live("m")
    ino = put(tree, b"again", data)
    with tree._state.lock:
        inode = tree._state.get(ino)
    tree._sealing.seal_now([inode])  # looked up and held, not committed
    assert session.writer.holds.ids()
    with Store.open(store.path) as other:
        waited: list[float] = []

        def sleep(seconds: float) -> None:
            waited.append(seconds)
            session.writer.acknowledge()

        report = collecting.collect(
            other._open, dry_run=False, budget_s=None, report=lambda p: None, sleep=sleep
        )
        assert waited  # it waited for the writer
        assert report.finished
    tree.barrier()
    assert tree.read(ino, 0, 300_000) == data
    sound(store)
    tree.close()


def test_a_sweep_cut_short_leaves_no_damage(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of dead delta chunks, their bases may go first."""
    with Store.open(str(home)) as store:
        store.create_mount("m")
        tree = store.open_live("m")
        for day in range(10):  # by chance none of few would
            put(tree, b"db", bytes([day]) * 200 + noise(60_000, 1) + bytes([day]) * 200)
            tree.barrier()
            store.snapshot("m")
        put(tree, b"db", b"nothing of that")
        tree.barrier()
        store.snapshot("m")  # the tree remembers the nodes of its newest point
        tree.close()
        for point in store.points():
            store.remove_point(point.id)
    monkeypatch.setattr(limits, "GC_SWEEP_ROWS", 1)
    real, loose = collecting._delete, 0

    def first(txn: Txn, marks: Marks, at: int, result: CollectReport) -> None:
        if result.dead_chunks:
            raise KeyboardInterrupt
        real(txn, marks, at, result)

    monkeypatch.setattr(collecting, "_delete", first)
    with Store.open(str(home)) as store:
        for _ in range(100):
            with contextlib.suppress(KeyboardInterrupt):
                store.collect()
                break
            sound(store)
            with store._open.context.index.read() as txn:
                rows = {cid: chunk_row(raw) for cid, raw in txn.scan(Table.CHUNKS)}
            loose += any(base not in rows for row in rows.values() for base in row.bases)
    assert loose, "no dead delta chunk outlived its base: nothing was tested"


def test_a_collection_does_not_outwait_a_writer_that_stands_still(store: Store) -> None:
    ids = three_points(store)
    store.remove_point(ids[0])
    with Store.open(store.path) as other, pytest.raises(Busy, match="standing still"):
        collecting.collect(
            other._open,
            dry_run=False,
            budget_s=None,
            report=lambda p: None,
            wait_s=0,
            sleep=lambda s: None,
        )
    sound(store)
    store.collect()
    sound(store)
    with store._open.context.index.read() as txn:
        flags = [chunk_row(raw).flags for _, raw in txn.scan(Table.CHUNKS)]
    assert not any(flag & FLAG_CONDEMNED for flag in flags)


def test_mostly_dead_packs_are_rewritten_and_removed(
    home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(limits, "PACK_MAX", 200_000)
    with Store.open(str(home)) as store:
        store.create_mount("m")
        ids = three_points(store)
        store.remove_point(ids[0])
        store.remove_point(ids[1])
        report = store.collect()
        assert report.packs_removed >= 1
        assert report.removed_bytes >= 300_000
        sound(store)
        assert restored(store, ids[2], tmp_path / "a")["only"] == noise(300_000, 12)


def test_damage_is_named_with_its_files_and_healed_by_the_same_content(
    home: Path, tmp_path: Path, expect_log: Callable[[str], None]
) -> None:
    expect_log("suspect")
    with Store.open(str(home)) as store:
        store.create_mount("m")
        ids = three_points(store)
        view = store.view(ids[1])
        entry = view.find(b"only")
        cid = next(iter(view.spans(entry)))[1][0][2]
        damage(store, home, cid)
    with Store.open(str(home)) as store:
        problems = store.check(read_data=True).problems
        assert any(p.code == "chunk" and cid.hex() in p.thing for p in problems)
        files = [p for p in problems if p.code == "file"]
        assert [p.thing for p in files] == [f"point {ids[1]}: only"]
        report = store.restore(ids[1], b"", os.fsencode(tmp_path / "out"))
        assert [d.path for d in report.damaged] == [b"only"]
        assert (tmp_path / "out" / "db.dbf").stat().st_size == 400_000
        tree = store.open_live("m")
        put(tree, b"again", noise(300_000, 11))
        tree.close()
        sound(store)


def test_the_index_is_made_again_from_packs(home: Path, tmp_path: Path) -> None:
    with Store.open(str(home)) as store:
        store.create_mount("m")
        ids = three_points(store)
        store.remove_point(ids[0])
        before = restored(store, ids[2], tmp_path / "a")
    os.truncate(home / "index" / "data.mdb", 8192)
    with pytest.raises(Corrupt, match="rebuild-index"):
        Store.open(str(home))
    Store.rebuild_index(str(home))
    with Store.open(str(home)) as store:
        assert [p.id for p in store.points()] == ids[1:]
        sound(store)
        assert restored(store, ids[2], tmp_path / "b") == before
        tree = store.open_live("m")
        assert tree.read(tree.lookup(ROOT, b"only").ino, 0, 300_000) == noise(300_000, 12)
        put(tree, b"more", b"goes on")
        tree.barrier()
        assert store.snapshot("m").seq == 4
        tree.close()
        sound(store)


def test_an_index_in_use_is_not_replaced(store: Store) -> None:
    with pytest.raises(Busy):
        Store.rebuild_index(store.path)


def test_rescue_equals_restore(store: Store, tmp_path: Path) -> None:
    tree = store.open_live("m")
    for i in range(300):  # a directory of several nodes
        put(tree, b"file number %d" % i, b"%d" % i * i)
    ino = put(tree, b"big.dbf", noise(9_000_000, 3))
    tree.setattr(ino, size=40_000_000, now_ns=7)
    tree.setxattr(ino, b"user.x", noise(3000, 4))
    tree.link(ino, ROOT, b"hard")
    tree.close()
    point = store.snapshot("m").id
    store.restore(point, b"", os.fsencode(tmp_path / "a"))
    done = subprocess.run(
        [sys.executable, str(RESCUE), store.path, point, str(tmp_path / "b")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    names = sorted(p.name for p in (tmp_path / "a").iterdir())
    assert names == sorted(p.name for p in (tmp_path / "b").iterdir())
    for name in names:
        a, b = tmp_path / "a" / name, tmp_path / "b" / name
        assert a.read_bytes() == b.read_bytes()
        assert (a.stat().st_mode, a.stat().st_mtime_ns) == (b.stat().st_mode, b.stat().st_mtime_ns)
    assert os.getxattr(tmp_path / "b" / "hard", "user.x") == noise(3000, 4)
    assert (tmp_path / "b" / "hard").stat().st_ino == (tmp_path / "b" / "big.dbf").stat().st_ino
