"""Real servers on loopback, started when a test first asks for one; and places at which a test can keep copies.

A test that takes ``place`` runs in a directory, at moto (``over_s3``), at a Ceph (``needs_ceph``) and at Azurite
(``needs_azurite``); the last two where they are asked for (make test-distributed). Marked ``seldom`` it is spared moto
(but there) and Azurite: another one shows the same. What makes sense of a directory alone is marked ``in_a_directory``.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from engine import limits
from engine.locations import Location, open_location
from tests.locations import azurite as azurite_module
from tests.locations import ceph as ceph_module
from tests.locations.azurite import Azurite
from tests.locations.ceph import Ceph
from tests.locations.moto_server import MotoServer, client
from tests.locations.proxy import Proxy, Status

BUCKET, LOCKED, VERSIONS = "holdfast-test", "holdfast-locked", "holdfast-versions"


class Server:
    """An S3 server with its buckets: ``url`` makes a place of its own in one of them. ``locking``: the option that
    ``LOCKED`` needs to be written to; ``cluster``: what it is of, if it is a Ceph."""

    def __init__(self, endpoint: str, credentials: dict[str, str]) -> None:
        self.endpoint, self.credentials = endpoint, credentials
        self.locking = ""
        self.cluster: Ceph | None = None
        self.admin = client(endpoint, credentials)
        self.admin.create_bucket(Bucket=BUCKET)
        self.admin.create_bucket(Bucket=LOCKED, ObjectLockEnabledForBucket=True)
        self.admin.create_bucket(Bucket=VERSIONS)
        self.admin.put_bucket_versioning(
            Bucket=VERSIONS, VersioningConfiguration={"Status": "Enabled"}
        )
        if not self.location(LOCKED).features().create:  # as of Ceph 16
            self.locking = "&versions=1"

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
        server = Server(cluster.endpoint, cluster.credentials)
        server.cluster = cluster
        yield server


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


# --- places --------------------------------------------------------------------------------------


class Place:
    """Somewhere to keep copies: ``url`` for stores, and what lies there as whoever runs the server sees and changes it.

    This one is a directory. ``credentials`` are in the environment while there is a place. ``absent``: what a message
    says, as a pattern, while it has gone.
    """

    absent = "mount its disk"

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir(parents=True)
        self.url = f"file://{root}"
        self.credentials: dict[str, str] = {}

    def location(self) -> Location:
        """It, with nothing between."""
        return open_location(self.url, self.credentials)

    def names(self, prefix: str = "") -> list[str]:
        """Of everything whose name begins so, in order."""
        files = (one for one in self.root.rglob("*") if one.is_file())
        found = (str(one.relative_to(self.root)) for one in files)
        return sorted(one for one in found if one.startswith(prefix))

    def read(self, name: str) -> bytes:
        return (self.root / name).read_bytes()

    def write(self, name: str, data: bytes) -> None:
        """There or not, it is this from now on."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    def delete(self, *names: str) -> None:
        for name in names:
            (self.root / name).unlink()

    def gone(self) -> None:
        """Nobody finds it, until it is ``back``: as a disk that is not mounted, a bucket that is not there."""
        self.root.rename(self.root.with_name(self.root.name + ".gone"))

    def back(self) -> None:
        self.root.with_name(self.root.name + ".gone").rename(self.root)

    def swell(self, name: str) -> None:
        """Make it larger than anything that is to be fetched as a whole."""
        (self.root / name).touch()
        os.truncate(self.root / name, 1 << 40)

    def age(self, prefix: str) -> float:
        """Make what lies there old; in seconds, for what grace it is old enough."""
        for name in self.names(prefix):
            os.utime(self.root / name, (1, 1))
        return 86_400.0

    def close(self) -> None:
        """Nobody uses it any more."""

    # What is the same of every place:

    def size(self, prefix: str = "") -> int:
        """Bytes of everything whose name begins so."""
        return sum(one.size for one in self.location().list(prefix))

    def everything(self) -> dict[str, bytes]:
        """Content by name."""
        names = self.names()
        with ThreadPoolExecutor(8) as pool:
            return dict(zip(names, pool.map(self.read, names), strict=True))

    def mirror(self, folder: Path) -> Path:
        """A copy in a new directory, as with any tool for buckets."""
        folder.mkdir()
        for name, data in self.everything().items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        return folder

    def fill(self, folder: Path) -> None:
        """Everything in a directory is here as well."""
        files = [one for one in folder.rglob("*") if one.is_file()]
        with ThreadPoolExecutor(8) as pool:
            names = (str(one.relative_to(folder)) for one in files)
            list(pool.map(lambda name, one: self.write(name, one.read_bytes()), names, files))

    def clear(self) -> None:
        """Nothing is left of it."""
        self.delete(*self.names())

    def source(self, folder: Path) -> str:
        """Of its credentials: a file in that directory, for who has another environment."""
        if not self.credentials:
            return "environment"
        file = folder / "credentials"
        file.touch(0o600)
        file.write_text("".join(f"{key}={value}\n" for key, value in self.credentials.items()))
        return f"file:{file}"

    def flip(self, name: str, at: int, bit: int = 0) -> None:
        """One bit of what lies there is another."""
        data = bytearray(self.read(name))
        data[at] ^= 1 << bit
        self.write(name, bytes(data))


