"""The service's side of copies: locations, durability, what waits, and what is kept along with a point."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.contract import LocationSpec, MountSpec
from daemon.observe import Audit
from daemon.service import Service, extras
from daemon.service.extras import Kept, KeptSession, KeptText
from daemon.service.sending import kept, settings_of
from daemon.supervise.chores import Chores
from engine import limits
from engine.errors import (
    AlreadyExists,
    Busy,
    Corrupt,
    FormatTooNew,
    InvalidRequest,
    LocationUnavailable,
    NotFound,
)
from engine.keys import Identity
from tests.daemon.service.support import fill, new_store, served, settings
from tests.locations.places import Place, in_a_directory

SECRET = "correct horse battery staple"


@pytest.fixture(scope="module")
def key() -> Identity:
    return Identity.new()


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    store = str(tmp_path / "store")
    new_store(store)
    config = settings(store, {"a": {"quota": 1 << 30}}, uploads={"wait_s": 5.0})
    with served(store, config) as one:
        one.create_mount(MountSpec("a"))
        one.create_mount(MountSpec("b"))
        yield one


def spec(place: Place, key: Identity, name: str = "there", **more: Any) -> LocationSpec:
    """Opened by a recipient: stretching a passphrase takes a second."""
    return LocationSpec(name, place.url, keys=[key.recipient.printed()], **more)


@pytest.mark.seldom
def test_points_of_a_mount_are_locked_from_the_start(
    place: Place, tmp_path: Path, key: Identity
) -> None:
    store = str(tmp_path / "store")
    new_store(store)
    with served(store, settings(store, {"a": {"lock_for": 3600}})) as service:
        service.create_mount(MountSpec("a"))
        service.add_location(spec(place, key))
        made = service.snapshot("a").point
        assert made.locked_ns - made.time_ns >= 3600 * 10**9
        session = service.begin("a")
        done = service.commit(session.id, durability="remote").detail
        assert done.point.locked_ns > made.locked_ns and done.copies == {"there": "verified"}
        assert service.location("there").locking == 0
        service.lock(made.id, for_s=7200)
        assert service.location("there").locking == 1


def test_points_are_sent_and_told(service: Service, place: Place, key: Identity) -> None:
    fill(service.path, "a", {"x": os.urandom(5000)})
    first = service.snapshot("a").point
    made = service.add_location(spec(place, key, mounts=["a"]))
    assert (made.sealed, made.mounts, made.queued, made.local) == (True, ["a"], 1, "keep")
    assert service.mount("a").pending == 1 == service.mounts()[0].pending
    assert set(service.oldest_pending()) == {"there"}
    assert service.point(first.id).copies == {"there": "queued"}
    session = service.begin("a", holder="me", label="night")
    service.attach_log(session.id, "rman.log", [b"piece handle=/x tag=1\n"])
    done = service.commit(
        session.id, durability="remote"
    )  # without a daemon it is sent here and now
    assert done.detail.copies == {"there": "verified"}
    assert service.commit(session.id, durability="remote").detail == done.detail
    assert service.mount("a").pending == 0
    assert {one.point: one.state for one in service.uploads("there")} == {
        first.id: "verified", done.detail.point.id: "verified",
    }  # fmt: skip
    assert service.uploads(state="queued") == []
    job = service.jobs(kind="upload").items[0]
    assert job.state == "done"
    assert job.result["points"] == 2
    assert job.result["bytes"] > 5000
    other = service.snapshot("b").point
    assert service.point(other.id).copies == {}
    with pytest.raises(InvalidRequest, match="takes points of mount 'b'"):
        service.snapshot("b", durability="remote")
    assert len(service.store.points("b")) == 1
    with pytest.raises(NotFound, match="locations: there"):
        service.start_job("upload", {"location": "elsewhere"})
    with pytest.raises(AlreadyExists):
        service.add_location(spec(place, key))
    service.remove_location("there")
    assert service.locations() == []
    assert service.point(first.id).copies == {}


def test_a_location_that_does_not_answer(service: Service, place: Place, key: Identity) -> None:
    service.add_location(spec(place, key))
    place.gone()
    with pytest.raises(Busy, match=rf"the point itself exists.*({place.absent})"):
        service.snapshot("a", durability="remote")
    assert service.mount("a").pending == 1  # the point exists
    place.back()
    assert service.start_job("upload", {"location": "there"}).state == "done"
    assert service.mount("a").pending == 0


def test_what_no_point_needs_is_freed_by_a_job(
    service: Service, place: Place, key: Identity
) -> None:
    fill(service.path, "a", {"x": os.urandom(300_000)})
    first = service.snapshot("a").point
    fill(service.path, "a", {"x": os.urandom(5000)})
    last = service.snapshot("a").point
    assert service.add_location(spec(place, key)).needed == -1
    service.start_job("upload", {"location": "there"})
    service.remove_points([first.id])
    planned = service.start_job("reclaim", {"location": "there", "dry_run": True, "egress": 1.0})
    assert planned.options["grace_s"] == 86_400 and planned.result["bytes"] > 300_000
    assert planned.result["cost"] > 0 and planned.result["requests"]
    done = service.start_job("reclaim", {"location": "there", "budget_s": 60})
    assert done.state == "done" and done.result["packs"] == 0
    assert done.result["later_bytes"] == planned.result["bytes"]
    known = service.location("there")
    assert 0 < known.needed < 50_000 and known.stored > 300_000
    freed = service.start_job("reclaim", {"location": "there", "grace_s": 0})
    assert freed.result["bytes"] == done.result["later_bytes"]
    assert service.location("there").stored < 60_000
    assert service.point(last.id).copies == {"there": "verified"}
    for options in (
        {"location": "there", "grace_s": -1},
        {"location": "there", "bytes": 0},
        {"x": 1},
    ):
        with pytest.raises(InvalidRequest):
            service.start_job("reclaim", options)
    with pytest.raises(NotFound, match="locations: there"):
        service.start_job("reclaim", {"location": "elsewhere"})


def test_locations_are_reclaimed_by_schedule(
    service: Service, place: Place, another: Callable[[], Place], tmp_path: Path, key: Identity
) -> None:
    """One after the other; what fails is an incident."""
    service.add_location(spec(place, key))
    other = another()
    service.add_location(spec(other, key, "other"))
    chores = Chores(service, service._config, Audit(str(tmp_path / "audit")))

    def ran() -> dict[str, str]:
        chores._reclaim()
        jobs = service.jobs(kind="reclaim", limit=2).items
        assert all(job.options["budget_s"] == 3600 for job in jobs)
        return {job.options["location"]: job.state for job in jobs}

    def failures() -> list[dict[str, Any]]:
        return [one for one in service.incidents() if one["kind"] == "job_failed"]

    assert ran() == {"there": "done", "other": "done"} and failures() == []
    other.gone()
    assert ran() == {"there": "done", "other": "failed"}
    assert [one["thing"] for one in failures()] == ["reclaim"]


class Idle:
    """Nobody sends."""

    def __init__(self) -> None:
        self.woken: list[bool] = []

    def wake(self, *, waited_for: bool = False) -> None:
        self.woken.append(waited_for)


@pytest.mark.seldom
def test_a_wait_has_an_end_and_says_that_the_point_exists(
    service: Service, place: Place, key: Identity
) -> None:
    service.add_location(spec(place, key))
    idle = Idle()
    service.ports = replace(service.ports, uploads=idle)
    point = service.snapshot("a").point
    assert idle.woken == [False]
    waits: list[float] = []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 3:
            service.store.copies.send("there")

    service.point_made(point.id, "remote", sleep=sleep)  # it comes while it is waited for
    assert idle.woken == [False, True]
    assert len(waits) == 3
    config = settings(service.path, uploads={"wait_s": 0.05})
    service._config = lambda: config
    for _ in range(2):  # who asks again by the same key waits for the same point
        with pytest.raises(Busy, match=r"the point itself exists.*there: queued"):
            service.snapshot("a", durability="remote", once="key")
    assert len(service.store.points("a")) == 2
    service.store.copies.send("there")
    assert service.snapshot("a", durability="remote", once="key").copies == {"there": "verified"}
    for _ in range(8):
        service._waiters.acquire()
    with pytest.raises(Busy, match="8 others"):
        service.snapshot("a", durability="remote")


@pytest.mark.seldom
def test_what_failed_is_told_and_tried_again(
    service: Service, place: Place, key: Identity, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(service.path, "a", {"x": os.urandom(5000)})
    service.add_location(spec(place, key))

    def broken(*_: object, **__: object) -> Kept:
        raise Corrupt("a note", found="damage")

    with monkeypatch.context() as patch:
        patch.setattr("daemon.service.sending.kept", broken)
        with pytest.raises(Busy, match=r"the point itself exists.*damage"):
            service.snapshot("a", durability="remote")
    assert [one.kind for one in service.store.incidents.known()][-1] == "job_failed"
    # what the engine calls failed
    from engine.copies import office

    with monkeypatch.context() as patch:
        patch.setattr(office.Uploader, "upload", broken)
        with pytest.raises(LocationUnavailable, match=r"the point itself exists, found .*damage"):
            service.snapshot("a", durability="remote")
    assert {one.state for one in service.uploads()} == {"failed"}
    assert service.mount("a").pending == 2
    assert service.retry_uploads("there") == 2  # and they are sent at once
    assert service.mount("a").pending == 0


@in_a_directory
@pytest.mark.parametrize(
    "change",
    [
        {"keys": []}, {"keys": ["x"]}, {"verify": 2.0}, {"local": "lose"}, {"sealed": False}, {"name": "../x"},
        {"mounts": ["none"]}, {"url": "gopher://x"},
    ],
)  # fmt: skip
def test_wrong_locations_are_refused(
    service: Service, place: Place, key: Identity, change: dict[str, Any]
) -> None:
    with pytest.raises((InvalidRequest, NotFound)):
        service.add_location(replace(spec(place, key), **change))
    assert service.locations() == []


@in_a_directory
def test_secrets_are_not_shown(place: Place, key: Identity) -> None:
    shown = repr(replace(spec(place, key), passphrase=SECRET))
    assert SECRET not in shown
    assert key.recipient.printed() not in shown


def test_what_is_kept_of_a_point_is_what_the_state_has(service: Service) -> None:
    session = service.begin("a", holder="me", label="night")
    service.attach_log(session.id, "one.log", [b"x" * (limits.CHUNK_MAX + 5)])
    service.attach_log(session.id, "empty.log", [])
    point = service.commit(session.id).detail.point.id
    service.keep(point)
    found = kept(service.state, point)
    assert found.kept
    assert found.session == KeptSession(
        session.id, "me", "night", session.begun_ns, service.session(session.id).ended_ns
    )
    assert [(one.name, len(one.content)) for one in found.attachments] == [
        ("one.log", limits.CHUNK_MAX + 5), ("empty.log", 0),
    ]  # fmt: skip
    chunks = extras.encode(found)
    assert max(map(len, chunks)) == limits.CHUNK_MAX
    assert extras.decode(chunks) == found
    assert settings_of(service.store, service.state, "a")["chunking"] == "auto"
    assert settings_of(service.store, service.state, "gone") == {}


@pytest.mark.seldom
def test_a_damaged_log_keeps_no_point_from_its_copy(
    service: Service, place: Place, key: Identity
) -> None:
    service.add_location(spec(place, key))
    session = service.begin("a")
    service.attach_log(session.id, "log", [b"text"])
    service.commit(session.id)
    with service.state.database.write() as txn:
        txn.execute("DELETE FROM attachment_parts")
    assert service.start_job("upload", {"location": "there"}).state == "done"
    assert service.mount("a").pending == 0
    told = [one.text for one in service.store.incidents.known() if one.kind == "corrupt"]
    assert "without logs" in told[-1]


@pytest.mark.seldom
def test_a_point_is_not_sent_before_all_of_it_is_written_down(
    service: Service, place: Place, key: Identity, monkeypatch: pytest.MonkeyPatch
) -> None:
    service.add_location(spec(place, key))
    service.snapshot("a")
    monkeypatch.setattr("daemon.service.sending.WAIT_S", 0.02)
    with service.locked("a"):
        job = service.start_job("upload", {"location": "there"})
    assert (job.state, job.error["kind"]) == ("failed", "busy")
    assert service.uploads()[0].state == "queued"
    assert [one for one in service.store.incidents.known() if one.kind == "job_failed"] == []
    assert service.start_job("upload", {"location": "there"}).state == "done"


_times = st.integers(0, 2**63 - 1)
_words = st.text(max_size=20).filter(lambda text: not any("\ud800" <= c <= "\udfff" for c in text))
_paths = st.binary(max_size=10).map(lambda raw: raw.decode("utf-8", "surrogateescape"))
_all = st.builds(
    Kept,
    st.sampled_from(["consistent", "crash-consistent"]),
    st.lists(_paths, max_size=3),
    st.booleans(),
    st.none() | st.builds(KeptSession, st.from_regex("[0-9a-f]{20}", fullmatch=True), _words, _words, _times, _times),
    st.lists(
        st.builds(
            KeptText, st.sampled_from(["log", "hook"]), _words, _times,
            st.dictionaries(_paths, st.lists(_paths, max_size=2), max_size=2), st.binary(max_size=50),
        ),
        max_size=3,
    ),
    st.lists(st.just("01m7zwvqp3kbcmpzq4a503h7zy"), max_size=2),
)  # fmt: skip


@given(_all)
def test_extras_come_back(found: Kept) -> None:
    assert extras.decode(extras.encode(found)) == found


@given(_all, st.data())
def test_damaged_extras_are_refused_or_others(found: Kept, data: st.DataObject) -> None:
    chunks = extras.encode(found)
    which = data.draw(st.integers(0, len(chunks) - 1))
    at = data.draw(st.integers(0, len(chunks[which]) - 1))
    damaged = bytearray(chunks[which])
    damaged[at] ^= data.draw(st.integers(1, 255))
    chunks[which] = bytes(damaged)
    with contextlib.suppress(Corrupt, FormatTooNew):
        extras.decode(chunks)


def test_extras_that_are_none() -> None:
    assert extras.decode([]) == Kept()
    good = extras.encode(Kept())
    huge = b"HFX1\xff\xff\xff\xff"
    for bad in ([b""], [b"HFX1"], [huge], [*good, b"more"], [good[0][:-1]], [good[0] + b"x"]):
        with pytest.raises(Corrupt):
            extras.decode(bad)
