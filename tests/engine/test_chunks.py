"""Chunks: what is put is read back verified; deltas, barriers, restarts, damage, healing, failing disks."""

import errno
import os
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from engine import codec, limits
from engine.chunks import Hold
from engine.errors import Corrupt, HoldfastError, StoreFull
from engine.home import OpenStore
from engine.index import Table, gcstate
from engine.index.gcstate import GcState, Phase
from engine.index.rows import ENC_DELTA, FLAG_SUSPECT, PACK_SEALED, chunk_row, pack_row
from engine.packs.records import Base
from engine.seam import Os

Opener = Callable[..., OpenStore]


def noise(size: int, seed: int) -> bytes:
    return random.Random(seed).randbytes(size)


def put(store: OpenStore, data: bytes, hold: Hold, bases: Sequence[Base] = ()) -> bytes:
    cid = codec.chunk_id(store.context.key, data)
    if not store.session.writer.known((cid,), hold):
        store.session.writer.put(cid, data, hold, bases=bases)
    return cid


def test_chunks_are_readable_before_and_after_their_barrier_and_after_a_restart(
    opener: Opener,
) -> None:
    store = opener()
    hold = store.session.writer.holds.open()
    datas = [noise(500, i) * 20 for i in range(50)] + [noise(limits.SLOT, i) for i in range(50)]
    ids = [put(store, data, hold) for data in datas]
    assert [store.reader.read(cid) for cid in ids] == datas
    store.session.writer.commit()
    hold.release()
    store.close()
    store._lock_fd = -1
    again = opener()
    assert [again.reader.read(cid) for cid in ids] == datas


def test_uncommitted_chunks_are_nowhere_after_a_crash(opener: Opener) -> None:
    store = opener()
    hold = store.session.writer.holds.open()
    kept = put(store, noise(9000, 1), hold)
    store.session.writer.commit()
    lost = put(store, noise(9000, 2), hold)
    other = opener()  # another process's view
    assert other.reader.read(kept) == noise(9000, 1)
    assert other.reader.row(lost) is None


def test_a_delta_is_small_and_needs_its_base(opened: OpenStore) -> None:
    hold = opened.session.writer.holds.open()
    base = noise(limits.SLOT, 1)
    changed = base[:100] + b"new" + base[103:]
    first = put(opened, base, hold)
    second = put(opened, changed, hold, [Base(first, 0, len(base))])
    row = opened.reader.row(second)
    assert row is not None
    assert (row.encoding, row.depth, row.bases) == (ENC_DELTA, 1, (first,))
    assert row.stored < 400
    assert opened.reader.read(second) == changed


def test_delta_chains_are_bounded(opened: OpenStore) -> None:
    hold = opened.session.writer.holds.open()
    data = noise(limits.SLOT, 1)
    cid = put(opened, data, hold)
    depths = []
    for i in range(limits.DELTA_DEPTH_MAX + 2):
        data = data[: i * 50] + b"edit" + data[i * 50 + 4 :]
        cid = put(opened, data, hold, [Base(cid, 0, len(data))])
        row = opened.reader.row(cid)
        assert row is not None
        depths.append(row.depth)
    assert depths[: limits.DELTA_DEPTH_MAX] == list(range(1, limits.DELTA_DEPTH_MAX + 1))
    assert max(depths) == limits.DELTA_DEPTH_MAX


