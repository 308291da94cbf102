"""Reclaiming beside uploads, others that reclaim, and stores that only read; within a budget."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from engine import Store, limits
from engine.copies.connect import open_link
from engine.copies.link import Link
from engine.copies.turns import alone
from engine.errors import Busy
from engine.index import Table
from engine.maintain.planning import Terms
from engine.maintain.reclaim import reclaim
from engine.progress import silent
from tests.copies.test_reach import grown
from tests.copies.test_reclaim import NOW, sent
from tests.copies.test_rewrite import packs_there, sound, thin
from tests.copies.test_upload import SECRET, link
from tests.locations.places import Place
from tests.restore.support import Maker, noise

__all__ = ["grown", "link", "sent", "thin"]


@pytest.mark.seldom
def test_budget_and_going_on(
    engine: Store, link: Link, thin: str, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "SEALED_PACK", 300_000)  # a pack of each
    runs = 0
    while True:
        done = engine.copies.reclaim("far", Terms(grace_s=0, bytes=1))
        if done.done or runs > 20:
            break
        runs += 1
        sound(engine, place, [thin])
    assert done.done and 0 < runs <= 20
    cut = engine.copies.reclaim("far", Terms(grace_s=0, budget_s=1e-9))
    assert not cut.done or not cut.rewritten


@pytest.mark.seldom
def test_an_upload_that_begins_while_it_is_looked_is_seen(
    engine: Store, make: Maker, link: Link, thin: str, place: Place
) -> None:
    """It relies on what is there: what is needed is found again."""
    made: list[str] = []
    make.file(b"big", noise(3_000_000, 7))  # dead there by now, and needed again
    point = make.point(engine)
    again = open_link(engine._open.context, "far")
    entered = again.alone

    def late(*arguments: object) -> object:
        if not made:
            made.append(point)
            engine.copies.send("far")
        return entered(*arguments)  # type: ignore[arg-type]

    again.alone = late  # type: ignore[method-assign, assignment]
    done = reclaim(engine._open, again, NOW, report=silent, stop=lambda: False)
    assert done.done and made
    sound(engine, place, [thin, point])


@pytest.mark.seldom
def test_who_waits_comes_before_who_comes_again(engine: Store, link: Link) -> None:
    """Work in many short turns does not keep an upload out."""
    context, row = engine._open.context, link.row
    over = threading.Event()
    turns: list[str] = []

    def again_and_again() -> None:
        while not over.is_set():
            with alone(context, "far", row, 5.0):
                turns.append("short")
                over.wait(0.01)

    thread = threading.Thread(target=again_and_again)
    thread.start()
    try:
        while len(turns) < 3:
            over.wait(0.01)
        for _ in range(5):
            with alone(context, "far", row, 5.0):
                turns.append("long")
    finally:
        over.set()
        thread.join()
    assert turns.count("long") == 5
    with link.alone(), pytest.raises(Busy, match="at work"), alone(context, "far", row):
        pass


def test_who_only_reads_frees_nothing(link: Link, thin: str, place: Place, tmp_path: Path) -> None:
    """An entry of somebody who is not the writer would stop the one who is."""
    Store.adopt(str(tmp_path / "new"), place.url, SECRET)
    before = place.everything()
    with Store.open(str(tmp_path / "new")) as elsewhere:
        assert elsewhere.copies.reclaim("origin", dry_run=True).requests
        with pytest.raises(Busy, match="without taking over"):
            elsewhere.copies.reclaim("origin", NOW)
    assert place.everything() == before


def test_two_and_an_upload_at_the_same_time(
    engine: Store, make: Maker, link: Link, thin: str, place: Place
) -> None:
    make.file(b"late", noise(500_000, 90))
    point = make.point(engine)
    errors: list[BaseException] = []

    def work(call: Callable[[], object]) -> None:
        try:
            call()
        except BaseException as error:  # noqa: BLE001
            errors.append(error)

    calls = [
        lambda: engine.copies.reclaim("far", NOW),
        lambda: engine.copies.send("far"),
        lambda: engine.copies.reclaim("far", NOW),
    ]
    threads = [threading.Thread(target=work, args=(one,)) for one in calls]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert errors == []
    assert engine.copies.reclaim("far", NOW).done
    sound(engine, place, [thin, point])


@pytest.mark.seldom
def test_an_index_put_back_from_an_older_copy_changes_nothing(
    engine: Store, link: Link, thin: str, place: Place
) -> None:
    """It does not know the packs that entries name, nor that others are gone."""
    with engine._open.context.index.read() as txn:
        before = {
            table: list(txn.scan(table)) for table in (Table.AWAY, Table.COPIES, Table.LOCATIONS)
        }
    engine.copies.reclaim("far", NOW)
    with engine._open.context.index.write() as txn:
        for table, found in before.items():
            for key in list(txn.keys(table)):
                txn.delete(table, key)
            for key, raw in found:
                txn.put(table, key, raw)
    kept = packs_there(place)
    with pytest.raises(Exception, match="adopt the location anew"):
        engine.copies.reclaim("far", NOW)
    assert packs_there(place) == kept
