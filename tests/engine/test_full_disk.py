"""A disk without room, or that fails: nothing is lost, nothing is left lying about, and it goes on when it can."""

import contextlib
import errno
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from engine import limits
from engine.chunks import Hold, alive, reap
from engine.errors import LocationUnavailable, StoreFull
from engine.home import OpenStore
from engine.index import Table
from engine.index.rows import pack_row
from engine.seam import Os
from tests.engine.test_chunks import noise, put

Opener = Callable[..., OpenStore]


class SmallOs(Os):
    """A disk on which the files of segments have ``room`` bytes together, or fail with ``fault``."""

    def __init__(self) -> None:
        self.room = 1 << 60
        self.fault = 0
        self.sync_fault = 0

    def pwritev(self, fd: int, parts: Sequence[bytes | memoryview], offset: int) -> int:
        size = sum(map(len, parts))
        if self.fault:
            raise OSError(self.fault, os.strerror(self.fault))
        if self.room < size:
            super().pwritev(fd, [b"".join(parts)[: self.room]], offset)  # what fitted is there
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.room -= size
        return super().pwritev(fd, parts, offset)

    def fdatasync(self, fd: int) -> None:
        if self.sync_fault:
            raise OSError(self.sync_fault, os.strerror(self.sync_fault))
        super().fdatasync(fd)


def segments(home: Path) -> dict[str, int]:
    return {path.name: path.stat().st_size for path in home.glob("segments/*.seg")}


def fill_up(store: OpenStore, hold: Hold, seed: int) -> list[tuple[bytes, bytes]]:
    """Store chunks until one is refused: those that were stored."""
    stored = []
    for number in range(1000):
        data = noise(limits.SLOT, seed * 1000 + number)
        try:
            stored.append((put(store, data, hold), data))
        except StoreFull:
            return stored
    raise AssertionError("the disk was never full")


def test_a_full_disk_loses_nothing_and_costs_nothing(opener: Opener, home: Path) -> None:
    system = SmallOs()
    store = opener(system)
    hold = store.session.writer.holds.open()
    kept = [(put(store, data, hold), data) for data in (noise(9000, 1), noise(9000, 2))]
    store.session.writer.commit()
    before = segments(home)
    system.room = 3 * limits.MIB
    kept += fill_up(store, hold, 1)
    system.room = 0
    full = segments(home)
    for _ in range(20):  # programs try again and again
        with pytest.raises(StoreFull):
            put(store, noise(limits.SLOT, 7), hold)
        with pytest.raises(StoreFull):
            store.session.writer.commit()
    assert segments(home) == full
    assert full.keys() == before.keys()
    system.room = 1 << 60
    last = noise(limits.SLOT, 7)
    kept.append((put(store, last, hold), last))
    store.session.writer.commit()
    assert segments(home).keys() == before.keys()
    again = opener()
    assert [again.reader.read(cid) for cid, _ in kept] == [data for _, data in kept]


def test_reading_what_waits_for_room_damages_nothing(opener: Opener) -> None:
    system = SmallOs()
    store = opener(system)
    hold = store.session.writer.holds.open()
    waiting = put(store, noise(9000, 1), hold)
    system.room = 0
    with pytest.raises(StoreFull):
        store.reader.read(waiting)
    with store.context.index.read() as txn:
        assert txn.count(Table.SUSPECTS) == 0
    system.room = 1 << 60
    assert store.reader.read(waiting) == noise(9000, 1)


