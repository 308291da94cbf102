"""Crashes: each row of the crash tables, over memory, over the engine, and over a sealed store."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from engine import limits
from engine.errors import HoldfastError, NotFound, PosixError, StoreFull
from engine.index import Table
from engine.live import rows
from tests.live.conftest import KINDS
from tests.live.rig import CTX, MOUNT, MemoryRig, Rig, content, names, write_file

SPAN = limits.SPAN


@pytest.fixture(params=KINDS)
def rig(
    request: pytest.FixtureRequest, rigs: Callable[[Callable[[], Rig]], Rig], tmp_path: Path
) -> Rig:
    return rigs(lambda: KINDS[request.param](tmp_path))


def test_what_no_commit_took_is_gone_as_a_whole(rig: Rig) -> None:
    tree = rig.tree
    old = write_file(tree, 1, b"old", b"old")
    tree.barrier()
    sub = tree.mkdir(1, b"sub", 0o755, CTX).ino
    write_file(tree, sub, b"file", b"new")
    tree.rename(1, b"old", sub, b"moved")
    tree.setattr(old, mode=0o600, size=1, now_ns=3)
    tree.setxattr(old, b"user.a", b"1")
    tree = rig.crash()
    assert names(tree) == {b"old": old}
    assert content(tree, old) == b"old"
    assert tree.getattr(old).mode & 0o777 == 0o644
    assert tree.listxattr(old) == []


def test_fsync_makes_its_file_and_all_names_durable(rig: Rig) -> None:
    tree = rig.tree
    sub = tree.mkdir(1, b"sub", 0o755, CTX).ino
    data = random.Random(5).randbytes(3 * SPAN + 17)
    ino = write_file(tree, sub, b"file", data)
    other = write_file(tree, sub, b"other", b"not synced")
    tree.rename(1, b"sub", 1, b"renamed")
    tree.fsync(ino, datasync=True)
    tree = rig.crash()
    assert names(tree) == {b"renamed": sub}
    assert names(tree, sub) == {b"file": ino, b"other": other}
    assert content(tree, ino) == data
    assert tree.getattr(other).size == 0
    assert tree.getattr(other).blocks == 0


def test_fsync_of_an_unchanged_file_makes_the_way_to_it_durable(rig: Rig) -> None:
    tree = rig.tree
    sub = tree.mkdir(1, b"sub", 0o755, CTX).ino
    ino = write_file(tree, sub, b"file", b"content")
    tree.fsync(ino)
    tree.rename(1, b"sub", 1, b"renamed")
    tree.fsync(ino)
    assert names(rig.crash()) == {b"renamed": sub}


def test_fsync_of_a_directory_makes_names_durable(rig: Rig) -> None:
    ino = write_file(rig.tree, 1, b"f", b"x")
    rig.tree.fsyncdir(1)
    assert names(rig.crash()) == {b"f": ino}


def test_a_renamed_inode_is_never_in_two_places_or_none(rig: Rig) -> None:
    tree = rig.tree
    a = tree.mkdir(1, b"a", 0o755, CTX).ino
    b = tree.mkdir(1, b"b", 0o755, CTX).ino
    ino = write_file(tree, a, b"f", b"x")
    tree.fsync(ino)
    tree.rename(a, b"f", b, b"g")
    tree.fsyncdir(a)  # the commit has both sides, whichever was asked for
    tree = rig.crash()
    assert (names(tree, a), names(tree, b)) == ({}, {b"g": ino})
    tree.rename(b, b"g", a, b"f")
    tree = rig.crash()
    assert (names(tree, a), names(tree, b)) == ({}, {b"g": ino})


def test_replacing_by_rename_gives_the_old_content_or_the_new(rig: Rig) -> None:
    """The save of an editor, without any fsync: L5."""
    tree = rig.tree
    write_file(tree, 1, b"f", b"old")
    tree.barrier()
    write_file(tree, 1, b"f.tmp", b"new content")
    tree.rename(1, b"f.tmp", 1, b"f")
    tree.fsyncdir(1)
    tree = rig.crash()
    assert content(tree, tree.lookup(1, b"f").ino) == b"new content"
    write_file(tree, 1, b"g.tmp", b"third")
    tree.rename(1, b"g.tmp", 1, b"f", 2)
    tree.fsyncdir(1)
    tree = rig.crash()
    assert content(tree, tree.lookup(1, b"f").ino) == b"third"


def seal_span(tree, ino: int, number: int) -> None:
    """Seal one span of a file, as its getting full or pressure would."""
    inode = tree._state.get(ino)
    with tree._state.lock:
        tree._sealing._enqueue([(inode, inode.content.spans[number])])
        jobs = tree._sealing._next()
    tree._sealing._seal(jobs)


def test_the_committed_size_ends_before_the_first_unsealed_byte(rig: Rig) -> None:
    """L4: sealed data behind a gap of unsealed data waits with the size."""
    tree = rig.tree
    data = random.Random(6).randbytes(4 * SPAN)
    ino = tree.create(1, b"f", 0o600, CTX).ino
    tree.write(ino, 0, data)
    seal_span(tree, ino, 0)
    seal_span(tree, ino, 2)
    tree.fsyncdir(1)
    tree = rig.crash()
    assert content(tree, ino) == data[:SPAN]
    assert tree.getattr(ino).blocks == SPAN // 512
    tree.setattr(ino, size=4 * SPAN, now_ns=1)
    assert content(tree, ino) == data[:SPAN] + bytes(3 * SPAN), "nothing was left behind the end"


def test_a_span_sealed_in_part_is_committed_up_to_what_is_not(memory: MemoryRig) -> None:
    tree = memory.tree
    ino = tree.create(1, b"f", 0o600, CTX).ino
    tree.write(ino, 0, b"a" * 100)
    tree.write(ino, 200, b"c" * 100)
    seal_span(tree, ino, 0)
    tree.write(ino, 100, b"b" * 100)
    tree.fsyncdir(1)
    assert content(tree, ino) == b"a" * 100 + b"b" * 100 + b"c" * 100
    with memory.index.read() as txn:
        raw = txn.get(Table.INODES, rows.inode_key(MOUNT, ino))
    assert rows.decode_inode(raw).size == 100
    memory.verify()
    tree = memory.crash()
    assert content(tree, ino) == b"a" * 100
    tree.setattr(ino, size=300, now_ns=1)
    assert content(tree, ino) == b"a" * 100 + bytes(200)


def test_the_rest_follows_when_it_is_sealed(rig: Rig) -> None:
    tree = rig.tree
    data = random.Random(7).randbytes(3 * SPAN)
    ino = tree.create(1, b"f", 0o600, CTX).ino
    tree.write(ino, 0, data)
    seal_span(tree, ino, 1)
    tree.fsyncdir(1)
    tree.fsync(ino)
    tree = rig.crash()
    assert content(tree, ino) == data


def test_an_unsealed_overwrite_leaves_the_old_bytes(rig: Rig) -> None:
    tree = rig.tree
    ino = write_file(tree, 1, b"f", b"old old old")
    tree.fsync(ino)
    tree.write(ino, 4, b"new")
    tree.write(ino, 11, b" and more")
    tree.fsyncdir(1)
    assert content(rig.crash(), ino) == b"old old old"


def test_rewritten_from_nothing_a_file_never_shows_zeros(rig: Rig) -> None:
    tree = rig.tree
    ino = write_file(tree, 1, b"f", b"old content")
    tree.fsync(ino)
    tree.setattr(ino, size=0, now_ns=1)
    tree.write(ino, 0, b"new")
    tree.fsyncdir(1)
    tree = rig.crash()
    assert content(tree, ino) == b""


def test_a_hole_made_by_truncation_is_no_promise_of_bytes(rig: Rig) -> None:
    tree = rig.tree
    ino = tree.create(1, b"f", 0o600, CTX).ino
    tree.setattr(ino, size=100_000, now_ns=1)
    tree.fsyncdir(1)
    tree.write(ino, 50_000, b"x" * 10)
    tree.fsyncdir(1)
    tree = rig.crash()
    assert content(tree, ino) == bytes(100_000)


def test_a_truncation_is_part_of_history(rig: Rig) -> None:
    tree = rig.tree
    data = random.Random(8).randbytes(2 * SPAN)
    ino = write_file(tree, 1, b"f", data)
    tree.fsync(ino)
    tree.setattr(ino, size=SPAN + 5, now_ns=1)
    tree.setattr(ino, size=2 * SPAN, now_ns=1)
    assert content(rig.crash(), ino) == data
    rig.tree.setattr(ino, size=SPAN + 5, now_ns=1)
    rig.tree.fsyncdir(1)
    tree = rig.crash()
    assert content(tree, ino) == data[: SPAN + 5]
    tree.setattr(ino, size=2 * SPAN, now_ns=1)
    assert content(tree, ino) == data[: SPAN + 5] + bytes(SPAN - 5)


def test_open_and_unlinked_at_the_crash(rig: Rig) -> None:
    tree = rig.tree
    ino = write_file(tree, 1, b"f", random.Random(9).randbytes(SPAN + 1))
    tree.setxattr(ino, b"user.a", b"1")
    tree.link(ino, 1, b"g")
    tree.barrier()
    tree.opened(ino, 2)
    tree.unlink(1, b"f")
    tree.unlink(1, b"g")
    tree.barrier()
    with rig.index.read() as txn:
        assert txn.count(Table.ORPHANS) == 1
    tree = rig.crash()
    with pytest.raises(PosixError):
        tree.getattr(ino)
    tree.tick()
    with rig.index.read() as txn:
        for table in (Table.ORPHANS, Table.SPANS, Table.XATTRS, Table.PARENTS):
            assert txn.count(table) == 0, table
        assert txn.count(Table.INODES) == 1
    rig.verify()


def test_a_large_removal_goes_in_steps(memory: MemoryRig, monkeypatch: pytest.MonkeyPatch) -> None:
    ino = memory.tree.create(1, b"f", 0o600, CTX).ino
    for number in range(60):
        memory.tree.write(ino, number * SPAN, bytes(range(1, 200)) * 10)
    memory.tree.barrier()
    monkeypatch.setattr(limits, "TXN_DELETES_MAX", 16)
    memory.tree.unlink(1, b"f")
    memory.tree.forgotten(ino)
    left = []
    for step in range(8):
        memory.time.wait(5)
        memory.tree.tick()
        memory.verify()
        with memory.index.read() as txn:
            left.append(txn.count(Table.SPANS))
        if step == 1:
            with pytest.raises(PosixError):
                memory.crash().getattr(ino)
    assert left == sorted(left, reverse=True)
    assert left[0] > 0
    assert left[-1] == 0
    with memory.index.read() as txn:
        assert txn.count(Table.ORPHANS) == 0
        assert txn.count(Table.INODES) == 1


def test_a_commit_that_fails_loses_nothing(memory: MemoryRig) -> None:
    tree = memory.tree
    gone = write_file(tree, 1, b"gone", b"x" * 200_000)
    tree.barrier()
    ino = write_file(tree, 1, b"f", b"data")
    tree.setxattr(ino, b"user.a", b"1")
    tree.link(ino, 1, b"g")
    tree.setattr(gone, size=70_000, now_ns=1)
    memory.chunks.fail_commit = StoreFull("test")
    with pytest.raises(StoreFull):
        tree.fsync(ino)
    with pytest.raises(StoreFull):
        tree.create(1, b"more", 0o600, CTX)
    assert content(tree, ino) == b"data"
    tree.unlink(1, b"gone")  # what frees room is admitted
    tree.forgotten(gone)
    with pytest.raises(StoreFull):
        tree.barrier()
    memory.chunks.fail_commit = None
    tree.tick()
    tree.fsync(tree.create(1, b"more", 0o600, CTX).ino)
    tree = memory.crash()
    assert sorted(names(tree)) == [b"f", b"g", b"more"]
    assert content(tree, ino) == b"data"
    assert tree.getxattr(ino, b"user.a") == b"1"


def test_a_commit_that_fails_late_may_have_arrived(memory: MemoryRig) -> None:
    tree = memory.tree
    ino = write_file(tree, 1, b"f", b"data")
    memory.chunks.fail_late = StoreFull("test")
    with pytest.raises(StoreFull):
        tree.fsync(ino)
    memory.chunks.fail_late = None
    tree.unlink(1, b"f")  # the index has it, whatever was said
    tree.forgotten(ino)
    tree.tick()
    other = write_file(tree, 1, b"g", b"other")
    tree.fsync(other)
    assert names(memory.crash()) == {b"g": other}


def test_changes_during_a_failing_commit_come_on_top(memory: MemoryRig) -> None:
    tree = memory.tree
    ino = write_file(tree, 1, b"a", b"one")
    sub = tree.mkdir(1, b"sub", 0o755, CTX).ino
    tree.barrier()
    tree.rename(1, b"a", 1, b"b")
    tree.setxattr(ino, b"user.x", b"1")
    tree.setattr(ino, size=1, now_ns=1)

    def meanwhile() -> None:
        memory.chunks.before_commit = lambda: None
        tree.rename(1, b"b", sub, b"c")
        tree.link(ino, 1, b"a")
        tree.setxattr(ino, b"user.y", b"2")
        tree.removexattr(ino, b"user.x")
        tree.unlink(sub, b"c")
        tree.write(ino, 5, b"tail")
        raise StoreFull("test")

    memory.chunks.before_commit = meanwhile
    with pytest.raises(StoreFull):
        tree.barrier()
    tree.barrier()
    tree = memory.crash()
    assert names(tree) == {b"a": ino, b"sub": sub}
    assert names(tree, sub) == {}
    assert content(tree, ino) == b"o\0\0\0\0tail"
    assert tree.listxattr(ino) == [b"user.y"]


def test_changes_during_a_commit_are_in_the_next(memory: MemoryRig) -> None:
    tree = memory.tree
    ino = write_file(tree, 1, b"a", b"one")
    kept = write_file(tree, 1, b"kept", b"kept")

    def meanwhile() -> None:
        memory.chunks.before_commit = lambda: None
        tree.unlink(1, b"a")  # born in the commit that is being written
        tree.forgotten(ino)
        tree.create(1, b"b", 0o600, CTX)
        tree.rename(1, b"kept", 1, b"a")
        tree.setattr(kept, size=2, now_ns=1)
        with pytest.raises(PosixError):
            tree.getattr(ino)

    memory.chunks.before_commit = meanwhile
    tree.barrier()
    memory.verify()
    assert sorted(names(tree)) == [b"a", b"b"]
    tree.tick()
    tree.barrier()
    memory.verify()
    tree = memory.crash()
    assert sorted(names(tree)) == [b"a", b"b"]
    assert content(tree, kept) == b"ke"
    with pytest.raises(PosixError):
        tree.getattr(ino)


def test_another_process_in_the_same_tree_is_noticed(memory: MemoryRig) -> None:
    other = memory.open()
    for i in range(3):
        write_file(other, 1, b"%d" % i, b"")
        other.barrier()
    memory.tree.create(1, b"mine", 0o600, CTX)
    with pytest.raises(HoldfastError, match="another process"):
        memory.tree.barrier()
    other._stop()
    with pytest.raises(NotFound):
        memory.crash().lookup(1, b"mine")


def test_a_change_is_durable_within_the_interval(memory: MemoryRig) -> None:
    ino = write_file(memory.tree, 1, b"f", b"x" * 1000)
    waited = 0.0
    while waited < limits.COMMIT_INTERVAL:
        memory.time.wait(limits.TICK)
        waited += limits.TICK
        memory.tree.tick()
    assert content(memory.crash(), ino) == b"x" * 1000
    commits = memory.chunks.commits
    for _ in range(10):
        memory.time.wait(limits.TICK)
        memory.tree.tick()
    assert memory.chunks.commits == commits, "an idle tree writes nothing"


def test_a_fresh_change_waits_for_its_interval(memory: MemoryRig) -> None:
    commits = memory.chunks.commits
    memory.tree.create(1, b"f", 0o600, CTX)
    memory.time.wait(limits.COMMIT_INTERVAL / 2)
    memory.tree.tick()
    assert memory.chunks.commits == commits


def test_one_commit_serves_all_who_wait(memory: MemoryRig) -> None:
    memory.options["seal_threads"] = 2
    memory.reopen()
    tree = memory.tree
    inos = [write_file(tree, 1, b"%d" % i, b"x%d" % i) for i in range(12)]
    running = threading.Event()
    go_on = threading.Event()
    started = memory.chunks.commits

    def slow() -> None:
        running.set()
        assert go_on.wait(20)

    memory.chunks.before_commit = slow
    threads = [threading.Thread(target=tree.fsync, args=(inos[0],))]
    threads[0].start()
    assert running.wait(20)
    threads += [threading.Thread(target=tree.fsync, args=(ino,)) for ino in inos[1:]]
    for thread in threads[1:]:
        thread.start()
    deadline = 2000
    while tree._contents.unsealed and deadline:  # all have sealed and wait for a commit
        threading.Event().wait(0.01)
        deadline -= 1
    threading.Event().wait(0.05)
    go_on.set()
    for thread in threads:
        thread.join(20)
    assert memory.chunks.commits - started <= 3
    tree = memory.crash()
    for i, ino in enumerate(inos):
        assert content(tree, ino) == b"x%d" % i


def test_more_removals_than_a_commit_takes(
    memory: MemoryRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    inos = [write_file(memory.tree, 1, b"%d" % i, b"x") for i in range(30)]
    memory.tree.barrier()
    monkeypatch.setattr(limits, "TXN_DELETES_MAX", 8)
    for i, ino in enumerate(inos):
        memory.tree.unlink(1, b"%d" % i)
        memory.tree.forgotten(ino)
    memory.tree.barrier()
    memory.verify()
    memory.crash()
    for _ in range(5):
        memory.tree.tick()
    with memory.index.read() as txn:
        assert txn.count(Table.INODES) == 1
        assert txn.count(Table.ORPHANS) == 0
