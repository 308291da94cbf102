"""Locations of every kind to test: a directory, memory, a server on loopback; where asked for, a Ceph."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from engine.locations import Location, Retry, open_location
from tests.locations.azurite import Azurite
from tests.locations.places import VERSIONS, Server
from tests.locations.proxy import Proxy


@pytest.fixture
def proxy(moto: Server) -> Iterator[Proxy]:
    """In front of the server."""
    with Proxy(moto.endpoint) as between:
        yield between


@pytest.fixture(
    params=[
        "file",
        "memory",
        "moto",
        "moto-versions",
        pytest.param("ceph-versions", marks=pytest.mark.needs_ceph),
        pytest.param("ceph", marks=pytest.mark.needs_ceph),
        pytest.param("azurite", marks=pytest.mark.needs_azurite),
    ]
)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def fresh(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Location]:
    """Makes empty locations of one kind."""

    def make() -> Location:
        if kind == "file":
            place = tmp_path / secrets.token_hex(4)
            place.mkdir()
            return open_location(f"file://{place}")
        if kind == "memory":
            from obstore.store import MemoryStore

            from engine.locations.objectstore import Bucket

            store = MemoryStore()
            return Bucket("memory", store, store)
        if kind == "azurite":
            azure: Azurite = request.getfixturevalue(kind)
            return open_location(azure.url(secrets.token_hex(6)), azure.credentials)
        server: Server = request.getfixturevalue(kind.partition("-")[0])
        if kind in ("moto-versions", "ceph-versions"):
            # Moto answers 500 when a list of versions meets a write of another thread.
            return Retry(server.location(VERSIONS, options="&versions=1"))
        return server.location()

    return make


@pytest.fixture
def location(fresh: Callable[[], Location]) -> Iterator[Location]:
    one = fresh()
    yield one
    one.close()
