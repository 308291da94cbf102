"""File content: any offsets, holes, truncation, blocks, what a seal is asked to do."""

from __future__ import annotations

import errno
import os
import random

import pytest

from engine import limits
from engine.codec import Bytes
from engine.errors import Corrupt, HoldfastError
from engine.index import Table
from engine.ingest.jobs import Mode
from engine.live.spans import clip
from tests.live.rig import CTX, MemoryRig, Rig, content, write_file

SPAN = limits.SPAN


def test_a_large_file_in_uneven_writes(rig: Rig) -> None:
    chance = random.Random(1)
    data = chance.randbytes(5 * SPAN + 12_345)
    ino = rig.tree.create(1, b"f", 0o600, CTX).ino
    rig.tree.opened(ino, os.O_WRONLY)
    at = 0
    while at < len(data):
        size = chance.choice([1, 4096, 65_536, 1 << 20, 3_000_000])
        rig.tree.write(ino, at, data[at : at + size])
        at += size
    assert content(rig.tree, ino) == data
    rig.tree.released(ino)
    rig.tree.fsync(ino)
    assert content(rig.tree, ino) == data
    assert content(rig.reopen(), ino) == data
    assert rig.tree.getattr(ino).blocks == (len(data) + 511) // 512


def test_random_overwrites_between_seals(rig: Rig) -> None:
    chance = random.Random(2)
    data = bytearray(chance.randbytes(2 * SPAN + 500_000))
    ino = write_file(rig.tree, 1, b"disk.img", bytes(data))
    rig.tree.barrier()
    for step in range(120):
        at = chance.randrange(len(data) - 5000)
        piece = chance.randbytes(chance.choice([1, 512, 4096, 5000]))
        data[at : at + len(piece)] = piece
        rig.tree.write(ino, at, piece)
        if step % 30 == 29:
            rig.tree.fsync(ino)
        if step % 50 == 49:
            rig.reopen()
        at = chance.randrange(len(data))
        assert rig.tree.read(ino, at, 9000) == data[at : at + 9000]
    assert content(rig.tree, ino) == data


def test_holes_stay_holes(rig: Rig) -> None:
    tree = rig.tree
    ino = tree.create(1, b"sparse", 0o600, CTX).ino
    assert tree.setattr(ino, size=limits.FILE_MAX, now_ns=1).blocks == 0
    tree.write(ino, 10 * limits.GIB, b"x" * 4096)
    tree.write(ino, 3, b"y")
    assert tree.getattr(ino).blocks == 9
    tree = rig.reopen()
    attr = tree.getattr(ino)
    assert (attr.size, attr.blocks) == (limits.FILE_MAX, 9)
    assert tree.read(ino, 0, 8) == b"\0\0\0y\0\0\0\0"
    assert tree.read(ino, 10 * limits.GIB - 2, 6) == b"\0\0xxxx"
    assert tree.read(ino, limits.FILE_MAX - 5, 100) == bytes(5)
    assert tree.read(ino, limits.FILE_MAX, 100) == b""
    assert tree.read_now(ino, 5 * limits.GIB, 3 * SPAN) == bytes(3 * SPAN)


def test_a_file_has_an_end(rig: Rig) -> None:
    ino = rig.tree.create(1, b"f", 0o600, CTX).ino
    with pytest.raises(HoldfastError, check=lambda e: e.errno == errno.EFBIG):
        rig.tree.write(ino, limits.FILE_MAX - 1, b"ab")
    with pytest.raises(HoldfastError, check=lambda e: e.errno == errno.EFBIG):
        rig.tree.setattr(ino, size=limits.FILE_MAX + 1, now_ns=1)
    assert rig.tree.write(ino, 5, b"") == 0
    assert rig.tree.getattr(ino).size == 0


def test_only_files_have_content(rig: Rig) -> None:
    sub = rig.tree.mkdir(1, b"d", 0o700, CTX).ino
    for attempt in (
        lambda: rig.tree.write(sub, 0, b"x"),
        lambda: rig.tree.read(sub, 0, 1),
        lambda: rig.tree.setattr(sub, size=0, now_ns=1),
    ):
        with pytest.raises(HoldfastError, check=lambda e: e.errno == errno.EISDIR):
            attempt()


