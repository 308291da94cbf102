"""Packs at a location of which little is needed: written anew without loss, beside readers and uploads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from engine import Store, limits
from engine.chunks.reader import mark_suspect
from engine.copies import outbox
from engine.copies.connect import Wanted, add, open_link
from engine.copies.link import Link
from engine.copies.rows import DROP, GOING, NAMED, away_row, copy_row
from engine.errors import LocationUnavailable
from engine.index import Table
from engine.index.rows import KIND_DATA, chunk_row
from engine.maintain.costs import Prices
from engine.maintain.drop import drop
from engine.maintain.planning import Reclaim, Terms
from engine.maintain.reclaim import reclaim
from engine.progress import silent
from tests.copies.test_adopt import content
from tests.copies.test_reach import grown, reached
from tests.copies.test_reclaim import NOW, sent
from tests.copies.test_upload import CHEAP, SECRET, link, read_all, send
from tests.locations.faulty import Call, Faulty, Flip
from tests.locations.places import Place, Server
from tests.restore.support import Maker, noise

__all__ = ["grown", "link", "sent"]
DAY = 86_400


@pytest.fixture
def thin(engine: Store, link: Link, sent: list[str]) -> str:
    """The one point that is left of four: of the packs there little is needed."""
    engine.remove_points(sent[:3])
    engine.collect()
    return sent[3]


@pytest.fixture
def all_packs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every pack is rewritten."""
    monkeypatch.setattr(limits, "RECLAIM_BELOW", 1.0)
    monkeypatch.setattr(limits, "RECLAIM_LEAST", -limits.GIB)


def packs_there(place: Place) -> set[str]:
    return {name.rpartition("/")[2] for name in place.names("packs/")}


def sound(engine: Store, place: Place, points: list[str]) -> None:
    """Who has the location alone finds all of these points; and the index knows of each pack that is there."""
    chain, ids = read_all(open_link(engine._open.context, "far"))
    assert list(chain.state.points) == points
    assert all(reached(engine, point) <= ids for point in points)
    with engine._open.context.index.read() as txn:
        away = [away_row(raw) for _, raw in txn.scan(Table.AWAY)]
        named = {copy_row(raw).pack for _, raw in txn.scan(Table.COPIES)}
        numbers = {int.from_bytes(key, "big") for key in txn.keys(Table.AWAY)}
    assert {row.name.hex() for row in away} == packs_there(place) and named <= numbers
    assert {row.name.hex() for row in away if row.state == NAMED} == set(chain.state.packs)


def test_little_is_left_of_packs_of_which_little_is_needed(
    engine: Store, make: Maker, link: Link, thin: str, place: Place, tmp_path: Path
) -> None:
    before, kept = content(engine, thin, tmp_path / "before"), place.size("packs/")
    planned = engine.copies.reclaim("far", NOW, dry_run=True)
    assert place.size("packs/") == kept
    done = engine.copies.reclaim("far", NOW)
    assert done.done and done.rewritten and done.later_packs == 0 and done.left == 0
    assert place.size("packs/") == kept - done.bytes + done.added < kept / 4
    assert (planned.packs, planned.bytes, planned.rewritten) == (
        done.packs,
        done.bytes,
        done.rewritten,
    )
    assert planned.added == pytest.approx(done.added, rel=0.1)
    assert done.downloaded < done.added * 1.2  # read back, and trailers: the records were here
    assert planned.downloaded == pytest.approx(done.downloaded, rel=0.2)
    assert abs(sum(planned.requests.values()) - sum(done.requests.values())) < 15
    assert done.kept == kept and done.needed < kept / 4
    assert bool(done.cost) == bool(place.credentials), "servers are paid"
    sound(engine, place, [thin])
    again = engine.copies.reclaim("far", NOW)
    assert (again.packs, again.rewritten, again.needed) == (0, 0, done.needed)
    make.file(b"another", noise(70_000, 78))
    last = make.point(engine)
    assert send(engine, open_link(engine._open.context, "far"), last).bytes < 100_000
    Store.adopt(str(tmp_path / "new"), place.url, SECRET)
    with Store.open(str(tmp_path / "new")) as fresh:
        assert fresh.check(read_data=True).problems == []
        assert content(fresh, thin, tmp_path / "after") == before


