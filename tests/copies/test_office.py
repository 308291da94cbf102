"""What the facade offers of copies: what is queued is sent, failures are told, a location can be forgotten."""

from __future__ import annotations

import os
import threading
import time
from dataclasses import replace

import pytest

from engine import Store, limits
from engine.copies import connect, outbox
from engine.copies.connect import open_link
from engine.copies.upload import requests
from engine.errors import Busy, InvalidRequest, LocationUnavailable, NotFound, ShuttingDown
from engine.locations import Retry
from tests.copies.test_reach import grown
from tests.copies.test_upload import CHEAP, SECRET, read_all
from tests.locations.places import Place, in_a_directory
from tests.restore.support import Maker

__all__ = ["grown"]


@pytest.fixture(autouse=True)
def cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connect, "COST", CHEAP)
    monkeypatch.setattr(connect.add, "__kwdefaults__", {"cost": CHEAP})


def states(engine: Store) -> list[str]:
    return [one.state for one in engine.copies.uploads("far")]


def test_what_waits_is_sent_oldest_first(
    engine: Store, make: Maker, grown: list[str], place: Place
) -> None:
    info = engine.copies.add("far", place.url, secrets=[SECRET])
    assert (info.queued, info.verified, info.paused) == (3, 0, "")
    sent = engine.copies.send("far", extras=lambda point: [point.encode()])
    assert [one.point for one in sent] == grown and states(engine) == ["verified"] * 3
    make.file(b"later", b"x")
    point = make.point(engine)
    assert [one.point for one in engine.copies.uploads("far", "queued")] == [point]
    assert [one.point for one in engine.copies.send("far")] == [point] and engine.copies.send(
        "far"
    ) == []
    with pytest.raises(NotFound):
        engine.copies.uploads("near")


@in_a_directory  # a name keeps no others away at a server; what does not pass there: test_faults.py
def test_what_failed_says_why_and_is_sent_when_asked(
    engine: Store, grown: list[str], place: Place
) -> None:
    engine.copies.add("far", place.url, secrets=[SECRET])
    place.write("packs", b"in the way")
    assert engine.copies.send("far") == [] and states(engine) == ["failed"] * 3
    assert "packs" in engine.copies.uploads("far")[0].reason
    place.delete("packs")
    assert engine.copies.send("far") == []
    assert engine.copies.retry("far") == 3
    assert len(engine.copies.send("far")) == 3


