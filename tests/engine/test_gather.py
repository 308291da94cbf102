"""Reading many chunks at once gives what reading them one by one gives, in fewer reads."""

import random
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine import codec, limits
from engine.chunks import Hold
from engine.errors import Corrupt
from engine.home import OpenStore
from engine.index import Table
from engine.index.rows import ENC_DELTA, FLAG_SUSPECT, chunk_row
from engine.packs.records import Base
from engine.seam import Os

Opener = Callable[..., OpenStore]


class CountingOs(Os):
    """Counts the reads of pack files."""

    reads = 0

    def pread(self, fd: int, size: int, offset: int) -> bytes:
        self.reads += 1
        return super().pread(fd, size, offset)


def noise(size: int, seed: int) -> bytes:
    return random.Random(seed).randbytes(size)


def put(store: OpenStore, data: bytes, hold: Hold, base: bytes | None = None) -> bytes:
    cid = codec.chunk_id(store.context.key, data)
    bases = [] if base is None else [Base(base, 0, limits.SLOT)]
    store.session.writer.put(cid, data, hold, bases=bases)
    return cid


def chains(store: OpenStore, count: int) -> dict[bytes, bytes]:
    """``count`` slots, each with three generations of small changes; all of them by id."""
    every = {}
    with store.session.writer.holds.open() as hold:
        for seed in range(count):
            data = noise(limits.SLOT, seed)
            last = None
            for day in range(4):
                data = data[: day * 50] + b"day%d" % day + data[day * 50 + 4 :]
                last = put(store, data, hold, last)
                every[last] = data
        store.session.writer.commit()
    return every


def test_neighbours_come_in_one_read_with_their_bases(opener: Opener) -> None:
    every = chains(opener(), 6)
    system = CountingOs()
    other = opener(system)
    rows = [other.reader.row(cid) for cid in every]
    assert sum(row is not None and row.encoding == ENC_DELTA for row in rows) == 18
    before = system.reads
    parts = other.reader.read_parts([(cid, 0, limits.SLOT) for cid in every])
    assert parts == list(every.values())
    assert system.reads - before == 1


def test_what_is_not_committed_yet_is_read_too(opened: OpenStore) -> None:
    hold = opened.session.writer.holds.open()
    datas = [noise(limits.SLOT, seed) for seed in range(3)]
    ids = [put(opened, data, hold) for data in datas]
    assert opened.reader.read_parts([(cid, 0, limits.SLOT) for cid in ids]) == datas


def damage(store: OpenStore, cid: bytes) -> None:
    row = store.reader.row(cid)
    assert row is not None
    store.session.close()
    store._session = None
    with open(store.context.files.segment_path(row.pack), "r+b") as file:
        file.seek(row.offset + row.stored - 9)
        file.write(b"\xaa\x55\xaa\x55")


def test_a_damaged_base_is_found_and_named(
    opener: Opener, expect_log: Callable[[str], None]
) -> None:
    expect_log("suspect")
    store = opener()
    every = chains(store, 2)
    ids = list(every)
    damage(store, ids[0])  # the first link of the first chain
    other = opener()
    good = [(cid, 0, limits.SLOT) for cid in ids[4:]]
    assert other.reader.read_parts(good) == list(every.values())[4:]
    with pytest.raises(Corrupt):
        other.reader.read_parts([*good, (ids[3], 0, limits.SLOT)])
    with other.context.index.read() as txn:
        raw = txn.get(Table.CHUNKS, ids[0])
    assert raw is not None
    assert chunk_row(raw).flags & FLAG_SUSPECT


def test_a_part_behind_the_end_is_refused(opened: OpenStore) -> None:
    ids = list(chains(opened, 1))
    with pytest.raises(Corrupt, match="expected 65537 bytes"):
        opened.reader.read_parts([(ids[0], 0, 10), (ids[1], 1, limits.SLOT)])


def test_a_chunk_that_is_missing_is_said_to_be(
    opened: OpenStore, expect_log: Callable[[str], None]
) -> None:
    expect_log("suspect")
    ids = list(chains(opened, 1))
    with pytest.raises(Corrupt, match="aa" * 32):
        opened.reader.read_parts([(ids[0], 0, 10), (b"\xaa" * 32, 0, 5), (ids[1], 0, 5)])


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40
)
@given(st.data())
def test_parts_equal_what_single_reads_give(opened: OpenStore, data: st.DataObject) -> None:
    if not hasattr(opened, "every"):
        opened.every = chains(opened, 12)  # type: ignore[attr-defined]
    every: dict[bytes, bytes] = opened.every  # type: ignore[attr-defined]
    opened.reader._cache.clear()
    part = st.tuples(
        st.sampled_from(list(every)), st.integers(0, limits.SLOT - 1), st.integers(0, limits.SLOT)
    )
    parts = [
        (cid, start, min(size, limits.SLOT - start))
        for cid, start, size in data.draw(st.lists(part, max_size=90))
    ]
    expected = [every[cid][start : start + size] for cid, start, size in parts]
    assert [bytes(found) for found in opened.reader.read_parts(parts)] == expected
