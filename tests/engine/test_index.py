"""The index: rows that are checked, transactions of threads and processes, maps and reader slots that run out."""

from __future__ import annotations

import os
import shutil
import signal
import struct
import threading
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine import limits
from engine.errors import Corrupt, LocationUnavailable, NotFound, StoreFull
from engine.index import Index, Table, shared
from engine.index.gcstate import GcState, Phase, load, save
from engine.index.inspect import inspect
from engine.index.rows import ChunkRow, PackRow, WorkerRow, chunk_row, pack_row, usable, worker_row
from tests.engine.indexes import everything, fill
from tests.engine.process import FAILED, ended, run, started

U64 = struct.Struct(">Q")


# --- rows ---------------------------------------------------------------------------------------------------

KEYS = st.binary(min_size=1, max_size=3)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.dictionaries(KEYS, st.binary(max_size=10), max_size=12),
    key=KEYS,
    prefix=KEYS | st.just(b""),
)
def test_rows_are_found_in_the_order_of_their_keys(
    index: Index, rows: dict[bytes, bytes], key: bytes, prefix: bytes
) -> None:
    with index.write() as txn:
        for old in list(txn.keys(Table.META)):
            txn.delete(Table.META, old)
    fill(index, rows)
    fill(index, {b"in another table": b""}, Table.POINTS)
    ordered = sorted(rows.items())
    below = [row for row in ordered if row[0].startswith(prefix)]
    with index.read() as txn:
        assert list(txn.scan(Table.META)) == ordered
        assert list(txn.scan(Table.META, prefix=prefix)) == below
        assert list(txn.scan(Table.META, start=key, prefix=prefix)) == [
            r for r in below if r[0] >= key
        ]
        assert list(txn.keys(Table.META, start=key)) == [k for k, _ in ordered if k >= key]
        before = [row for row in below if row[0] < key]
        nearest = [row for row in ordered if row[0] < key][-1:]
        assert txn.last_before(Table.META, key) == (nearest[0] if nearest else None)
        if not nearest or nearest == before[-1:]:
            assert txn.last_before(Table.META, key, prefix) == (before[-1] if before else None)
        assert txn.get(Table.META, key) == rows.get(key)
        assert txn.count(Table.META) == len(rows)
        assert list(txn.damaged(Table.META)) == []
    with index.write() as txn:
        assert txn.delete(Table.META, key) == (key in rows)
        assert txn.get(Table.META, key) is None


def test_pages_of_a_table(index: Index) -> None:
    fill(index, {b"%04d" % n: bytes(1000) for n in range(100)})
    with index.read() as txn:
        assert 25 <= txn.pages(Table.META) <= 60
        assert txn.pages(Table.POINTS) == 0
    assert index.size() >= 100 * 1000


def test_a_row_torn_on_disk_is_refused_and_its_neighbours_are_not(path: str) -> None:
    index = Index(path, create=True)
    rows = {b"key %d" % n: b"value of row %d" % n * 3 for n in range(9)}
    fill(index, rows)
    index.close()
    file = Path(path) / "data.mdb"
    raw = file.read_bytes()
    assert raw.count(rows[b"key 4"]) >= 1
    file.write_bytes(raw.replace(rows[b"key 4"], rows[b"key 4"].replace(b"row", b"rOw", 1)))
    index = Index(path)
    with index.read() as txn:
        for key, value in rows.items():
            if key != b"key 4":
                assert txn.get(Table.META, key) == value
        for read in (
            lambda: txn.get(Table.META, b"key 4"),
            lambda: list(txn.scan(Table.META)),
            lambda: txn.last_before(Table.META, b"key 5"),
        ):
            with pytest.raises(Corrupt, match=f"meta/{b'key 4'.hex()}.*rebuild-index"):
                read()
        assert list(txn.damaged(Table.META)) == [b"key 4"]
        assert list(txn.keys(Table.META)) == sorted(rows)  # so that it can be deleted
    with index.write() as txn:
        assert txn.delete(Table.META, b"key 4")
    assert everything(index) == {k: v for k, v in rows.items() if k != b"key 4"}
    index.close()


@pytest.mark.parametrize("raw", [b"", b"abc", bytes(4), b"value" + bytes(4)])
def test_bytes_without_their_check_are_no_row(index: Index, raw: bytes) -> None:
    with index.write() as txn:
        txn._txn.put(b"key", raw, db=txn._dbs[Table.META])
    with index.read() as txn, pytest.raises(Corrupt):
        txn.get(Table.META, b"key")


def test_a_row_in_the_place_of_another_is_refused(index: Index) -> None:
    """The same bytes under another key, or in another table."""
    fill(index, {b"key": b"value"})
    with index.write() as txn:
        raw = txn._txn.get(b"key", db=txn._dbs[Table.META])
        txn._txn.put(b"other", raw, db=txn._dbs[Table.META])
        txn._txn.put(b"key", raw, db=txn._dbs[Table.POINTS])
    with index.read() as txn:
        for table, key in ((Table.META, b"other"), (Table.POINTS, b"key")):
            with pytest.raises(Corrupt, match=table.name.lower()):
                txn.get(table, key)


