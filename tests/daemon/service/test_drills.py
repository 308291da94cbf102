"""Drills: a point comes back whole, is verified by the mount's hook, and nothing of it is left anywhere."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.config import Config, Schedule
from daemon.contract import DrillSpec, JobInfo, LocationSpec, MountSpec
from daemon.job import request_of
from daemon.service import Service, drilling, scratch
from daemon.service.drills import KEPT, draw
from engine import PointInfo, Store
from engine.errors import InvalidRequest, NotFound
from engine.keys import Identity
from engine.progress import silent
from tests.cli.support import packs
from tests.daemon.service.support import DAY, HOUR, Clock, fill, new_store, served, settings
from tests.locations.places import Place

FILES = {"d/data": bytes(range(256)) * 1000, "d/e/empty": b"", "text": b"x" * 5000}
LOOK = """
test "$(cat "$HOLDFAST_PATH/text" | wc -c)" = 5000 || exit 3
test -d "$HOLDFAST_SCRATCH" && test -z "$(ls -A "$HOLDFAST_SCRATCH")" || exit 4
echo "$HOLDFAST_EVENT of $HOLDFAST_MOUNT from $HOLDFAST_SOURCE: $HOLDFAST_POINT"
mkdir -p "$HOLDFAST_PATH/made/by it"; chmod 0 "$HOLDFAST_PATH/made" "$HOLDFAST_PATH/d"
"""


def point(seq: int) -> PointInfo:
    return PointInfo(f"p{seq}", "m", seq, 0, "", 0, 0)


@given(st.lists(st.integers(1, 10**6), unique=True, min_size=1, max_size=50), st.floats(0, 1))
def test_any_point_is_drawn(seqs: list[int], chance: float) -> None:
    points = [point(seq) for seq in seqs]
    assert draw(points, chance) in points
    assert draw(points, 0).seq == max(seqs)
    assert draw(points, 1).seq == min(seqs)


def test_how_likely_each_is() -> None:
    points = [point(seq) for seq in range(1, 5)]
    drawn = [draw(points, (one + 0.5) / 2500).seq for one in range(2500)]
    assert [drawn.count(seq) for seq in (4, 3, 2, 1)] == [1200, 600, 400, 300]


# --- with a store --------------------------------------------------------------------------------------------


@pytest.fixture
def path(tmp_path: Path) -> str:
    path = str(tmp_path / "store")
    new_store(path)
    return path


def hooked(path: str, script: str, timeout_s: float = 20.0, **more: Any) -> Config:
    hook = {"command": ["/bin/sh", "-c", script], "timeout_s": timeout_s}
    return settings(path, {"m": {"hooks": {"verify": hook}}}, **more)


@contextmanager
def drilled(path: str, config: Config, **more: Any) -> Iterator[Service]:
    with served(path, config, **more) as service:
        service.create_mount(MountSpec("m"))
        fill(path, "m", FILES)
        service.snapshot("m")
        yield service


def left(path: str) -> list[str]:
    return os.listdir(scratch.usual(path))


def test_a_drill_measures_and_leaves_nothing(path: str) -> None:
    with drilled(path, hooked(path, LOOK)) as service:
        assert service.mount("m").drilled_ns == 0 and service.drills() == []
        job = service.drill(DrillSpec("m"))
        assert (job.state, job.mount, job.error) == ("done", "m", {})
        (found,) = service.drills("m")
        made = service.point("m@latest").point
        assert (found.job, found.point, found.source) == (job.id, made.id, "local")
        assert found.error == "" and found.hook and found.files == 5 and found.bytes == 261_000
        assert found.restore_s > 0 and found.verify_s > 0 and found.path == ""
        said = b"".join(service.attachment(found.output)[1]).decode()
        assert said == f"verify of m from local: {made.id}\n"
        assert left(path) == []
        mount = service.mount("m")
        assert mount.drilled_ns == found.ended_ns
        assert mount.recovery_s == pytest.approx(found.restore_s + found.verify_s)
        assert service.incidents() == []
        service.remove_points([made.id])  # nothing keeps it


def test_a_hook_that_fails_is_an_incident_with_what_it_said(path: str) -> None:
    with drilled(path, hooked(path, "echo no such table >&2; sleep 60 & exit 7")) as service:
        job = service.drill(DrillSpec(point="m@latest", keep=True))
        assert job.state == "failed" and job.error["kind"] == "corrupt"
        assert "exit code 7: no such table" in job.error["message"]
        (found,) = service.drills()
        assert found.error == job.error["message"] and found.restore_s > 0 and found.files == 5
        assert b"no such table" in b"".join(service.attachment(found.output)[1])
        assert [(one["kind"], one["thing"]) for one in service.incidents()] == [
            ("drill_failed", "mount m")
        ]
        assert service.mount("m").drilled_ns == 0
        assert left(path) == [Path(found.path).parent.name] and (Path(found.path) / "text").exists()


def test_a_hook_that_takes_too_long_is_ended(path: str) -> None:
    with drilled(path, hooked(path, "sleep 60", 0.2)) as service:
        assert "longer than 0.2 s" in service.drill(DrillSpec("m")).error["message"]
        assert left(path) == []


def test_without_a_hook_and_kept(path: str, tmp_path: Path) -> None:
    place = tmp_path / "place"
    place.mkdir()
    config = settings(path, restore_targets={"fast": str(place)})
    with drilled(path, config) as service:
        job = service.drill(DrillSpec(into="fast", keep=True))
        (found,) = service.drills()
        (kept,) = os.listdir(place)
        assert not found.hook and found.path == str(place / kept / "tree")
        assert kept.startswith(f"kept-{job.id}-")
        assert (Path(found.path) / "text").read_bytes() == FILES["text"]
        scratch.sweep(str(place))
        assert os.listdir(place) == [kept]
        with pytest.raises(InvalidRequest, match="fast"):
            service.drill(DrillSpec(into="slow"))
        failed = service.drill(DrillSpec(into=str(tmp_path / "nowhere")))
        assert failed.error["kind"] == "invalid_request" and service.drills()[0].error
        (place / "drill-99-0123abcd").mkdir()  # left by somebody
        (place / "drill-99-0123abcd" / "closed").mkdir(mode=0)
        (place / "drill-x").mkdir()
        service.drill(DrillSpec(into="fast"))
        assert set(os.listdir(place)) == {kept, "drill-x"}


def test_which_point(path: str) -> None:
    with drilled(path, settings(path)) as service:
        other = service.create_mount(MountSpec("n")).name
        with pytest.raises(NotFound, match="recovery point"):
            service.drill(DrillSpec(other))
        for spec in (DrillSpec("x"), DrillSpec(point="nope"), DrillSpec("m", source="nowhere")):
            with pytest.raises(NotFound):
                service.drill(spec)
        mine = service.snapshot(other).point
        with pytest.raises(InvalidRequest, match="one of mount 'm'"):
            service.drill(DrillSpec("m", mine.id))
        first = service.drill(DrillSpec()).mount
        assert {first, service.drill(DrillSpec()).mount} == {"m", "n"}
        assert service.drill(DrillSpec()).mount == first
        assert len(service.drills()) == 3 and len(service.drills(first)) == 2


def test_what_is_not_whole_is_told(path: str, tmp_path: Path) -> None:
    with drilled(path, settings(path)) as service:
        made = service.point("m@latest").point.id
        view = service.store.glance(made)
        for name, change in (
            ("d/e/empty", "left out"), ("text", "4999 bytes, not 5000"), ("d/e", "another type"),
        ):  # fmt: skip
            tree = tmp_path / name.replace("/", "-")
            done = service.store.restore(made, b"", os.fsencode(tree))
            if name == "d/e":
                (tree / "d/e/empty").unlink()
                (tree / "d/e").rmdir()
                (tree / "d/e").touch()
            elif name == "text":
                os.truncate(tree / name, 4999)
            else:
                (tree / name).unlink()
            with pytest.raises(drilling.DrillFailed, match=f"{name}: {change}"):
                drilling._compare(made, view, str(tree), done, silent, {})


def test_room_is_looked_for_first(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with drilled(path, settings(path)) as service:
        tree = service.store.open_live("m")
        try:
            ino = next(attr.ino for name, attr, _ in tree.readdir(1, 0) if name == b"text")
            tree.setattr(ino, size=1 << 43, now_ns=1)  # holes need no room
        finally:
            tree.close()
        service.snapshot("m")
        assert service.drill(DrillSpec(point="m@latest")).state == "done"
        monkeypatch.setattr(Store, "space_left", lambda _: 100_000)
        job = service.drill(DrillSpec("m"))
        assert job.error["kind"] == "store_full" and "100000" in job.error["message"]
        assert left(path) == []


def test_damage_is_told(path: str, expect_log: Callable[[str], None]) -> None:
    expect_log("suspect")
    with drilled(path, settings(path)) as service:
        pass
    for one in packs(Path(path)):
        raw = bytearray(one.read_bytes())
        raw[200:] = bytes(len(raw) - 200)
        one.write_bytes(raw)
    with served(path, settings(path)) as service:
        assert service.drill(DrillSpec("m")).state == "failed"
        assert left(path) == []


def test_only_the_last_are_remembered(path: str) -> None:
    with drilled(path, hooked(path, "echo hello")) as service:
        job = service.drill(DrillSpec("m"))
        first = service.drills()[0].output
        for number in range(KEPT):
            service._drilled(replace(job, id=1000 + number, result={**job.result, "output": 0}))
        assert [one.job for one in service.drills("m")] == [999 + KEPT - one for one in range(KEPT)]
        with pytest.raises(NotFound):
            service.attachment(first)


def test_one_that_is_overdue_is_an_incident(path: str) -> None:
    clock = Clock(1_000 * DAY + HOUR)
    weekly = Schedule.parse("every 7d")
    with served(path, settings(path), clock=clock) as service:
        service.create_mount(MountSpec("m"))
        assert not service.late_drill("m", weekly, clock.now + 90 * DAY)  # there is nothing to lose
        service.snapshot("m")
        assert not service.late_drill("m", weekly, clock.now)
        clock.now += 6 * DAY
        service.drill(DrillSpec("m"))
        assert not service.late_drill("m", weekly, clock.now + 7 * DAY)
        assert service.late_drill("m", weekly, clock.now + 15 * DAY)
        assert [one["kind"] for one in service.incidents()] == ["drill_late"]
        service.drill(DrillSpec("m"))
        assert not service.late_drill("m", weekly, clock.now)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user for a moment")
def test_closed_directories_are_removed_by_who_is_not_root() -> None:
    place = tempfile.mkdtemp(prefix="hf-dr-", dir="/tmp")
    try:
        os.chown(place, 65534, 65534)
        os.seteuid(65534)
        tree = Path(place, "drill-1-00000000", "tree")
        (tree / "a" / "b").mkdir(parents=True)
        (tree / "a" / "b" / "f").touch()
        (tree / "link").symlink_to(place)
        for folder in (tree / "a" / "b", tree / "a", tree):
            folder.chmod(0)
        scratch.sweep(place)
        assert os.listdir(place) == []
    finally:
        os.seteuid(0)
        shutil.rmtree(place)


# --- from a location -----------------------------------------------------------------------------------------


def test_from_a_location_alone(path: str, place: Place, expect_log: Callable[[str], None]) -> None:
    expect_log("is suspect")
    key = Identity.new().recipient.printed()
    with drilled(path, hooked(path, LOOK)) as service:
        service.add_location(LocationSpec("nas", place.url, keys=[key]))
        with pytest.raises(NotFound, match="verified at location 'nas'"):
            service.drill(DrillSpec("m", source="nas"))
        made = service.snapshot("m", durability="remote").point
        late = service.snapshot("m").point
        before = place.everything()
        for _ in range(3):  # the one that is not there yet is never drawn
            service.snapshot("m")
        job = service.drill(DrillSpec("m", source="nas", keep=True))
        assert job.state == "done", job.error
        found = service.drills()[0]
        assert found.source == "nas" and found.bytes == 261_000 and found.files == 5 and found.hook
        assert b"m from nas:" in b"".join(service.attachment(found.output)[1])
        assert set(os.listdir(Path(found.path).parent)) == {"tree", "work", "hook"}
        shutil.rmtree(Path(found.path).parent)
        assert place.everything() == before
        with pytest.raises(NotFound, match="verified at location"):
            service.drill(DrillSpec(point=late.id, source="nas"))
        for one in packs(Path(path)):  # what is here is not asked for
            one.write_bytes(bytes(one.stat().st_size))
        assert service.drill(DrillSpec(point=made.id, source="nas")).state == "done"
        for name in place.names("packs/"):
            place.write(name, bytes(len(place.read(name))))
        job = service.drill(DrillSpec(point=made.id, source="nas"))
        assert job.state == "failed" and left(path) == []
        assert service.mount("m").drilled_ns == service.drills("m")[1].ended_ns


# --- after a crash -------------------------------------------------------------------------------------------


def alive(pid: int) -> bool:
    """Whether it runs; one that nobody has waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


