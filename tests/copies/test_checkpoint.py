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


@pytest.mark.parametrize(("how", "behind"), [("content", 0), ("epoch", 1), ("gone", 1)])
def test_one_that_is_damaged_costs_nothing_once_the_writer_was_there(
    engine: Store, make: Maker, link: Link, long: str, place: Place, tmp_path: Path, how: str, behind: int
) -> None:  # fmt: skip
    """Readers stop at it until then; the writer goes on from the one before, and loses no entry."""
    if behind:
        make.file(b"one more", b"one more")
        send(engine, link, make.point(engine))
    assert engine.check(read_data=True).problems == []
    second = link.row.checkpoints[-1]
    assert link.row.seq == second + behind
    name = journal.path_of(second)
    place.delete(name) if how == "gone" else place.flip(name, 100 if how == "content" else 24)
    bare = open_bare(place.url, SECRET, "environment", system=REAL, report=silent)
    bare.location.close()
    assert bare.seq == second - 1 and bare.notes and not bare.ends
    told = engine.check(read_data=True).problems
    assert [one.code for one in told] == ["location"] and "reclaiming" in told[0].text
    engine.copies.reclaim("far", NOW)
    assert ("corrupt", "journal of location far") in [
        (one.kind, one.thing) for one in engine._open.context.incidents.known()
    ]
    again = open_link(engine._open.context, "far")
    last = again.row.seq
    assert again.row.checkpoints == [last - 1, last]
    assert numbers(place) == [1, last - 1, last]
    assert engine.check(read_data=True).problems == []
    report = Store.adopt(str(tmp_path / "new"), place.url, SECRET, take_over=True)
    assert (report.left_out, report.points) == (0, 7 + behind)
    code, out, _ = rescue(place.mirror(tmp_path / "mirror"), "list", secret="a word or two")
    assert code == 0 and len(out.splitlines()) == 7 + behind
    with Store.open(str(tmp_path / "new")) as fresh:  # who adopted knows them too
        other = open_link(fresh._open.context, "origin")
        place.flip(journal.path_of(other.row.checkpoints[-1]), 100)
        fresh.copies.reclaim("origin", NOW)
        assert fresh.check(read_data=True).problems == []


def test_an_entry_that_is_lost_is_not_made_up(
    engine: Store, make: Maker, link: Link, long: str, place: Place
) -> None:
    """Beside the newest checkpoint another entry is damaged: what that one said is known to nobody."""
    first, second = link.row.checkpoints
    for number in (second, first + 1):
        place.flip(journal.path_of(number), 100)
    with pytest.raises(Corrupt, match="find out who wrote"), link.alone():
        checkpoint.write(link, silent)
    assert link.row.checkpoints == [first, second]
    assert "find out who wrote" in engine.check(read_data=True).problems[0].text


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
@pytest.mark.parametrize("sent", [True, False])
def test_an_index_from_before_a_checkpoint_is_refused(
    engine: Store, make: Maker, link: Link, grown: list[str], place: Place, sent: bool
) -> None:
    """Also one whose last entry says who began to write: that stays, and behind it is room where entries were."""
    if sent:
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
    for change in (again.nobody_since, again.take_over):
        with pytest.raises(Corrupt, match="adopt the location anew"):
            change()
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


def test_one_that_this_store_did_not_write_is_not_taken_at_its_word(
    engine: Store, make: Maker, link: Link, long: str
) -> None:
    """Who has this machine's key may write one that forgets points: it is not what the next one is made of."""
    there = link.location
    last, me = (bytes.fromhex(one) for one in (link.row.last, link.row.writer))
    nothing = journal.Checkpoint(engine._open.context.store_id, (), (), {})
    bogus = journal.Entry(link.row.seq + 1, last, me, 2**62, nothing)
    assert there.create(journal.path_of(bogus.seq), journal.encode(link.vault, bogus))
    before = len(list(there.list("journal/")))
    with link.alone():
        link.catch_up()
        with pytest.raises(Corrupt, match="find out who wrote"):
            checkpoint.write(link, silent)
    assert len(list(there.list("journal/"))) == before
