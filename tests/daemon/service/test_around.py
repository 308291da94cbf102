"""Exports, restores to targets, jobs after a crash, stale sessions, many sessions: with ports as a daemon has them."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from daemon.contract import ExportInfo, JobInfo, MountSpec, PointQuery, RestoreSpec
from daemon.service import Service
from engine.errors import (
    Busy,
    HoldfastError,
    InvalidRequest,
    LocationUnavailable,
    NotFound,
    StoreFull,
)
from tests.daemon.service.support import DAY, HOUR, Clock, fill, new_store, served, settings


class Waiting:
    """Jobs that wait for the test to run them, as in a daemon they wait for a process."""

    def __init__(self) -> None:
        self.started: list[int] = []
        self.cancelled: list[int] = []

    def start(self, job: JobInfo) -> None:
        self.started.append(job.id)

    def cancel(self, job_id: int) -> None:
        self.cancelled.append(job_id)


class Server:
    """An NFS server that can fail."""

    def __init__(self) -> None:
        self.applied = 0
        self.fails = False

    def apply(self) -> None:
        self.applied += 1
        if self.fails:
            raise LocationUnavailable("export")

    def state(self, mount: str, client: str) -> str:
        return "active"


@pytest.fixture
def path(tmp_path: Path) -> str:
    path = str(tmp_path / "store")
    new_store(path)
    return path


def test_exports(path: str) -> None:
    server = Server()
    config = settings(path, {"m": {"exports": [{"client": "10.9.0.0/16", "squash": "all"}]}})
    with served(path, config, exports=server) as service:
        service.create_mount(MountSpec("m"))
        made = service.export(ExportInfo("m", "10.1.2.3/8", read_only=True))
        assert made == ExportInfo("m", "10.0.0.0/8", True, "root", "active")
        assert (
            service.exports()
            == service.exports("m")
            == [made, ExportInfo("m", "10.9.0.0/16", False, "all", "active")]
        )
        assert service.mount("m").exports == ["10.0.0.0/8", "10.9.0.0/16"]
        server.fails = True
        with pytest.raises(LocationUnavailable):
            service.export(ExportInfo("m", "fd00::/8"))
        with pytest.raises(LocationUnavailable):
            service.export(ExportInfo("m", "10.0.0.0/8", squash="none"))
        assert service.exports("m")[0] == made and len(service.exports()) == 2
        server.fails = False
        with pytest.raises(InvalidRequest, match="configuration"):
            service.unexport("m", "10.9.0.0/16")
        service.unexport("m", "10.0.0.1/8")
        with pytest.raises(NotFound):
            service.unexport("m", "10.0.0.0/8")
        for client in ("", "host", "10.0.0.0/99", "x" * 10_000, "10.0.0.0/8 rw"):
            with pytest.raises(InvalidRequest, match="client"):
                service.export(ExportInfo("m", client))
        with pytest.raises(InvalidRequest, match="squash"):
            service.export(ExportInfo("m", "::/0", squash="some"))  # type: ignore[arg-type]
        for ask in (service.exports, lambda name: service.export(ExportInfo(name, "::/0"))):
            with pytest.raises(NotFound):
                ask("nobody")


def test_restores_to_a_target(path: str, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir()
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").touch()
    with served(path, settings(path, restore_targets={"fast": str(target)})) as service:
        service.create_mount(MountSpec("m"))
        fill(path, "m", {"d/f": b"x" * 5000, "g": b""})
        point = service.snapshot("m").point.id
        job = service.restore(RestoreSpec(point, "d", "fast"))
        where = target / str(job.id)
        assert job.state == "done" and job.result["path"] == str(where) and job.mount == "m"
        assert (where / "f").read_bytes() == b"x" * 5000
        for place in ("slow", "", "../outside", str(outside), "mounts"):
            with pytest.raises(InvalidRequest, match="place"):
                service.restore(RestoreSpec(point, place=place))
        (where / "link").symlink_to(outside)
        service.delete_restore("m", job.id)
        assert not where.exists() and (outside / "precious").exists()
        with pytest.raises(NotFound):
            service.delete_restore("m", job.id)
        with pytest.raises(InvalidRequest, match="directory"):
            service.restore(RestoreSpec(point, "d/f"))
        target.rmdir()
        failed = service.restore(RestoreSpec(point, place="fast"))
        assert failed.state == "failed" and failed.error["kind"] == "invalid_request"
        assert [one["kind"] for one in service.incidents()] == ["job_failed"]


def test_a_restore_that_runs_is_not_deleted(path: str, tmp_path: Path) -> None:
    jobs = Waiting()
    config = settings(path, restore_targets={"fast": str(tmp_path)})
    with served(path, config, jobs=jobs) as service:
        service.create_mount(MountSpec("m"))
        point = service.snapshot("m").point.id
        job = service.restore(RestoreSpec(point, place="fast"))
        with pytest.raises(Busy, match="queued"):
            service.delete_restore("m", job.id)
        service.job_started(job.id)
        assert service.cancel_job(job.id).state == "running" and jobs.cancelled == [job.id]
        service.job_ended(job.id, "cancelled")
        with pytest.raises(NotFound):
            service.delete_restore("m", job.id)
        assert service.cancel_job(job.id).state == "cancelled" and jobs.cancelled == [job.id]
        service.remove_points([point])


def test_jobs_after_a_crash(path: str) -> None:
    jobs = Waiting()
    with served(path, settings(path), jobs=jobs) as service:
        service.create_mount(MountSpec("m"))
        queued, running = (service.start_job("collect", {}).id for _ in range(2))
        deletion = service.delete_mount("m").id
        for one in (running, deletion):
            service.job_started(one)
    again = Waiting()
    with served(path, settings(path), jobs=again) as service:
        service.recover()
        assert [service.job(one).state for one in (queued, running, deletion)] == [
            "queued",
            "failed",
            "failed",
        ]
        assert "daemon" in service.job(running).error["message"]
        [anew] = service.jobs(kind="delete-mount", state="queued").items
        assert again.started == [queued, anew.id] and anew.mount == "m"
        assert service.mount("m").state == "deleting"
        for ask in (service.begin, service.snapshot, service.start_mount, service.delete_mount):
            with pytest.raises(Busy, match="deleted"):
                ask("m")
        service.recover()
        assert again.started == [queued, anew.id, queued, anew.id]


def test_a_deletion_that_fails_leaves_the_mount(path: str) -> None:
    with served(path, settings(path)) as service:
        service.create_mount(MountSpec("m"))
        point = service.snapshot("m").point.id
        with service.pinned(point):
            job = service.delete_mount("m")
        assert (job.state, job.error["kind"]) == ("failed", "busy")
        assert service.mount("m").state == "stopped" and service.begin("m").state == "open"


def test_a_lease_that_ends_is_an_incident_once(path: str) -> None:
    clock = Clock()
    with served(path, settings(path), clock=clock) as service:
        service.create_mount(MountSpec("m"))
        session = service.begin("m", holder="dba", lease_s=3600)
        assert service.stale(clock.now) == []
        clock.now += HOUR
        for _ in range(3):
            assert [one.id for one in service.stale(clock.now)] == [session.id]
        [incident] = service.incidents()
        assert (incident["kind"], incident["thing"], incident["count"]) == (
            "session_stale",
            "mount m",
            1,
        )
        assert session.id in incident["text"] and "dba" in incident["text"]
        assert (
            service.session(session.id).state == "open" and service.points(PointQuery()).items == []
        )
        service.renew(session.id)
        assert service.stale(clock.now) == []
        clock.now += 2 * DAY
        service.stale(clock.now)
        assert service.store.incidents.known()[0].count == 2
        service.commit(session.id)
        assert service.stale(clock.now) == []
        service.note_history()
        assert service.history()[0]["points of m"] == 1


def test_a_state_that_cannot_be_written_costs_no_point(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(session_id: str) -> None:
        raise StoreFull(f"state of session {session_id}")

    with served(path, settings(path)) as service:
        service.create_mount(MountSpec("m"))
        session = service.begin("m").id
        with monkeypatch.context() as patch:
            patch.setattr(service.state.sessions, "committed", full)
            with pytest.raises(StoreFull):
                service.commit(session)
        assert service.session(session).state == "committing"
        [made] = service.points(PointQuery()).items
        assert service.commit(session).detail.point == made
        assert service.points(PointQuery()).items == [made]


def test_databases_of_a_point(path: str) -> None:
    with served(path, settings(path)) as service:
        service.create_mount(MountSpec("m"))
        session = service.begin("m").id
        service.attach_log(
            session,
            "rman.log",
            [b"connected to target database: ORCL (DBID=1)\n", b"piece handle=/x/ORCL_1_1 tag=T\n"],
        )
        done = service.commit(session)
        point = done.session.point
        assert service.database_files(point) == {"ORCL": ["/x/ORCL_1_1"]}
        assert service.files_of(point, "ORCL") == []
        fill(path, "m", {"x/ORCL_1_1": b"piece", "other": b""})
        again = service.begin("m").id
        service.attach_log(again, "rman.log", [b"piece handle=/x/ORCL_1_1 tag=T\n"])
        later = service.commit(again).session.point
        assert service.files_of(later, "oracle") == ["x/ORCL_1_1"]
        with pytest.raises(NotFound, match="oracle"):
            service.files_of(later, "TEST")
        with pytest.raises(InvalidRequest, match="at most"):
            service.attach_log(service.begin("m").id, "big", (b"x" * (1 << 20) for _ in range(65)))


def test_mounts_do_not_wait_for_each_other_and_one_waits_its_turn(path: str) -> None:
    with served(path, settings(path)) as service:
        names = [f"m{number}" for number in range(4)]
        for name in names:
            service.create_mount(MountSpec(name))
        failures: list[HoldfastError] = []

        def work(name: str) -> None:
            try:
                for _ in range(4):
                    service.commit(service.begin(name).id)
            except HoldfastError as error:
                failures.append(error)

        run_all([lambda name=name: work(name) for name in names])  # type: ignore[misc]
        assert failures == []
        assert sorted(one.points for one in service.mounts()) == [4] * 4

        session = service.begin("m0").id
        answers: list[object] = []
        run_all([lambda: answers.append(service.commit(session)) for _ in range(4)])
        assert len(answers) == 4 and all(one == answers[0] for one in answers)
        assert service.mount("m0").points == 5

        begun: list[object] = []

        def begin() -> None:
            try:
                begun.append(service.begin("m1").id)
            except HoldfastError as error:
                begun.append(error)

        run_all([begin] * 4)
        assert sum(isinstance(one, str) for one in begun) == 1
        with service.locked("m2"), pytest.raises(Busy, match="turn"), service.locked("m2", 0.05):
            pass


def run_all(work: list[Callable[[], object]]) -> None:
    threads = [threading.Thread(target=one) for one in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)


@pytest.fixture
def many(path: str) -> Iterator[Service]:
    with served(path, settings(path)) as service:
        service.create_mount(MountSpec("m"))
        yield service


def test_many_sessions_in_a_row_leave_nothing_behind(many: Service) -> None:
    def left() -> tuple[int, int]:
        return len(os.listdir("/proc/self/fd")), threading.active_count()

    for _ in range(5):
        many.commit(many.begin("m").id)
    before = left()
    for _ in range(60):
        many.commit(many.begin("m").id)
    assert left() <= (before[0] + 2, before[1])
    assert len(many.points(PointQuery(limit=1000)).items) == 65
