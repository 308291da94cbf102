"""Points whose bytes are elsewhere: read through the cache, restored, checked, and dead with their location."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from engine import Store
from engine.copies.connect import Wanted, add
from engine.copies.link import Link
from engine.copies.rows import DROP
from engine.copies.upload import Uploader
from engine.errors import LocationUnavailable
from engine.index import Table
from engine.index.rows import U32, chunk_row
from engine.maintain.drop import drop
from engine.progress import silent
from engine.restore import job
from tests.copies.test_reach import grown
from tests.copies.test_upload import CHEAP, SECRET
from tests.locations.places import Place
from tests.maintain.test_bases import FIRST, two_versions
from tests.restore.support import Maker, found, restored, seen
from tests.restore.test_helper import Waited, asked_by_all

__all__ = ["grown"]


@pytest.fixture
def link(engine: Store, grown: list[str], place: Place) -> Link:
    wanted = Wanted(place.url, [SECRET], local=DROP)
    return add(engine._open.context, "far", wanted, cost=CHEAP)


def remove(make: Maker, *paths: bytes) -> None:
    for path in paths:
        parent, _, name = path.rpartition(b"/")
        make.tree.unlink(make.inodes[parent], name)
        make.tree.forgotten(make.inodes.pop(path))


def send_all(engine: Store, link: Link, points: list[str]) -> None:
    for point in points:
        Uploader(engine._open, link, report=silent).upload(point)


def content(engine: Store, point: str, out: Path) -> object:
    assert found(restored(engine, point, bytes(out))) == []
    return seen(bytes(out))


def test_what_was_dropped_is_read_from_there(
    engine: Store, make: Maker, link: Link, grown: list[str], home: Path, tmp_path: Path
) -> None:
    before = [content(engine, point, tmp_path / f"before-{point}") for point in grown]
    send_all(engine, link, grown)
    remove(make, b"big", *(b"d1/f%d" % number for number in range(40)))
    last = make.point(engine)
    send_all(engine, link, [last])
    result = drop(engine._open, report=silent)
    assert result.points == 4 and result.chunks > 20
    again = drop(engine._open, report=silent)
    assert again.chunks == 0
    engine.collect()
    with Store.open(str(home)) as fresh:
        assert fresh.check(read_data=True).problems == []
        for point, expected in zip(grown, before, strict=True):
            assert content(fresh, point, tmp_path / f"after-{point}") == expected
    engine.collect()
    assert engine.check(read_data=True).problems == []
    assert any((home / "cache").iterdir())


def test_a_location_that_is_gone_is_an_error_of_reading(
    engine: Store,
    make: Maker,
    link: Link,
    grown: list[str],
    place: Place,
    tmp_path: Path,
    home: Path,
) -> None:
    send_all(engine, link, grown)
    remove(make, b"big")
    send_all(engine, link, [make.point(engine)])
    assert drop(engine._open, report=silent).chunks
    place.gone()
    with Store.open(str(home)) as fresh:
        view = fresh.glance(grown[0])
        big = view.lookup(b"big")
        assert big is not None
        with pytest.raises(LocationUnavailable, match=place.absent):
            view.read(big, 0, 1000)
        place.back()
        assert len(view.read(big, 0, 1000)) == 1000


@pytest.mark.seldom
def test_helping_processes_read_from_there_as_well(
    engine: Store,
    make: Maker,
    link: Link,
    grown: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = content(engine, grown[0], tmp_path / "before")
    send_all(engine, link, grown)
    remove(make, b"big")
    send_all(engine, link, [make.point(engine)])
    assert engine.copies.drop_local().chunks
    make.tree.barrier()
    engine.collect()
    monkeypatch.setattr(job, "HELP_FROM", 1)
    monkeypatch.setattr("engine.restore.tree.HELP_FROM", 1)
    monkeypatch.setattr(job, "Helper", Waited)
    monkeypatch.setattr(job.Job, "_take_helper", asked_by_all)
    Waited.asked = 0
    assert content(engine, grown[0], tmp_path / "after") == before
    with engine._open.context.index.read() as txn:
        assert txn.count(Table.SUSPECTS) == 0
    assert Waited.asked
    assert engine.check(read_data=True).problems == []


@pytest.mark.seldom
def test_an_index_made_anew_says_what_it_cannot_know(
    engine: Store, link: Link, grown: list[str], tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(engine.path, copy, ignore=shutil.ignore_patterns("*.sock"))
    shutil.rmtree(copy / "index")
    assert any(
        "location far" in one and "adopt" in one for one in Store.rebuild_index(str(copy)).done
    )


@pytest.mark.seldom
def test_what_is_here_is_restored_while_the_location_is_gone(
    engine: Store, make: Maker, link: Link, grown: list[str], place: Place, tmp_path: Path
) -> None:
    send_all(engine, link, grown)
    remove(make, b"big")
    make.file(b"here", b"h" * 100)
    send_all(engine, link, [make.point(engine)])
    assert engine.copies.drop_local().chunks
    make.tree.barrier()
    engine.collect()
    place.gone()
    with Store.open(engine.path) as again:
        result = again.restore(grown[0], b"", bytes(tmp_path / "out"))
    names = {one.path for one in result.damaged}
    assert b"big" in names and result.files > len(names)


def test_what_is_here_as_a_delta_of_what_does_not_answer_is_no_damage(
    engine: Store, make: Maker, link: Link, place: Place, another: Callable[[], Place], tmp_path: Path
) -> None:  # fmt: skip
    """As are new chunks of an adopted store; damage beside them is damage all the same."""
    make.file(b"users.dbf", FIRST)
    send_all(engine, link, [make.point(engine)])
    Store.adopt(str(tmp_path / "new"), place.url, SECRET)
    with Store.open(str(tmp_path / "new")) as store:
        two_versions(store)
        with store._open.context.index.read() as txn:
            rows = [chunk_row(raw) for _, raw in txn.scan(Table.CHUNKS)]
            away = {U32.unpack(key)[0] for key in txn.keys(Table.AWAY)}
        assert any(row.bases for row in rows if row.pack not in away), "no delta: nothing is tried"
        place.gone()
        shutil.rmtree(tmp_path / "new" / "cache", ignore_errors=True)
    with Store.open(str(tmp_path / "new")) as store:
        for report in (store.check(read_data=True), store.scrub()):
            assert [one.code for one in report.problems] == ["away"], report.problems
            assert "could not be looked at" in report.problems[0].text
        checked = store.check(read_data=True)
        assert checked.counts["chunks not looked at"] > checked.counts["chunks elsewhere"]
        with store._open.context.index.read() as txn:
            assert txn.count(Table.SUSPECTS) == 0
        place.back()
        again = store.check(read_data=True)
        assert again.problems == [] and "chunks not looked at" not in again.counts
        other = another()
        add(engine._open.context, "other", Wanted(other.url, [SECRET]), cost=CHEAP)
        place.clear()
        for name, data in other.everything().items():
            place.write(name, data)
    with Store.open(str(tmp_path / "new")) as store:  # another disk is mounted there
        assert {one.code for one in store.check(read_data=True).problems} == {"away"}
        with store._open.context.index.read() as txn:
            assert txn.count(Table.SUSPECTS) == 0
