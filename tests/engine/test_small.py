"""Small files sealed together: they read back, are met again anywhere, and cost little."""

import random
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine import limits
from engine.errors import StoreFull
from engine.home import OpenStore
from engine.ingest import Mode, SealJob
from engine.ingest import sketches as sk
from engine.ingest.splice import Extent

Opener = Callable[..., OpenStore]


def text(size: int, seed: int) -> bytes:
    rnd = random.Random(seed)
    words = [b"alpha", b"beta", b"gamma", b"delta", b"%d" % seed]
    return b" ".join(rnd.choice(words) for _ in range(size))[:size]


def jobs_of(datas: list[bytes], before: list[list[Extent]] | None = None) -> list[SealJob]:
    return [
        SealJob(
            0, [], [(0, data)], Mode.STREAM, (lambda _, b=before[n]: b) if before else None,
            group=b"1:.%d" % (n % 3),
        )
        for n, data in enumerate(datas)
    ]  # fmt: skip


def seal(
    one: OpenStore, datas: list[bytes], before: list[list[Extent]] | None = None
) -> list[list[Extent]]:
    jobs = jobs_of(datas, before)
    one.session.sealer.seal_small(jobs)
    sealer = one.session.sealer
    result = [sealer.seal(job) if job.extents is None else job.extents for job in jobs]
    one.session.sealer.flush()
    one.session.writer.commit()
    for job in jobs:
        assert job.hold is not None
        job.hold.release()
    return result


def content(one: OpenStore, extents: list[Extent], size: int) -> bytes:
    data = bytearray(size)
    for offset, length, cid, inner in extents:
        data[offset : offset + length] = one.reader.read(cid)[inner : inner + length]
    return bytes(data)


def chunks(found: list[list[Extent]]) -> set[bytes]:
    return {extent[2] for extents in found for extent in extents}


def test_many_files_share_a_chunk_and_are_met_again_after_a_restart(opener: Opener) -> None:
    datas = [text(3000 + 10 * n, n) for n in range(100)]
    one = opener()
    first = seal(one, datas)
    assert len(chunks(first)) <= 4
    assert [content(one, e, len(d)) for e, d in zip(first, datas, strict=True)] == datas
    one.close()
    one._lock_fd = -1
    again = opener()
    before = again.session.writer.stored_bytes
    other = seal(again, [datas[77], datas[3]])  # in another order, in other company
    assert chunks(other) <= chunks(first)
    assert again.session.writer.stored_bytes - before < 200
    assert content(again, other[0], len(datas[77])) == datas[77]


def test_a_changed_file_is_a_delta_of_what_it_was(opened: OpenStore) -> None:
    datas = [random.Random(n).randbytes(20_000) for n in range(6)]
    first = seal(opened, datas)
    changed = [data[:5000] + b"changed" + data[5007:] for data in datas]
    before = opened.session.writer.stored_bytes
    second = seal(opened, changed, first)
    assert opened.session.writer.stored_bytes - before < 2500  # a sketch included
    assert [content(opened, e, 20_000) for e in second] == changed


def test_what_is_no_whole_small_file_is_left_alone(opened: OpenStore) -> None:
    jobs = jobs_of([b"a" * 100, b"b" * limits.SLOT, bytes(500), b"c" * 100])
    jobs[0].mode = Mode.FIXED
    opened.session.sealer.seal_small(jobs)
    assert [job.extents for job in jobs] == [None] * 4
    whole = jobs_of([b"a" * 100, b"d" * 90, b"b" * 80])
    whole[2].fragments = [(5, b"later")]
    opened.session.sealer.seal_small(whole)
    assert [job.extents is None for job in whole] == [False, False, True]


def test_nothing_is_changed_when_the_store_is_full(
    opened: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise StoreFull("store")

    monkeypatch.setattr(opened.session.writer, "put", full)
    jobs = jobs_of([b"a" * 100, b"b" * 100])
    with pytest.raises(StoreFull):
        opened.session.sealer.seal_small(jobs)
    assert [(job.extents, job.hold) for job in jobs] == [(None, None)] * 2
    assert opened.session.writer.holds.ids() == (set(), set())


def test_every_small_file_is_a_hook() -> None:
    for n in range(200):
        name = sk.always_hook(random.Random(n).randbytes(16))
        assert sk.hooks_of([(name, 5)]) == [name[:8]]


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40
)
@given(
    st.lists(
        st.lists(st.tuples(st.integers(0, 70_000), st.integers(0, 9)), min_size=1, max_size=12),
        max_size=4,
    )
)
def test_any_files_read_back(opened: OpenStore, batches: list[list[tuple[int, int]]]) -> None:
    for batch in batches:
        datas = [text(size, seed) for size, seed in batch if size]
        found = seal(opened, datas)
        assert [content(opened, e, len(d)) for e, d in zip(found, datas, strict=True)] == datas
