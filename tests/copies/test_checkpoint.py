"""Checkpoints: a journal stays short, and whoever reads it, or comes back to it, is told the truth."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from engine import Store, limits
from engine.copies import checkpoint, journal, outbox
from engine.copies.bare import open_bare
from engine.copies.connect import open_link
from engine.copies.link import Link
from engine.copies.upload import Uploader
from engine.errors import Busy, Corrupt, InvalidRequest
from engine.locations import Location, Stat
from engine.progress import silent
from engine.seam import REAL
from tests.copies.test_adopt import content
from tests.copies.test_reach import grown
from tests.copies.test_reclaim import NOW
from tests.copies.test_rescue import rescue
from tests.copies.test_upload import SECRET, link
from tests.locations.places import Place
from tests.restore.support import Maker

__all__ = ["grown", "link"]


def send(engine: Store, link: Link, point: str) -> None:
    Uploader(engine._open, link, report=silent).upload(point)


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "CHECKPOINT_EVERY", 2)


@pytest.fixture
def long(engine: Store, make: Maker, link: Link) -> str:
    """A journal of many entries; the last of its points."""
    return grow(engine, make, link, 7)


def grow(engine: Store, make: Maker, link: Link, entries: int) -> str:
    """So many points more, with the checkpoints that are due."""
    last = ""
    for number in range(entries):
        make.file(b"more%d-%d" % (link.row.seq, number), b"%d" % number)
        last = make.point(engine)
        send(engine, link, last)
        with link.alone():
            if checkpoint.due(link):
                checkpoint.write(link, silent)
    return last


def numbers(place: Place) -> list[int]:
    return [int(name.rpartition("/")[2]) for name in place.names("journal/")]


def test_entries_before_the_last_but_one_go(
    engine: Store, make: Maker, link: Link, long: str, place: Place, tmp_path: Path
) -> None:
    first, second = link.row.checkpoints
    assert numbers(place) == [1, *range(first, link.row.seq + 1)] and second > first > 2
    points = [one.id for one in engine.points()]
    report = Store.adopt(str(tmp_path / "new"), place.url, SECRET)
    assert report.left_out == 0 and report.points == 7
    with Store.open(str(tmp_path / "new")) as fresh:
        assert [one.id for one in fresh.points() if one.id in points[3:]] == points[3:]
        assert fresh.check(read_data=True).problems == []
        expected = content(engine, long, tmp_path / "here")
        assert content(fresh, long, tmp_path / "back") == expected
    code, out, err = rescue(place.mirror(tmp_path / "mirror"), "list", secret="a word or two")
    assert code == 0 and long in out and "problem" not in err.replace("0 problems", "")


def test_one_that_is_damaged_costs_what_came_after_it(
    engine: Store, link: Link, long: str, place: Place
) -> None:
    place.flip(journal.path_of(link.row.checkpoints[1]), 100)
    bare = open_bare(place.url, SECRET, "environment", system=REAL, report=silent)
    bare.location.close()
    assert bare.seq == link.row.checkpoints[1] - 1 and bare.notes and not bare.ends
    assert len(bare.state.points) > 2
    with link.alone(), pytest.raises(Corrupt, match="journal"):
        checkpoint.write(link, silent)


def test_who_reads_while_entries_go_lists_again(
    engine: Store, make: Maker, link: Link, long: str, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    inner = type(open_link(engine._open.context, "far").location)
    listing = inner.list

    def list_(self: Location, prefix: str, after: str = "") -> list[Stat]:
        found = list(listing(self, prefix, after))  # type: ignore[arg-type]
        if prefix == "journal/" and not asked:
            asked.append(prefix)
            grow(engine, make, link, 7)
        return found

    monkeypatch.setattr(inner, "list", list_)
    bare = open_bare(place.url, SECRET, "environment", system=REAL, report=silent)
    bare.location.close()
    assert asked and bare.seq == link.row.seq and bare.notes == [] and bare.ends
    assert len(bare.state.points) == 14


@pytest.mark.seldom
def test_who_was_replaced_long_ago_finds_who_did(
    engine: Store, make: Maker, link: Link, grown: list[str], place: Place, tmp_path: Path
) -> None:
    """Where he would append lies the entry that replaced him, though all others of its time are gone."""
    send(engine, link, grown[0])
    seq = link.row.seq
    Store.adopt(str(tmp_path / "new"), place.url, SECRET, take_over=True)
    with Store.open(str(tmp_path / "new")) as fresh:
        other = open_link(fresh._open.context, "origin")
        tree = fresh.open_live("m")
        grow(fresh, Maker(tree), other, 7)
        tree.close()
        assert numbers(place)[:2] == [1, seq + 1] and numbers(place)[2] > seq + 4
    with pytest.raises(Busy, match="took over"):
        send(engine, open_link(engine._open.context, "far"), grown[1])


@pytest.mark.seldom
def test_an_index_from_before_a_checkpoint_is_refused(
    engine: Store, make: Maker, link: Link, grown: list[str], place: Place
) -> None:
    send(engine, link, grown[0])
    with engine._open.context.index.read() as txn:
        old = outbox.location(txn, "far")
    grow(engine, make, link, 7)
    before = numbers(place)
    with engine._open.context.index.write() as txn:
        outbox.save(txn, "far", old)
    again = open_link(engine._open.context, "far")
    for change in (
        lambda: send(engine, again, grown[1]),
        lambda: engine.copies.reclaim("far", NOW),
    ):
        with pytest.raises(Corrupt, match="adopt the location anew"):
            change()
    again.row = replace(again.row, writer="ab" * 16)
    with pytest.raises(Corrupt, match="adopt the location anew"):
        again.take_over()
    assert numbers(place) == before


@pytest.mark.seldom
def test_a_journal_too_large_for_one_stays(
    engine: Store, link: Link, long: str, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = numbers(place)

    def refuse(vault: object, entry: object) -> bytes:
        raise InvalidRequest("journal entry", expected="at most so many bytes", found="more")

    monkeypatch.setattr(journal, "encode", refuse)
    with link.alone():
        assert checkpoint.write(link, silent) == 0
    assert numbers(place) == before
