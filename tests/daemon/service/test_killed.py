"""Killed before every write of a commit, to the state or to the index: what was acknowledged is there exactly once.

Each step is a process of its own on a copy of the same store, which ends as ``kill -9`` ends it; then what comes next
finds order, and who got no answer asks again.
"""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from daemon.contract import MountSpec, PointQuery, RestoreSpec
from daemon.service import Service
from daemon.service.quiet import PAIRS
from daemon.state.database import Database
from engine.errors import InvalidRequest
from engine.index import Index, Txn
from tests.daemon.service.support import fill, new_store, served, settings
from tests.engine.process import run


def mortal(left: int) -> None:
    """From now on this process is killed before its ``left``-th transaction, of the state or of the index."""
    steps = [left]
    of_index, of_state = Index.write, Database.write

    def step() -> None:
        steps[0] -= 1
        if steps[0] < 0:
            os.kill(os.getpid(), signal.SIGKILL)

    @contextmanager
    def index_write(index: Index) -> Iterator[Txn]:
        step()
        with of_index(index) as txn:
            yield txn

    @contextmanager
    def state_write(database: Database) -> Iterator[sqlite3.Connection]:
        step()
        with of_state(database) as txn:
            yield txn

    Index.write = index_write  # type: ignore[method-assign]
    Database.write = state_write  # type: ignore[method-assign]


def hooks(tmp_path: Path) -> dict[str, Any]:
    """Hooks that note in a file that they ran: what was quiesced must be resumed."""
    told = tmp_path / "hooks"
    return {
        event: {"command": ["/bin/sh", "-c", f'echo "$HOLDFAST_EVENT $HOLDFAST_POINT" >> {told}']}
        for event in ("before_commit", "after_commit")
    }


@pytest.fixture
def made(tmp_path: Path) -> tuple[Path, str]:
    """A store with an open session of a mount with something in it, and the session's id."""
    path = tmp_path / "store"
    new_store(str(path))
    with served(str(path), settings(str(path))) as service:
        service.create_mount(MountSpec("m"))
        service.snapshot("m", label="before")
        session = service.begin("m").id
        service.attach_log(session, "log", [b"text"])
    fill(str(path), "m", {"d/f": b"content" * 1000})
    return path, session


def commit(path: str, session: str, step: int, answer: int, table: dict[str, Any]) -> None:
    with served(path, settings(path, {"m": table})) as service:
        mortal(step)
        done = service.commit(session)
        os.write(answer, done.session.point.encode())
        os.kill(os.getpid(), signal.SIGKILL)


def all_steps(
    made: tuple[Path, str], tmp_path: Path, table: dict[str, Any]
) -> Iterator[tuple[str, str]]:
    """(a copy of the store after each step, the point that was acknowledged or "")."""
    path, session = made
    step = 0
    answer = b""
    while not answer:
        copy = str(tmp_path / f"killed-{step}")
        shutil.copytree(path, copy)
        ours, theirs = os.pipe()
        status = run(
            lambda copy=copy, step=step, theirs=theirs: commit(copy, session, step, theirs, table)
        )  # type: ignore[misc]
        os.close(theirs)
        answer = os.read(ours, 100)
        os.close(ours)
        assert status == -signal.SIGKILL
        yield copy, answer.decode()
        shutil.rmtree(copy)
        step += 1
    assert step > 6, "a commit has more steps"


def check(service: Service, session: str, acknowledged: str) -> None:
    """The session has exactly one point, the acknowledged one if there was one."""
    before = service.session(session)
    assert before.state in ("open", "committed")
    points = service.points(PointQuery()).items
    assert len(points) == 1 + (before.state == "committed")
    if acknowledged:
        assert before.point == acknowledged
    done = service.commit(session)
    assert not acknowledged or done.session.point == acknowledged
    assert service.commit(session) == done
    points = service.points(PointQuery()).items
    assert [point.label for point in points] == ["before", ""] and points[1] == done.detail.point
    assert done.detail.session == session and done.detail.consistency == "consistent"
    assert [(one.kind, one.name) for one in done.detail.attachments if one.kind == "log"] == [
        ("log", "log")
    ]
    assert [one.path for one in done.manifest] == ["d/f"]
    assert service.commit(service.begin("m").id).detail.point.seq == points[1].seq + 1


