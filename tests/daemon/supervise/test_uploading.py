"""When sending to a location begins again."""

from __future__ import annotations

import time
from pathlib import Path

from daemon.contract import JobInfo, JobState, LocationSpec, MountSpec, UploadInfo
from daemon.supervise.uploading import FIRST, LONGEST, LOOK_EVERY, Uploading, due_ns
from engine.keys import Identity
from tests.daemon.service.support import new_store, served, settings
from tests.locations.places import Place

SECOND = 10**9
NOW = 1_700_000_000 * SECOND


def row(tries: int = 0, ago_s: float = 0) -> UploadInfo:
    return UploadInfo("there", "p", "a", "queued", NOW - int(ago_s * SECOND), tries)


def job(state: JobState, ago_s: float = 0) -> JobInfo:
    return JobInfo(1, "upload", state, 1, ended_ns=NOW - int(ago_s * SECOND))


def wait_s(rows: list[UploadInfo], ended: list[JobInfo]) -> float:
    return (due_ns(rows, ended, NOW) - NOW) / SECOND


def test_what_is_new_is_sent_at_once() -> None:
    assert wait_s([row()], []) == 0
    assert wait_s([row(), row(ago_s=9)], [job("done"), job("failed")]) == 0


def test_waits_double_up_to_a_limit() -> None:
    waits = [wait_s([row()], [job("failed")] * count) for count in (1, 2, 3, 50)]
    assert waits == [FIRST, 2 * FIRST, 4 * FIRST, LONGEST]
    assert wait_s([row(1)], []) == FIRST
    assert (
        wait_s([row(3), row()], [job("failed")]) == 4 * FIRST
    )  # a new point is no reason to hurry
    assert wait_s([row(3, ago_s=100)], [job("failed", ago_s=100)]) < 0
    assert wait_s([row()], [job("cancelled"), job("done")]) == FIRST


def test_a_clock_that_was_set_back_holds_nothing_up() -> None:
    """Nor is it waited from one look to the next for a time that never comes."""
    before = [job("failed", ago_s=-1e6)]
    assert wait_s([row(1, ago_s=-1e6)], before) == 0
    assert wait_s([row(1, ago_s=-1e6)], [job("failed", ago_s=1), *before]) == 2 * FIRST - 1


async def test_a_look_begins_what_is_due_and_tells_what_is_late(
    place: Place, tmp_path: Path
) -> None:
    store = str(tmp_path / "store")
    new_store(store)
    config = settings(store, uploads={"late_s": 0.001})
    with served(store, config) as service:

        def jobs() -> list[str]:
            return [one.state for one in service.jobs(kind="upload").items]

        uploading = Uploading(lambda: config, time.time_ns)
        uploading.open(service)
        assert uploading._look(at_once=False) == LOOK_EVERY  # no location
        service.create_mount(MountSpec("m"))
        key = Identity.new().recipient.printed()
        service.add_location(LocationSpec("there", place.url, keys=[key]))
        assert uploading._look(at_once=False) == LOOK_EVERY
        assert jobs() == []
        place.gone()
        service.snapshot("m")
        assert uploading._look(at_once=False) == FIRST
        assert jobs() == ["failed"]
        assert uploading._look(at_once=False) <= FIRST  # not at once again
        assert jobs() == ["failed"]
        kinds = {(one.kind, one.thing) for one in service.store.incidents.known()}
        assert ("copy_late", "location there") in kinds
        place.back()
        uploading._look(at_once=True)
        assert jobs() == ["done", "failed"]
        assert uploading._look(at_once=False) == LOOK_EVERY
        service.lock("m@latest", for_s=60)
        uploading._look(at_once=False)
        assert jobs() == ["done", "done", "failed"]
        assert uploading._look(at_once=False) == LOOK_EVERY
