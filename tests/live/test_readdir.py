"""Reading directories: whole, in steps, under change, across restarts, with names that collide."""

from __future__ import annotations

import random
from itertools import islice

import pytest

from engine import limits
from engine.errors import HoldfastError
from engine.live import lookup
from tests.live.rig import CTX, MemoryRig, Rig, names, write_file


def fill(rig: Rig, count: int) -> set[bytes]:
    wanted = {b"name-%05d" % i for i in range(count)}
    for name in wanted:
        rig.tree.create(1, name, 0o600, CTX)
    return wanted


def test_every_entry_once_in_one_order(rig: Rig) -> None:
    wanted = fill(rig, 700)
    fresh = [name for name, _, _ in rig.tree.readdir(1, 0)]
    assert set(fresh) == wanted
    assert len(fresh) == len(wanted)
    rig.tree.barrier()
    assert [name for name, _, _ in rig.tree.readdir(1, 0)] == fresh
    rig.reopen()  # a cookie from before the restart still says where to go on
    assert [name for name, _, _ in rig.tree.readdir(1, 0)] == fresh


@pytest.mark.parametrize("known", [True, False], ids=["in-memory", "from-rows"])
@pytest.mark.parametrize("step", [1, 7, 40])
def test_what_is_there_throughout_is_seen_once(rig: Rig, known: bool, step: int) -> None:
    wanted = fill(rig, 300)
    if not known:
        rig.reopen()
    chance = random.Random(step)
    tree = rig.tree
    doomed = set(chance.sample(sorted(wanted), 100))
    left = list(doomed)
    seen: list[bytes] = []
    cookie = made = 0
    while batch := list(islice(tree.readdir(1, cookie), step)):
        seen += [name for name, _, _ in batch]
        cookie = batch[-1][2]
        for _ in range(min(step, len(left))):
            tree.unlink(1, left.pop())
        for _ in range(step):
            made += 1
            tree.create(1, b"new-%d" % made, 0o600, CTX)
            if made % 3 == 0:
                tree.rename(1, b"new-%d" % made, 1, b"moved-%d" % made)
        if chance.random() < 0.2:
            tree.barrier()
        if made > 3000:
            break
    assert len(seen) == len(set(seen))
    assert set(seen) >= wanted - doomed


def test_removing_while_reading_empties_a_directory(rig: Rig) -> None:
    wanted = fill(rig, 500)
    rig.reopen()
    removed = set()
    for name, _, _ in rig.tree.readdir(1, 0):
        rig.tree.unlink(1, name)
        removed.add(name)
    assert removed == wanted
    assert names(rig.tree) == {}
    rig.reopen()
    assert names(rig.tree) == {}


def test_attributes_come_with_the_names(rig: Rig) -> None:
    write_file(rig.tree, 1, b"f", b"12345")
    ((name, attr, _),) = rig.tree.readdir(1, 0)
    assert (name, attr.size) == (b"f", 5)


def test_only_directories_can_be_read(rig: Rig) -> None:
    ino = write_file(rig.tree, 1, b"f", b"")
    with pytest.raises(HoldfastError):
        list(rig.tree.readdir(ino, 0))


def test_names_with_one_hash_live_beside_each_other(
    memory: MemoryRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lookup, "name_hash", lambda secret, name: 5)
    rig = memory
    rig.tree.close()
    rig.tree = rig.open()
    inos = {name: write_file(rig.tree, 1, name, b"") for name in (b"a", b"b", b"c")}
    rig.reopen()
    assert names(rig.tree) == inos
    assert rig.tree.lookup(1, b"b").ino == inos[b"b"]
    rig.tree.unlink(1, b"b")
    rig.reopen()
    inos[b"b"] = write_file(rig.tree, 1, b"b", b"")
    inos[b"d"] = write_file(rig.tree, 1, b"d", b"")
    assert names(rig.tree) == inos
    with pytest.raises(HoldfastError):
        rig.tree.create(1, b"e", 0o600, CTX)
    rig.reopen()
    assert names(rig.tree) == inos
    rig.tree.unlink(1, b"c")
    rig.tree.create(1, b"e", 0o600, CTX)
    rig.reopen()
    with rig.index.read() as txn:
        assert lookup.find_name(txn, 7, b"s" * 16, 1, b"d") == inos[b"d"]
        assert lookup.find_name(txn, 7, b"s" * 16, 1, b"c") is None


def test_a_hash_never_points_before_the_start() -> None:
    for i in range(2000):
        hashed = lookup.name_hash(b"k" * 16, b"%d" % i)
        assert 0 < hashed * lookup.PLACES < 2**63


def test_memory_of_names_is_bounded(memory: MemoryRig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "NAME_CACHE", 50)
    monkeypatch.setattr(limits, "INODE_CACHE", 60)
    inos = {}
    for d in range(20):
        sub = memory.tree.mkdir(1, b"d%d" % d, 0o755, CTX).ino
        inos.update(
            {(sub, b"f%d" % f): write_file(memory.tree, sub, b"f%d" % f, b"") for f in range(20)}
        )
    memory.tree.barrier()
    for (sub, name), ino in inos.items():
        assert memory.tree.lookup(sub, name).ino == ino
    for d in range(20):
        memory.tree.lookup(1, b"d%d" % d)
        with pytest.raises(HoldfastError):
            memory.tree.lookup(1, b"none%d" % d)
    state = memory.tree._state
    held = sum(len(i.names.entries) for i in state.inodes.values() if i.names is not None)
    assert held <= 50 + 20
    assert len(state.inodes) <= 70