class Remote(Place):
    """A prefix in a bucket. A proxy lies between stores and the server; the test asks the server itself.

    ``url``: of an endpoint, makes the URL of one and the same prefix.
    """

    absent = "found none|NoSuchBucket|ContainerNotFound"

    def __init__(
        self, endpoint: str, url: Callable[[str], str], credentials: dict[str, str], missing: str
    ) -> None:
        self.credentials = credentials
        self._missing = f"<Error><Code>{missing}</Code><Message>no</Message></Error>".encode()
        self.proxy = Proxy(endpoint)
        self.proxy.up()
        self.url = url(self.proxy.endpoint)
        self._direct = open_location(url(endpoint), credentials)

    def location(self) -> Location:
        return self._direct

    def names(self, prefix: str = "") -> list[str]:
        return [one.name for one in self._direct.list(prefix)]

    def read(self, name: str) -> bytes:
        return self._direct.read(name)

    def write(self, name: str, data: bytes) -> None:
        self._direct.put(name, data)

    def delete(self, *names: str) -> None:
        self._direct.remove(names)

    def gone(self) -> None:
        self.proxy.next(Status(404, self._missing), times=-1)

    def back(self) -> None:
        self.proxy.clear()

    def swell(self, name: str) -> None:
        self.write(name, bytes(limits.JOURNAL_ENTRY_MAX + limits.MIB))  # a server keeps no holes

    def age(self, prefix: str) -> float:
        time.sleep(2.1)  # nobody but the server says when it was; some of them in whole seconds
        return 1.0

    def close(self) -> None:
        self.proxy.down()
        self._direct.close()


def lay(kind: str, request: pytest.FixtureRequest, root: Path) -> Place:
    """A new place of one kind; ``root`` is for a directory."""
    token = secrets.token_hex(6)
    if kind == "file":
        return Place(root)
    if kind == "azurite":
        azure: Azurite = request.getfixturevalue("azurite")
        url = azure.url(token)
        return Remote(
            azure.endpoint,
            lambda at: url.replace(azure.endpoint, at),
            azure.credentials,
            "ContainerNotFound",
        )
    server: Server = request.getfixturevalue("moto" if kind == "s3" else kind)
    return Remote(
        server.endpoint,
        lambda at: f"s3://{BUCKET}/t/{token}?endpoint={at}",
        server.credentials,
        "NoSuchBucket",
    )


@contextmanager
def laid(kind: str, request: pytest.FixtureRequest, root: Path) -> Iterator[Place]:
    """A place with its credentials in the environment."""
    with pytest.MonkeyPatch.context() as environment:
        one = lay(kind, request, root)
        for key, value in one.credentials.items():
            environment.setenv(key, value)
        yield one
        one.close()


KINDS: list[Any] = [
    "file",
    pytest.param("s3", marks=pytest.mark.over_s3),
    pytest.param("ceph", marks=pytest.mark.needs_ceph),
    pytest.param("azurite", marks=pytest.mark.needs_azurite),
]
in_a_directory = pytest.mark.parametrize("place", ["file"], indirect=True)


@pytest.fixture(params=KINDS)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """Empty, and of each kind in turn."""
    with laid(request.param, request, tmp_path / "there") as one:
        yield one


@pytest.fixture
def another(
    place: Place, request: pytest.FixtureRequest, tmp_path: Path
) -> Iterator[Callable[[], Place]]:
    """Makes further places of the kind that ``place`` is of."""
    made: list[Place] = []
    kind = request.node.callspec.params["place"]

    def one() -> Place:
        made.append(lay(kind, request, tmp_path / f"there-{len(made)}"))
        return made[-1]

    yield one
    for each in made:
        each.close()
