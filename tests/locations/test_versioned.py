"""In a bucket that keeps versions the oldest of a name counts: whatever a client wrote or removed later."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from engine import limits
from engine.errors import LocationUnavailable, NotFound, Unsupported
from engine.locations import Location, Retry
from tests.locations.places import BUCKET, LOCKED, VERSIONS, Server
from tests.locations.proxy import CutAnswer, Proxy, Status

SEEN = "&versions=1"


@pytest.fixture(params=["moto", pytest.param("ceph", marks=pytest.mark.needs_ceph)])
def server(request: pytest.FixtureRequest) -> Server:
    found: Server = request.getfixturevalue(request.param)
    return found


class Other:
    """Somebody with the location's credentials and another client."""

    def __init__(self, server: Server, location: Location, bucket: str) -> None:
        self._admin: Any = server.admin
        self._bucket = bucket
        self._prefix = location.shown.removeprefix(f"s3://{bucket}/").partition("?")[0]

    def where(self, name: str) -> dict[str, str]:
        return {"Bucket": self._bucket, "Key": f"{self._prefix}/{name}"}

    def put(self, name: str, data: bytes) -> None:
        self._admin.put_object(**self.where(name), Body=data)

    def hide(self, name: str) -> None:
        self._admin.delete_object(**self.where(name))

    def versions(self) -> list[str]:
        found = self._admin.list_object_versions(Bucket=self._bucket, Prefix=self._prefix + "/")
        return [one["Key"].removeprefix(self._prefix + "/") for one in found.get("Versions", ())]


def test_what_was_hidden_or_written_over_is_seen(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "LIST_PAGE", 3)
    location = server.location(VERSIONS, options=SEEN)
    other = Other(server, location, VERSIONS)
    names = [f"journal/{number}" for number in range(8)]
    for name in names:
        assert location.create(name, name.encode())
    for round_ in range(2):
        for name in names[::2]:
            other.put(name, b"another" * round_)
        for name in names[::3]:
            other.hide(name)
    other.put("journal/3-more", b"")
    for one in (location, type(location)(location.shown, *_inner(location))):
        assert [stat.name for stat in one.list("journal/")] == sorted([*names, "journal/3-more"])
        assert [stat.name for stat in one.list("journal/", names[5])] == names[6:]
        for name in names:
            assert one.read(name) == name.encode() and one.stat(name).size == len(name)
            assert one.ranges(name, [(0, 3), (3, 2)]) == [b"jou", b"rn"]
            assert not one.create(name, b"mine")
    location.remove(names)
    assert other.versions() == ["journal/3-more"]


def _inner(location: Any) -> tuple[Any, ...]:
    """The same place, of which nothing is known yet."""
    return location._patient, location._once, location._retention


def test_what_is_retained_stays_in_sight(server: Server) -> None:
    location = server.location(LOCKED, options=SEEN)
    other = Other(server, location, LOCKED)
    assert location.features() == (True, True)
    for name in ("kept", "loose"):
        location.put(name, b"mine")
    other.put("kept", b"theirs")
    until = int(time.time()) + 3600
    location.retain("kept", until)
    location.retain("kept", until - 60)
    other.hide("kept")
    other.put("kept", b"theirs again")
    location.remove(["kept", "loose", "nothing"])
    assert location.read("kept") == b"mine" and other.versions() == ["kept"]
    with pytest.raises(NotFound):
        location.read("loose")
    plain = server.location(LOCKED).features()
    assert plain.lock  # Ceph 16 has no conditional create where versions are kept


def test_one_of_many_creates(server: Server) -> None:
    """Each with a location of its own, so that nothing is known from before."""
    url = server.url(VERSIONS, options=SEEN)
    from engine.locations import open_location

    several = [Retry(open_location(url, server.credentials)) for _ in range(4)]
    for number in range(4):
        gate = threading.Barrier(len(several))

        def attempt(who: int, gate: threading.Barrier = gate, name: str = f"j/{number}") -> bool:
            gate.wait()
            return several[who].create(name, b"%d" % who)

        with ThreadPoolExecutor(len(several)) as pool:
            made = list(pool.map(attempt, range(len(several))))
        assert made.count(True) == 1
        assert {one.read(f"j/{number}") for one in several} == {b"%d" % made.index(True)}
    location = open_location(url, server.credentials)
    assert len(Other(server, location, VERSIONS).versions()) == 4  # the others took theirs back


def test_a_bucket_that_keeps_no_versions(moto: Server) -> None:
    location = moto.location(BUCKET, options=SEEN)
    assert location.features() == (False, False)
    with pytest.raises(Unsupported, match="leave out versions=1"):
        location.create("a", b"1")


def test_a_create_whose_answer_is_lost(moto: Server, proxy: Proxy) -> None:
    far = moto.location(VERSIONS, endpoint=proxy.endpoint, options=SEEN)
    proxy.next(CutAnswer(-1), method="PUT")
    with pytest.raises(LocationUnavailable):
        far.create("j/1", b"mine")
    again = Retry(far, sleep=lambda _: None)
    proxy.next(CutAnswer(-1), method="PUT")
    assert again.create("j/2", b"mine") is True
    assert again.create("j/2", b"mine") is False
    proxy.next(Status(500), method="GET", times=3)  # who was first is asked in vain
    assert again.create("j/3", b"mine") is True
    assert again.create("j/1", b"theirs") is False
