"""Locations of every kind to test: a directory, memory, a server on loopback; where asked for, a Ceph."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from engine.locations import Location, Retry, open_location
from tests.locations import azurite as azurite_module
from tests.locations import ceph as ceph_module
from tests.locations.azurite import Azurite
from tests.locations.ceph import Ceph
from tests.locations.moto_server import MotoServer, client
from tests.locations.proxy import Proxy

BUCKET, LOCKED, VERSIONS = "holdfast-test", "holdfast-locked", "holdfast-versions"


class Server:
    """An S3 server with two buckets: ``url`` makes a place of its own in one of them."""

    def __init__(self, endpoint: str, credentials: dict[str, str]) -> None:
        self.endpoint, self.credentials = endpoint, credentials
        self.admin = client(endpoint, credentials)
        self.admin.create_bucket(Bucket=BUCKET)
        self.admin.create_bucket(Bucket=LOCKED, ObjectLockEnabledForBucket=True)
        self.admin.create_bucket(Bucket=VERSIONS)
        self.admin.put_bucket_versioning(
            Bucket=VERSIONS, VersioningConfiguration={"Status": "Enabled"}
        )

    def url(self, bucket: str = BUCKET, endpoint: str = "", options: str = "") -> str:
        return (
            f"s3://{bucket}/t/{secrets.token_hex(6)}?endpoint={endpoint or self.endpoint}{options}"
        )

    def location(self, bucket: str = BUCKET, endpoint: str = "", options: str = "") -> Location:
        return open_location(self.url(bucket, endpoint, options), self.credentials)


@pytest.fixture(scope="session")
def moto() -> Iterator[Server]:
    with MotoServer() as server:
        yield Server(server.endpoint, server.credentials)


@pytest.fixture(scope="session")
def ceph(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    missing = ceph_module.missing()
    if missing:
        pytest.fail(f"there is no {missing}; make test-distributed installs it")
    with Ceph(tmp_path_factory.mktemp("ceph")) as cluster:
        yield Server(cluster.endpoint, cluster.credentials)


@pytest.fixture(params=["moto", pytest.param("ceph", marks=pytest.mark.needs_ceph)])
def server(request: pytest.FixtureRequest) -> Server:
    """A real server of the S3 protocol: what is proved of one is to hold of the other."""
    found: Server = request.getfixturevalue(request.param)
    return found


@pytest.fixture(scope="session")
def azurite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Azurite]:
    missing = azurite_module.missing()
    if missing:
        pytest.fail(f"there is no {missing}; make test-distributed installs it")
    with Azurite(tmp_path_factory.mktemp("azurite")) as server:
        yield server


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