@pytest.mark.parametrize("state", ["unsealed", "sealed", "committed"])
@pytest.mark.parametrize("size", [0, 1, 70_000, SPAN - 1, SPAN, SPAN + 1, 2 * SPAN + 777])
def test_what_is_cut_off_never_comes_back(memory: MemoryRig, state: str, size: int) -> None:
    data = random.Random(3).randbytes(3 * SPAN - 1000)
    ino = write_file(memory.tree, 1, b"f", data)
    if state == "sealed":
        memory.tree._sealing.seal_now([memory.tree._state.get(ino)])
    if state == "committed":
        memory.reopen()
    memory.tree.setattr(ino, size=size, now_ns=1)
    wanted = data[:size]
    assert content(memory.tree, ino) == wanted
    assert memory.tree.getattr(ino).blocks <= (size + 511) // 512
    memory.tree.setattr(ino, size=3 * SPAN, now_ns=1)
    wanted += bytes(3 * SPAN - size)
    assert content(memory.tree, ino) == wanted
    memory.tree.write(ino, 2 * SPAN + 5, b"new")
    wanted = wanted[: 2 * SPAN + 5] + b"new" + wanted[2 * SPAN + 8 :]
    assert content(memory.reopen(), ino) == wanted
    blocks = memory.tree.getattr(ino).blocks
    memory.tree.setattr(ino, size=0, now_ns=1)
    assert memory.tree.getattr(ino).blocks == 0
    assert blocks <= (size + 3 + 1023) // 512
    memory.reopen()
    assert memory.tree.statfs()[1:3] == memory.tree.statfs()[2:4]  # nothing is in use


def test_truncated_while_being_sealed(memory: MemoryRig) -> None:
    data = random.Random(4).randbytes(2 * SPAN)
    for cut in (0, 10, 100_000, SPAN, SPAN + 9):
        ino = write_file(memory.tree, 1, b"f%d" % cut, data)
        cuts = [cut]

        def shorten(job, ino=ino, cuts=cuts) -> None:
            if cuts:
                memory.tree.setattr(ino, size=cuts.pop(), now_ns=1)
                memory.tree.setattr(ino, size=2 * SPAN, now_ns=1)
                assert content(memory.tree, ino) == data[:cut] + bytes(2 * SPAN - cut)  # noqa: B023

        memory.chunks.before_seal = shorten
        memory.tree.barrier()
        assert content(memory.tree, ino) == data[:cut] + bytes(2 * SPAN - cut)
    memory.reopen()


def test_written_while_being_sealed(memory: MemoryRig) -> None:
    ino = write_file(memory.tree, 1, b"f", b"a" * 100_000)
    late = [b"b" * 10]

    def more(job) -> None:
        if late:
            memory.tree.write(ino, 50_000, late.pop())
            assert memory.tree.read_now(ino, 49_995, 20) == b"aaaaabbbbbbbbbbaaaaa"

    memory.chunks.before_seal = more
    memory.tree.fsync(ino)
    assert memory.tree.read(ino, 49_995, 20) == b"aaaaabbbbbbbbbbaaaaa"
    memory.tree.fsync(ino)
    assert memory.crash().read(ino, 49_995, 20) == b"aaaaabbbbbbbbbbaaaaa"


def test_small_content_lives_in_the_inode_row(memory: MemoryRig) -> None:
    inos = [write_file(memory.tree, 1, b"%d" % i, b"small %d" % i) for i in range(10)]
    memory.tree.barrier()
    with memory.index.read() as txn:
        assert txn.count(Table.SPANS) == 0
        assert txn.count(Table.INODES) == 11
        assert txn.count(Table.DIRENTS) == 10
        others = [t for t in Table if t.name in ("PARENTS", "XATTRS", "CHANGED", "CHANGED_SPANS")]
        assert [txn.count(table) for table in others] == [0, 0, 0, 0]
    for at in range(0, 600_000, 60_000):  # grows out of it …
        memory.tree.write(inos[0], at, b"%05d" % (at % 99_991))
    memory.reopen()
    with memory.index.read() as txn:
        assert txn.count(Table.SPANS) == 1
    memory.tree.setattr(inos[0], size=5, now_ns=1)  # … and back into it
    memory.reopen()
    with memory.index.read() as txn:
        assert txn.count(Table.SPANS) == 0
    assert content(memory.tree, inos[0]) == b"00000"


def test_a_full_span_is_sealed_without_being_asked(memory: MemoryRig) -> None:
    memory.options["seal_threads"] = 1
    memory.reopen()
    ino = memory.tree.create(1, b"f", 0o600, CTX).ino
    for at in range(0, SPAN, 1 << 17):
        memory.tree.write(ino, at, b"x" * (1 << 17))
    memory.tree._sealing.close()  # its threads have ended
    assert memory.tree._contents.dirty_bytes == 0
    assert memory.chunks.seals == 1
    memory.tree.close()
    memory.tree = memory.open()


