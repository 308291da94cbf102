"""Collection, check, repair, rescue: on a real store with points, beside a writer, with damage, without an index."""

import contextlib
import errno
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from engine import Store, limits
from engine.chunks.reader import mark_suspect
from engine.errors import Busy, Corrupt
from engine.home import OpenStore
from engine.index import Table, Txn
from engine.index.rows import FLAG_CONDEMNED, chunk_row
from engine.live import ROOT, Ctx
from engine.maintain import collect as collecting
from engine.maintain.marks import Marks
from engine.maintain.report import CollectReport
from engine.seam import Os
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
    owner = Ctx(os.geteuid(), os.getegid())
    link = tree.symlink(ROOT, b"link", b"big.dbf", owner).ino
    tree.setattr(link, mtime_ns=1_600_000_000_123_456_789, now_ns=1)
    if os.geteuid() == 0:
        tree.setattr(link, uid=1234, gid=77, now_ns=1)
        tree.setxattr(link, b"trusted.x", b"of a link")
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
    a, b = ((tmp_path / side / "link").lstat() for side in "ab")
    assert (a.st_mode, a.st_uid, a.st_mtime_ns) == (b.st_mode, b.st_uid, b.st_mtime_ns)
    assert os.listxattr(tmp_path / "b" / "link", follow_symlinks=False) == os.listxattr(
        tmp_path / "a" / "link", follow_symlinks=False
    )
    assert os.getxattr(tmp_path / "b" / "hard", "user.x") == noise(3000, 4)
    assert (tmp_path / "b" / "hard").stat().st_ino == (tmp_path / "b" / "big.dbf").stat().st_ino


class FullOs(Os):
    """A disk without room for anything, until a file is removed."""

    full = True

    def pwritev(self, fd: int, parts: Sequence[bytes | bytearray | memoryview], offset: int) -> int:
        if self.full:
            raise OSError(errno.ENOSPC, "no room")
        return super().pwritev(fd, parts, offset)

    def unlink(self, path: str) -> None:
        super().unlink(path)
        self.full = self.full and not path.endswith(".pack")


def test_on_a_full_disk_dead_packs_make_room_for_what_is_rewritten(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.chunks.segments.SEAL_ON_CLOSE", 100)  # a pack for each opening
    with Store.open(str(home)) as store:
        store.create_mount("m")
    days = (
        {b"dead": noise(90_000, 1), b"kept": noise(20_000, 2)},
        {b"dead": noise(90_000, 3)},
        {b"dead": b""},
    )
    ids = []
    for day in days:
        with Store.open(str(home)) as store:
            tree = store.open_live("m")
            for name, data in day.items():
                put(tree, name, data)
            tree.close()
            ids.append(store.snapshot("m").id)
    with Store.open(str(home)) as store:
        store.remove_points(ids[:2])
    with Store(OpenStore(str(home), system=FullOs())) as store:
        report = store.collect()
    assert report.packs_left == 0
    assert report.packs_rewritten >= 1 and report.packs_removed > report.packs_rewritten
    with Store.open(str(home)) as store:
        sound(store)


def test_marks_of_chunks_that_are_gone_and_locks_of_before_are_taken_away(store: Store) -> None:
    three_points(store)
    mark_suspect(store._open.context, bytes(32), "a test")
    left = Path(store.path, "workers", f"{77:016x}.lock")
    left.write_bytes(b"")
    with Store.open(store.path) as other:
        assert other._open.session.worker.id  # alive, with a row
        collecting.collect(
            store._open, dry_run=False, budget_s=None, report=lambda p: None,
            sleep=lambda _: other._open.session.writer.acknowledge(),
        )  # fmt: skip
        assert len(os.listdir(left.parent)) == 2
    assert not left.exists()
    with store._open.context.index.read() as txn:
        assert txn.count(Table.SUSPECTS) == 0