def test_a_pack_that_was_put_and_is_not_there_is_put_again(
    engine: Store, grown: list[str], place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.copies.add("far", place.url, secrets=[SECRET])
    with monkeypatch.context() as broken:
        broken.setattr(Retry, "put", lambda *_: None)
        with pytest.raises(LocationUnavailable, match="what was put just now, found nothing"):
            engine.copies.send("far")
    assert states(engine) == ["queued"] * 3
    assert len(engine.copies.send("far")) == 3


@pytest.mark.seldom
def test_what_may_pass_stays_queued(
    engine: Store, grown: list[str], place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.copies.add("far", place.url, secrets=[SECRET])

    def put(*_: object) -> None:
        raise LocationUnavailable("a server", found="no answer")

    with monkeypatch.context() as broken:
        broken.setattr(Retry, "put", put)
        with pytest.raises(LocationUnavailable):
            engine.copies.send("far")
    assert (
        states(engine) == ["queued"] * 3 and "no answer" in engine.copies.uploads("far")[0].reason
    )
    assert len(engine.copies.send("far")) == 3


@pytest.mark.seldom
def test_a_location_is_forgotten_unless_something_is_only_there(
    engine: Store, make: Maker, grown: list[str], place: Place
) -> None:
    engine.copies.add("far", place.url, secrets=[SECRET], local="drop")
    engine.copies.send("far")
    make.tree.unlink(1, b"big")
    make.tree.forgotten(make.inodes.pop(b"big"))
    make.point(engine)
    engine.copies.send("far")
    assert engine.copies.drop_local().chunks
    with pytest.raises(Busy, match="delete those points"):
        engine.copies.remove("far")
    engine.remove_points(grown)
    assert len(states(engine)) == 1
    engine.copies.send("far")
    chain, _ = read_all(open_link(engine._open.context, "far"))
    assert not set(chain.state.points) & set(grown) and len(chain.state.points) == 1
    make.tree.barrier()
    engine.collect()
    engine.copies.remove("far")
    assert engine.copies.locations() == [] and engine.check(read_data=True).problems == []
    assert place.names("holdfast.json")


@pytest.mark.seldom
def test_a_point_deleted_while_it_is_sent_is_not_left_there(
    engine: Store, grown: list[str], place: Place
) -> None:
    engine.copies.add("far", place.url, secrets=[SECRET])

    def extras(point: str) -> list[bytes]:
        if point == grown[0]:
            engine.remove_points([point])
        return []

    engine.copies.send("far", extras=extras)
    engine.copies.send("far")
    chain, _ = read_all(open_link(engine._open.context, "far"))
    assert list(chain.state.points) == grown[1:]


@pytest.mark.seldom
def test_a_location_is_changed(engine: Store, make: Maker, grown: list[str], place: Place) -> None:
    engine.copies.add("far", place.url, secrets=[SECRET], mounts=["other"])
    assert engine.copies.uploads("far") == []
    assert engine.copies.change("far", mounts=["m"], verify=1, local="drop").queued == 3
    info = engine.copies.change("far", bandwidth="08:00-18:00=5M,20M", read_bandwidth="1G")
    assert info[3:6] == (("m",), 1.0, "drop")
    assert (info.bandwidth, info.read_bandwidth) == ("08:00-18:00=5M,20M", "1G")
    assert sum(one.read_back for one in engine.copies.send("far")) > 0
    point = make.point(engine)
    assert engine.copies.change("far", mounts=["other"])[7:11] == (
        0,
        0,
        3,
        0,
    )  # not sent there any more
    assert engine.copies.change("far", mounts=[]).queued == 1
    assert [one.point for one in engine.copies.uploads("far", "queued")] == [point]
    for wrong in (
        {"verify": 2}, {"verify": "x"}, {"local": "lose"}, {"bandwidth": "fast"}, {"read_bandwidth": "0"},
        {"mounts": ["../x"]}, {"url": "file:///x"},
    ):  # fmt: skip
        with pytest.raises(InvalidRequest):
            engine.copies.change("far", **wrong)
    with pytest.raises(NotFound):
        engine.copies.change("near", verify=1)
    place.gone()
    with pytest.raises(NotFound):
        engine.copies.change("far", credentials="environment")  # they are tried first
    assert engine.copies.locations()[0].queued == 1


def test_what_was_asked_of_a_location_is_counted(
    engine: Store, grown: list[str], place: Place
) -> None:
    engine.copies.add("far", place.url, secrets=[SECRET])
    sent = engine.copies.send("far")
    info = engine.copies.locations()[0]
    assert info.requests["put"] == sum(one.packs for one in sent)
    assert info.requests["create"] == 3 and info.requests["bytes_up"] > sum(
        one.bytes for one in sent
    )
    each = [one.requests for one in engine.copies.uploads("far")]
    assert each == [one.requests for one in sent] and all(count >= 4 for count in each)
    assert sum(each) < requests(info.requests)  # to open it costs some as well
    engine.copies.send("far")
    assert requests(engine.copies.locations()[0].requests) > requests(info.requests)


@pytest.mark.seldom
def test_a_running_upload_takes_a_changed_limit(
    engine: Store, grown: list[str], place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "BANDWIDTH_LOOK", 0.05)
    engine.copies.add("far", place.url, secrets=[SECRET], bandwidth="1")
    began = time.monotonic()
    lift = threading.Timer(0.5, lambda: engine.copies.change("far", bandwidth=""))
    lift.start()
    assert len(engine.copies.send("far")) == 3
    assert 0.5 < time.monotonic() - began < 20
    lift.join()


@pytest.mark.seldom
def test_a_wait_for_its_turn_ends_when_an_upload_is_to_stop(
    engine: Store, grown: list[str], place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "STOP_LOOK", 0.05)
    engine.copies.add("far", place.url, secrets=[SECRET], bandwidth="1")
    began = time.monotonic()
    with pytest.raises(ShuttingDown):
        engine.copies.send("far", stop=lambda: time.monotonic() - began > 0.5)
    assert time.monotonic() - began < 10
    assert states(engine) == ["queued"] * 3


@in_a_directory  # of servers: tests/locations, test_what_an_upload_left_half_done
def test_leftovers_of_uploads_are_removed_once_a_day(
    engine: Store, make: Maker, grown: list[str], place: Place
) -> None:
    engine.copies.add("far", place.url, secrets=[SECRET])
    engine.copies.send("far")
    old, young = place.root / ".tmp" / "0123", place.root / ".tmp" / "4567"
    for one in (old, young):
        one.write_bytes(b"a part of a pack")
    yesterday = time.time() - limits.LEFTOVER_AGE - 60
    os.utime(old, (yesterday, yesterday))
    engine.copies.send("far")
    assert old.exists()  # it was looked just now
    with engine._open.context.index.write() as txn:
        row = outbox.location(txn, "far")
        outbox.save(txn, "far", replace(row, tidied_ns=int(yesterday * 1e9)))
    engine.copies.send("far")
    assert young.exists() and not old.exists()


def test_nobody_forgets_a_location_that_another_is_at_work_on(
    engine: Store, grown: list[str], place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An upload would write rows of a location that is not there; who drops local bytes would name packs of it."""
    monkeypatch.setattr(limits, "ALONE_WAIT", 0.1)
    engine.copies.add("far", place.url, secrets=[SECRET])
    other = open_link(engine._open.context, "far")
    with other.alone(), pytest.raises(Busy, match="nobody else at work"):
        engine.copies.remove("far")
    (found,) = engine.copies.locations()
    assert (found.paused, found.queued) == ("", 3)
    engine.copies.remove("far")
    assert engine.copies.locations() == []
    with pytest.raises(NotFound), other.alone():
        raise AssertionError("who waited for his turn finds that it is gone")