def test_closed_small_files_share_a_hand_over(
    memory: MemoryRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "SMALL_BATCH_FILES", 5)
    sealing = memory.tree._sealing
    for i in range(4):
        write_file(memory.tree, 1, b"%d" % i, b"x")
    assert len(sealing._queue) == 0
    write_file(memory.tree, 1, b"last", b"x")
    assert [len(work) for work in sealing._queue] == [5]


def test_pressure_seals_the_oldest_first(
    memory: MemoryRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "DIRTY_SEAL", 1_000_000)
    memory.tree._sealing.relief_at = 1_000_000
    inos = [memory.tree.create(1, b"%d" % i, 0o600, CTX).ino for i in range(4)]
    for ino in inos:
        memory.tree.write(ino, 0, b"x" * 400_000)
    queued = [inode.ino for work in memory.tree._sealing._queue for inode, _ in work]
    assert queued
    assert queued == inos[: len(queued)]
    assert len(queued) < 4


def test_writers_wait_for_room(memory: MemoryRig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "DIRTY_MAX", 1_000_000)
    monkeypatch.setattr(limits, "DIRTY_SEAL", 500_000)
    memory.options["seal_threads"] = 1
    memory.reopen()
    tree = memory.tree
    ino = tree.create(1, b"f", 0o600, CTX).ino
    highest = 0
    for at in range(0, 20_000_000, 100_000):
        tree.write(ino, at, b"%07d" % at * 14_286)
        if tree.over_limit():
            tree.wait_room()
        highest = max(highest, tree._contents.dirty_bytes)
    assert highest <= 1_200_000
    tree.barrier()
    assert tree.read(ino, 10_000_000, 7) == b"10000000"[:7]


def test_crowded_rows_wait_for_a_commit(memory: MemoryRig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "DIRTY_ROWS_MAX", 20)
    for i in range(30):
        memory.tree.create(1, b"%d" % i, 0o600, CTX)
        if memory.tree.over_limit():
            memory.tree.wait_room()
    assert not memory.tree.over_limit()
    assert memory.chunks.commits == 1 + 3  # one when opened


def test_many_dirty_rows_start_a_commit(memory: MemoryRig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "COMMIT_ROWS", 10)
    asked = []
    memory.tree._state.wake_committer = lambda: asked.append(1)
    for i in range(12):
        memory.tree.create(1, b"%d" % i, 0o600, CTX)
    assert asked


def test_reads_that_need_a_chunk_are_not_made_on_the_loop(memory: MemoryRig) -> None:
    ino = write_file(memory.tree, 1, b"f", b"hello" + bytes(100_000))
    assert memory.tree.read_now(ino, 0, 5) == b"hello"
    memory.tree.barrier()
    memory.chunks.nothing_cached = True
    assert memory.tree.read_now(ino, 0, 5) is None
    assert memory.tree.read(ino, 0, 5) == b"hello"
    memory.tree.write(ino, 1, b"XYZ")
    assert memory.tree.read_now(ino, 1, 3) == b"XYZ"
    assert memory.tree.read_now(ino, 0, 3) is None
    assert memory.tree.read(ino, 0, 6) == b"hXYZo\0"


def test_a_chunk_that_is_gone_is_an_error_that_names_it(memory: MemoryRig) -> None:
    ino = write_file(memory.tree, 1, b"f", b"hello")
    memory.tree.barrier()
    (cid,) = memory.chunks.committed
    memory.chunks.committed.clear()
    with pytest.raises(Corrupt, match=cid.hex()):
        memory.tree.read(ino, 0, 5)


def test_a_read_looks_again_when_the_file_has_new_chunks(memory: MemoryRig) -> None:
    ino = write_file(memory.tree, 1, b"f", b"old content")
    memory.tree.barrier()
    gone = dict(memory.chunks.committed)

    class Reader:
        def read_parts(self, parts: list[tuple[bytes, int, int]]) -> list[Bytes]:
            if any(
                cid in gone for cid, _, _ in parts
            ):  # rewritten and collected since the plan was made
                memory.tree.write(ino, 0, b"new content")
                memory.tree.fsync(ino)
                raise Corrupt("chunk")
            return memory.chunks.read_parts(parts)

    memory.tree._io._reader = Reader()
    assert memory.tree.read(ino, 0, 100) == b"new content"


