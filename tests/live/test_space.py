"""Quota, the store's reserve, and what statfs says."""

from __future__ import annotations

import pytest

from engine import limits
from engine.errors import QuotaExceeded, StoreFull
from tests.live.rig import CTX, MemoryRig, Rig, content, write_file

MIB = limits.MIB


def test_a_quota_of_bytes(rig: Rig) -> None:
    tree = rig.set_quota(nbytes=10 * MIB)
    ino = tree.create(1, b"f", 0o600, CTX).ino
    written = 0
    with pytest.raises(QuotaExceeded):  # noqa: PT012
        for at in range(0, 20 * MIB, MIB):
            written += tree.write(ino, at, at.to_bytes(4, "big") * (MIB // 4) or b"\1")
    assert written == 10 * MIB
    tree.barrier()
    tree.write(ino, 0, b"overwriting needs no room")
    with pytest.raises(QuotaExceeded):
        tree.write(ino, 10 * MIB, b"x")
    tree = rig.reopen()
    with pytest.raises(QuotaExceeded):
        tree.write(ino, 10 * MIB, b"x")
    tree.setattr(ino, size=9 * MIB, now_ns=1)
    tree.write(ino, 9 * MIB, b"x" * 1000)
    other = write_file(tree, 1, b"other", b"y" * 1000)
    tree.unlink(1, b"f")
    tree.forgotten(ino)
    tree.write(other, 0, b"z" * (8 * MIB))
    rig.reopen()


def test_a_quota_of_inodes(rig: Rig) -> None:
    tree = rig.set_quota(inodes=4)
    for i in range(3):
        tree.mkdir(1, b"%d" % i, 0o700, CTX)
    with pytest.raises(QuotaExceeded):
        tree.create(1, b"x", 0o600, CTX)
    assert tree.statfs()[4:6] == (4, 0)
    ino = tree.lookup(1, b"0").ino
    tree.rmdir(1, b"0")
    tree.forgotten(ino)
    tree.symlink(1, b"x", b"y", CTX)
    rig.reopen()


def test_the_store_is_never_filled(memory: MemoryRig) -> None:
    left = [20 * MIB]
    memory.left = lambda: left[0]
    tree = memory.reopen()
    ino = tree.create(1, b"f", 0o600, CTX).ino
    written = 0
    with pytest.raises(StoreFull):  # noqa: PT012
        for at in range(0, 40 * MIB, MIB):
            written += tree.write(ino, at, bytes([at % 251 + 1]) * MIB)
    assert written <= 20 * MIB
    tree.barrier()
    left[0] = 0
    tree.tick()
    with pytest.raises(StoreFull):
        tree.create(1, b"g", 0o600, CTX)
    with pytest.raises(StoreFull):
        tree.link(ino, 1, b"g")
    assert len(content(tree, ino)) == written, "reading goes on"
    tree.setattr(ino, size=5, now_ns=1)
    tree.unlink(1, b"f")
    tree.forgotten(ino)
    tree.barrier()
    left[0] = 20 * MIB
    tree.create(1, b"g", 0o600, CTX)


def test_statfs_with_and_without_quota(rig: Rig) -> None:
    rig.left = lambda: 100 * MIB
    tree = rig.reopen()
    bsize, blocks, bfree, bavail, files, ffree, namemax = tree.statfs()  # noqa: RUF059
    assert bfree == bavail == blocks == 100 * MIB // bsize
    assert namemax == 255
    assert ffree > 10**6
    write_file(tree, 1, b"f", b"x" * MIB)
    used = [rig.tree.statfs()]
    tree.barrier()
    tree.tick()
    used.append(rig.tree.statfs())
    for now in used:
        assert (now[1] - now[2]) * bsize == MIB
        assert now[4] - now[5] == 2
    tree = rig.set_quota(nbytes=4 * MIB)
    assert tree.statfs()[1:3] == (4 * MIB // bsize, 3 * MIB // bsize)
    rig.set_quota(nbytes=1)
    assert rig.tree.statfs()[2] == 0


def test_unlinked_open_files_count_until_they_are_closed(rig: Rig) -> None:
    tree = rig.set_quota(nbytes=2 * MIB)
    ino = write_file(tree, 1, b"f", b"x" * (2 * MIB))
    tree.opened(ino, 2)
    tree.barrier()
    tree.unlink(1, b"f")
    tree.forgotten(ino)
    with pytest.raises(QuotaExceeded):
        write_file(tree, 1, b"g", b"y" * MIB)
    tree.released(ino)
    write_file(tree, 1, b"h", b"y" * MIB)
    rig.reopen()
