"""A bucket with Object Lock retains what locked points need, as long as they are locked."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from engine import Store
from engine.copies import holding, rows
from engine.copies.connect import open_link
from engine.copies.holding import Holding, server_time
from engine.copies.needs import Records
from engine.copies.sealed import path_of
from engine.errors import (
    Corrupt,
    HoldfastError,
    InvalidRequest,
    LocationDenied,
    LocationUnavailable,
    Unsupported,
)
from engine.index import Table, Txn
from engine.locations import Location
from engine.maintain.planning import Terms
from engine.maintain.reclaim import reclaim
from engine.progress import silent
from tests.copies.test_locks import DAY, SECOND, cheap, owed, state
from tests.copies.test_reach import grown, reached
from tests.copies.test_upload import SECRET, read_all
from tests.locations.faulty import Fail, Faulty
from tests.locations.places import BUCKET, LOCKED, Place, Server, in_a_directory
from tests.restore.support import Maker, noise

__all__ = ["cheap", "grown"]


class Bucket:
    """A location in a bucket with Object Lock, and what the server says of it."""

    def __init__(self, engine: Store, server: Server) -> None:
        self._engine, self._server = engine, server
        self.url = server.url(LOCKED, options=server.locking)
        self.prefix = self.url.removeprefix(f"s3://{LOCKED}/").partition("?")[0] + "/"
        engine.copies.add("far", self.url, secrets=[SECRET], object_lock=True)

    def until(self) -> dict[str, int]:
        """Retention of every object, 0 for none."""
        admin = self._server.admin
        found = {}
        for one in admin.list_objects_v2(Bucket=LOCKED, Prefix=self.prefix)["Contents"]:
            head = admin.head_object(Bucket=LOCKED, Key=one["Key"])
            end = head.get("ObjectLockRetainUntilDate")
            assert end is None or head["ObjectLockMode"] == "COMPLIANCE"
            found[one["Key"].removeprefix(self.prefix)] = int(end.timestamp()) if end else 0
        return found

    def needed(self, point: str) -> set[str]:
        """Names of the packs that a point needs, found another way."""
        context = self._engine._open.context
        found = set()
        with context.index.read() as txn:
            away = {key: rows.away_row(raw).name.hex() for key, raw in txn.scan(Table.AWAY)}
            for cid in reached(self._engine, point):
                raw = txn.get(Table.COPIES, rows.copy_key(1, cid))
                assert raw is not None
                found.add(path_of(away[rows.away_key(rows.copy_row(raw).pack)]))
        return found


@pytest.fixture
def bucket(
    engine: Store, grown: list[str], server: Server, monkeypatch: pytest.MonkeyPatch
) -> Bucket:
    for key, value in server.credentials.items():
        monkeypatch.setenv(key, value)
    monkeypatch.setattr("engine.limits.SEALED_PACK", 300_000)
    return Bucket(engine, server)


@pytest.fixture
def retained(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names whose retention is asked to be made longer."""
    names: list[str] = []
    from engine.locations import Retry

    real = Retry.retain

    def retain(self: Location, name: str, until_s: int) -> None:
        names.append(name)
        real(self, name, until_s)  # type: ignore[arg-type]

    monkeypatch.setattr(Retry, "retain", retain)
    return names