# --- codecs of rows -----------------------------------------------------------------------------------------

U8, U32, BIG = st.integers(0, 255), st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1)
IDS = st.lists(st.binary(min_size=32, max_size=32), max_size=16).map(tuple)
CHUNKS = st.builds(ChunkRow, U32, U32, U32, U32, U8, U8, U8, U8, IDS)
PACKS = st.builds(PackRow, U8, U8, BIG, BIG, BIG, U32, st.binary(min_size=32, max_size=32))
WORKERS = st.builds(WorkerRow, BIG, BIG, BIG)


@given(CHUNKS, PACKS, WORKERS)
def test_any_row_comes_back(chunk: ChunkRow, pack: PackRow, worker: WorkerRow) -> None:
    assert chunk_row(chunk.pack_bytes()) == chunk
    assert usable(chunk.pack_bytes()) == chunk.usable == (chunk.flags == 0)
    assert pack_row(pack.pack_bytes()) == pack
    assert worker_row(worker.pack_bytes()) == worker


@given(st.binary(max_size=130))
def test_rows_of_another_length_are_refused(raw: bytes) -> None:
    sizes = {
        chunk_row: len(raw) >= 20 and (len(raw) - 20) % 32 == 0,
        pack_row: len(raw) == 62,
        worker_row: len(raw) == 24,
    }
    for decode, fits in sizes.items():
        if fits:
            decode(raw)
        else:
            with pytest.raises(Corrupt):
                decode(raw)


def test_the_state_of_a_collection(index: Index) -> None:
    with index.write() as txn:
        assert load(txn) == GcState(0, Phase.IDLE)
        for phase in Phase:
            save(txn, GcState(2**40 + phase, phase))
            assert load(txn) == GcState(2**40 + phase, phase)
        for raw in (b"", bytes(8), bytes(8) + b"\x03", bytes(10)):
            txn.put(Table.META, b"gc", raw)
            with pytest.raises(Corrupt, match="gc"):
                load(txn)


# --- transactions -------------------------------------------------------------------------------------------


def test_a_read_transaction_stays_at_its_state(index: Index) -> None:
    fill(index, {b"a": b"1"})
    with index.read() as old:
        fill(index, {b"a": b"2", b"b": b"3"})
        assert dict(old.scan(Table.META)) == {b"a": b"1"}
        with index.read() as new:
            assert dict(new.scan(Table.META)) == {b"a": b"2", b"b": b"3"}


def test_a_read_transaction_ends_with_its_block(index: Index) -> None:
    with pytest.raises(ZeroDivisionError), index.read() as txn:
        raise ZeroDivisionError
    with pytest.raises(LocationUnavailable), index.read():
        txn.get(Table.META, b"a")  # LMDB's own error becomes one of the family


def test_a_write_that_raises_writes_nothing(index: Index) -> None:
    fill(index, {b"a": b"1"})

    def refused(key: bytes) -> None:
        with index.write() as txn:
            txn.put(Table.META, b"a", b"2")
            txn.put(Table.META, key, b"")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        refused(b"b")
    with pytest.raises(LocationUnavailable, match="index"):
        refused(b"k" * 600)  # longer than LMDB takes
    assert everything(index) == {b"a": b"1"}


def test_a_write_inside_a_write_is_a_bug_and_not_a_deadlock(index: Index) -> None:
    with index.write() as txn:
        txn.put(Table.META, b"a", b"1")
        with pytest.raises(AssertionError), index.write():
            pass
    assert everything(index) == {b"a": b"1"}


def add(index: Index, times: int) -> None:
    for _ in range(times):
        with index.write() as txn:
            (count,) = U64.unpack(txn.get(Table.META, b"count") or bytes(8))
            txn.put(Table.META, b"count", U64.pack(count + 1))


