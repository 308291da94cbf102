"""What the facade offers of copies: what is queued is sent, failures are told, a location can be forgotten."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine import Store
from engine.copies import connect
from engine.copies.connect import open_link
from engine.errors import Busy, LocationUnavailable, NotFound
from engine.locations import Retry
from tests.copies.test_reach import grown
from tests.copies.test_upload import CHEAP, SECRET, place, read_all
from tests.restore.support import Maker

__all__ = ["grown", "place"]


@pytest.fixture(autouse=True)
def cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connect, "COST", CHEAP)
    monkeypatch.setattr(connect.add, "__kwdefaults__", {"cost": CHEAP})


def states(engine: Store) -> list[str]:
    return [one.state for one in engine.copies.uploads("far")]


def test_what_waits_is_sent_oldest_first(
    engine: Store, make: Maker, grown: list[str], place: Path
) -> None:
    info = engine.copies.add("far", f"file://{place}", secrets=[SECRET])
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


def test_what_failed_says_why_and_is_sent_when_asked(
    engine: Store, grown: list[str], place: Path
) -> None:
    engine.copies.add("far", f"file://{place}", secrets=[SECRET])
    (place / "packs").write_text("in the way")
    assert engine.copies.send("far") == [] and states(engine) == ["failed"] * 3
    assert "packs" in engine.copies.uploads("far")[0].reason
    (place / "packs").unlink()
    assert engine.copies.send("far") == []
    assert engine.copies.retry("far") == 3
    assert len(engine.copies.send("far")) == 3


def test_a_pack_that_was_put_and_is_not_there_is_put_again(
    engine: Store, grown: list[str], place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.copies.add("far", f"file://{place}", secrets=[SECRET])
    with monkeypatch.context() as broken:
        broken.setattr(Retry, "put", lambda *_: None)
        with pytest.raises(LocationUnavailable, match="the pack that was put, found none"):
            engine.copies.send("far")
    assert states(engine) == ["queued"] * 3
    assert len(engine.copies.send("far")) == 3


def test_what_may_pass_stays_queued(
    engine: Store, grown: list[str], place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.copies.add("far", f"file://{place}", secrets=[SECRET])

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


def test_a_location_is_forgotten_unless_something_is_only_there(
    engine: Store, make: Maker, grown: list[str], place: Path
) -> None:
    engine.copies.add("far", f"file://{place}", secrets=[SECRET], local="drop")
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
    assert (place / "holdfast.json").exists()


def test_a_point_deleted_while_it_is_sent_is_not_left_there(
    engine: Store, grown: list[str], place: Path
) -> None:
    engine.copies.add("far", f"file://{place}", secrets=[SECRET])

    def extras(point: str) -> list[bytes]:
        if point == grown[0]:
            engine.remove_points([point])
        return []

    engine.copies.send("far", extras=extras)
    engine.copies.send("far")
    chain, _ = read_all(open_link(engine._open.context, "far"))
    assert list(chain.state.points) == grown[1:]