@pytest.mark.parametrize("way", ["write", "sync"])
def test_what_a_failed_segment_held_is_not_read_from_it(
    opener: Opener, expect_log: Callable[[str], None], way: str
) -> None:
    expect_log("segment")
    system = SmallOs()
    store = opener(system)
    hold = store.session.writer.holds.open()
    safe = put(store, noise(9000, 1), hold)
    store.session.writer.commit()
    waiting = put(store, noise(9000, 2), hold)
    setattr(system, "fault" if way == "write" else "sync_fault", errno.EIO)
    with pytest.raises(LocationUnavailable):
        store.session.writer.commit()
    assert store.reader.read(safe) == noise(9000, 1)
    with pytest.raises(LocationUnavailable):
        store.reader.read(waiting)
    with store.context.index.read() as txn:
        assert txn.count(Table.SUSPECTS) == 0
    system.fault = system.sync_fault = 0
    store.session.writer.commit()
    assert store.reader.read(waiting) == noise(9000, 2)
    assert opener().reader.read(waiting) == noise(9000, 2)


def test_a_segment_that_cannot_be_made_leaves_nothing(opener: Opener, home: Path) -> None:
    system = SmallOs()
    store = opener(system)
    hold = store.session.writer.holds.open()
    system.room = 10
    for _ in range(5):
        with pytest.raises(StoreFull):
            put(store, noise(9000, 1), hold)
    assert segments(home) == {}
    with store.context.index.read() as txn:
        assert txn.count(Table.PACKS) == 0
    system.room = 1 << 60
    cid = put(store, noise(9000, 1), hold)
    store.session.writer.commit()
    assert opener().reader.read(cid) == noise(9000, 1)
    with store.context.index.read() as txn:
        assert [pack_row(raw).length for _, raw in txn.scan(Table.PACKS)] == [
            path.stat().st_size for path in home.glob("segments/*.seg")
        ]


def descriptors(home: Path) -> set[str]:
    found = set()
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # that of the listing itself
            found.add(os.readlink(f"/proc/self/fd/{fd}"))
    return {path for path in found if path.startswith(str(home)) and path.endswith(".seg")}


def closed(store: OpenStore) -> None:
    """Before the fixture does it."""
    store.close()
    store._lock_fd = -1


def test_a_failed_segment_is_let_go_of(
    opener: Opener, home: Path, expect_log: Callable[[str], None]
) -> None:
    expect_log("segment")
    system = SmallOs()
    store = opener(system)
    hold = store.session.writer.holds.open()
    for number in range(3):
        put(store, noise(9000, number), hold)
        system.sync_fault = errno.EIO
        with pytest.raises(LocationUnavailable):
            store.session.writer.commit()
        system.sync_fault = 0
        store.session.writer.commit()
    assert len(descriptors(home)) == 1, "the one in use"
    closed(store)
    assert descriptors(home) == set()


def test_a_segment_that_cannot_be_sealed_fails_no_commit(
    opener: Opener, home: Path, expect_log: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of it is committed when it is to be sealed: who waits for the commit must not hear of it."""
    expect_log("cannot be sealed")
    monkeypatch.setattr(limits, "PACK_MAX", 64 * limits.KIB)
    system = SmallOs()
    store = opener(system)
    hold = store.session.writer.holds.open()
    kept = {put(store, noise(40_000, number), hold): number for number in range(3)}
    monkeypatch.setattr(system, "rename", refused)
    store.session.writer.commit()
    assert [store.reader.read(cid) for cid in kept] == [noise(40_000, n) for n in kept.values()]
    closed(store)
    again = opener()
    assert [again.reader.read(cid) for cid in kept] == [noise(40_000, n) for n in kept.values()]


def refused(old: str, new: str) -> None:
    raise OSError(errno.EIO, os.strerror(errno.EIO))


def test_a_worker_that_cannot_leave_lets_go_of_its_lock(
    opener: Opener, home: Path, expect_log: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its row stays; without the lock it is a dead worker's, and the next collection takes it away."""
    expect_log("cannot leave")
    system = SmallOs()
    store = opener(system)
    worker = store.session.worker.id
    monkeypatch.setattr(system, "unlink", lambda path: refused(path, path))
    closed(store)
    again = opener()
    assert not alive(again.context, worker)
    assert reap(again.context) == [worker]
    assert list(home.glob("workers/*")) == []
