"""A server that is killed in the middle of what is sent to it, and one whose lists have many pages."""

from __future__ import annotations

import functools
import secrets
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from engine import Store, limits
from engine.copies import connect
from engine.copies.connect import Wanted, add
from engine.copies.journal import PacksChanged, Removed
from engine.errors import LocationUnavailable
from engine.locations import Retry, open_location
from tests.copies import made as by_hand
from tests.copies.test_faults import SHORT
from tests.copies.test_reach import grown
from tests.copies.test_upload import CHEAP, SECRET
from tests.locations.ceph import Ceph
from tests.locations.moto_server import MotoServer, client
from tests.locations.places import BUCKET, Place, Server
from tests.locations.proxy import Call, Proxy
from tests.restore.support import Maker, noise

__all__ = ["grown"]


@pytest.fixture(scope="module")
def revivable(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MotoServer]:
    """A server that can be killed, and gives lists in pages of 20."""
    with MotoServer(tmp_path_factory.mktemp("kept"), page=20) as one:
        client(one.endpoint, one.credentials).create_bucket(Bucket=BUCKET)
        yield one


@pytest.mark.parametrize(
    ("kind", "count"),
    [("revivable", 70), pytest.param("ceph", 2_600, marks=pytest.mark.needs_ceph)],
)
def test_a_journal_of_many_pages(
    engine: Store, grown: list[str], kind: str, count: int, request: pytest.FixtureRequest, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Lists of more objects than a server gives at once: who adopts sees the last of them."""
    server: MotoServer | Server = request.getfixturevalue(kind)
    for name, value in server.credentials.items():
        monkeypatch.setenv(name, value)
    made = by_hand.location(Place(tmp_path / "there"), engine, [SECRET])
    for _ in range(count):
        made.append(PacksChanged((), ()))
    made.append(Removed((grown[0],)))
    url = f"s3://{BUCKET}/pages?endpoint={server.endpoint}"
    location = open_location(url, server.credentials)
    files = [one for one in (tmp_path / "there").rglob("*") if one.is_file()]
    with ThreadPoolExecutor(8) as pool:
        names = [str(one.relative_to(tmp_path / "there")) for one in files]
        list(pool.map(location.put, names, (one.read_bytes() for one in files)))
    assert len(list(location.list("journal/"))) > count
    location.close()
    report = Store.adopt(str(tmp_path / "new"), url, SECRET, take_over=True)
    assert (report.points, report.left_out) == (2, 0)


@pytest.fixture(params=["revivable", pytest.param("ceph", marks=pytest.mark.needs_ceph)])
def mortal(request: pytest.FixtureRequest) -> MotoServer | Ceph:
    """A server that can be killed and started again with what it had: of a Ceph its gateway."""
    found: MotoServer | Server = request.getfixturevalue(request.param)
    if isinstance(found, MotoServer):
        return found
    assert found.cluster is not None
    return found.cluster


def test_the_server_is_killed_in_the_middle_of_a_part(
    engine: Store, make: Maker, mortal: MotoServer | Ceph, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    """Once it comes back while it is waited for, once it does not."""
    monkeypatch.setattr(limits, "SEALED_FIRST", limits.SEALED_PACK)  # a pack in parts
    make.file(b"large", noise(limits.PUT_PART + (1 << 20), 5))
    make.point(engine)
    for name, value in mortal.credentials.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(connect, "Retry", functools.partial(Retry, limit_s=60.0))
    key = secrets.token_hex(6)
    with Proxy(mortal.endpoint) as proxy:
        url = f"s3://{BUCKET}/{key}?endpoint={proxy.endpoint}"
        wanted = Wanted(url, [SECRET], verify=1.0, local="drop")
        add(engine._open.context, "far", wanted, cost=CHEAP).location.close()

        def again(path: str) -> None:
            mortal.kill()
            threading.Thread(target=mortal.start).start()

        proxy.next(Call(again, after=1 << 19), method="PUT", path="partNumber")
        assert len(engine.copies.send("far")) == 1
        make.file(b"another", noise(limits.PUT_PART + (1 << 20), 6))
        make.point(engine)
        monkeypatch.setattr(connect, "Retry", functools.partial(Retry, limit_s=SHORT))
        proxy.next(Call(lambda path: mortal.kill(), after=1 << 19), method="PUT", path="partNumber")
        with pytest.raises(LocationUnavailable):
            engine.copies.send("far")
        (waiting,) = engine.copies.uploads("far", "queued")
        assert waiting.reason
        assert engine.check(read_data=True).problems == [] and not engine.copies.drop_local().chunks
        mortal.start()
        assert len(engine.copies.send("far")) == 1
        assert {one.state for one in engine.copies.uploads("far")} == {"verified"}
        Store.adopt(
            str(tmp_path / "new"), f"s3://{BUCKET}/{key}?endpoint={mortal.endpoint}", SECRET
        )
        with Store.open(str(tmp_path / "new")) as store:
            assert store.check(read_data=True).problems == []
