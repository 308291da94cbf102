"""What cannot be stored: reported, kept, tried again, never acknowledged."""

from __future__ import annotations

import random
import threading
from contextlib import suppress

import pytest

from engine import limits
from engine.errors import (
    Corrupt,
    HoldfastError,
    LocationUnavailable,
    ShuttingDown,
    StoreFull,
)
from engine.index import Table
from engine.live import rows
from engine.live.state import repeated
from tests.live.rig import CTX, MOUNT, MemoryRig, content, names, write_file

SPAN = limits.SPAN


@pytest.mark.parametrize("error", [StoreFull("s"), LocationUnavailable("s"), Corrupt("s")])
def test_an_error_of_sealing_is_told_until_it_is_over(
    memory: MemoryRig, error: HoldfastError
) -> None:
    tree = memory.tree
    ino = write_file(tree, 1, b"f", b"data")
    other = write_file(tree, 1, b"g", b"other")
    memory.chunks.fail_seal = error
    for _ in range(2):
        with pytest.raises(type(error)):
            tree.fsync(ino)
        with pytest.raises(type(error)):
            tree.flush(ino)
    tree.flush(other)
    with pytest.raises(type(error)):
        tree.barrier()
    assert content(tree, ino) == b"data", "what cannot be stored can still be read"
    assert tree.getattr(ino).size == 4
    memory.chunks.fail_seal = None
    tree.fsync(ino)
    tree.flush(ino)
    assert content(memory.crash(), ino) == b"data"


def test_newer_writes_lie_over_what_could_not_be_sealed(memory: MemoryRig) -> None:
    tree = memory.tree
    ino = write_file(tree, 1, b"f", b"a" * 100)

    def during(job) -> None:
        memory.chunks.before_seal = lambda job: None
        tree.write(ino, 50, b"b" * 100)
        raise StoreFull("test")

    memory.chunks.before_seal = during
    with pytest.raises(StoreFull):
        tree.fsync(ino)
    assert content(tree, ino) == b"a" * 50 + b"b" * 100
    tree.fsync(ino)
    assert content(memory.crash(), ino) == b"a" * 50 + b"b" * 100


def test_cut_while_a_seal_fails(memory: MemoryRig) -> None:
    tree = memory.tree
    for size in (0, 30, SPAN):
        ino = write_file(tree, 1, b"f%d" % size, b"a" * 100 + bytes(SPAN) + b"c")

        def during(job, size=size, ino=ino) -> None:
            tree.setattr(ino, size=size, now_ns=1)
            raise StoreFull("test")

        memory.chunks.before_seal = during
        tree._sealing.seal_now([tree._state.get(ino)])
        memory.chunks.before_seal = lambda job: None
        assert content(tree, ino) == (b"a" * 100 + bytes(SPAN))[:size]
        tree.fsync(ino)
        assert content(tree, ino) == (b"a" * 100 + bytes(SPAN))[:size]
    assert tree._contents.dirty_bytes == 0
    assert tree._contents.new_bytes == 0
    memory.reopen()


@pytest.mark.parametrize("how", ["truncate", "remove"])
def test_an_error_ends_with_the_data_it_is_about(memory: MemoryRig, how: str) -> None:
    tree = memory.tree
    ino = write_file(tree, 1, b"f", b"data")
    memory.chunks.fail_seal = Corrupt("test")
    with pytest.raises(Corrupt):
        tree.fsync(ino)
    if how == "truncate":
        tree.setattr(ino, size=0, now_ns=1)
        tree.flush(ino)
        tree.fsync(ino)
    else:
        tree.unlink(1, b"f")
        tree.forgotten(ino)
    assert tree._contents.dirty_bytes == 0
    tree.barrier()
    memory.crash()


def test_a_background_failure_is_tried_again(memory: MemoryRig) -> None:
    tree = memory.tree
    ino = write_file(tree, 1, b"f", b"data")
    memory.chunks.fail_seal = StoreFull("test")
    for _ in range(20):
        memory.time.wait(limits.TICK)
        tree.tick()
    memory.chunks.fail_seal = None
    for _ in range(6):
        memory.time.wait(limits.TICK)
        tree.tick()
    assert content(memory.crash(), ino) == b"data"


def test_a_failing_background_commit_is_logged_once(memory: MemoryRig, expect_log, caplog) -> None:
    expect_log("commit failed")
    memory.chunks.fail_commit = LocationUnavailable("test")
    memory.tree.create(1, b"f", 0o600, CTX)
    for _ in range(20):
        memory.time.wait(limits.TICK)
        memory.tree.tick()
    assert sum("commit failed" in record.message for record in caplog.records) == 1
    with pytest.raises(LocationUnavailable):
        memory.tree.create(1, b"g", 0o600, CTX)
    memory.chunks.fail_commit = None
    memory.tree.tick()
    memory.tree.create(1, b"g", 0o600, CTX)
    assert sorted(names(memory.reopen())) == [b"f", b"g"]


