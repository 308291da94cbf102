"""Keys of a location: changed from a store, seen by who sends and by who reads, whatever is cut off."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import pytest

from engine import Store
from engine.copies import connect, outbox, rows
from engine.copies.connect import Wanted, add, open_link
from engine.copies.fetch import Fetcher
from engine.copies.rings import key_path, newest_ring, ring_path
from engine.copies.upload import Uploader
from engine.errors import (
    AlreadyExists,
    Busy,
    Corrupt,
    InvalidRequest,
    LocationDenied,
    LocationUnavailable,
    NotFound,
    PermissionDenied,
)
from engine.index import Table
from engine.index.rows import U32
from engine.keys import Identity, Key, Passphrase, rotated, slot_of, unlock
from engine.locations import Location
from engine.progress import silent
from tests.copies.test_reach import grown
from tests.copies.test_rescue import rescue
from tests.copies.test_upload import CHEAP, SECRET, make_link, read_all
from tests.locations.faulty import Fail, Faulty
from tests.locations.places import Place
from tests.restore.support import Maker

__all__ = ["grown"]
SAFE, PAPER = Identity.new(), Key.new()


@pytest.fixture
def there(engine: Store, grown: list[str], place: Place) -> Location:
    make_link(engine, place).location.close()
    return place.location()


def ring_of(engine: Store) -> int:
    with engine._open.context.index.read() as txn:
        return outbox.location(txn, "far").ring


def rings(place: Place) -> list[str]:
    return [name.rpartition("/")[2] for name in place.names("keys/")]


@pytest.mark.seldom
def test_who_may_open_it(engine: Store, there: Location, place: Place) -> None:
    first = engine.copies.keys("far")
    assert (first.number, first.epochs, first.left) == (1, (1,), "")
    assert [one.kind for one in first.slots] == ["passphrase", "key"]
    assert first.own == first.slots[1].id
    second = engine.copies.change_keys("far", add=[SAFE.recipient, PAPER])
    assert (second.number, ring_of(engine), rings(place)) == (2, 2, ["00000002.json"])
    assert second.fingerprint == first.fingerprint
    assert engine.copies.keys("far", PAPER) == engine.copies.keys("far", SAFE) == second
    words = [Passphrase("anew"), SECRET]
    third = engine.copies.rotate_keys("far", master_for=words[1:], secret=SAFE)
    assert [one.kind for one in third.slots] == ["passphrase", "key"] and third.epochs == (1, 2)
    for secret in (words[0], SAFE, PAPER):
        with pytest.raises(PermissionDenied, match="opens none"):
            engine.copies.keys("far", secret)
    with pytest.raises(InvalidRequest, match="nothing"):
        engine.copies.change_keys("far")
    with pytest.raises(NotFound, match="locations: far"):
        engine.copies.keys("near")


@pytest.mark.seldom
def test_a_machine_without_its_key_is_let_in_again(
    engine: Store, there: Location, place: Place
) -> None:
    engine.copies.change_keys("far", add=[PAPER])
    path = Path(key_path(engine._open.context, "far"))
    path.unlink()
    for lost in (engine.copies.keys, engine.copies.send, engine.copies.rotate_keys):
        with pytest.raises(NotFound, match=r"far\.key"):
            lost("far")
    assert engine.copies.keys("far", PAPER).own == ""
    made = engine.copies.change_keys("far", machine=True, secret=PAPER)
    assert made.own and path.stat().st_mode & 0o777 == 0o600
    assert engine.copies.change_keys("far", machine=True) == made
    assert len(engine.copies.send("far")) == 3


def epochs_of(engine: Store) -> set[int]:
    link = open_link(engine._open.context, "far")
    names = [one.name for one in link.location.list("packs/")]
    return {link.vault.file(link.location.read(name, 0, 64)).epoch for name in names}


def test_who_sends_takes_the_new_key_for_the_next_pack(
    engine: Store, there: Location, grown: list[str], place: Place, tmp_path: Path
) -> None:
    link = open_link(engine._open.context, "far")
    sender = Uploader(engine._open, link, report=silent)
    sender.upload(grown[0], [b"a log"], {})
    assert epochs_of(engine) == {1}
    engine.copies.rotate_keys("far")
    sender.upload(grown[1], [b"another"], {})
    assert epochs_of(engine) == {1, 2} and link.vault.epoch == 2
    entry = link.location.read(f"journal/{link.row.seq:016d}")
    assert link.vault.file(entry[:64]).epoch == 2
    engine.copies.rotate_keys("far", master_for=[SAFE.recipient])
    sender.upload(grown[2], [], {})
    assert epochs_of(engine) == {1, 2, 3}
    assert unlock(newest_ring(there)[1], SAFE).epoch == 3
    assert Store.adopt(str(tmp_path / "new"), place.url, SAFE).points == 3
    with Store.open(str(tmp_path / "new")) as store:
        assert store.check(read_data=True).problems == []
    code, out, err = rescue(
        place.mirror(tmp_path / "mirror"), "check", secret="", key=SAFE.printed().encode()
    )
    assert code == 0 and "3 points" in out, err


def test_who_reads_opens_what_was_sealed_later(engine: Store, there: Location, make: Maker) -> None:
    engine.copies.send("far")
    context = engine._open.context
    reader, behind = Fetcher(context, 0, [open_link(context, "far")]), open_link(context, "far")
    engine.copies.rotate_keys("far")
    make.file(b"later", b"later " * 999)
    make.point(engine)
    engine.copies.send("far")
    with context.index.read() as txn:
        places = [rows.copy_row(raw) for _, raw in txn.scan(Table.COPIES)]
        packs = {U32.unpack(key)[0]: rows.away_row(raw) for key, raw in txn.scan(Table.AWAY)}
        last = outbox.location(txn, "far")
    new = [one for one in places if packs[one.pack].epoch == 2]
    assert new and len(new) < len(places)
    for one in new:
        (found,) = reader.ranges(one.pack, [(one.offset, one.stored)]) or []
        assert found.startswith(b"HFR1")
    behind.catch_up()  # as if this store had died before it knew of its last entry
    assert behind.row == last and behind.vault.epoch == 2


def test_changed_from_everywhere_at_once(engine: Store, there: Location, place: Place) -> None:
    keys = [Key.new() for _ in range(6)]
    gates = threading.Barrier(len(keys))
    busy: list[Key] = []

    def change(key: Key) -> None:
        gates.wait(10)
        try:
            engine.copies.change_keys("far", add=[key])
        except Busy:
            busy.append(key)

    threads = [threading.Thread(target=change, args=(key,)) for key in keys]
    for one in threads:
        one.start()
    for one in threads:
        one.join(30)
    number, raw = newest_ring(there)
    for key in keys:
        assert bool(slot_of(raw, key)) == (key not in busy)
    assert number == 1 + len(keys) - len(busy) == ring_of(engine)
    assert rings(place) == [f"{number:08d}.json"]


@pytest.mark.parametrize("step", ["create", "remove"])
@pytest.mark.parametrize("done", [False, True])
def test_a_change_that_is_cut_off(
    engine: Store, there: Location, place: Place, monkeypatch: pytest.MonkeyPatch, step: str, done: bool
) -> None:  # fmt: skip
    """What changed the ring dies at a step; the store goes on, and what it sends leaves one ring only."""
    gone = LocationUnavailable("a server", found="no answer")
    opened = connect.opened

    def faulty(*arguments: object) -> Location:
        found = Faulty(opened(*arguments))  # type: ignore[arg-type]
        found.on(step, Fail(gone, done=done))
        return found

    with monkeypatch.context() as broken:
        broken.setattr("engine.copies.keyring.opened", faulty)
        if step == "remove":
            assert "answer" in engine.copies.change_keys("far", add=[PAPER]).left
        else:
            with pytest.raises(LocationUnavailable):
                engine.copies.change_keys("far", add=[PAPER])
    assert bool(slot_of(newest_ring(there)[1], PAPER)) == (step == "remove" or done)
    engine.copies.send("far")
    assert len(rings(place)) == 1 and ring_of(engine) == newest_ring(there)[0]
    assert bool(slot_of(newest_ring(there)[1], PAPER)) == (step == "remove" or done)


@pytest.mark.seldom
def test_adding_again_takes_the_secrets_that_are_given_then(
    engine: Store, grown: list[str], place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = engine._open.context
    first, second = Key.new(), Passphrase("given at the second try")

    def died(*_: object) -> None:
        raise LocationUnavailable("a server", found="no answer")

    def begin(secret: Key | Passphrase, **more: object) -> None:
        wanted = replace(Wanted(place.url, [secret]), **more)  # type: ignore[arg-type]
        add(context, "far", wanted, cost=CHEAP).location.close()

    with monkeypatch.context() as broken:
        broken.setattr(connect.Link, "append", died)
        with pytest.raises(LocationUnavailable):
            begin(first)
        with pytest.raises(
            (AlreadyExists, InvalidRequest),
            match=r"sealed, as it was begun|sealing of whatever leaves the machine",
        ):
            begin(first, sealed=False, secrets=())
        with pytest.raises(LocationUnavailable):
            begin(second)
    begin(second, verify=0.5, local="drop")
    info = engine.copies.keys("far")
    assert (info.number, len(info.slots), ring_of(engine)) == (2, 3, 2)
    assert engine.copies.keys("far", first) == engine.copies.keys("far", second) == info
    assert [(one.verify, one.local) for one in engine.copies.locations()] == [(0.5, "drop")]
    assert len(engine.copies.send("far")) == 3


def test_rings_that_somebody_put_there(engine: Store, there: Location, place: Place) -> None:
    old = newest_ring(there)[1]
    engine.copies.change_keys("far", add=[PAPER])
    new = newest_ring(there)[1]
    there.create(ring_path(9), old)
    for do in (engine.copies.keys, engine.copies.send, engine.copies.rotate_keys):
        with pytest.raises(Corrupt, match="expected key ring 9, found number 1"):
            do("far")
    there.remove([ring_path(9), ring_path(2)])
    there.create(ring_path(1), old)
    for do in (engine.copies.keys, engine.copies.send, engine.copies.rotate_keys):
        with pytest.raises(Corrupt, match="number 2 or more"):
            do("far")
    assert ring_of(engine) == 2
    there.create(ring_path(2), new)
    assert len(engine.copies.send("far")) == 3 and rings(place) == ["00000002.json"]


@pytest.mark.seldom
def test_rings_that_cannot_be_removed_keep_nothing_from_being_sent(
    engine: Store, there: Location, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(*_: object) -> None:
        raise LocationDenied("a server", found="no right to delete")

    monkeypatch.setattr("engine.locations.retry.Retry.remove", denied)
    assert "right to delete" in engine.copies.change_keys("far", add=[PAPER]).left
    assert len(engine.copies.send("far")) == 3
    assert [one.kind for one in engine.incidents.known()] == ["rings_left"]


def test_who_was_left_out_makes_no_ring_that_counts(
    engine: Store, make: Maker, there: Location, grown: list[str], place: Place
) -> None:
    """He knows the old master key, and the machine's slot under it: a ring of his has a number, and not the keys."""
    engine.copies.change_keys("far", add=[PAPER])
    old = newest_ring(there)[1]
    engine.copies.send("far")
    running = open_link(engine._open.context, "far")
    named = list(read_all(running)[0].state.packs.values())
    engine.copies.rotate_keys("far", master_for=[SECRET])
    raw = old
    for _ in range(3):
        raw, vault = rotated(raw, PAPER, now_ns=1)
    assert vault.epoch > 2 and there.create(ring_path(5), raw)
    with pytest.raises(Corrupt, match="data keys that were seen"):
        open_link(engine._open.context, "far")
    with pytest.raises(Corrupt, match="data keys that were seen"):
        running.renew(0)
    for change in (
        engine.copies.keys,
        engine.copies.rotate_keys,
        lambda name: engine.copies.change_keys(name, add=[SAFE.recipient]),
    ):
        with pytest.raises(Corrupt, match="data keys that were seen"):
            change("far")
    assert rings(place) == ["00000003.json", "00000005.json"]
    with pytest.raises(Corrupt, match="data keys that were seen"), engine.copies.borrow("far"):
        pass
    for _ in range(2):  # what is there can be read all the same
        link = open_link(engine._open.context, "far", reading=True)
        assert link.vault.epoch == 2 and ring_of(engine) == 3
        with pytest.raises(LocationUnavailable):
            link.seal_of(named[0]._replace(epoch=9))
        place.write(ring_path(5), b"no ring")
    place.delete(ring_path(5))
    make.file(b"later", b"later " * 999)
    make.point(engine)
    assert len(engine.copies.send("far")) == 1
    assert epochs_of(engine) == {1, 2}