def test_a_seal_is_told_mode_group_and_predecessor(memory: MemoryRig) -> None:
    asked = []

    class Old:
        pass

    before = Old()
    ports = memory.tree._ports
    ports.choose_mode = lambda path, first, override, old: (
        asked.append((path, bytes(first), override, old)) or Mode.STREAM
    )
    ports.last_point_entry = lambda path: before if path == b"sub/data.dbf" else None
    ports.entry_mode = lambda entry: 2
    ports.entry_span = lambda entry, number: [(0, 5, b"p" * 32, number)]
    sub = memory.tree.mkdir(1, b"sub", 0o755, CTX).ino
    write_file(memory.tree, sub, b".data.dbf.Ab3xYz", b"first bytes" + bytes(SPAN))  # rsync's name
    memory.tree.barrier()
    assert asked == [(b"sub/.data.dbf.Ab3xYz", (b"first bytes" + bytes(SPAN))[:4096], "auto", 2)]
    first = memory.chunks.jobs[0]
    assert first.mode == Mode.STREAM
    assert {job.group for job in memory.chunks.jobs} == {b"7:.ab3xyz"}
    assert first.predecessor(3) == [(0, 5, b"p" * 32, 3)]
    ino = memory.tree.lookup(sub, b".data.dbf.Ab3xYz").ino
    memory.reopen()
    memory.tree.write(ino, 5, b"again")
    memory.tree.barrier()
    assert memory.chunks.jobs[-1].mode == Mode.STREAM, "the mode is kept"
    assert memory.chunks.jobs[-1].old
    assert memory.chunks.jobs[-1].fragments == [(5, b"again")]


def test_memory_forgets_a_content_that_is_committed_zeros_as_well(rig: Rig) -> None:
    """What it keeps is written again by every commit, and has its predecessor of the time before."""
    ino = write_file(rig.tree, 1, b"disk.img", b"x" * SPAN + bytes(3 * SPAN) + b"y")
    rig.tree.barrier()
    assert rig.tree._state.get(ino).content is None
    rig.tree.write(ino, 10, bytes(SPAN + 5))
    rig.tree.barrier()
    assert rig.tree._state.get(ino).content is None
    assert content(rig.tree, ino) == b"x" * 10 + bytes(4 * SPAN - 10) + b"y"


def test_a_file_written_anew_looks_for_its_predecessor_anew(memory: MemoryRig) -> None:
    points: list[object] = []
    memory.tree._ports.last_point_entry = lambda path: points[-1] if points else None
    memory.tree._ports.entry_mode = lambda entry: 0
    memory.tree._ports.entry_span = lambda entry, number: [(0, 5, b"p" * 32, number)]
    ino = write_file(memory.tree, 1, b"f", b"first")
    memory.tree._sealing.seal_now([memory.tree._state.get(ino)])
    points.append(object())
    memory.tree.setattr(ino, size=0, now_ns=1)
    memory.tree.write(ino, 0, b"again")
    memory.tree.barrier()
    predecessors = [job.predecessor for job in memory.chunks.jobs]
    assert predecessors[0] is not None and predecessors[1] is not None
    assert predecessors[0](0) == []
    assert predecessors[1](0) == [(0, 5, b"p" * 32, 0)]


def test_a_predecessor_that_cannot_be_read_is_done_without(memory: MemoryRig, expect_log) -> None:
    def broken(*_: object) -> None:
        raise Corrupt("node")

    memory.tree._ports.last_point_entry = broken
    expect_log("no predecessor")
    ino = write_file(memory.tree, 1, b"f", b"x")
    memory.tree.barrier()
    assert memory.chunks.jobs[-1].predecessor(0) == []
    assert content(memory.tree, ino) == b"x"


def test_holds_end_with_the_commit_that_needs_them(memory: MemoryRig) -> None:
    tree = memory.tree
    ino = write_file(tree, 1, b"f", b"x" * SPAN + b"y")
    tree._sealing.seal_now([tree._state.get(ino)])
    assert len(memory.chunks.holds) == 2
    tree.setattr(ino, size=10, now_ns=1)
    assert len(memory.chunks.holds) == 2, "a commit on its way may still name what was cut off"
    tree.barrier()
    assert memory.chunks.holds == set()
    write_file(tree, 1, b"g", b"z")
    gone = tree.lookup(1, b"g").ino
    tree._sealing.seal_now([tree._state.get(gone)])
    tree.unlink(1, b"g")
    tree.forgotten(gone)
    tree.barrier()
    assert memory.chunks.holds == set()


def test_clip() -> None:
    extents = [(0, 10, b"a", 0), (20, 10, b"b", 5)]
    assert clip(extents, 30) is extents
    assert clip(extents, 25) == [(0, 10, b"a", 0), (20, 5, b"b", 5)]
    assert clip(extents, 20) == extents[:1]
    assert clip(extents, 4) == [(0, 4, b"a", 0)]
    assert clip(extents, 0) == []
