"""What a restore fetches: opened into memory that helpers share, kept on disk only where it may be wanted again."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from threading import Event

import pytest

from engine import Store, limits
from engine.chunks import ChunkReader, Seen
from engine.chunks.bring import Brought
from engine.copies.connect import Wanted, add
from engine.nodes import Extent
from engine.restore import job as jobs
from engine.restore.helper import Helper
from engine.restore.trays import Shared, Trays
from tests.copies.test_stream import through
from tests.copies.test_upload import CHEAP, SECRET
from tests.locations.faulty import Faulty
from tests.locations.places import Place
from tests.restore.support import Maker, noise, seen, wanted

MIB = 1 << 20
LARGE = 3 * limits.SPAN + 54_321


def send(engine: Store, make: Maker, place: Place) -> str:
    make.point(engine)
    there = Wanted(place.url, [SECRET])
    add(engine._open.context, "far", there, cost=CHEAP).location.close()
    engine.copies.send("far")
    return place.url


@pytest.fixture
def url(engine: Store, make: Maker, place: Place) -> str:
    """A location with a point of large files, one twice, and deltas."""
    make.file(b"once", noise(LARGE, 9))
    make.file(b"large", noise(LARGE, 1))
    for number in range(30):
        make.file(b"small%d" % number, noise(2000, number))
    make.tree.barrier()
    make.file(b"again", noise(LARGE, 1))
    changed = bytearray(noise(LARGE, 1))
    for at in range(0, LARGE, limits.SLOT):
        changed[at : at + 100] = noise(100, at)
    make.tree.write(make.inodes[b"large"], 0, bytes(changed))
    return send(engine, make, place)


@pytest.fixture
def borrowed(url: str, tmp_path: Path) -> Iterator[Store]:
    (tmp_path / "scratch").mkdir()
    with Store.borrow(url, SECRET, scratch=str(tmp_path / "scratch")) as store:
        yield store


def kept(store: Store) -> int:
    """Bytes in the cache on disk."""
    folder = Path(store.path, "cache")
    return sum(one.stat().st_size for one in folder.iterdir()) if folder.exists() else 0


def chunks(store: Store, path: bytes) -> list[tuple[bytes, int]]:
    view = store.view("m@latest")
    found = view.spans(view.find(path), lambda *_: None)
    return [(cid, length) for _, extents in found for _, length, cid, _ in extents]


def test_what_is_read_once_is_not_kept_and_what_is_read_again_is(borrowed: Store) -> None:
    reader = borrowed._open.reader
    wants = chunks(borrowed, b"once")[:20]
    room, marks = memoryview(bytearray(4 * MIB)), Seen()
    before = kept(borrowed)
    for first in (True, False, False):
        found = reader.bring(wants, room, marks)
        assert found is not None and bool(found.places) is first
        assert (kept(borrowed) == before) is first
        places = found.of([cid for cid, _ in wants])
        parts = [room[start : start + length] for start, length in places]
        assert len(parts) == (len(wants) if first else 0)
        datas = reader.read_parts([(cid, 0, length) for cid, length in wants], parts)
        assert b"".join(datas) == noise(LARGE, 9)[: sum(length for _, length in wants)]


@pytest.mark.seldom
def test_what_there_is_no_room_for_is_fetched_to_the_disk(borrowed: Store) -> None:
    reader = borrowed._open.reader
    wants = chunks(borrowed, b"once")[:20]
    before = kept(borrowed)
    found = reader.bring(wants, memoryview(bytearray(MIB)), Seen())
    assert found is not None and 2 < len(found.places) < 20
    assert kept(borrowed) > before + MIB
    assert reader.bring(wants, memoryview(b""), Seen()) == Brought({}, found.rows)


def test_nothing_that_is_here_is_brought(engine: Store, make: Maker) -> None:
    make.file(b"one", noise(limits.SPAN, 1))
    make.point(engine)
    room = memoryview(bytearray(MIB))
    assert engine._open.reader.bring(chunks(engine, b"one"), room, Seen()) is None
    assert not any(room)


class Killed(Helper):
    """One that is killed when it is asked for the second time."""

    asked = 0
    gone = Event()

    def ready(self) -> bool:
        while not super().ready():
            pass
        return True

    def write_span(self, *arguments: object) -> tuple[int, list[str]]:
        type(self).asked += 1
        if self.asked == 2:
            self._process.kill()
            self._process.wait()
            self.gone.set()
        return super().write_span(*arguments)  # type: ignore[arg-type]


def test_a_restore_of_it_all_asks_for_little_twice(
    url: str, place: Place, make: Maker, out: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    expect_log: Callable[[str], None],
) -> None:  # fmt: skip
    """With helpers, one of which is killed; these ask the location for nothing."""
    expect_log("helping process")
    monkeypatch.setattr("engine.restore.tree.HELP_FROM", 1)
    monkeypatch.setattr(jobs, "Helper", Killed)
    Killed.asked = 0
    Killed.gone.clear()
    expected = wanted(make.tree)
    (tmp_path / "scratch").mkdir()
    stored = place.size("packs/")
    total = [0]
    ranges = Faulty.ranges

    def watched(self: Faulty, name: str, parts: Sequence[tuple[int, int]]) -> list[memoryview]:
        total[0] += sum(length for _, length in parts)
        return ranges(self, name, parts)

    own = jobs.write_span

    def write_span(
        reader: ChunkReader, fd: int, start: int, extents: list[Extent], *more: list[memoryview]
    ) -> tuple[int, list[str]]:
        if sum(one[1] for one in extents) >= limits.SPAN:  # what a helper could do is left to it
            assert Killed.gone.wait(20)
        return own(reader, fd, start, extents, *more)

    monkeypatch.setattr(jobs, "write_span", write_span)
    monkeypatch.setattr(Faulty, "ranges", watched)
    through(monkeypatch, lambda one: None)
    with Store.borrow(url, SECRET, scratch=str(tmp_path / "scratch")) as store:
        report = store.restore("m@latest", b"", out)
    assert report.damaged == [] and seen(out) == expected
    assert Killed.asked == 2 and stored / 2 < total[0] < 1.3 * stored


def test_a_record_that_is_damaged_is_named_and_costs_no_other(
    engine: Store, make: Maker, place: Place, out: bytes, expect_log: Callable[[str], None],
    tmp_path: Path,
) -> None:  # fmt: skip
    expect_log("suspect")
    data = noise(3 * limits.SPAN, 1)
    make.file(b"large", data)
    url = send(engine, make, place)
    (tmp_path / "scratch").mkdir()
    with Store.borrow(url, SECRET, scratch=str(tmp_path / "scratch")) as store:
        every = chunks(store, b"large")
        cid, length = every[20]
        at = sum(size for _, size in every[:20])
        row = store._open.reader.row(cid)
        assert row is not None
        pack = max(place.names("packs/"), key=lambda one: len(place.read(one)))
        place.flip(pack, row.offset + 5000)
        report = store.restore("m@latest", b"", out)
    (one,) = report.damaged
    assert one.path == b"large"
    assert one.text.startswith(f"bytes {at} to {at + length} cannot be read")
    expected = data[:at] + bytes(length) + data[at + length :]
    assert Path(os.fsdecode(out), "large").read_bytes() == expected


def test_trays_are_used_again_and_are_nobodys_to_write() -> None:
    trays = Trays()
    starts = [trays.take() for _ in range(limits.RESTORE_TRAYS)]
    assert len(set(starts)) == limits.RESTORE_TRAYS
    trays.room(starts[1])[:3] = b"abc"
    trays.give(starts[1])
    assert trays.take() == starts[1], "its pages are there"
    other = Shared(trays.fd)
    (part,) = other.parts([(starts[1], 3)])
    assert part == b"abc" and part.readonly
    with pytest.raises(TypeError):
        other.part(0, 1)[0] = 1
    trays.close()
    assert part == b"abc"


def test_marks_are_few_that_are_wrong() -> None:
    marks = Seen()
    ids = [noise(32, number) for number in range(20_000)]
    assert sum(marks.before(cid) for cid in ids) < 100
    assert all(marks.before(cid) for cid in ids)


@pytest.mark.seldom
def test_the_cache_that_is_lost_costs_nothing(borrowed: Store, out: bytes) -> None:
    """What somebody removes from the disk is fetched again."""
    borrowed.restore("m@latest", b"again", out + b"1")
    shutil.rmtree(Path(borrowed.path, "cache"))
    borrowed.restore("m@latest", b"again", out + b"2")
    assert Path(os.fsdecode(out + b"2")).read_bytes() == noise(LARGE, 1)