def test_stuck_writers_get_the_error_instead_of_waiting(
    memory: MemoryRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "DIRTY_MAX", 100_000)
    monkeypatch.setattr(limits, "DIRTY_SEAL", 50_000)
    memory.options["seal_threads"] = 1
    tree = memory.reopen()
    memory.chunks.fail_seal = StoreFull("test")
    ino = write_file(tree, 1, b"f", b"x" * 300_000)
    with pytest.raises(StoreFull):
        tree.wait_room()
    memory.chunks.fail_seal = None
    tree.fsync(ino)
    tree.wait_room()
    assert not tree.over_limit()


def test_a_bug_in_sealing_costs_an_error_not_a_thread(memory: MemoryRig, expect_log) -> None:
    expect_log("sealing span 0")
    memory.options["seal_threads"] = 1
    tree = memory.reopen()
    ino = write_file(tree, 1, b"f", b"data")

    def bug(job) -> None:
        raise ZeroDivisionError

    memory.chunks.before_seal = bug
    with pytest.raises(HoldfastError, match="ZeroDivisionError"):
        tree.fsync(ino)
    memory.chunks.before_seal = lambda job: None
    tree.fsync(ino)
    assert content(memory.crash(), ino) == b"data"


class Death(BaseException):
    """What no handler of errors expects."""


@pytest.mark.parametrize("threads", [1, 2])
def test_a_seal_thread_that_dies_is_replaced(
    memory: MemoryRig, expect_log, monkeypatch: pytest.MonkeyPatch, threads: int
) -> None:
    """Every one of them, again and again: what it had taken is told of, and what is queued is sealed all the same."""
    expect_log("seal thread died")
    monkeypatch.setattr(limits, "DIRTY_MAX", 4 * SPAN)
    monkeypatch.setattr(limits, "DIRTY_SEAL", 2 * SPAN)
    memory.options["seal_threads"] = threads
    tree = memory.reopen()
    left = [5]

    def die(job) -> None:
        if threading.current_thread() is not threading.main_thread() and left[0]:
            left[0] -= 1
            raise Death

    memory.chunks.before_seal = die
    inos = []
    for number in range(12):
        inos.append(write_file(tree, 1, b"f%d" % number, b"%d" % number * SPAN))
        if tree.over_limit():
            with suppress(ShuttingDown):
                tree.wait_room()
    for ino in inos:
        for _ in range(6):  # who waits for a thread that dies is told so
            with suppress(ShuttingDown):
                tree.fsync(ino)
                break
    assert [line.thing for line in tree._ports.incidents.waiting()] == ["seal thread"]
    tree = memory.crash()
    assert [content(tree, ino)[:1] for ino in inos] == [b"%d" % n for n in range(10)] + [b"1"] * 2


def test_a_bug_before_sealing_costs_an_error_not_the_data(memory: MemoryRig, expect_log) -> None:
    expect_log("taking span 0")
    tree = memory.tree
    ino = write_file(tree, 1, b"f", b"data")
    real = tree._contents.take
    tree._contents.take = lambda inode, span: 1 / 0
    with pytest.raises(HoldfastError, match="ZeroDivisionError"):
        tree.fsync(ino)
    tree._contents.take = real
    tree.fsync(ino)
    assert content(memory.crash(), ino) == b"data"


