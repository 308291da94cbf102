"""When sending to a location begins again."""

from __future__ import annotations

from daemon.contract import JobInfo, JobState, UploadInfo
from daemon.supervise.uploading import FIRST, LONGEST, due_ns

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
    assert 0 < wait_s([row(1, ago_s=-1e6)], [job("failed", ago_s=-1e6)]) <= FIRST
