"""Freeing at a location what no point there needs: all of that, nothing else, and cut off anywhere."""

from __future__ import annotations

import pytest

from engine import Store, limits
from engine.copies.connect import open_link
from engine.copies.link import Link
from engine.copies.upload import Uploader
from engine.errors import Busy, Corrupt, LocationUnavailable
from engine.index import Table
from engine.maintain.planning import Terms
from engine.maintain.reclaim import reclaim
from engine.progress import silent
from tests.copies.test_reach import grown, reached
from tests.copies.test_upload import link, read_all, send
from tests.locations.faulty import Fail, Faulty
from tests.locations.places import Place
from tests.restore.support import Maker, noise

__all__ = ["grown", "link"]
NOW = Terms(grace_s=0)


@pytest.fixture
def sent(engine: Store, make: Maker, link: Link, grown: list[str]) -> list[str]:
    """Points that came one by one, the last without most of what was before."""
    make.file(b"other", noise(500_000, 77))
    for name in (b"big", b"d1/new"):
        parent, _, last = name.rpartition(b"/")
        make.tree.unlink(make.inodes[parent], last)
        make.tree.forgotten(make.inodes.pop(name))
    points = [*grown, make.point(engine)]
    for point in points:
        send(engine, link, point)
    return points


def test_what_deleted_points_needed_alone_goes(
    engine: Store, link: Link, sent: list[str], place: Place
) -> None:
    assert engine.copies.reclaim("far").packs == 0
    before = place.size("packs/")
    engine.remove_points(sent[:3])
    waiting = engine.copies.reclaim("far", dry_run=True)
    assert (waiting.packs, waiting.waiting) == (0, 0) or waiting.packs
    done = engine.copies.reclaim("far", NOW)
    assert done.done and done.packs and done.copies > 10
    assert place.size("packs/") == before - done.bytes + done.added
    chain, ids = read_all(open_link(engine._open.context, "far"))
    assert list(chain.state.points) == sent[3:] and reached(engine, sent[3]) <= ids
    assert engine.copies.reclaim("far").packs == 0


def test_what_was_freed_is_sent_again_when_it_is_needed_again(
    engine: Store, make: Maker, link: Link, sent: list[str]
) -> None:
    engine.remove_points(sent[:3])
    engine.copies.reclaim("far", NOW)
    make.file(b"big", noise(3_000_000, 7))
    make.file(b"d1/new", noise(70_000, 9))
    point = make.point(engine)
    again = open_link(engine._open.context, "far")
    send(engine, again, point)
    chain, ids = read_all(again)
    assert point in chain.state.points and reached(engine, point) <= ids


@pytest.mark.parametrize("done", [False, True])
def test_cut_off_at_any_change(engine: Store, link: Link, sent: list[str], done: bool) -> None:
    engine.remove_points(sent[:3])
    for at in range(12):
        again = open_link(engine._open.context, "far")
        faulty = again.location = Faulty(again.location)
        for operation in ("put", "create", "remove"):
            faulty.on(operation, Fail(LocationUnavailable("a server"), done=done), after=at)
        try:
            reclaim(engine._open, again, NOW, report=silent, stop=lambda: False)
        except LocationUnavailable:
            pass
        else:
            break
    assert engine.copies.reclaim("far", NOW).done
    chain, ids = read_all(open_link(engine._open.context, "far"))
    assert list(chain.state.points) == sent[3:] and reached(engine, sent[3]) <= ids


@pytest.mark.seldom
def test_nobody_sends_or_drops_meanwhile(
    engine: Store, link: Link, sent: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "ALONE_WAIT", 0.05)
    with link.alone():
        with pytest.raises(Busy, match="at work"):
            engine.copies.reclaim("far", NOW)
        with pytest.raises(Busy, match="at work"):
            engine.copies.drop_local()
        with pytest.raises(Busy, match="at work"):
            engine.copies.send("far")
    assert Uploader(engine._open, link, report=silent).upload(sent[3]).packs == 0


@pytest.mark.seldom
def test_bytes_of_a_tree_that_are_the_services_as_well_stay(
    engine: Store, make: Maker, link: Link, place: Place
) -> None:
    first = make.point(engine)
    send(engine, link, first)
    make.file(b"log", b"a log")  # what ``send`` keeps with each point
    last = make.point(engine)
    Uploader(engine._open, link, report=silent).upload(last)
    engine.remove_points([first])
    engine.copies.reclaim("far", NOW)
    _, ids = read_all(open_link(engine._open.context, "far"))
    assert reached(engine, last) <= ids
    with engine._open.context.index.read() as txn:
        copies = {key[2:] for key in txn.keys(Table.COPIES)}
    assert reached(engine, last) <= copies


@pytest.mark.seldom
def test_a_point_that_is_not_known_here_keeps_everything(
    engine: Store, link: Link, sent: list[str], place: Place
) -> None:
    """Only a deletion says that a point may go; a row that is missing is damage."""
    before = place.size("packs/")
    with engine._open.context.index.write() as txn:
        txn.delete(Table.POINTS, sent[0].encode())
    with pytest.raises(Corrupt, match="nothing is freed"):
        engine.copies.reclaim("far", NOW)
    assert place.size("packs/") == before