def test_a_pack_never_lies_in_a_folder_whose_name_is_not_synced(
    opener: Opener, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process may have made the folder a moment ago, and lose power before it syncs the name."""
    synced: list[str] = []

    class Watched(Os):
        def fsync_dir(self, path: str) -> None:
            synced.append(os.path.relpath(path, home))
            super().fsync_dir(path)

    monkeypatch.setattr(limits, "PACK_MAX", limits.MIB)
    store = opener(Watched())
    (home / "packs" / "00000").mkdir()
    hold = store.session.writer.holds.open()
    for i in range(40):
        put(store, noise(limits.SLOT, i), hold)
    store.session.writer.commit()
    assert {"packs", "packs/00000"} <= set(synced)


def test_full_segments_are_sealed_and_their_trailers_list_every_chunk(
    opened: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "PACK_MAX", limits.MIB)
    hold = opened.session.writer.holds.open()
    ids = [put(opened, noise(limits.SLOT, i), hold) for i in range(40)]
    opened.session.writer.commit()
    with opened.context.index.read() as txn:
        packs = {int.from_bytes(k, "big"): pack_row(v) for k, v in txn.scan(Table.PACKS)}
    sealed = [number for number, row in packs.items() if row.state == PACK_SEALED]
    assert len(sealed) >= 2
    listed = {entry.id for number in sealed for entry in opened.context.files.trailer(number)}
    assert listed <= set(ids)
    for number in sealed:
        digest = codec.Digest()
        footer = opened.context.files.footer(number)
        digest.update(opened.context.files.read(number, 0, footer.offset))
        assert digest.digest() == footer.digest == packs[number].digest
    assert all(opened.reader.read(cid) == noise(limits.SLOT, i) for i, cid in enumerate(ids))


def test_a_dead_owners_segment_is_gone_on_with_from_its_committed_length(
    opener: Opener, home: Path
) -> None:
    store = opener()
    hold = store.session.writer.holds.open()
    kept = put(store, noise(5000, 1), hold)
    store.session.writer.commit()
    segments = sorted(os.listdir(home / "segments"))
    with open(home / "segments" / segments[0], "ab") as file:
        file.write(b"torn tail of a crash")
    store.context.system.close(store.session.worker._fd)  # as the kernel does for a dead process
    other = opener()
    more = other.session.writer.holds.open()
    added = put(other, noise(6000, 2), more)
    other.session.writer.commit()
    assert sorted(os.listdir(home / "segments")) == segments
    assert other.reader.read(kept) == noise(5000, 1)
    assert other.reader.read(added) == noise(6000, 2)
    row = other.reader.row(added)
    assert row is not None
    entries = list(other.context.files.scan(row.pack, row.offset + row.stored))
    assert [record.id for _, record in entries] == [kept, added]
    store._session = None  # it is dead: the fixture must not make it leave in good order


def test_damage_is_found_marked_and_healed_by_writing_the_same_again(
    opener: Opener, home: Path, expect_log: Callable[[str], None]
) -> None:
    expect_log("suspect")
    store = opener()
    hold = store.session.writer.holds.open()
    data = noise(7000, 1)
    cid = put(store, data, hold)
    store.session.writer.commit()
    row = store.reader.row(cid)
    assert row is not None
    path = store.context.files.segment_path(row.pack)
    with open(path, "r+b") as file:
        file.seek(row.offset + 500)
        file.write(b"\xff\x00\xff")
    with pytest.raises(Corrupt, match=cid.hex()):
        store.reader.read(cid)
    with store.context.index.read() as txn:
        raw = txn.get(Table.CHUNKS, cid)
        assert raw is not None
        assert chunk_row(raw).flags & FLAG_SUSPECT
        assert txn.count(Table.SUSPECTS) == 1
    assert put(store, data, hold) == cid
    store.session.writer.commit()
    assert store.reader.read(cid) == data
    with store.context.index.read() as txn:
        assert txn.count(Table.SUSPECTS) == 0


class FailingOs(Os):
    """Fails the n-th call of one kind from now on, once."""

    def __init__(self) -> None:
        self.fail: dict[str, tuple[int, int]] = {}
        self.armed = False

    def _maybe(self, name: str) -> None:
        if self.armed and name in self.fail:
            left, number = self.fail[name]
            if left == 0:
                del self.fail[name]
                raise OSError(number, os.strerror(number))
            self.fail[name] = (left - 1, number)

    def pwritev(self, fd: int, parts: Sequence[bytes | memoryview], offset: int) -> int:
        self._maybe("pwritev")
        return super().pwritev(fd, parts, offset)

    def fdatasync(self, fd: int) -> None:
        self._maybe("fdatasync")
        super().fdatasync(fd)


@pytest.mark.parametrize("name", ["pwritev", "fdatasync"])
def test_one_failed_write_or_sync_costs_a_segment_and_no_data(
    opener: Opener, name: str, expect_log: Callable[[str], None]
) -> None:
    expect_log("segment")
    system = FailingOs()
    store = opener(system)
    hold = store.session.writer.holds.open()
    first = put(store, noise(5000, 1), hold)
    store.session.writer.commit()
    second = put(store, noise(5000, 2), hold)
    before = store.reader.row(second)
    system.fail[name] = (0, errno.EIO)
    system.armed = True
    store.session.writer.commit()
    after = store.reader.row(second)
    assert before is not None and after is not None
    assert after.pack != before.pack  # a failed sync is final for its file
    other = opener()
    assert other.reader.read(first) == noise(5000, 1)
    assert other.reader.read(second) == noise(5000, 2)


def test_a_full_disk_refuses_the_barrier_and_the_chunks_wait_for_the_next(opener: Opener) -> None:
    system = FailingOs()
    store = opener(system)
    hold = store.session.writer.holds.open()
    cid = put(store, noise(5000, 1), hold)
    real = Os.pwritev
    full = [True]

    def refuse(fd: int, parts: Sequence[bytes | memoryview], offset: int) -> int:
        if full[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(system, fd, parts, offset)

    system.pwritev = refuse  # type: ignore[method-assign]
    written = []
    with pytest.raises(StoreFull):
        store.session.writer.commit(lambda txn: written.append(1))
    assert not written
    full[0] = False
    store.session.writer.commit(lambda txn: written.append(1))
    assert written == [1]
    assert opener().reader.read(cid) == noise(5000, 1)


def test_an_error_in_the_extra_rows_commits_nothing(opened: OpenStore) -> None:
    hold = opened.session.writer.holds.open()
    cid = put(opened, noise(5000, 1), hold)

    def extra(txn: object) -> None:
        raise HoldfastError("no")

    with pytest.raises(HoldfastError):
        opened.session.writer.commit(extra)
    with opened.context.index.read() as txn:
        assert txn.get(Table.CHUNKS, cid) is None
    opened.session.writer.commit()
    with opened.context.index.read() as txn:
        assert txn.get(Table.CHUNKS, cid) is not None


def collecting(store: OpenStore) -> None:
    with store.context.index.write() as txn:
        gcstate.save(txn, GcState(1, Phase.MARKING))


def touched(store: OpenStore, cid: bytes) -> bool:
    with store.context.index.read() as txn:
        return txn.get(Table.TOUCHED, cid) is not None


def test_a_commit_during_a_collection_passes_over_what_is_still_being_stored(
    opener: Opener,
) -> None:
    """Another thread has looked for a chunk, or stored it, and its row comes with a later commit: no reason to fail."""
    store = opener()
    writer = store.session.writer
    collecting(store)
    with writer.holds.open() as hold:
        cid = codec.chunk_id(store.context.key, noise(9000, 1))
        assert not writer.known((cid,), hold)
        writer.commit()  # looked for, not stored
        sync = writer._segments.sync

        def put_meanwhile(moved: Any) -> dict[int, int]:
            writer._segments.sync = sync  # type: ignore[method-assign]
            lengths = sync(moved)
            writer.put(cid, noise(9000, 1), hold)
            return lengths

        writer._segments.sync = put_meanwhile  # type: ignore[method-assign]
        writer.commit()  # stored behind the commit's cut
        assert not touched(store, cid)
        writer.commit()
        assert touched(store, cid)


def test_a_commit_during_a_collection_refuses_what_it_relied_on_and_is_gone(opener: Opener) -> None:
    store = opener()
    writer = store.session.writer
    with writer.holds.open() as hold:
        cid = put(store, noise(9000, 1), hold)
        writer.commit()
    collecting(store)
    with writer.holds.open() as hold:
        assert writer.known((cid,), hold)
        with store.context.index.write() as txn:
            txn.delete(Table.CHUNKS, cid)
        with pytest.raises(Corrupt, match="work in progress"):
            writer.commit()
