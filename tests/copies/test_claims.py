"""What a store says of a location is so, and what it writes there can be read: whatever came late, or from before."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from engine import Store, limits
from engine.copies import connect, journal
from engine.copies.connect import open_link
from engine.copies.link import Link
from engine.errors import Busy, LocationUnavailable, NotFound, Unsupported
from engine.index import Table
from engine.maintain import drop as dropping
from engine.maintain.adopt import NOT_TAKEN_OVER
from tests.copies.test_reach import grown, reached
from tests.copies.test_upload import SECRET, link, make_link, read_all, send
from tests.locations.faulty import Call, Fail, Faulty
from tests.locations.places import Place, in_a_directory
from tests.restore.support import Maker

__all__ = ["grown", "link"]


def test_taking_over_what_is_this_stores_changes_nothing(
    engine: Store, link: Link, grown: list[str]
) -> None:
    send(engine, link, grown[0])
    for _ in range(2):
        engine.copies.take_over("far")
    engine.copies.send("far")
    assert list(read_all(link)[0].state.points) == grown


def test_a_point_of_more_packs_than_an_entry_has_room_for(
    engine: Store, link: Link, grown: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some TiB at once, also cut off before the last entry: they failed for good."""
    monkeypatch.setattr(limits, "SEALED_PACK", 300 << 10)
    monkeypatch.setattr(limits, "JOURNAL_PACKS_MAX", 2)
    again = open_link(engine._open.context, "far")
    again.location = faulty = Faulty(again.location)
    faulty.on("create", Fail(LocationUnavailable("a server")), name="journal/", after=2)
    with pytest.raises(LocationUnavailable):
        send(engine, again, grown[0])
    engine.copies.send("far")
    chain, ids = read_all(link)
    assert list(chain.state.points) == grown and chain.seq > 6
    assert all(reached(engine, point) <= ids for point in grown)
    for seq in range(2, chain.seq + 1):
        body = journal.decode(link.vault, seq, journal.fetch(link.location, seq)).body
        assert len(getattr(body, "packs", ())) <= 2


