"""Ingest: what is sealed reads back as written, in any mode and order, and costs what it should."""

import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine import home, limits
from engine.errors import InvalidRequest
from engine.home import OpenStore
from engine.ingest import Mode, SealJob, choose_mode
from engine.ingest import sketches as sk
from engine.ingest.splice import Extent, cut, merged, regions, replace
from engine.nodes.extents import encode_extents

Opener = Callable[..., OpenStore]


def rows(size: int, seed: int) -> bytes:
    """Compressible rows, different for each seed."""
    rnd = random.Random(seed)
    out = b"".join(
        b"%08d|%s|%d|active\n" % (i, rnd.randbytes(6).hex().encode(), seed)
        for i in range(size // 30 + 1)
    )
    return out[:size]


def seal(one: OpenStore, job: SealJob) -> list[Extent]:
    extents = one.session.sealer.seal(job)
    one.session.writer.commit()
    assert job.hold is not None
    job.hold.release()
    return extents


def content(one: OpenStore, extents: list[Extent]) -> bytes:
    buffer = bytearray(limits.SPAN)
    end = 0
    for offset, length, cid, inner in extents:
        assert offset >= end
        data = one.reader.read(cid)
        assert inner + length <= len(data)
        buffer[offset : offset + length] = data[inner : inner + length]
        end = offset + length
    return bytes(buffer)


def stored(one: OpenStore) -> int:
    return one.session.writer.stored_bytes


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenStore]:
    path = str(tmp_path_factory.mktemp("ingest") / "store")
    home.init(path)
    with home.opened(path) as one:
        yield one


write = st.tuples(
    st.integers(0, limits.SPAN - 1), st.integers(1, 300_000), st.integers(0, 5), st.booleans()
)


@pytest.mark.parametrize("mode", [Mode.FIXED, Mode.STREAM])
@given(batches=st.lists(st.lists(write, min_size=1, max_size=6), min_size=1, max_size=4))
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_writes_read_back(
    shared: OpenStore, mode: Mode, batches: list[list[tuple[int, int, int, bool]]]
) -> None:
    model = bytearray(limits.SPAN)
    extents: list[Extent] = []
    for batch in batches:
        dirty: list[tuple[int, int]] = []
        for offset, size, seed, zero in batch:
            end = min(offset + size, limits.SPAN)
            model[offset:end] = bytes(end - offset) if zero else rows(end - offset, seed)
            dirty.append((offset, end))
        fragments = [(a, bytes(model[a:b])) for a, b in regions(dirty)]
        extents = seal(shared, SealJob(0, extents, fragments, mode, group=b"t"))
        assert content(shared, extents) == bytes(model)
        assert len(encode_extents(extents)) <= limits.SPAN_ROW_MAX


