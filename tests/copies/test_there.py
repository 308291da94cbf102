"""A point read from a location although it is here: nothing of it is taken from what is damaged here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from engine import Store
from engine.errors import Corrupt, NotFound
from engine.index import Table
from engine.restore import restore
from tests.copies.test_adopt import filled
from tests.copies.test_reach import grown
from tests.copies.test_upload import SECRET
from tests.locations.places import Place
from tests.restore.support import Maker, damage, found, restored, seen

__all__ = ["grown"]


def test_what_is_damaged_here_is_read_there(
    engine: Store,
    make: Maker,
    grown: list[str],
    place: Place,
    tmp_path: Path,
    expect_log: Callable[[str], None],
) -> None:
    filled(engine, place, [SECRET])
    path, point = engine.path, grown[-1]
    assert found(restored(engine, point, bytes(tmp_path / "before"))) == []
    make.file(b"late", b"late")
    with pytest.raises(NotFound, match="queued"):
        engine.copies.glance(make.point(engine), "far")
    with engine._open.context.index.read() as txn:
        chunks = [bytes(cid) for cid in txn.keys(Table.CHUNKS)]
    for cid in chunks:
        damage(engine, cid)
    with Store.open(path) as store:
        report = restore(store.copies.glance(point, "far"), b"", bytes(tmp_path / "after"))
        assert not report.damaged and seen(bytes(tmp_path / "after")) == seen(
            bytes(tmp_path / "before")
        )
        expect_log("suspect")
        with pytest.raises(Corrupt):
            list(store.glance(point).scan(store.glance(point).root_entry))
