"""What a collection must not take: bases that are nodes, work in progress, the manifest a snapshot is building."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine import Store, codec, limits
from engine.errors import Busy, Corrupt
from engine.index import Table, gcstate
from engine.index.env import Reading
from engine.index.gcstate import GcState, Phase
from engine.index.rows import ENC_DELTA, FLAG_CONDEMNED, FLAG_SUSPECT, KIND_NODE, chunk_row
from engine.live import ROOT
from engine.maintain import collect as collecting
from engine.maintain import verify
from engine.maintain.check import CheckReport
from engine.maintain.marks import KEPT, WALKED, Marks
from engine.packs.records import Base
from engine.progress import Progress
from tests.maintain.support import noise, put, restored, sound, three_points


@pytest.mark.parametrize("changed", [b"a", b"b"])
def test_a_node_that_is_both_a_base_and_used_itself_keeps_what_it_refers_to(
    store: Store, tmp_path: Path, changed: bytes
) -> None:
    tree = store.open_live("m")
    data = noise(1_500_000, 5)
    for name in (b"a", b"b"):
        put(tree, name, data)
    tree.barrier()
    first = store.snapshot("m").id
    fresh = noise(
        2 * limits.SLOT, 6
    )  # two of 23 slots: what was in them is in the other file's node alone
    tree.write(tree.lookup(ROOT, changed).ino, limits.SLOT, fresh)
    tree.barrier()
    second = store.snapshot("m").id
    for name in (b"a", b"b"):
        tree.unlink(ROOT, name)
    tree.barrier()
    store.snapshot("m")
    with store._open.context.index.read() as txn:
        nodes = [chunk_row(raw) for _, raw in txn.scan(Table.CHUNKS)]
    assert any(row.kind == KIND_NODE and row.encoding == ENC_DELTA for row in nodes)
    store.remove_point(first)
    store.collect()
    sound(store)
    found = restored(store, second, tmp_path / "out")
    other = "b" if changed == b"a" else "a"
    assert found[other] == data
    assert found[changed.decode()] == data[: limits.SLOT] + fresh + data[3 * limits.SLOT :]
    tree.close()


def test_work_in_progress_of_the_collecting_process_is_kept(store: Store) -> None:
    ids = three_points(store)
    store.remove_point(ids[0])
    data = noise(300_000, 10)  # what only the deleted point had
    tree = store.open_live("m")
    ino = put(tree, b"again", data)
    with tree._state.lock:
        inode = tree._state.get(ino)
    tree._sealing.seal_now([inode])  # looked up and held, not committed
    store.collect()
    tree.barrier()
    with Store.open(store.path) as other:
        sound(other)
    assert tree.read(ino, 0, 300_000) == data
    tree.close()


def test_a_point_being_built_is_kept(home: Path, tmp_path: Path) -> None:
    with Store.open(str(home)) as store, Store.open(str(home)) as other:
        store.create_mount("m")
        tree = store.open_live("m")
        data = noise(700_000, 8)
        put(tree, b"file", data)
        tree.barrier()
        cut, go_on = threading.Event(), threading.Event()
        made: list[str] = []

        def thaw() -> None:
            cut.set()
            assert go_on.wait(60)

        builder = threading.Thread(
            target=lambda: made.append(store.snapshot("m", thaw=thaw).id), daemon=True
        )
        builder.start()
        assert cut.wait(60)
        put(tree, b"file", noise(700_000, 9))  # the live tree refers to the old content no more
        tree.barrier()
        for wait_s in (0, 60):
            if not wait_s:
                with pytest.raises(Busy, match="older state"):
                    collecting.collect(
                        other._open, dry_run=False, budget_s=None, report=lambda p: None, wait_s=0, sleep=_never
                    )  # fmt: skip
                continue

            def sleep(_: float) -> None:
                go_on.set()
                builder.join(60)
                tree.tick()

            collecting.collect(
                other._open, dry_run=False, budget_s=None, report=lambda p: None, sleep=sleep
            )
        tree.close()
        assert restored(other, made[0], tmp_path / "out")["file"] == data
        sound(other)


def _never(_: float) -> None:
    raise AssertionError("it was not to wait")


@pytest.mark.parametrize("committed", [True, False])
def test_the_base_of_a_delta_that_is_taken_up_again_beside_a_collection_is_kept(
    store: Store, monkeypatch: pytest.MonkeyPatch, committed: bool
) -> None:
    """When it looked, nothing referred to the base but the delta, and nothing to that; then the content returns."""
    store.create_mount("fixed", chunking="fixed")
    tree = store.open_live("fixed")
    base = noise(limits.SLOT, 20)
    changed = base[:30_000] + b"changed" + base[30_007:]
    ino = put(tree, b"first", base)
    tree.fsync(ino)
    tree.write(ino, 0, changed)
    tree.fsync(ino)
    with store._open.context.index.read() as txn:
        assert any(chunk_row(raw).encoding == ENC_DELTA for _, raw in txn.scan(Table.CHUNKS))
    tree.unlink(ROOT, b"first")
    tree.forgotten(ino)
    tree.barrier()
    condemn = collecting._condemn

    def after_a_write(*arguments: Any) -> None:
        inode = tree._state.get(put(tree, b"second", changed))
        tree._sealing.seal_now([inode])
        if committed:
            tree.barrier()
        condemn(*arguments)

    monkeypatch.setattr(collecting, "_condemn", after_a_write)
    with Store.open(store.path) as other:
        collecting.collect(
            other._open, dry_run=False, budget_s=None, report=lambda p: None, sleep=lambda _: tree.tick()
        )  # fmt: skip
    tree.barrier()
    with Store.open(store.path) as other:
        sound(other)
    tree.close()


def half_swept(store: Store) -> tuple[bytes, bytes]:
    """A collection died in its sweep: a delta is condemned, its base is gone. Their id and content."""
    session, index = store._open.session, store._open.context.index
    base = noise(limits.SLOT, 20)
    changed = base[:30_000] + b"changed" + base[30_007:]
    first, second = (codec.chunk_id(store._open.context.key, data) for data in (base, changed))
    with session.writer.holds.open() as hold:
        session.writer.put(first, base, hold)
        session.writer.put(second, changed, hold, bases=[Base(first, 0, len(base))])
        session.writer.commit()
    with index.write() as txn:
        row = chunk_row(txn.get(Table.CHUNKS, second) or b"")
        assert row.bases == (first,)
        txn.put(Table.CHUNKS, second, row._replace(flags=FLAG_CONDEMNED).pack_bytes())
        txn.delete(Table.CHUNKS, first)
        gcstate.save(txn, GcState(7, Phase.CONDEMNED))
    return second, changed


def test_what_was_condemned_does_not_come_back_without_its_base(store: Store) -> None:
    cid, content = half_swept(store)
    writer = store._open.session.writer
    with writer.holds.open() as hold:
        assert not writer.known((cid,), hold)
        writer.commit()  # somebody else's, between the look and the storing
        writer.put(cid, content, hold)
        writer.commit()
    with Store.open(store.path) as other:
        assert other._open.reader.read(cid) == content


@pytest.mark.parametrize("read_data", [True, False])
def test_a_check_takes_what_waits_for_its_deletion_for_no_damage(
    store: Store, read_data: bool, expect_log: Callable[[str], None]
) -> None:
    tree = store.open_live("m")
    put(tree, b"other", noise(9000, 3))
    tree.close()
    cid, _ = half_swept(store)
    with Store.open(store.path) as other:
        assert other.check(read_data=read_data).problems == []
        index = other._open.context.index
        with index.read() as txn:
            assert not any(chunk_row(raw).flags & FLAG_SUSPECT for _, raw in txn.scan(Table.CHUNKS))
            assert txn.count(Table.SUSPECTS) == 0
        expect_log("is suspect")  # the base, which is gone
        with index.write() as txn:  # and when it is needed all the same
            condemned = chunk_row(txn.get(Table.CHUNKS, cid) or b"")
            row = condemned._replace(flags=0)
            txn.put(Table.CHUNKS, cid, row.pack_bytes())
        assert [p.code for p in other.check(read_data=read_data).problems] == ["chunk"]
        with index.write() as txn:  # condemned and half swept since the check has begun
            txn.put(Table.CHUNKS, cid, condemned.pack_bytes())
        assert verify.record_fault(other._open, cid, row) == ""


def test_a_commit_beside_a_collection_and_data_on_its_way(store: Store) -> None:
    """What was looked up and is not stored yet has no row, and is no reason to refuse the commits of others."""
    session, index = store._open.session, store._open.context.index
    writer, key = session.writer, store._open.context.key
    with index.write() as txn:
        gcstate.save(txn, GcState(7, Phase.MARKING))
    early, late = noise(9000, 1), noise(9000, 2)
    ids = [codec.chunk_id(key, data) for data in (early, late)]
    with writer.holds.open() as hold:
        assert writer.known(ids, hold) == set()
        writer.put(ids[0], early, hold)
        # The second one is stored when the commit has already gathered what it commits.
        writer.commit(lambda txn: writer.put(ids[1], late, hold))
        writer.commit()
        with index.read() as txn:
            assert all(txn.get(Table.TOUCHED, cid) for cid in ids)
        with index.write() as txn:
            txn.delete(Table.CHUNKS, ids[1])
        with pytest.raises(Corrupt, match="work in progress"):
            writer.commit()  # stored, held, and gone: that a collection may not do
    with index.write() as txn:
        gcstate.save(txn, GcState(7, Phase.IDLE))


def test_what_is_looked_up_is_held_before_the_state_it_is_looked_up_in(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a commit between the two tells the collection that later look-ups see its flags."""
    writer, index = store._open.session.writer, store._open.context.index
    held: list[set[bytes]] = []
    read = index.read

    def reading() -> Reading:
        held.append(writer.holds.ids())
        return read()

    monkeypatch.setattr(index, "read", reading)
    with writer.holds.open() as hold:
        writer.known(iter([b"a" * 32, b"b" * 32]), hold)
    assert held == [{b"a" * 32, b"b" * 32}]


