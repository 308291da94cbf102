"""An index whose map or whose reader slots run out, and what is taken back from the dead."""

from __future__ import annotations

import os
import shutil
import signal
import time
from contextlib import suppress
from pathlib import Path

import lmdb
import pytest

from engine import limits
from engine.errors import Busy, Corrupt, HoldfastError, LocationUnavailable, StoreFull
from engine.index import Index, Table
from engine.index.inspect import inspect
from tests.engine.indexes import everything, fill
from tests.engine.process import ended, started


def test_a_full_map_refuses_the_write_and_a_larger_one_goes_on(path: str) -> None:
    index = Index(path, create=True, map_size=1 << 20)
    rows: dict[bytes, bytes] = {}

    def more() -> None:
        for n in range(1000):
            fill(index, {b"%04d" % n: bytes(4000)})
            rows[b"%04d" % n] = bytes(4000)

    with pytest.raises(StoreFull, match="index"):
        more()
    assert len(rows) > 50
    assert everything(index) == rows
    with index.write() as txn:  # what frees room is possible
        for key in list(rows)[:40]:
            txn.delete(Table.META, key)
            del rows[key]
    fill(index, {b"again": b"1"})
    index.close()
    index = Index(path, map_size=1 << 24)
    fill(index, {b"%04d" % n: bytes(4000) for n in range(1000)})
    assert len(everything(index)) == 1001
    index.close()


def test_a_map_grown_by_another_process_is_followed(path: str) -> None:
    Index(path, create=True, map_size=1 << 20).close()
    ready, go = os.pipe(), os.pipe()

    def grow() -> None:
        os.read(go[0], 1)
        other = Index(path, map_size=1 << 24)
        fill(other, {b"%04d" % n: bytes(4000) for n in range(1000)})
        other.close()
        os.write(ready[1], b"1")

    child = started(grow)
    index = Index(path, map_size=1 << 20)
    assert everything(index) == {}
    os.write(go[1], b"1")
    os.read(ready[0], 1)
    assert len(everything(index)) == 1000
    fill(index, {b"more": b"1"})
    assert ended(child) == 0
    index.close()
    for fd in (*ready, *go):
        os.close(fd)


def test_reader_slots_run_out_and_are_given_back(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "MAX_READERS", 4)
    index = Index(path, create=True)
    readings = [index.read() for _ in range(4)]
    with pytest.raises(Busy, match="index"):
        index.read()
    fill(index, {b"a": b"1"})  # a writer needs no slot
    for reading in readings:
        with reading as txn:
            assert txn.get(Table.META, b"a") is None
    del reading, readings[:], txn
    assert everything(index) == {b"a": b"1"}
    index.close()


class Holder:
    """A child that opens an index when told, takes reader slots until there are no more, and dies when told."""

    def __init__(self, path: str, slots: int) -> None:
        self._go, self._done = os.pipe(), os.pipe()
        self._child = started(lambda: self._hold(path, slots))

    def _hold(self, path: str, slots: int) -> None:
        os.read(self._go[0], 1)
        index = Index(path)
        readings = []
        with suppress(Busy):
            while len(readings) < slots:
                readings.append(index.read())
        os.write(self._done[1], b"%d" % len(readings))
        time.sleep(60)

    def take(self) -> int:
        """How many it got."""
        os.write(self._go[1], b"1")
        return int(os.read(self._done[0], 10))

    def kill(self) -> None:
        os.kill(self._child, signal.SIGKILL)
        assert ended(self._child) == -signal.SIGKILL
        for fd in (*self._go, *self._done):
            os.close(fd)


def test_slots_of_the_dead_are_taken_back(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_READERS", 4)
    Index(path, create=True).close()
    holder = Holder(path, 4)
    index = Index(path)
    assert holder.take() >= 3
    readings = []
    with pytest.raises(Busy):
        readings += [index.read() for _ in range(2)]
    assert index.reader_check() == 0  # it lives
    holder.kill()
    del readings
    with index.read() as txn, index.read() as other:  # found by itself, when no slot is left
        assert list(txn.scan(Table.META)) == list(other.scan(Table.META)) == []
    assert index.reader_check() == 0
    index.close()


def test_opening_takes_back_slots_of_the_dead(path: str) -> None:
    """Before they have all: opening needs one itself, and then fails before anything can be taken back."""
    Index(path, create=True).close()
    living, dying = Holder(path, 0), Holder(path, 3)
    assert living.take() == 0  # without it the table of readers would be begun anew
    assert dying.take() == 3
    dying.kill()
    index = Index(path)
    left = index.reader_check()
    index.close()
    living.kill()
    assert left == 0


def test_a_file_that_ends_before_its_free_pages_is_whole(path: str, tmp_path: Path) -> None:
    """Pages taken and given back by one transaction at the end of the file are never written."""
    index = Index(path, create=True)
    fill(index, {b"%08d" % n: bytes(500) for n in range(4000)})
    with index.write() as txn:
        for n in range(2000):
            txn.put(Table.META, b"x%08d" % n, bytes(3000))
        for n in range(2000):
            txn.delete(Table.META, b"x%08d" % n)
    used, size = index.size(), os.stat(os.path.join(path, "data.mdb")).st_size
    index.close()
    assert used > size, "the case is there"
    inspect(path)
    for cut in (4096, 100 * 4096, size // 2):
        copy = tmp_path / f"cut-{cut}"
        shutil.copytree(path, copy)
        os.truncate(copy / "data.mdb", size - cut)
        with pytest.raises(Corrupt, match="cut short"):
            inspect(str(copy))


@pytest.mark.parametrize(("left", "kind"), [(0, StoreFull), (1 << 30, LocationUnavailable)])
def test_a_write_of_which_the_disk_took_a_part_is_told_as_a_full_disk(
    index: Index, monkeypatch: pytest.MonkeyPatch, left: int, kind: type[HoldfastError]
) -> None:
    """LMDB tells it as an I/O error; met on a small ext4."""
    monkeypatch.setattr("engine.index.translate._room", lambda path: left)
    error = lmdb.Error("mdb_txn_commit: Input/output error")
    assert type(index.failed(error)) is kind


def test_tables_that_came_later_are_made_once_in_an_index_of_before(path: str) -> None:
    """And only then: one that is missing from an index which had it is damage."""
    env = lmdb.open(path, max_dbs=64)
    for table in Table:
        if not table.late:
            env.open_db(table.db, create=True)
    env.close()
    for _ in range(2):
        index = Index(path)
        with index.write() as txn:
            txn.put(Table.OUTBOX, b"k", b"v")
        index.close()
    env = lmdb.open(path, max_dbs=64)
    with env.begin(write=True) as txn:
        txn.drop(env.open_db(Table.OUTBOX.db, txn=txn), delete=True)
    env.close()
    with pytest.raises(Corrupt, match="every table"):
        Index(path)