def test_a_commit_killed_at_every_step_and_a_daemon_that_starts_again(
    made: tuple[Path, str], tmp_path: Path
) -> None:
    told = tmp_path / "hooks"
    states, more = set(), 0
    table = {"hooks": hooks(tmp_path)}
    for copy, acknowledged in all_steps(made, tmp_path, table):
        with served(copy, settings(copy, {"m": table})) as service:
            raw = service.state.database
            with raw.read() as db:
                left = db.execute("SELECT state FROM sessions").fetchone()["state"]
            service.recover()
            state = service.session(made[1]).state
            states.add((left, state))
            ran = (
                [line.split(" ") for line in told.read_text().splitlines()] if told.exists() else []
            )
            if ran:  # what was quiesced goes on
                after = ["after_commit", service.session(made[1]).point]
                assert ran in (
                    [["before_commit", ""], after],
                    [["before_commit", ""], after, after],
                )
                more += len(ran) - 2
            check(service, made[1], acknowledged)
            assert service.start_job("check", {"read_data": True}).state == "done"
        told.unlink(missing_ok=True)
    assert more == 1, "only if killed between the hook's end and writing that down"
    assert states == {
        ("open", "open"),
        ("committing", "open"),
        ("committing", "committed"),
        ("committed", "committed"),
    }


def test_a_commit_killed_at_every_step_and_a_client_that_asks_again(
    made: tuple[Path, str], tmp_path: Path
) -> None:
    for copy, acknowledged in all_steps(made, tmp_path, {}):
        with served(copy, settings(copy)) as service:
            if service.session(made[1]).state == "committing":
                service.renew(made[1])
                done = service.commit(made[1])
                assert done.session.state == "committed"
            check(service, made[1], acknowledged)


@pytest.mark.parametrize("by", ["begin", "commit", "snapshot"])
def test_killed_while_the_hook_before_runs(made: tuple[Path, str], tmp_path: Path, by: str) -> None:
    """The hook kills who runs it and goes on: it is ended, and what it quiesced goes on, once."""
    event, after = PAIRS["begin" if by == "begin" else "commit"]
    path, session = made
    told = tmp_path / "hooks"
    kills = f"echo {event} >> {told}; kill -9 $PPID; sleep 0.7; echo late >> {told}"
    says = f'echo "{after} $HOLDFAST_MOUNT [$HOLDFAST_POINT]" >> {told}'
    table = {
        name: {"command": ["/bin/sh", "-c", text]} for name, text in ((event, kills), (after, says))
    }

    def act() -> None:
        with served(str(path), settings(str(path), {"m": {"hooks": table}})) as service:
            if by == "begin":
                service.abandon(session)
                service.begin("m")
            elif by == "commit":
                service.commit(session)
            else:
                service.snapshot("m")

    assert run(act) == -signal.SIGKILL
    calm: dict[str, Any] = {"hooks": {after: table[after]}}
    if by == "begin":  # only where something may have been quiesced
        calm["hooks"][event] = {"command": ["/bin/true"]}
    with served(str(path), settings(str(path), {"m": calm})) as service:
        service.recover()
        service.recover()
        assert told.read_text().splitlines() == [event, f"{after} m []"]
        assert len(service.points(PointQuery()).items) == 1
        assert [one.state for one in service.sessions()] == (
            ["abandoned"] if by == "begin" else ["open"]
        )
        time.sleep(1)
        assert "late" not in told.read_text()


def test_a_resume_that_fails_after_a_crash_is_an_incident(
    made: tuple[Path, str], expect_log: Callable[[str], None]
) -> None:
    path, session = made
    fails = {"command": ["/bin/sh", "-c", "echo cannot; exit 1"]}
    kills = {"command": ["/bin/sh", "-c", "kill -9 $PPID"]}
    table = {"hooks": {"before_commit": kills, "after_commit": fails}}

    def act() -> None:
        with served(str(path), settings(str(path), {"m": table})) as service:
            service.commit(session)

    assert run(act) == -signal.SIGKILL
    expect_log("hook after_commit exit code 1: cannot")
    with served(str(path), settings(str(path), {"m": table})) as service:
        service.recover()
        [incident] = service.incidents()
        assert (incident["kind"], incident["thing"]) == ("hook_failed", "mount m")
        service.recover()
        assert service.incidents()[0]["count"] == 1