def test_there_is_one_collection_at_a_time(store: Store) -> None:
    ids = three_points(store)
    store.remove_point(ids[0])
    with Store.open(store.path) as still:
        assert still._open.session.worker.id  # a writer that does not move
        looks = 0

        def sleep(_: float) -> None:
            nonlocal looks
            looks += 1
            for again in (store, still):
                with pytest.raises(Busy, match="one of worker"):
                    again.collect()
            still._open.session.writer.acknowledge()

        collecting.collect(
            store._open, dry_run=False, budget_s=None, report=lambda p: None, sleep=sleep
        )
    assert looks == 1
    assert store.collect().dead_chunks == 0


def test_a_check_beside_a_collection_takes_nothing_for_damaged(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its transaction is older than the moving of records and the removal of packs."""
    monkeypatch.setattr(limits, "PACK_MAX", 200_000)
    monkeypatch.setattr(
        "engine.packs.files._OPEN_FILES", 1
    )  # as in a store of more packs than that
    ids = three_points(store)
    for point in ids[:2]:
        store.remove_point(point)
    looking, go_on = threading.Event(), threading.Event()
    found: list[CheckReport] = []

    def stop(_: Progress) -> None:
        looking.set()
        assert go_on.wait(60)

    with Store.open(store.path) as other:
        checker = threading.Thread(
            target=lambda: found.append(other.check(read_data=True, report=stop)), daemon=True
        )

        def begin(progress: Progress) -> None:
            if progress.stage == "sweep" and not looking.is_set():
                checker.start()
                assert looking.wait(60)

        assert store.collect(report=begin).packs_rewritten >= 1
        go_on.set()
        checker.join(60)
    assert found[0].problems == []
    sound(store)


def test_marks_tell_ids_with_the_same_first_bytes_apart(store: Store) -> None:
    three_points(store)
    twins = [b"12345678" + bytes([n]) * 24 for n in range(3)]
    with store._open.context.index.write() as txn:
        raw = next(raw for _, raw in txn.scan(Table.CHUNKS))
        for twin in (twins[0], twins[2]):
            txn.put(Table.CHUNKS, twin, raw)
    with store._open.context.index.read() as txn:
        marks = Marks(txn)
        assert marks.raise_to(twins[2], KEPT) == 0
        assert marks.raise_to(twins[2], WALKED) == KEPT
        assert marks.raise_to(twins[2], KEPT) == WALKED
        assert marks.raise_to(twins[1], KEPT) == 0  # has no row
        assert marks.reached() == 1
        dead = {found[0] for at in marks.dead() if (found := marks.row(txn, at))}
        assert twins[0] in dead
        assert twins[2] not in dead
        assert len(dead) == len(marks) - 1


def test_what_a_killed_collection_left_without_its_base_is_not_taken_back(store: Store) -> None:
    """A look-up that misses holds the id for a moment; a commit beside the next collection must not bring it back."""
    second, delta = half_swept(store)
    session, index = store._open.session, store._open.context.index
    with index.write() as txn:
        flagged = txn.get(Table.CHUNKS, second)
        gcstate.save(txn, GcState(gcstate.load(txn).epoch + 1, Phase.MARKING))
    with session.writer.holds.open() as hold:
        assert session.writer.known([second], hold) == set()
        session.writer.commit()
        with index.read() as txn:
            assert txn.get(Table.CHUNKS, second) == flagged
            assert txn.get(Table.TOUCHED, second) is None
        session.writer.put(second, delta, hold)
        session.writer.commit()
    assert store._open.reader.read(second) == delta
