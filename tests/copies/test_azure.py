"""A store, sent to Azure's object storage and made again from there."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine import Store
from engine.copies.connect import Wanted, add
from tests.copies.test_adopt import content, upload
from tests.copies.test_reach import grown
from tests.copies.test_upload import CHEAP, SECRET
from tests.locations.azurite import Azurite
from tests.locations.conftest import azurite

__all__ = ["azurite", "grown"]


@pytest.mark.needs_azurite
def test_there_and_back(engine: Store, grown: list[str], azurite: Azurite, tmp_path: Path) -> None:
    key = tmp_path / "credentials"
    key.write_text("".join(f"{name}={value}\n" for name, value in azurite.credentials.items()))
    key.chmod(0o600)
    url, credentials = azurite.url("there"), f"file:{key}"
    wanted = Wanted(url, [SECRET], credentials)
    add(engine._open.context, "far", wanted, cost=CHEAP).location.close()
    assert upload(engine) and upload(engine) == 0
    engine.remove_point(grown[0])
    upload(engine)
    assert engine.copies.reclaim("far").done
    before = [content(engine, point, tmp_path / f"before-{point}") for point in grown[1:]]
    Store.adopt(str(tmp_path / "new"), url, SECRET, credentials=credentials, take_over=True)
    with Store.open(str(tmp_path / "new")) as store:
        assert [one.id for one in store.points()] == grown[1:]
        assert [content(store, p, tmp_path / p) for p in grown[1:]] == before
        assert store.check(read_data=True).problems == []