def test_a_deletion_of_a_mount_goes_on_after_a_crash(
    made: tuple[Path, str], tmp_path: Path
) -> None:
    path, session = made

    def delete(copy: str, step: int) -> None:
        with served(copy, settings(copy)) as service:
            service.abandon(session)
            mortal(step)
            service.delete_mount("m")

    step, seen = 0, set()
    while True:
        copy = str(tmp_path / f"killed-{step}")
        shutil.copytree(path, copy)
        status = run(lambda copy=copy, step=step: delete(copy, step))  # type: ignore[misc]
        with served(copy, settings(copy)) as service:
            service.recover()
            there = [one.state for one in service.mounts()]
            seen.add(tuple(there))
            if not there:
                assert service.create_mount(MountSpec("m")).points == 0
            service.start_job("collect", {})
            assert service.start_job("check", {}).state == "done"
        shutil.rmtree(copy)
        if status == 0:
            break
        step += 2
    assert seen == {(), ("stopped",)}


def test_a_snapshot_killed_at_every_step_is_made_once(
    made: tuple[Path, str], tmp_path: Path
) -> None:
    """Who got no answer asks again by the same key."""
    path, _ = made

    def snapshot(copy: str, step: int) -> None:
        with served(copy, settings(copy)) as service:
            mortal(step)
            service.snapshot("m", label="once", once="this one")

    status, step, counts = -1, 0, set()
    while status:
        copy = str(tmp_path / f"snapshot-{step}")
        shutil.copytree(path, copy)
        status = run(lambda copy=copy, step=step: snapshot(copy, step))  # type: ignore[misc]
        with served(copy, settings(copy)) as service:
            service.recover()
            counts.add(len(service.points(PointQuery()).items))
            again = service.snapshot("m", label="once", once="this one")
            assert again.consistency == "crash-consistent"  # beside a session
            assert [one.label for one in service.points(PointQuery()).items] == ["before", "once"]
            with pytest.raises(InvalidRequest, match="another"):
                service.snapshot("m", label="other", once="this one")
            assert service.snapshot("m", label="once", once="that one").point.id != again.point.id
        shutil.rmtree(copy)
        step += 1
    assert counts == {1, 2} and step > 3


def test_a_restore_killed_at_every_step_is_there_or_goes_on(
    made: tuple[Path, str], tmp_path: Path
) -> None:
    """One that is shown, and one into a directory: whatever was done, what its row says is what there is."""
    path, _ = made
    out = tmp_path / "out"
    out.mkdir()
    targets = {"restore_targets": {"out": str(out)}}

    def restore(copy: str, step: int, place: str) -> None:
        with served(copy, settings(copy, **targets)) as service:
            point = service.points(PointQuery()).items[0].id
            mortal(step)
            service.restore(RestoreSpec(point, place=place), once="this one")

    seen = set()
    for place in ("mount", "out"):
        status, step = -1, 0
        while status:
            copy = str(tmp_path / f"{place}-{step}")
            shutil.copytree(path, copy)
            status = run(lambda copy=copy, step=step, place=place: restore(copy, step, place))  # type: ignore[misc]
            with served(copy, settings(copy, **targets)) as service:
                service.recover()
                there = {one.job for one in service.state.jobs.restores()}
                for job in service.jobs(kind="restore").items:
                    seen.add((place, job.state))
                    assert (job.state == "done") == (job.id in there), job
                    assert job.state == "done" or "restore target" not in job.error["message"]
                    assert job.state != "done" or job.result["path"]
                before = [
                    job.id for job in service.jobs(kind="restore").items if job.state == "done"
                ]
                point = service.points(PointQuery()).items[0].id
                again = service.restore(RestoreSpec(point, place=place), once="this one")
                assert [again.id] == before or (not before and again.state == "done")
            shutil.rmtree(copy)
            shutil.rmtree(out / "1", ignore_errors=True)
            step += 1
    assert seen == {
        ("mount", "done"),
        ("mount", "failed"),
        ("out", "done"),
    }  # into a target it goes on