def test_what_locked_points_need_is_retained(
    engine: Store, make: Maker, bucket: Bucket, grown: list[str], retained: list[str]
) -> None:
    ends = {
        grown[0]: engine.lock_point(grown[0], for_s=40 * DAY).locked_ns,
        grown[1]: engine.lock_point(grown[1], for_s=3 * DAY).locked_ns,
    }
    engine.copies.send("far")
    until = bucket.until()
    needed = {point: bucket.needed(point) for point in grown}
    now = time.time()
    for name, end in until.items():
        points = [point for point in grown if name in needed[point] and point in ends]
        if name.startswith("packs/"):  # the maximum over the points that need it
            exact = max((ends[point] // SECOND for point in points), default=0)
            assert (end >= exact) if points else not end, name
            assert end <= exact + (7 if exact > now + 7 * DAY else 1) * DAY
    assert len({end for name, end in until.items() if name.startswith("packs/")}) == 3
    longest = max(until.values())
    assert until["holdfast.json"] == until["keys/00000001.json"] == longest
    chain = read_all(open_link(engine._open.context, "far"))[0]
    assert chain.state.locks == ends
    told = [name for name, end in until.items() if name.startswith("journal/") and end >= longest]
    assert len(told) >= chain.seq - 1  # all up to the entry that says so
    assert owed(engine) == 0 and engine.copies.locations()[0].object_lock
    with engine._open.context.index.read() as txn:
        for _, raw in txn.scan(Table.AWAY):
            away = rows.away_row(raw)
            assert away.locked_s == until[path_of(away.name.hex())]

    # The next point of the series needs what the one before has: only what is new is asked for.
    retained.clear()
    make.file(b"d0/next", noise(5_000, 55))
    make.tree.barrier()
    new = engine.snapshot("m", lock_s=40 * DAY)
    engine.copies.send("far")
    after = bucket.until()
    assert all(after[name] * SECOND >= new.locked_ns for name in bucket.needed(new.id))
    fresh = [name for name in retained if name.startswith("packs/") and not until.get(name)]
    assert fresh and len([n for n in retained if n.startswith("packs/")]) < len(needed[grown[0]])
    assert len([n for n in retained if n.startswith("journal/")]) <= 4


def test_a_point_that_needs_an_old_pack_makes_its_retention_longer(
    engine: Store, bucket: Bucket, grown: list[str], retained: list[str]
) -> None:
    engine.copies.send("far")
    assert not any(bucket.until().values()) and not retained
    engine.lock_point(grown[2], for_s=9 * DAY)
    brought = engine.copies.bring_locks("far")
    assert brought.told == 1 and brought.retained == len(retained)
    before = bucket.until()
    assert all(before[name] for name in bucket.needed(grown[2]))
    end = engine.lock_point(grown[0], for_s=100 * DAY).locked_ns
    assert owed(engine) == 1
    engine.copies.send("far")
    after = bucket.until()
    assert all(after[name] * SECOND >= end for name in bucket.needed(grown[0]))
    assert all(after[name] >= before[name] for name in before)


def test_killed_between_two_retentions_it_goes_on(
    engine: Store, bucket: Bucket, grown: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(holding, "_BATCH", 2)
    engine.copies.send("far")
    end = engine.lock_point(grown[0], for_s=5 * DAY).locked_ns
    engine.lock_point(grown[2], until_ns=end)
    done: list[int] = []
    for after in range(0, 100, 5):
        link = open_link(engine._open.context, "far")
        link.location = faulty = Faulty(link.location)
        faulty.on("retain", Fail(LocationUnavailable("gone"), done=True), after=after, times=-1)
        holding_ = Holding(engine._open, link, report=silent, stop=lambda: False)
        try:
            done.append(holding_.bring().retained)
            break
        except LocationUnavailable:
            with pytest.raises(LocationUnavailable):
                holding_.bring()  # the same one again takes nothing for done that is not
    assert after > 5 and owed(engine) == 0
    until = bucket.until()
    for point in (grown[0], grown[2]):
        assert all(until[name] * SECOND >= end for name in bucket.needed(point))
    assert until["holdfast.json"] and until[f"journal/{1:016d}"]


def test_what_the_server_refuses_keeps_no_point_from_its_copy(
    engine: Store, bucket: Bucket, grown: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from engine.locations import Retry

    for point in grown:
        engine.lock_point(point, for_s=DAY)

    def refused(*_: object) -> None:
        raise LocationDenied("retention", found="AccessDenied")

    with monkeypatch.context() as broken:
        broken.setattr(Retry, "retain", refused)
        with pytest.raises(LocationDenied):
            engine.copies.send("far")
    assert [one.state for one in engine.copies.uploads("far")] == ["verified"] * 3
    assert owed(engine) == 3 and set(state(engine).locks) == set(grown)
    engine.copies.send("far")
    assert owed(engine) == 0


def test_reclaiming_leaves_what_is_retained(
    engine: Store, make: Maker, bucket: Bucket, grown: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.copies.send("far")
    engine.lock_point(grown[1], for_s=60)
    engine.copies.bring_locks("far")
    system = engine._open.context.system
    real_time, real_up = system.time_ns, system.since_boot
    needed = bucket.needed(grown[1])
    monkeypatch.setattr(system, "time_ns", lambda: real_time() + 100 * SECOND)
    monkeypatch.setattr(system, "since_boot", lambda: real_up() + 100)
    engine.remove_points(grown)  # no lock holds any more, but servers retain for whole days
    make.tree.barrier()
    engine.collect()
    link = open_link(engine._open.context, "far")
    at_once = Terms(grace_s=0)
    result = reclaim(engine._open, link, at_once, report=silent, stop=lambda: False)
    assert result.done and result.locked
    assert needed <= set(bucket.until())
    monkeypatch.setattr(system, "time_ns", lambda: real_time() + 2 * DAY * SECOND)
    result = reclaim(engine._open, link, at_once, report=silent, stop=lambda: False)
    assert result.locked >= len(needed), "by the server's clock it is retained"
    assert needed <= set(bucket.until())


@in_a_directory
def test_only_where_the_server_has_it(
    engine: Store, grown: list[str], place: Place, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    for key, value in server.credentials.items():
        monkeypatch.setenv(key, value)
    for url in (place.url, server.url(BUCKET)):
        with pytest.raises(Unsupported, match="Object Lock"):
            engine.copies.add("far", url, secrets=[SECRET], object_lock=True)
    assert engine.copies.locations() == []
    engine.copies.add("near", place.url, secrets=[SECRET])
    engine.copies.add("far", server.url(LOCKED, options=server.locking), secrets=[SECRET])
    with pytest.raises(Unsupported, match="Object Lock"):
        engine.copies.change("near", object_lock=True)
    assert engine.copies.change("far", object_lock=True).object_lock
    with pytest.raises(InvalidRequest):
        engine.copies.change("far", object_lock=False)


def test_until_when_a_server_retains() -> None:
    now = 1_800_000_000 * SECOND
    for days in (0.1, 1, 5, 6.9, 8, 30, 365):
        end = now + int(days * DAY) * SECOND
        until = server_time(end, now)
        step = 7 * DAY if days > 7 else DAY
        assert end <= until * SECOND < end + step * SECOND and until % step == 0
    daily = {
        server_time(now + (30 + day) * DAY * SECOND, now + day * DAY * SECOND) for day in range(28)
    }
    assert len(daily) == 5


def test_what_lies_there_in_another_form_is_told_by_its_pack(
    engine: Store, bucket: Bucket, grown: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A chunk that was stored again here may be a delta there; where that cannot be told every pack is kept."""
    engine.copies.send("far")
    context = engine._open.context
    cid = next(iter(reached(engine, grown[0])))
    with context.index.write() as txn:
        raw = txn.get(Table.COPIES, rows.copy_key(1, cid))
        assert raw is not None
        copy = rows.copy_row(raw)
        txn.put(Table.COPIES, rows.copy_key(1, cid), copy._replace(form=copy.form ^ 1).pack_bytes())
    engine.lock_point(grown[0], for_s=DAY)
    engine.copies.bring_locks("far")
    held = {name for name, end in bucket.until().items() if name.startswith("packs/") and end}
    assert held == bucket.needed(grown[0]) < set(bucket.until())

    def unreadable(self: Records, txn: Txn, number: int) -> dict[bytes, tuple[bytes, ...]]:
        raise Corrupt("trailer of a sealed pack", found="damage")

    monkeypatch.setattr(Records, "_listed", unreadable)
    end = engine.lock_point(grown[0], for_s=3 * DAY).locked_ns
    engine.copies.bring_locks("far")
    packs = [end for name, end in bucket.until().items() if name.startswith("packs/")]
    assert min(packs) * SECOND >= end


def attacked(engine: Store, server: Server, points: list[str], new: Path) -> None:
    """Somebody with the credentials does his worst; the location has everything all the same."""
    from botocore.exceptions import ClientError

    url = server.url(LOCKED, options="&versions=1")
    engine.copies.add("far", url, secrets=[SECRET], object_lock=True)
    engine.copies.send("far")
    ends = {point: engine.lock_point(point, for_s=DAY).locked_ns for point in points}
    engine.copies.bring_locks("far")
    prefix = url.removeprefix(f"s3://{LOCKED}/").partition("?")[0] + "/"
    admin = server.admin
    refused = 0
    for one in admin.list_object_versions(Bucket=LOCKED, Prefix=prefix)["Versions"]:
        where = {"Bucket": LOCKED, "Key": one["Key"]}
        try:
            admin.delete_object(**where, VersionId=one["VersionId"])
        except ClientError:
            refused += 1
        admin.put_object(**where, Body=b"nothing here")
        admin.delete_object(**where)
    assert refused > 8
    with pytest.raises(HoldfastError):
        Store.adopt(str(new), url.replace("&versions=1", ""), SECRET)
    Store.adopt(str(new), url, SECRET)
    with Store.open(str(new)) as store:
        assert {one.id: one.locked_ns for one in store.points()} == ends
        for point in points[-1:]:
            for cid in reached(engine, point):
                assert store._open.reader.read(cid) == engine._open.reader.read(cid)


def test_whoever_has_the_credentials_destroys_nothing_that_is_locked(
    engine: Store, grown: list[str], server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for key, value in server.credentials.items():
        monkeypatch.setenv(key, value)
    attacked(engine, server, grown, tmp_path / "new")