def test_writers_of_several_threads_and_processes_take_turns(path: str) -> None:
    Index(path, create=True).close()

    def work() -> None:
        index = Index(path)
        threads = [threading.Thread(target=add, args=(index, 10)) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        index.close()

    children = [started(work) for _ in range(3)]
    assert [ended(child) for child in children] == [0, 0, 0]
    index = Index(path)
    assert everything(index) == {b"count": U64.pack(90)}
    index.close()


def test_a_writer_killed_in_its_transaction_leaves_nothing_of_it_and_no_lock(path: str) -> None:
    index = Index(path, create=True)
    fill(index, {b"a": b"1"})
    index.close()

    def work() -> None:
        with Index(path).write() as txn:
            txn.put(Table.META, b"a", b"2")
            os.kill(os.getpid(), signal.SIGKILL)

    assert run(work) == -signal.SIGKILL
    index = Index(path)
    fill(index, {b"b": b"3"})
    assert everything(index) == {b"a": b"1", b"b": b"3"}
    index.close()


def test_an_index_is_not_used_after_a_fork(index: Index) -> None:
    def reads() -> None:
        with pytest.raises(AssertionError):
            index.read()

    def writes() -> None:
        with pytest.raises(AssertionError), index.write():
            pass

    assert FAILED not in (run(reads), run(writes))


class FailingCommit:
    """A transaction of LMDB whose commit fails."""

    def __init__(self, txn: object) -> None:
        self._txn = txn

    def __getattr__(self, name: str) -> object:
        return getattr(self._txn, name)

    def commit(self) -> None:
        import lmdb

        self.__getattr__("abort")()  # type: ignore[operator]
        raise lmdb.DiskError("mdb_txn_commit: Input/output error")


def fail_a_commit(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        real = index.begin
        patch.setattr(index, "begin", lambda *, write: FailingCommit(real(write=write)))
        with pytest.raises(StoreFull), index.write() as txn:
            txn.put(Table.META, b"a", b"2")


def test_after_a_failed_commit_the_next_one_has_a_new_environment(
    index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(index, {b"a": b"1"})
    before = index._env
    fail_a_commit(index, monkeypatch)
    assert everything(index) == {b"a": b"1"}
    fill(index, {b"b": b"3"})
    assert index._env is not before
    assert everything(index) == {b"a": b"1", b"b": b"3"}


def test_reads_after_a_failed_commit_cost_no_reader_slots(
    index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    """LMDB keeps the slot of a read that it refuses."""
    fill(index, {b"a": b"1"})
    for _ in range(3):
        fail_a_commit(index, monkeypatch)
        before = index._env
        assert everything(index) == {b"a": b"1"}
        assert index._env is not before
    assert index._env.info()["num_readers"] <= 2


def test_an_index_is_not_opened_anew_beneath_a_reader(
    index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(index, {b"a": b"1"})
    monkeypatch.setattr("engine.index.env._TRIES", 3)
    with index.read() as reading:
        fail_a_commit(index, monkeypatch)
        with pytest.raises(LocationUnavailable, match="try again"):
            index.read()
        assert reading.get(Table.META, b"a") == b"1"
    fill(index, {b"b": b"3"})
    assert everything(index) == {b"a": b"1", b"b": b"3"}


def test_the_reader_table_has_its_place_on_the_disk(path: str) -> None:
    """It is written through a map: a hole in it would kill the process when the disk is full."""
    Index(path, create=True).close()
    status = os.stat(os.path.join(path, "lock.mdb"))
    assert status.st_blocks * 512 >= status.st_size == 64 * (limits.MAX_READERS + 2)


# --- opening ------------------------------------------------------------------------------------------------


def test_one_environment_for_all_who_open_a_path_in_a_process(path: str, tmp_path: Path) -> None:
    Index(path, create=True).close()
    os.symlink(path, tmp_path / "alias")
    first, second = shared.acquire(path), shared.acquire(str(tmp_path / "alias"))
    assert first is second
    shared.release(second)
    fill(first, {b"a": b"1"})
    shared.release(first)
    third = shared.acquire(path)
    assert third is not first
    assert everything(third) == {b"a": b"1"}
    shared.release(third)


def test_nothing_that_was_in_memory_comes_to_the_disk(path: str) -> None:
    """LMDB writes whole pages, of memory that had something else in it: a passphrase, a request with credentials."""
    canary = b"canary: what was in memory before; "
    one = Index(path, create=True)
    for size in (4080, 4096, 4112) * 3:
        kept = [bytearray(canary * (size // len(canary))) for _ in range(300)]
        del kept
        with one.write() as txn:
            for number in range(300):
                txn.put(Table.META, b"%03d-%d" % (number, size), bytes(1000))
    one.close()
    assert canary not in Path(path, "data.mdb").read_bytes()


def test_an_index_without_all_tables_is_refused(path: str) -> None:
    import lmdb

    lmdb.open(path, max_dbs=4).close()
    with pytest.raises(Corrupt, match="rebuild-index"):
        Index(path)


def test_no_index_is_not_found(path: str) -> None:
    with pytest.raises(NotFound, match="rebuild-index"):
        inspect(path)


@pytest.mark.parametrize("page", [0, 1])
@pytest.mark.parametrize("at", [16, 144])  # magic, transaction
def test_both_meta_pages_must_be_sound(
    index: Index, path: str, tmp_path: Path, page: int, at: int
) -> None:
    """LMDB refuses a file of one; and where the number of the last transaction is damaged, it shows the one before."""
    fill(index, {b"a": b"1"})
    copy = shutil.copytree(path, tmp_path / "copy")
    inspect(str(copy))
    raw = bytearray((copy / "data.mdb").read_bytes())
    raw[page * 4096 + at] ^= 4
    (copy / "data.mdb").write_bytes(raw)
    with pytest.raises(Corrupt, match="meta pages of two successive commits"):
        inspect(str(copy))
