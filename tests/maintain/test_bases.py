"""Bases of deltas: kept with what was found again, never deltas of their deltas, not missed by a rebuilt index."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from engine import Store, codec
from engine.chunks.reader import mark_suspect
from engine.home import OpenStore
from engine.index import Table
from engine.index.gcstate import GcState, Phase, save
from engine.index.rows import ENC_DELTA, chunk_row
from engine.maintain import collect as collecting
from engine.maintain.copies import Copies
from engine.packs.records import Base
from engine.progress import silent
from tests.maintain.support import noise, put, restored, sound

FIRST = noise(60_000, 1)
SECOND = FIRST[:1000] + b"changed" + FIRST[1007:]
RESCUE = Path(__file__).parents[2] / "tools" / "rescue.py"


def _ids(opened: OpenStore, *contents: bytes) -> list[bytes]:
    return [codec.chunk_id(opened.context.key, data) for data in contents]


def two_versions(store: Store) -> list[str]:
    """A point of FIRST, then one of SECOND, which is stored as a delta of it."""
    tree = store.open_live("m")
    points = []
    for data in (FIRST, SECOND):
        put(tree, b"users.dbf", data)
        tree.barrier()
        points.append(store.snapshot("m").id)
    tree.close()
    row = store._open.reader.row(_ids(store._open, SECOND)[0])
    assert row is not None and row.encoding == ENC_DELTA
    return points


def forget(store: Store) -> None:
    """Nothing but the points refers to the content any more."""
    tree = store.open_live("m")
    put(tree, b"users.dbf", b"other")
    tree.barrier()
    store.snapshot("m")
    tree.close()


@pytest.mark.parametrize("committed", [True, False])
def test_a_base_is_kept_with_a_delta_that_is_found_again(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, committed: bool
) -> None:
    """Found while the collection marks: the delta has a row, its base is needed by nothing else."""
    points = two_versions(store)
    forget(store)
    store.remove_points(points)
    tree = store.open_live("m")
    real = collecting._condemn

    def condemn(*arguments: object) -> None:
        ino = put(tree, b"users.dbf", SECOND)
        if committed:
            tree.barrier()
        else:
            with tree._state.lock:
                inode = tree._state.get(ino)
            tree._sealing.seal_now([inode])
        real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(collecting, "_condemn", condemn)
    with Store.open(store.path) as other:
        collecting.collect(
            other._open, dry_run=False, budget_s=None, report=silent,
            sleep=lambda _: store._open.session.writer.acknowledge(),
        )  # fmt: skip
    tree.close()
    sound(store)
    assert _encodings(store, SECOND) == [ENC_DELTA], "it was found, not stored again"
    assert restored(store, store.snapshot("m").id, tmp_path / "out")["users.dbf"] == SECOND


def test_what_is_stored_again_is_no_delta_of_its_own_delta(store: Store) -> None:
    """Healing a damaged base from a delta of it that is still in memory would lose both."""
    two_versions(store)
    opened = store._open
    base, delta = _ids(opened, FIRST, SECOND)
    with Store.open(store.path) as other:
        session = other._open.session
        assert other._open.reader.read(delta) == SECOND  # now in memory
        other._open.reader.forget(base)
        mark_suspect(other._open.context, base, "a test")
        with session.writer.holds.open() as hold:
            assert not session.writer.known((base,), hold)
            session.writer.put(base, FIRST, hold, bases=[Base(delta, 0, len(SECOND))])
            session.writer.commit()
    with OpenStore(store.path) as fresh:
        assert fresh.reader.read(base) == FIRST
        assert fresh.reader.read(delta) == SECOND


def test_a_base_that_was_not_there_refuses_no_commit(store: Store) -> None:
    two_versions(store)
    session, data = store._open.session, noise(5_000, 7)
    with store._open.context.index.write() as txn:
        save(txn, GcState(1, Phase.MARKING))
    (cid,) = _ids(store._open, data)
    with session.writer.holds.open() as hold:
        session.writer.put(cid, data, hold, bases=[Base(bytes(32), 0, 1000)])
        session.writer.commit()
        session.writer.commit()
    assert store._open.reader.read(cid) == data


def test_records_whose_base_is_gone_are_taken_for_nothing(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A chunk that was a delta, was collected with its base, and is stored again: both records are in the packs."""
    monkeypatch.setattr("engine.chunks.segments.SEAL_ON_CLOSE", 100)  # a pack for each opening
    with Store.open(str(home)) as store:
        store.create_mount("m")
    days = ({b"users.dbf": FIRST}, {b"users.dbf": SECOND, b"kept": noise(200_000, 2)})
    points = [_point(home, files) for files in days]
    _point(home, {b"users.dbf": b"other"})
    with Store.open(str(home)) as store:
        store.remove_points(points)
        assert store.collect().packs_removed >= 1
        assert _encodings(store, SECOND) == []

    rebuilt = tmp_path / "rebuilt"
    shutil.copytree(home, rebuilt)
    Store.rebuild_index(str(rebuilt))
    with Store.open(str(rebuilt)) as store:
        sound(store)
        assert _encodings(store, SECOND) == []  # else what is written next would be found in it

    point = _point(home, {b"again": SECOND})
    for where in (home, rebuilt):
        if where == rebuilt:
            shutil.rmtree(rebuilt)
            shutil.copytree(home, rebuilt)
            Store.rebuild_index(str(rebuilt))
        with Store.open(str(where)) as store:
            sound(store)
            assert restored(store, point, tmp_path / f"from-{where.name}")["again"] == SECOND
    done = subprocess.run(
        [sys.executable, str(RESCUE), str(home), point, str(tmp_path / "rescued")], check=False
    )
    assert done.returncode == 0
    assert (tmp_path / "rescued" / "again").read_bytes() == SECOND


def _point(home: Path, files: dict[bytes, bytes]) -> str:
    with Store.open(str(home)) as store:
        tree = store.open_live("m")
        for name, data in files.items():
            put(tree, name, data)
        tree.barrier()
        tree.close()
        return store.snapshot("m").id


def _encodings(store: Store, data: bytes) -> list[int]:
    with store._open.context.index.read() as txn:
        raw = txn.get(Table.CHUNKS, _ids(store._open, data)[0])
    return [] if raw is None else [chunk_row(raw).encoding]


def test_the_record_of_a_deleted_point_may_have_lost_its_base(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That is no damage: nothing is marked or warned of, and the points that are there are found."""
    with Store.open(str(home)) as store:
        store.create_mount("m")
    gone, kept = _point(home, {b"a": b"1"}), _point(home, {b"a": b"2"})
    with Store.open(str(home)) as store:
        context = store._open.context
        with context.index.read() as txn:
            record = codec.chunk_id(context.key, txn.get(Table.POINTS, gone.encode()) or b"")
        store.remove_point(gone)
    settle = Copies.settle

    def without_base(self: Copies) -> int:
        dropped = settle(self)
        with self._index.write() as txn:
            txn.delete(Table.CHUNKS, record)
        return dropped + 1

    monkeypatch.setattr(Copies, "settle", without_base)
    report = Store.rebuild_index(str(home))
    assert any("what it is a delta of is gone" in line for line in report.done)
    with Store.open(str(home)) as store:
        assert [point.id for point in store.points()] == [kept]
        sound(store)