def test_what_is_there_only_is_fetched_and_its_rows_follow(
    engine: Store,
    make: Maker,
    link: Link,
    sent: list[str],
    place: Place,
    home: Path,
    tmp_path: Path,
    all_packs: None,
) -> None:
    """A reader that looked up a chunk while its pack goes finds it again."""
    expected = content(engine, sent[0], tmp_path / "before")
    with engine._open.context.index.write() as txn:
        outbox.save(txn, "far", replace(outbox.location(txn, "far"), local=DROP))
    for path in [b"other", *(b"d2/f%d" % number for number in range(40))]:
        parent, _, name = path.rpartition(b"/")
        make.tree.unlink(make.inodes[parent], name)
        make.tree.forgotten(make.inodes.pop(path))
    last = make.point(engine)
    send(engine, link, last)
    assert drop(engine._open, report=silent).chunks > 10
    engine.remove_points(sent[1:])
    make.tree.barrier()
    engine.collect()
    with Store.open(str(home)) as reader:
        view = reader.glance(sent[0])
        found = view.lookup(b"big")
        assert found is not None
        asked: list[Reclaim] = []
        real = reader._open.context.files.elsewhere
        assert real is not None

        class Late:
            """Between the look-up and the reading everything is written anew."""

            def ranges(self, number: int, parts: object) -> object:
                if not asked:
                    asked.append(engine.copies.reclaim("far", NOW))
                return real.ranges(number, parts)  # type: ignore[arg-type]

            def close(self) -> None:
                real.close()  # type: ignore[attr-defined]

        reader._open.context.files.elsewhere = Late()  # type: ignore[assignment]
        assert view.read(found, 0, 3_000_000)[:1_000_000] == noise(3_000_000, 7)[:1_000_000]
        assert asked[0].rewritten and asked[0].packs and asked[0].downloaded > 3_000_000
        with reader._open.context.index.read() as txn:
            assert txn.count(Table.SUSPECTS) == 0
    assert content(engine, sent[0], tmp_path / "after") == expected
    sound(engine, place, [sent[0], last])
    assert engine.check(read_data=True).problems == []


@pytest.mark.seldom
def store_deltas_again(engine: Store) -> dict[bytes, tuple[bytes, ...]]:
    """Have no chunk of content be a delta here any more; of those that were, what they were deltas of."""
    context = engine._open.context
    with context.index.read() as txn:
        found = [(cid, chunk_row(raw)) for cid, raw in txn.scan(Table.CHUNKS)]
    deltas = {cid: row.bases for cid, row in found if row.depth and row.kind == KIND_DATA}
    assert deltas
    writer = engine._open.session.writer
    for cid in deltas:
        data = engine._open.reader.read(cid)
        mark_suspect(context, cid, "a test")
        with writer.holds.open() as hold:
            writer.put(cid, data, hold)
            writer.commit()
    return deltas


def test_what_a_record_there_is_a_delta_of_stays(
    engine: Store, make: Maker, link: Link, tmp_path: Path, place: Place, all_packs: None
) -> None:
    """Here a chunk is no delta any more, as it was stored again; there it is."""
    context = engine._open.context
    old = noise(65_536, 30)
    base = make.file(b"base", old)
    send(engine, link, make.point(engine))
    make.tree.write(base, 30_000, b"changed" * 4000)
    second = make.point(engine)
    send(engine, link, second)
    deltas = store_deltas_again(engine)
    with context.index.read() as txn:
        assert not any(chunk_row(txn.get(Table.CHUNKS, cid) or b"").bases for cid in deltas)
    engine.remove_points([one.id for one in engine.points() if one.id != second])
    engine.collect()
    with context.index.read() as txn:
        assert not any(txn.get(Table.CHUNKS, base) for one in deltas.values() for base in one)
    engine.copies.reclaim("far", NOW)
    Store.adopt(str(tmp_path / "new"), place.url, SECRET)
    with Store.open(str(tmp_path / "new")) as fresh:
        assert fresh.check(read_data=True).problems == []
        assert [one.id for one in fresh.points()] == [second]


def test_what_is_gone_stays_for_a_while(
    engine: Store, link: Link, thin: str, place: Place, tmp_path: Path
) -> None:
    """By the location's times, so that whoever read the journal before can go on reading."""
    before = packs_there(place)
    Store.adopt(str(tmp_path / "new"), place.url, SECRET)
    done = engine.copies.reclaim("far")
    assert done.done and done.packs == 0 and done.rewritten and done.later_packs
    assert before < packs_there(place)
    with Store.open(str(tmp_path / "new")) as elsewhere:
        assert elsewhere.check(read_data=True).problems == []
    again = engine.copies.reclaim("far")
    assert (again.packs, again.rewritten, again.later_packs) == (0, 0, done.later_packs)
    last = engine.copies.reclaim("far", Terms(grace_s=place.age("journal/")))
    assert last.packs == done.later_packs and last.later_packs == 0
    sound(engine, place, [thin])


