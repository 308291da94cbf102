"""What only a real distributed object store shows: retention that holds, a gateway that is killed in the middle."""

from __future__ import annotations

import secrets
import threading
import time
from pathlib import Path

import pytest

from engine import Store, limits
from engine.errors import LocationDenied, LocationUnavailable, NotFound
from engine.locations import Retry, open_location
from tests.copies.test_object_lock import attacked, cheap
from tests.copies.test_reach import grown
from tests.locations.ceph import Ceph
from tests.locations.places import LOCKED, Server
from tests.locations.proxy import FlipRequest, Proxy
from tests.restore.conftest import engine, home, make

__all__ = ["cheap", "engine", "grown", "home", "make"]
pytestmark = pytest.mark.needs_ceph


def test_wrong_credentials(ceph: Server) -> None:
    location = open_location(ceph.url(), ceph.credentials | {"AWS_SECRET_ACCESS_KEY": "wrong"})
    for ask in (
        lambda: location.put("a", b"1"),
        lambda: location.stat("a"),
        lambda: next(location.list("")),
    ):
        with pytest.raises(LocationDenied, match="look at credentials"):
            ask()


def test_retention_holds(ceph: Server) -> None:
    location = ceph.location(LOCKED)
    location.put("a", b"1")
    now = int(time.time())
    location.retain("a", now + 3600)
    location.retain("a", now + 60)
    key = location.shown.removeprefix(f"s3://{LOCKED}/").partition("?")[0] + "/a"
    head = ceph.admin.head_object(Bucket=LOCKED, Key=key)
    assert head["ObjectLockRetainUntilDate"].timestamp() == now + 3600
    with pytest.raises(ceph.admin.exceptions.ClientError, match="AccessDenied"):
        ceph.admin.delete_object(Bucket=LOCKED, Key=key, VersionId=head["VersionId"])
    location.remove(["a"])  # hides it; the version stays
    versions = ceph.admin.list_object_versions(Bucket=LOCKED, Prefix=key)["Versions"]
    assert [one["VersionId"] for one in versions] == [head["VersionId"]]


def test_create_in_a_bucket_with_versions(ceph: Server) -> None:
    """Ceph 16 knows no conditional create there: said as it is, so that such a bucket can be refused."""
    features = ceph.location(LOCKED).features()
    assert features.lock
    if not features.create:
        location = ceph.location(LOCKED)
        assert location.create("j/1", b"one") and location.create("j/1", b"two")


def test_whoever_has_the_credentials_destroys_nothing_that_is_locked(
    engine: Store, grown: list[str], ceph: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for key, value in ceph.credentials.items():
        monkeypatch.setenv(key, value)
    attacked(engine, ceph, grown, tmp_path / "new")


def test_a_body_damaged_on_its_way_is_refused(ceph: Server) -> None:
    """Its digest is not that of the request: it is sent again, or told as what may pass; never kept as it is."""
    small, large = secrets.token_bytes(100_000), secrets.token_bytes(limits.PUT_PART + 5)
    with Proxy(ceph.endpoint) as proxy:
        location = ceph.location(endpoint=proxy.endpoint)
        for name, data in (("small", small), ("large", large)):
            proxy.next(FlipRequest(bit=8 * 5_000), method="PUT", path=name)
            with pytest.raises(LocationUnavailable, match=r"40[03]"):
                location.put(name, data)
            with pytest.raises(NotFound):
                location.stat(name)
            proxy.next(FlipRequest(bit=8 * 5_000), method="PUT", path=name)
            Retry(location).put(name, data)
            assert location.read(name) == data


def test_what_an_upload_left_half_done(ceph: Server) -> None:
    location = ceph.location()
    bucket, _, prefix = location.shown.removeprefix("s3://").partition("?")[0].partition("/")
    upload = ceph.admin.create_multipart_upload(Bucket=bucket, Key=f"{prefix}/x")
    ceph.admin.upload_part(
        Bucket=bucket,
        Key=f"{prefix}/x",
        UploadId=upload["UploadId"],
        PartNumber=1,
        Body=bytes(5 << 20),
    )
    assert location.tidy(1000) == 0
    assert location.tidy(-1000) == 1
    assert location.tidy(-1000) == 0


def test_the_gateway_killed_in_the_middle(tmp_path_factory: pytest.TempPathFactory) -> None:
    with Ceph(tmp_path_factory.mktemp("killed")) as cluster:
        server = Server(cluster.endpoint, cluster.credentials)
        location = Retry(server.location())
        data = secrets.token_bytes(limits.PUT_PART * 4)
        done: list[int] = []
        stop = threading.Event()

        def work() -> None:
            while not stop.is_set():
                location.put(f"p/{len(done)}", data)
                assert location.create(f"j/{len(done)}", b"%d" % len(done))
                done.append(len(done))

        thread = threading.Thread(target=work)
        thread.start()
        for _ in range(3):
            time.sleep(0.7)
            cluster.kill()
            time.sleep(0.5)
            cluster.start()
        before = len(done)
        end = time.monotonic() + 120
        while len(done) < before + 2 and time.monotonic() < end:
            time.sleep(0.1)
        stop.set()
        thread.join(120)
        assert len(done) >= before + 2
        assert [one.name for one in location.list("p/")] == sorted(f"p/{number}" for number in done)
        for number in done:
            assert location.read(f"p/{number}") == data
            assert location.read(f"j/{number}") == b"%d" % number
        pids = [one.pid for one in cluster._daemons]
    assert len(pids) == 4 and not any(Path(f"/proc/{pid}").exists() for pid in pids)
