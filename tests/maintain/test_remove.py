"""Deleting points: together or not at all, never under a reader, and a refusal leaves no trace in packs."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine import Store
from engine.errors import Busy, NotFound
from tests.maintain.support import three_points


def test_points_are_deleted_together_or_not_at_all(store: Store) -> None:
    ids = three_points(store)
    with pytest.raises(NotFound):
        store.remove_points([ids[0], "zz"])
    with Store.open(store.path) as other:
        other.view(ids[1])
        with pytest.raises(Busy, match="nobody reading"):
            store.remove_points(ids)
    assert [p.id for p in store.points()] == ids
    assert [p.id for p in store.remove_points(ids)] == ids


def test_a_refused_deletion_leaves_no_tombstone(home: Path) -> None:
    """It would be in a pack for ever, and an index made again from packs would not have the point."""
    with Store.open(str(home)) as store:
        store.create_mount("m")
        ids = three_points(store)
        with Store.open(str(home)) as other:
            other.view(ids[1])
            with pytest.raises(Busy):
                store.remove_point(ids[1])
    Store.rebuild_index(str(home))
    with Store.open(str(home)) as store:
        assert [p.id for p in store.points()] == ids


def test_a_point_about_to_be_deleted_is_not_opened(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = three_points(store)
    refused = []
    with Store.open(store.path) as other:
        real = store._open.session.writer.put_record

        def put_record(*args: object) -> object:
            with pytest.raises(Busy, match="its deletion"):
                other.view(ids[0])
            refused.append(other.view(ids[1]))
            return real(*args)  # type: ignore[arg-type]

        monkeypatch.setattr(store._open.session.writer, "put_record", put_record)
        store.remove_point(ids[0])
    assert refused


def test_points_of_one_millisecond_are_in_order(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.seam.Os.time_ns", lambda self: 1_800_000_000_000_000_000)
    made = [store.snapshot("m").id for _ in range(12)]
    assert [point.id for point in store.points()] == made
    assert store.point("m@latest").id == made[-1]