class Apart:
    """Jobs that wait for the test to run them."""

    def __init__(self) -> None:
        self.started: list[JobInfo] = []

    def start(self, job: JobInfo) -> None:
        self.started.append(job)

    def cancel(self, job_id: int) -> None: ...


def test_what_a_killed_drill_left_goes_with_the_next_start(path: str, tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    jobs = Apart()
    script = f"(echo $$ > {pid}.new; mv {pid}.new {pid}; exec sleep 300)"
    with drilled(path, hooked(path, script, 300.0), jobs=jobs) as service:
        job = service.drill(DrillSpec("m"))
        service.job_started(job.id)
        words = [sys.executable, "-m", "daemon.job", request_of(job, path)]
        with subprocess.Popen(words, stdout=subprocess.DEVNULL, start_new_session=True) as process:
            end = time.monotonic() + 30
            while not pid.exists():
                assert time.monotonic() < end and process.poll() is None
                time.sleep(0.01)
            scratch.sweep(scratch.usual(path))
            assert [one.startswith(f"drill-{job.id}-") for one in left(path)] == [
                True
            ]  # it is at work
            process.kill()
        hook = int(pid.read_text())
        assert alive(hook)
    with served(path, settings(path)) as service:
        service.recover()
        service.sweep_drills()
        assert left(path) == [] and not alive(hook)
        (found,) = service.drills()
        assert "the daemon's" in found.error
        assert json.loads(service.state.marks.get("drills of m"))


def test_a_drill_that_is_cancelled_leaves_nothing(path: str, tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    jobs = Apart()
    with drilled(path, hooked(path, f"touch {flag}; sleep 300", 300.0), jobs=jobs) as service:
        job = service.drill(DrillSpec("m"))
        words = [sys.executable, "-m", "daemon.job", request_of(job, path)]
        with subprocess.Popen(words, stdout=subprocess.PIPE, start_new_session=True) as process:
            end = time.monotonic() + 30
            while not flag.exists():
                assert time.monotonic() < end and process.poll() is None
                time.sleep(0.01)
            process.terminate()
            out, _ = process.communicate(timeout=20)
        assert json.loads(out.splitlines()[-1])["error"]["kind"] == "cancelled"
        assert left(path) == []
        service.job_ended(job.id, "cancelled")
        assert service.drills() == []
