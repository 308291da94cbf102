"""Drills from a bucket: as from a directory, by an S3 server."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from daemon.contract import DrillSpec, LocationSpec
from engine.keys import Identity
from tests.cli.support import packs
from tests.daemon.service.test_drills import LOOK, drilled, hooked, left, path
from tests.locations.conftest import BUCKET, Server, moto

__all__ = ["moto", "path"]


def test_from_a_bucket_alone(
    path: str, moto: Server, monkeypatch: pytest.MonkeyPatch, expect_log: Callable[[str], None]
) -> None:
    """From s3:// as from a directory; what is here is not asked for, nothing is written there, a lost pack is told."""
    expect_log("suspect|left out")
    for name, value in moto.credentials.items():
        monkeypatch.setenv(name, value)
    url = moto.url()
    prefix = url.removeprefix(f"s3://{BUCKET}/").partition("?")[0] + "/"

    def there() -> dict[str, str]:
        found = moto.admin.list_objects_v2(Bucket=BUCKET, Prefix=prefix)["Contents"]
        return {one["Key"]: one["ETag"] + str(one["LastModified"]) for one in found}

    key = Identity.new().recipient.printed()
    with drilled(path, hooked(path, LOOK)) as service:
        service.add_location(LocationSpec("bucket", url, keys=[key]))
        made = service.snapshot("m", durability="remote").point
        for one in packs(Path(path)):
            one.write_bytes(bytes(one.stat().st_size))
        before = there()
        job = service.drill(DrillSpec(point=made.id, source="bucket"))
        assert job.state == "done", job.error
        (found,) = service.drills()
        assert (
            found.source == "bucket" and found.bytes == 261_000 and found.files == 5 and found.hook
        )
        assert b"m from bucket:" in b"".join(service.attachment(found.output)[1])
        assert there() == before and left(path) == []
        for name in before:
            if "/packs/" in name:
                moto.admin.delete_object(Bucket=BUCKET, Key=name)
        job = service.drill(DrillSpec(point=made.id, source="bucket"))
        assert job.state == "failed" and left(path) == [] and service.drills()[0].error