@in_a_directory
def test_a_server_that_lets_two_write_is_not_taken_over(
    engine: Store, link: Link, grown: list[str], place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    """A location may have been copied there: one is only made where that is not so."""
    engine.copies.send("far")
    before = place.names("journal/")
    plain = connect.Features(create=False, lock=False)
    monkeypatch.setattr("engine.locations.directory.Directory.features", lambda self: plain)
    with pytest.raises(Unsupported, match="conditional creates"):
        Store.adopt(str(tmp_path / "new"), place.url, SECRET, take_over=True)
    with Store.open(str(tmp_path / "new")) as store:
        assert store.copies.locations()[0].paused == NOT_TAKEN_OVER
        assert store.check(read_data=True).problems == []
    assert place.names("journal/") == before


def test_what_was_half_removed_is_not_taken_over(
    engine: Store, link: Link, grown: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else what points there need would count as needed by nobody."""
    send(engine, link, grown[0])

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("engine.copies.rows.copy_key", die)
        with pytest.raises(KeyboardInterrupt):
            engine.copies.remove("far")
    with pytest.raises(Busy, match="being removed"):
        engine.copies.take_over("far")
    engine.copies.remove("far")
    assert engine.copies.locations() == []


def late(engine: Store, at: Link, what: str) -> list[tuple[str, bytes]]:
    """Have a journal entry be on its way when this writer gives up waiting."""
    held: list[tuple[str, bytes]] = []

    class Slow(Faulty):
        def create(self, name: str, data: bytes | bytearray | memoryview) -> bool:
            held.append((name, bytes(data)))
            raise LocationUnavailable("a server", found="no answer")

    again = open_link(engine._open.context, at.name)
    again.location = Slow(again.location)
    with pytest.raises(LocationUnavailable):
        say(engine, again, what)
    return held


def say(engine: Store, at: Link, what: str) -> None:
    """Send that point; none: say which are deleted."""
    if what:
        send(engine, at, what)
    else:
        at.tell_removed()


@pytest.mark.parametrize("deleting", [True, False])
def test_an_entry_that_comes_late_is_not_said_again(
    engine: Store, link: Link, grown: list[str], deleting: bool
) -> None:
    for point in grown[:2]:
        send(engine, link, point)
    if deleting:
        engine.remove_points(grown[:1])
    what = "" if deleting else grown[2]
    [(name, entry)] = late(engine, link, what)
    again = open_link(engine._open.context, "far")
    again.catch_up()
    faulty = Faulty(again.location)
    faulty.on("create", Call(lambda *_: link.location.create(name, entry)), name="journal/")
    again.location = faulty
    with pytest.raises(LocationUnavailable, match="came late"):
        say(engine, again, what)
    engine.copies.send("far")
    assert list(read_all(link)[0].state.points) == (grown[1:] if deleting else grown)
    assert {one.state for one in engine.copies.uploads("far")} == {"verified"}


def test_an_index_from_before_a_deletion_sends_the_point_again(
    engine: Store, link: Link, grown: list[str]
) -> None:
    """A machine put back from an image has the point: it does not count as one that goes nowhere."""
    for point in grown:
        send(engine, link, point)
    tables = (Table.POINTS, Table.OUTBOX, Table.LOCATIONS)
    index = engine._open.context.index
    with index.read() as txn:
        before = {table: list(txn.scan(table)) for table in tables}
    engine.remove_points(grown[:1])
    engine.copies.send("far")
    with index.write() as txn:
        for table, found in before.items():
            for key, raw in found:
                txn.put(table, key, raw)
    engine.copies.send("far")
    assert [one.state for one in engine.copies.uploads("far")] == ["verified"] * 3
    assert sorted(read_all(link)[0].state.points) == sorted(grown)


@pytest.fixture
def old(engine: Store, make: Maker, link: Link, grown: list[str]) -> Link:
    """A location that lets local bytes go, with points of which no tree needs all any more."""
    engine.copies.change("far", local="drop")
    make.tree.unlink(1, b"big")
    make.tree.forgotten(make.inodes.pop(b"big"))
    make.point(engine)
    engine.copies.send("far")
    return link


def sound(engine: Store, make: Maker) -> None:
    """All of the store can be read once its collection has freed what it may."""
    make.tree.barrier()
    engine.collect()
    assert engine.check(read_data=True).problems == []


def test_the_last_bytes_stay_while_nobody_has_seen_the_copy(
    engine: Store, make: Maker, old: Link, place: Place
) -> None:
    """A disk that is not mounted, and another one in its place: what was verified once may be nowhere."""
    place.gone()
    assert not engine.copies.drop_local().chunks
    place.back()
    kept = place.everything()
    place.clear()
    assert not engine.copies.drop_local().chunks
    sound(engine, make)
    for name, data in kept.items():
        place.write(name, data)
    assert engine.copies.drop_local().chunks
    sound(engine, make)


def test_the_last_bytes_stay_where_packs_are_gone(
    engine: Store, make: Maker, old: Link, place: Place
) -> None:
    for number, pack in enumerate(place.names("packs/")):
        if number % 2:
            place.delete(pack)
        else:
            place.write(pack, place.read(pack)[:-1])
    assert not engine.copies.drop_local().chunks
    sound(engine, make)
    [told] = [one for one in engine.incidents.known() if one.thing == "location far"]
    assert told.kind == "corrupt" and "what is here stays" in told.text


def test_the_last_bytes_stay_where_another_store_writes_now(
    engine: Store, make: Maker, old: Link
) -> None:
    """A machine that slept: who took over may have deleted these points, and freed what they need."""
    link = open_link(engine._open.context, "far")
    begin = journal.Begin(engine._open.context.store_id, bytes.fromhex(link.row.writer))
    last, seq = bytes.fromhex(link.row.last), link.row.seq + 1
    raw = journal.encode(link.vault, journal.Entry(seq, last, bytes(15) + b"2", 5, begin))
    assert link.location.create(journal.path_of(seq), raw)
    assert not engine.copies.drop_local().chunks
    assert "replaced" in engine.copies.locations()[0].paused
    sound(engine, make)


def test_what_is_dropped_is_read_from_where_its_points_go(
    engine: Store, make: Maker, link: Link, place: Place, another: Callable[[], Place]
) -> None:
    """Not from a place that keeps something else, which may be carried away."""
    near = another()
    make_link(engine, near, "near")
    make.tree.unlink(1, b"big")
    make.tree.forgotten(make.inodes.pop(b"big"))
    make.point(engine)
    for name in ("near", "far"):
        engine.copies.send(name)
    engine.copies.change("far", mounts=["another"])
    engine.copies.change("near", local="drop")
    assert engine.copies.drop_local().chunks
    place.gone()
    sound(engine, make)


@in_a_directory
def test_nothing_counts_that_went_beside_the_disk(
    engine: Store, link: Link, grown: list[str], place: Place
) -> None:
    """A disk that is taken away in the middle leaves its bare mount point, which takes everything."""

    def take_away(*_: object) -> None:
        place.gone()
        place.root.mkdir()

    again = open_link(engine._open.context, "far")
    faulty = again.location = Faulty(place.location())
    faulty.on("put", Call(take_away), name="packs/", after=1)
    with pytest.raises((LocationUnavailable, NotFound)):  # the second: it was just being written
        send(engine, again, grown[0])
    assert not place.names()
    place.root.rmdir()
    place.back()
    engine.copies.send("far")
    chain, ids = read_all(link)
    assert list(chain.state.points) == grown
    assert all(reached(engine, point) <= ids for point in grown)


def test_what_is_dropped_now_is_not_forgotten_beside(
    engine: Store, make: Maker, old: Link, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A location is not removed while somebody relies on it."""
    monkeypatch.setattr("engine.limits.ALONE_WAIT", 0.05)
    move = dropping._move

    def meanwhile(*arguments: object) -> None:
        with pytest.raises(Busy, match="nobody else at work"):
            engine.copies.remove("far")
        move(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(dropping, "_move", meanwhile)
    assert engine.copies.drop_local().chunks
    sound(engine, make)