def test_many_small_overwrites_keep_the_row_small(opened: OpenStore) -> None:
    model = bytearray(rows(limits.SPAN, 1))
    extents = seal(opened, SealJob(0, [], [(0, bytes(model))], Mode.FIXED))
    rnd = random.Random(2)
    for _ in range(6):
        places = sorted({rnd.randrange(limits.SPAN // 4096) * 4096 for _ in range(60)})
        for at in places:
            model[at : at + 4096] = rnd.randbytes(4096)
        parts = [(a, bytes(model[a:b])) for a, b in regions([(at, at + 4096) for at in places])]
        extents = seal(opened, SealJob(0, extents, parts, Mode.FIXED))
        assert len(encode_extents(extents)) <= limits.SPAN_ROW_MAX
    assert content(opened, extents) == bytes(model)


@pytest.mark.parametrize("mode", [Mode.FIXED, Mode.STREAM])
def test_a_span_full_of_small_holes_fits_its_row(opened: OpenStore, mode: Mode) -> None:
    page = 4096
    fragments = [(at, rows(page, at)) for at in range(0, limits.SPAN, 2 * page)]
    extents = seal(opened, SealJob(0, [], [(at, memoryview(d)) for at, d in fragments], mode))
    assert len(encode_extents(extents)) <= limits.SPAN_ROW_MAX
    model = bytearray(limits.SPAN)
    for at, data in fragments:
        model[at : at + page] = data
    assert content(opened, extents) == model


def test_a_few_holes_stay_holes(opened: OpenStore) -> None:
    fragments = [(at, memoryview(rows(4096, at))) for at in range(0, limits.SPAN, limits.SLOT)]
    extents = seal(opened, SealJob(0, [], list(fragments), Mode.FIXED))
    assert sum(extent[1] for extent in extents) == 4096 * limits.SLOTS_PER_SPAN


def test_a_small_overwrite_does_not_store_its_slot_again(opened: OpenStore) -> None:
    rnd = random.Random(1)
    extents = seal(opened, SealJob(0, [], [(0, rnd.randbytes(limits.SPAN))], Mode.FIXED))
    before = stored(opened)
    seal(opened, SealJob(0, extents, [(8192, rnd.randbytes(4096))], Mode.FIXED))
    assert stored(opened) - before < 4096 + 200


def test_the_same_content_again_costs_nothing(opened: OpenStore) -> None:
    data = rows(limits.SPAN, 1)
    for mode in (Mode.FIXED, Mode.STREAM):
        first = seal(opened, SealJob(0, [], [(0, data)], mode))
        opened.session.sealer.flush()
        before = stored(opened)
        assert seal(opened, SealJob(9, [], [(0, data)], mode)) == first
        opened.session.sealer.flush()
        assert stored(opened) == before


def test_zeros_become_holes(opened: OpenStore) -> None:
    data = bytes(limits.SLOT * 3) + b"x" + bytes(limits.SLOT - 1)
    extents = seal(opened, SealJob(0, [], [(0, data)], Mode.FIXED))
    assert [(e[0], e[1]) for e in extents] == [(limits.SLOT * 3, limits.SLOT)]


def test_a_changed_page_is_a_small_delta_of_the_previous_version(opened: OpenStore) -> None:
    rnd = random.Random(5)
    data = bytearray(rnd.randbytes(limits.SPAN))
    old = seal(opened, SealJob(0, [], [(0, bytes(data))], Mode.FIXED))
    data[100_000:100_050] = rnd.randbytes(50)
    before = stored(opened)
    new = seal(
        opened,
        SealJob(0, [], [(0, bytes(data))], Mode.FIXED, lambda number: old if number == 0 else []),
    )
    assert stored(opened) - before < 500
    assert content(opened, new) == bytes(data)


def test_a_stream_in_another_order_costs_what_changed_also_after_a_restart(
    home: Path, opener: Opener
) -> None:
    # Which pieces are hooks depends on the key: with one key in 100 none of these 2 MB is, and nothing is found again.
    identity = json.loads((home / "format.json").read_text())
    (home / "format.json").write_text(json.dumps({**identity, "id_key": "11" * 32}))
    rnd = random.Random(7)
    parts = [rnd.randbytes(200_000) for _ in range(10)]
    one = opener()
    seal(one, SealJob(0, [], [(0, b"".join(parts))], Mode.STREAM))
    one.close()
    one._lock_fd = -1
    again = opener()
    rnd.shuffle(parts)
    mixed = bytearray(b"".join(parts))
    mixed[1_000_000:1_000_020] = b"twenty changed bytes"
    extents = seal(again, SealJob(0, [], [(0, bytes(mixed))], Mode.STREAM))
    assert content(again, extents)[: len(mixed)] == bytes(mixed)
    assert stored(again) < 300_000  # of 2,000,000: the seams of ten parts, and one piece


def test_sketch_records_round_trip() -> None:
    pieces = [(bytes([i]) * 16, 2048 + i) for i in range(30)]
    assert list(sk.decode(sk.encode(b"c" * 32, pieces) * 2)) == [(b"c" * 32, pieces)] * 2


def test_modes() -> None:
    assert choose_mode(b"orcl/users01.dbf", b"") == Mode.FIXED
    assert choose_mode(b"pg/base/16384/2619", b"") == Mode.FIXED
    assert choose_mode(b"disk", bytes(510) + b"\x55\xaa" + bytes(600)) == Mode.FIXED
    assert choose_mode(b"home.tar", bytes(510) + b"\x55\xaa") == Mode.STREAM
    assert choose_mode(b"0v3k1_1_1", b"rows") == Mode.STREAM
    assert choose_mode(b"0v3k1_1_1", b"rows", "fixed") == Mode.FIXED
    assert choose_mode(b"any", b"", "auto", Mode.FIXED) == Mode.FIXED
    with pytest.raises(InvalidRequest):
        choose_mode(b"any", b"", "sliding")


ranges = st.lists(st.tuples(st.integers(0, 99), st.integers(1, 40)), max_size=12)


@given(ranges, ranges)
def test_splices_match_a_byte_model(
    first: list[tuple[int, int]], second: list[tuple[int, int]]
) -> None:
    model: dict[int, tuple[bytes, int]] = {}
    extents: list[Extent] = []
    for i, (start, size) in enumerate(first + second):
        cid = bytes([i]) * 32
        extents = replace(extents, start, start + size, [(start, size, cid, 5)])
        model.update({start + j: (cid, 5 + j) for j in range(size)})
        for got in (extents, merged(extents), cut(extents, 0, 1000)):
            assert {o + j: (c, inner + j) for o, n, c, inner in got for j in range(n)} == model
    half = cut(extents, 30, 60)
    assert {o + j for o, n, _, _ in half for j in range(n)} == {at for at in model if 30 <= at < 60}