@pytest.mark.seldom
def test_what_is_retained_stays(
    engine: Store, link: Link, thin: str, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    with engine._open.context.index.write() as txn:
        rows = [(key, away_row(raw)) for key, raw in txn.scan(Table.AWAY)]
        until = engine._open.context.system.time_ns() // 10**9 + 1000
        for key, row in rows:
            txn.put(Table.AWAY, key, row._replace(locked_s=until).pack_bytes())
    before = packs_there(place)
    system = engine._open.context.system
    ahead = system.time_ns() + 10**6 * 10**9
    for clock in (system.time_ns, lambda: ahead):  # a clock that is wrong here is right there
        monkeypatch.setattr(system, "time_ns", clock)
        done = engine.copies.reclaim("far", NOW)
        assert (done.packs, done.rewritten) == (0, 0) and packs_there(place) == before
    with engine._open.context.index.write() as txn:
        for key, raw in list(txn.scan(Table.AWAY)):
            txn.put(Table.AWAY, key, away_row(raw)._replace(locked_s=until - 2000).pack_bytes())
    done = engine.copies.reclaim("far", NOW)
    assert done.packs and done.rewritten
    sound(engine, place, [thin])


def test_packs_that_nobody_knows_go(
    engine: Store, link: Link, sent: list[str], place: Place
) -> None:
    stray, notes = f"packs/ab/{'ab' * 32}", "packs/ab/notes"
    place.write(stray, b"of an upload that was killed")
    place.write(notes, b"somebody's own")
    assert engine.copies.reclaim("far").unknown == 0
    grace = place.age(stray)
    later = engine.copies.reclaim("far", Terms(grace_s=grace))
    assert later.unknown == 1 and stray in place.names()
    assert engine.copies.reclaim("far", NOW).packs == 1 and stray not in place.names()
    place.delete(notes)
    sound(engine, place, sent)


def test_packs_that_are_gone_are_told(
    engine: Store, link: Link, sent: list[str], place: Place
) -> None:
    """A rule of the bucket that deletes what is old: points went on to be called verified."""
    assert engine.copies.reclaim("far").done and not engine.incidents.known()
    first, second = place.names("packs/")[:2]
    place.delete(first)
    place.write(second, b"")
    assert engine.copies.reclaim("far").done
    [told] = engine.incidents.known()
    assert (told.kind, told.thing) == ("corrupt", "location far")
    assert "2 missing or of another size" in told.text


@pytest.mark.seldom
def test_a_damaged_pack_is_left(
    engine: Store, link: Link, thin: str, place: Place, expect_log: Callable[..., None]
) -> None:
    again = open_link(engine._open.context, "far")
    faulty = again.location = Faulty(again.location)
    faulty.on("read", Flip(100), name="packs/")
    expect_log("is left as it is")
    done = reclaim(engine._open, again, NOW, report=silent, stop=lambda: False)
    assert done.left == 1
    faulty.on("read", Flip(100), name="packs/", after=1)  # what is read back is not what was sent
    sound(engine, place, [thin])
    assert engine.copies.reclaim("far", NOW).left == 0
    sound(engine, place, [thin])


def test_cut_off_at_any_call(engine: Store, link: Link, thin: str, place: Place) -> None:
    at = calls = 0

    def count(operation: str, name: str) -> None:
        nonlocal calls
        calls += 1
        if calls > at:
            raise LocationUnavailable("a server")

    while True:
        again = open_link(engine._open.context, "far")
        faulty = again.location = Faulty(again.location)
        calls = 0
        faulty.on("*", Call(count), times=-1)
        try:
            done = reclaim(engine._open, again, NOW, report=silent, stop=lambda: False)
        except LocationUnavailable:
            chain, ids = read_all(open_link(engine._open.context, "far"))
            assert thin in chain.state.points and reached(engine, thin) <= ids
            at += 1
        else:
            break
    assert at > 6 and done.done
    engine.copies.reclaim("far", NOW)
    sound(engine, place, [thin])
    with engine._open.context.index.read() as txn:
        assert not any(away_row(raw).state == GOING for _, raw in txn.scan(Table.AWAY))


def test_a_bucket(
    engine: Store, make: Maker, grown: list[str], server: Server, tmp_path: Path, all_packs: None
) -> None:
    """A real server of the protocol: its times, its lists, removal of many at once."""
    secret = tmp_path / "credentials"
    secret.touch(0o600)
    secret.write_text("".join(f"{key}={value}\n" for key, value in server.credentials.items()))
    link = add(
        engine._open.context, "far", Wanted(server.url(), [SECRET], f"file:{secret}"), cost=CHEAP
    )
    for point in grown:
        send(engine, link, point)
    engine.remove_points(grown[:2])
    done = engine.copies.reclaim("far", Terms(prices=Prices(writes=1.0)))
    assert done.rewritten and done.later_packs and done.packs == 0 and done.cost > 0.004
    again = engine.copies.reclaim("far", Terms(bytes=1))
    assert again.packs == 0 and again.later_packs >= done.later_packs
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(limits, "RECLAIM_BELOW", 0.0)
        freed = engine.copies.reclaim("far", NOW)
    assert freed.done and freed.packs >= done.later_packs and freed.later_packs == 0
    chain, ids = read_all(open_link(engine._open.context, "far"))
    assert list(chain.state.points) == grown[2:] and reached(engine, grown[2]) <= ids
    there = {one.name.rpartition("/")[2] for one in link.location.list("packs/")}
    assert there == set(chain.state.packs)
