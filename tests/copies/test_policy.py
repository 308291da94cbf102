"""What was set for a location comes back with a store that is made again from it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from engine import Store, limits
from engine.copies import checkpoint, connect, outbox, policy
from engine.copies.connect import open_link
from engine.copies.rows import LocationRow
from engine.incidents import lines
from engine.index import Table
from engine.index.rows import U64
from engine.progress import silent
from tests.copies.test_adopt import content
from tests.copies.test_locks import DAY, cheap
from tests.copies.test_object_lock import Bucket, bucket, retained
from tests.copies.test_reach import grown
from tests.copies.test_rescue import rescue
from tests.copies.test_upload import SECRET
from tests.locations.places import BUCKET, LOCKED, Place, Server
from tests.restore.support import Maker, noise

__all__ = ["bucket", "cheap", "grown", "retained"]


def test_retention_goes_on_after_an_adoption(
    engine: Store, bucket: Bucket, grown: list[str], tmp_path: Path, retained: list[str]
) -> None:
    engine.lock_point(grown[0], for_s=DAY)
    engine.copies.send("far")
    before = bucket.until()
    new = str(tmp_path / "new")
    report = Store.adopt(new, bucket.url, SECRET, take_over=True)
    assert any("object_lock of the location is as it was" in one for one in report.done)
    with Store.open(new) as store:
        assert store.copies.locations()[0].object_lock
        retained.clear()
        tree = store.open_live("m")
        Maker(tree).file(b"new", noise(5_000, 55))
        tree.barrier()
        made = store.snapshot("m", lock_s=40 * DAY)
        tree.close()
        store.copies.send("origin")
        after = bucket.until()
        assert all(end >= before.get(name, 0) for name, end in after.items()) and retained
        bucket._engine = store
        assert all(after[name] * 10**9 >= made.locked_ns for name in bucket.needed(made.id))
        with store._open.context.index.read() as txn:  # and the server's clock was heard
            assert (
                abs(U64.unpack(txn.get(Table.META, b"clock there") or b"")[0] - time.time_ns())
                < 1e11
            )


def test_switched_on_later_it_is_told_at_once(
    engine: Store, grown: list[str], server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bucket that was copied to one without Object Lock retains nothing: who takes it over is told."""
    for key, value in server.credentials.items():
        monkeypatch.setenv(key, value)
    url = server.url(LOCKED, options=server.locking)
    engine.copies.add("far", url, secrets=[SECRET])
    engine.copies.send("far")
    engine.copies.change("far", object_lock=True)
    prefix = url.removeprefix(f"s3://{LOCKED}/").partition("?")[0]
    new = str(tmp_path / "new")
    Store.adopt(new, url, SECRET)
    with Store.open(new) as store:
        assert store.copies.locations()[0].object_lock
    for one in server.admin.list_objects_v2(Bucket=LOCKED, Prefix=prefix)["Contents"]:
        source = {"Bucket": LOCKED, "Key": one["Key"]}
        server.admin.copy_object(Bucket=BUCKET, Key=one["Key"], CopySource=source)
    elsewhere = url.replace(f"s3://{LOCKED}/", f"s3://{BUCKET}/").replace(server.locking, "")
    report = Store.adopt(str(tmp_path / "copy"), elsewhere, SECRET, take_over=True)
    assert any("no Object Lock (any more)" in one for one in report.done)
    with Store.open(str(tmp_path / "copy")) as store:
        assert not store.copies.locations()[0].object_lock
    assert policy.LOST in [one.kind for one in lines(str(tmp_path / "copy"))]


def test_what_was_set_comes_back(
    engine: Store, grown: list[str], place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "CHECKPOINT_EVERY", 2)
    wanted = {"local": "drop", "verify": 0.5, "mounts": ["m"], "bandwidth": "08:00-18:00=5M,20M"}
    engine.copies.add("far", place.url, secrets=[SECRET], **wanted)  # type: ignore[arg-type]
    engine.copies.send("far")
    with_entry = open_link(engine._open.context, "far")
    with with_entry.alone():
        checkpoint.write(with_entry, silent)
        checkpoint.write(with_entry, silent)
    assert rescue(place.mirror(tmp_path / "mirror"), "list", secret="a word or two")[0] == 0
    report = Store.adopt(str(tmp_path / "new"), place.url, SECRET, take_over=True)
    assert sum("is as it was" in one for one in report.done) == 4 and not report.left_out
    with Store.open(str(tmp_path / "new")) as store:
        found = store.copies.locations()[0]
        assert {name: getattr(found, name) for name in wanted} == wanted | {"mounts": ("m",)}
        tree = store.open_live("m")
        maker = Maker(tree)
        gone = maker.file(b"gone", noise(400_000, 3))
        tree.barrier()
        first = store.snapshot("m")
        tree.unlink(1, b"gone")
        tree.forgotten(gone)
        tree.barrier()
        store.snapshot("m")
        store.copies.send("origin")
        assert store.copies.drop_local().chunks
        tree.close()
        store.collect()
        assert store.check(read_data=True).problems == []
        assert content(store, first.id, tmp_path / "back")[b"gone"][5] == noise(400_000, 3)


def test_local_bytes_that_another_location_has_kept_are_kept(
    engine: Store, grown: list[str], place: Place, another: Callable[[], Place], tmp_path: Path
) -> None:
    """Who adopts knows of one location only."""
    engine.copies.add("far", place.url, secrets=[SECRET], local="drop")
    engine.copies.add("second", another().url, secrets=[SECRET])
    engine.copies.send("far")
    Store.adopt(str(tmp_path / "new"), place.url, SECRET)
    with Store.open(str(tmp_path / "new")) as store:
        assert store.copies.locations()[0].local == "keep"
    engine.copies.change("second", local="drop")
    engine.copies.send("far")
    Store.adopt(str(tmp_path / "again"), place.url, SECRET)
    with Store.open(str(tmp_path / "again")) as store:
        assert store.copies.locations()[0].local == "drop"


def test_what_makes_no_sense_is_left_out() -> None:
    row = LocationRow(0, "file:///x", "", "")
    strange = {
        "local": 5,
        "verify": "much",
        "mounts": ["../x"],
        "bandwidth": "?",
        "object_lock": 0,
        "other": 1,
    }
    found, texts = policy.taken(row, strange)
    assert replace(found, told="") == row and len(texts) == 5


def test_a_location_begun_again_retains_as_asked(
    engine: Store, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    for key, value in server.credentials.items():
        monkeypatch.setenv(key, value)
    url = server.url(LOCKED, options=server.locking)
    with monkeypatch.context() as broken:
        broken.setattr(connect, "_activate", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            engine.copies.add("far", url, secrets=[SECRET])
    assert engine.copies.add("far", url, secrets=[SECRET], object_lock=True).object_lock
    with engine._open.context.index.read() as txn:
        assert "object_lock" in outbox.location(txn, "far").told