@pytest.mark.parametrize("step", ["gather", "settle"])
def test_after_a_half_done_commit_nothing_is_acknowledged(
    memory: MemoryRig, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """What was dirty may be taken for saved then: an fsync that finds nothing to do must not say that all is well."""
    tree = memory.tree
    kept = write_file(tree, 1, b"kept", b"kept")
    tree.fsync(kept)
    inos = [write_file(tree, 1, b"f%d" % n, b"data") for n in range(3)]

    def short(self, *arguments) -> None:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(
            "engine.live.batch.Batch._save"
            if step == "gather"
            else "engine.live.batch.Batch.settle",
            short,
        )
        with pytest.raises(MemoryError):
            tree.barrier()
    for ino in inos:
        with pytest.raises(HoldfastError, match="mount it again"):
            tree.fsync(ino)
    with pytest.raises(HoldfastError, match="mount it again"):
        tree.create(1, b"more", 0o600, CTX)
    assert content(tree, kept) == b"kept"
    assert content(memory.crash(), kept) == b"kept"


def test_a_bug_in_a_background_commit_is_told(memory: MemoryRig, expect_log) -> None:
    expect_log("background commit")

    def bug() -> None:
        raise ZeroDivisionError

    memory.chunks.before_commit = bug
    memory.tree.create(1, b"f", 0o600, CTX)
    memory.tree._commits.wake()
    memory.tree._commits._executor.submit(lambda: None).result()
    assert [line.kind for line in memory.tree._ports.incidents.waiting()] == ["internal"]
    memory.chunks.before_commit = lambda: None
    memory.tree.barrier()
    assert names(memory.crash()).keys() == {b"f"}


def test_an_interrupted_seal_puts_everything_back(memory: MemoryRig) -> None:
    tree = memory.tree
    inos = [write_file(tree, 1, b"%d" % i, b"data %d" % i) for i in range(3)]

    def interrupt(job) -> None:
        raise KeyboardInterrupt

    memory.chunks.before_seal = interrupt
    with pytest.raises(KeyboardInterrupt):
        tree.barrier()
    memory.chunks.before_seal = lambda job: None
    assert tree._contents.in_work == 0
    tree.barrier()
    tree = memory.crash()
    assert [content(tree, ino) for ino in inos] == [b"data 0", b"data 1", b"data 2"]


def damage(memory: MemoryRig, table: Table, key: bytes) -> None:
    """Flip a bit of a row, as a disk does."""
    env = memory.index._env
    with env.begin(write=True) as txn:
        db = memory.index._dbs[table]
        raw = bytearray(txn.get(key, db=db))
        raw[3] ^= 4
        txn.put(key, bytes(raw), db=db)


def test_a_damaged_span_row_blocks_its_file_alone(memory: MemoryRig) -> None:
    tree = memory.tree
    bad = write_file(tree, 1, b"bad", bytes(range(256)) * 40_000)
    good = write_file(tree, 1, b"good", b"")
    memory.reopen()
    damage(memory, Table.SPANS, rows.span_key(MOUNT, bad, 1))
    tree = memory.tree
    with pytest.raises(Corrupt):
        tree.read(bad, SPAN, 10)
    tree.write(bad, SPAN + 5, b"patch")
    tree.write(good, 0, b"fine")
    tree.fsync(good)
    with pytest.raises(Corrupt):
        tree.fsync(bad)
    assert tree.read(bad, 0, 256) == bytes(range(256))
    assert content(tree, good) == b"fine"
    tree.setattr(bad, size=0, now_ns=1)
    tree.fsync(bad)
    assert content(tree, bad) == b""


def test_a_damaged_inode_is_left_out_of_its_directory(memory: MemoryRig, expect_log) -> None:
    expect_log("left out")
    bad = write_file(memory.tree, 1, b"bad", b"x")
    good = write_file(memory.tree, 1, b"good", b"y")
    memory.reopen()
    damage(memory, Table.INODES, rows.inode_key(MOUNT, bad))
    assert names(memory.tree) == {b"good": good}
    with pytest.raises(Corrupt):
        memory.tree.lookup(1, b"bad")
    assert content(memory.tree, good) == b"y"


def test_damaged_rows_do_not_stop_a_removal(memory: MemoryRig) -> None:
    data = random.Random(1).randbytes(SPAN + 300_000)
    inos = [write_file(memory.tree, 1, b"%d" % i, data) for i in range(3)]
    for i, ino in enumerate(inos):
        memory.tree.barrier()
        memory.tree.opened(ino, 0)
        memory.tree.unlink(1, b"%d" % i)
    memory.tree.barrier()
    damage(memory, Table.SPANS, rows.span_key(MOUNT, inos[1], 1))
    damage(memory, Table.INODES, rows.inode_key(MOUNT, inos[2]))
    memory.tree._stop()
    memory.tree = memory.open()
    memory.tree.tick()
    with memory.index.read() as txn:
        assert [txn.count(table) for table in (Table.INODES, Table.SPANS, Table.ORPHANS)] == [
            1,
            0,
            0,
        ]


def test_a_damaged_change_mark_means_all_has_changed(memory: MemoryRig, expect_log) -> None:
    expect_log("change mark")
    ino = write_file(memory.tree, 1, b"f", b"x")
    memory.tree.barrier()
    cut(memory)
    memory.tree.write(ino, 0, b"y")
    memory.tree.barrier()
    damage(memory, Table.CHANGED, rows.inode_key(MOUNT, ino))
    memory.tree.write(ino, 0, b"z")
    memory.tree.barrier()
    with memory.index.read() as txn:
        raw = txn.get(Table.CHANGED, rows.inode_key(MOUNT, ino))
    assert rows.decode_changed(raw).first == 0


def cut(memory: MemoryRig) -> None:
    with memory.index.write() as txn:
        seq = rows.decode_meta(txn.get(Table.LIVE_META, rows.meta_key(MOUNT))).seq
        txn.put(Table.LIVE_META, rows.cut_key(MOUNT), rows.Cut(seq, seq).encode())


def test_a_repeated_error_gathers_no_tracebacks() -> None:
    first = StoreFull("thing", expected="room", found="none", do="make some")
    second = repeated(first)
    assert (type(second), str(second)) == (StoreFull, str(first))
    assert second is not first


def test_a_tree_that_is_not_there(memory: MemoryRig) -> None:
    from engine.live import LiveTree

    with pytest.raises(Corrupt, match="mount 99"):
        LiveTree(99, memory.ports())


def test_close_tells_what_it_could_not_store(memory: MemoryRig) -> None:
    write_file(memory.tree, 1, b"f", b"x")
    memory.chunks.fail_seal = StoreFull("test")
    with pytest.raises(StoreFull):
        memory.tree.close()
    memory.chunks.fail_seal = None
    assert not any(t.name.startswith(("seal", "commit")) for t in threading.enumerate())
    memory.tree = memory.open()
