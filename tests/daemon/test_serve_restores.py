"""Restores by a real daemon: parts of a point, from a location too; one that is cut off goes on."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from daemon.client import Remote
from daemon.contract import JobInfo, LocationSpec, RestoreSpec
from engine.errors import NotFound
from engine.keys import Identity
from tests.cli.support import good, holdfast
from tests.daemon.service.support import fill
from tests.daemon.supervise.daemons import Daemon, daemons, until
from tests.locations.places import KINDS, Place, laid

LOG = b"connected to target database: ORCL (DBID=1)\npiece handle=/b/db/one.bkp tag=T\n"
FILES = {f"db/{name}.bkp": os.urandom(5_000_000) for name in ("one", "two", "three")}


def jobs_of(daemon: Daemon) -> list[int]:
    """Processes that run its jobs."""
    found = []
    for one in Path("/proc").iterdir():
        if one.name.isdecimal():
            try:
                words = (one / "cmdline").read_bytes()
            except OSError:
                continue
            if b"daemon.job" in words and os.fsencode(daemon.store) in words:
                found.append(int(one.name))
    return found


def kill_next(daemon: Daemon, seen: set[int]) -> None:
    """The next process of a job, as soon as there is one."""
    end = time.monotonic() + 20
    while time.monotonic() < end:
        for pid in set(jobs_of(daemon)) - seen:
            os.kill(pid, signal.SIGKILL)
            seen.add(pid)
            return
        time.sleep(0.005)
    raise AssertionError("no job's process came")


def ended(api: Remote, job: JobInfo) -> JobInfo:
    until(lambda: api.job(job.id).state in ("done", "failed", "cancelled"))
    return api.job(job.id)


@pytest.fixture(scope="module", params=KINDS)
def world(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Daemon, str]]:
    """A daemon whose point has a copy that was verified."""
    there = tmp_path_factory.mktemp("place") / "there"
    with laid(request.param, request, there) as place, daemons() as make:
        yield from _world(make("[mounts.a]\nstart = false\n"), place)


def _world(daemon: Daemon, place: Place) -> Iterator[tuple[Daemon, str]]:
    daemon.start()
    fill(str(daemon.store), "a", {**FILES, "other": b"x"})
    with daemon.remote() as api:
        session = api.begin("a")
        api.attach_log(session.id, "rman.log", [LOG])
        point = api.commit(session.id).session.point
        api.add_location(LocationSpec("far", place.url, keys=[Identity.new().recipient.printed()]))
        until(lambda: api.point(point).copies == {"far": "verified"})
    yield daemon, point
    daemon.stop()


def test_lists_tell_where_copies_are(world: tuple[Daemon, str]) -> None:
    daemon, point = world
    with daemon.remote() as api:
        (listed,) = api._link.get(dict[str, Any], "/v1/points")["items"]
        assert (listed["id"], listed["copies"]) == (point, {"far": "verified"})
        assert [one.state for one in api.uploads(points=[point])] == ["verified"]
        assert api.uploads(points=[]) == []
    said = good(holdfast(daemon.store, "points", "--json"))
    assert json.loads(said)[0]["copies"] == {"far": "verified"}
    assert "1 verified" in good(holdfast(daemon.store, "points"))
    assert "PENDING" in good(holdfast(daemon.store, "mounts"))
    words = ["--place", "out", "--database", "ORCL", "--from", "far", "--json"]
    job = json.loads(good(holdfast(daemon.store, "restore", point, *words)))
    assert job["state"] == "done" and job["options"]["from"] == "far"
    good(holdfast(daemon.store, "restores", "--remove", str(job["id"])))
    words = ["snapshot", "a", "--once", "key", "--json"]
    assert good(holdfast(daemon.store, *words)) == good(holdfast(daemon.store, *words))


def test_parts_come_from_here_and_from_a_location(world: tuple[Daemon, str]) -> None:
    daemon, point = world
    with daemon.remote() as api:
        for location in ("", "far"):
            base = ended(
                api,
                api.restore(RestoreSpec(point, place="out", database="ORCL", location=location)),
            )
            assert base.state == "done", base
            here = Path(base.result["path"])
            assert [one.name for one in here.rglob("*.bkp")] == ["one.bkp"]
            assert (here / "db" / "one.bkp").read_bytes() == FILES["db/one.bkp"]
            spec = RestoreSpec(point, place="out", paths=["db/two.bkp", "other"], location=location)
            some = ended(api, api.restore(spec))
            assert some.state == "done" and (some.result["bytes"], some.result["files"]) == (
                5_000_001,
                3,
            )
            assert sorted(os.listdir(some.result["path"])) == ["db", "other"]
            one = ended(
                api, api.restore(RestoreSpec(point, "db/two.bkp", "out", location=location))
            )
            assert os.listdir(one.result["path"]) == ["two.bkp"]
            for job in (base, some, one):
                api.delete_restore("a", job.id)
                assert not os.path.exists(job.result["path"])
        with pytest.raises(NotFound):
            api.restore(RestoreSpec(point, place="out", location="nowhere"))


def test_a_restore_that_is_killed_goes_on(world: tuple[Daemon, str]) -> None:
    daemon, point = world
    with daemon.remote() as api:
        seen = set(jobs_of(daemon))
        job = api.restore(RestoreSpec(point, place="out"))
        for _ in range(2):
            kill_next(daemon, seen)
        found = ended(api, job)
        assert found.state == "done" and found.options["resumed"] == 2, found
        whole = Path(found.result["path"])
        assert {name: (whole / name).read_bytes() for name in FILES} == FILES
        api.delete_restore("a", job.id)
        job = api.restore(RestoreSpec(point, place="out"))
        for _ in range(6):
            kill_next(daemon, seen)
        found = ended(api, job)
        assert found.state == "failed" and "killed" in found.error["message"]
        left = daemon.root / "out" / str(job.id)
        left.mkdir(exist_ok=True)  # it may have been killed before it made it
        api.delete_restore("a", job.id)
        assert not left.exists()
        with pytest.raises(NotFound):
            api.delete_restore("a", job.id)


def test_a_restore_goes_on_when_the_daemon_comes_back(world: tuple[Daemon, str]) -> None:
    daemon, point = world
    with daemon.remote() as api:
        jobs = [api.restore(RestoreSpec(point, place="out", location=one)) for one in ("far", "")]
    daemon.kill()
    daemon.start()
    with daemon.remote() as api:
        for job in jobs:
            found = ended(api, job)
            assert found.state == "done", found
            assert (Path(found.result["path"]) / "db/one.bkp").read_bytes() == FILES["db/one.bkp"]
        job = api.restore(RestoreSpec(point, place="out", location="far"))
        until(lambda: api.job(job.id).state != "queued")
    daemon.stop()
    daemon.start()
    with daemon.remote() as api:
        found = ended(api, job)
        assert found.state == "done" and "resumed" not in found.options, found
