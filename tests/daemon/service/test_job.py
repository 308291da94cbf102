"""A job in a process of its own: its lines, its exit code, its end when it is told to or nobody listens."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from daemon import job
from daemon.contract import JobInfo, JobKind
from daemon.service import notices, work
from engine import Store
from engine.errors import LocationUnavailable
from engine.maintain.check import Problem
from tests.daemon.service.support import fill, new_store

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def store(tmp_path: Path) -> str:
    path = str(tmp_path / "store")
    new_store(path)
    with Store.open(path) as one:
        one.create_mount("m")
    fill(path, "m", {"d/f": os.urandom(300_000), "\udcff": b"x"})
    with Store.open(path) as one:
        one.snapshot("m")
    return path


def run(store: str, kind: Any, mount: str = "", **options: Any) -> tuple[int, list[dict[str, Any]]]:
    request = job.request_of(JobInfo(7, kind, "running", 1, mount=mount, options=options), store)
    done = subprocess.run(
        [sys.executable, "-m", "daemon.job", request], capture_output=True, timeout=60, cwd=ROOT
    )  # fmt: skip
    assert done.stderr == b""
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()]


def test_results(store: str, tmp_path: Path) -> None:
    code, lines = run(store, "collect", budget_s=60)
    assert code == 0 and lines[-1]["result"]["finished"] is True
    assert all(list(line) == ["progress"] for line in lines[:-1])
    (tmp_path / "out").mkdir()
    code, lines = run(
        store, "restore", "m", point="m@latest", path="d", target=str(tmp_path / "out")
    )
    assert lines[-1]["result"]["files"] == 1 and lines[-1]["result"]["path"] == str(
        tmp_path / "out" / "7"
    )
    assert (tmp_path / "out" / "7" / "f").stat().st_size == 300_000


def test_a_mount_is_deleted_once_and_once_more(store: str) -> None:
    code, lines = run(store, "delete-mount", "m")
    assert (code, lines[-1]) == (0, {"result": {"points": 1}})
    assert run(store, "delete-mount", "m") == (0, [{"result": {"points": 0}}])


def test_errors(store: str, tmp_path: Path) -> None:
    code, lines = run(store, "restore", "m", point="nothing", path="", target=str(tmp_path))
    assert code == 10 and lines[-1]["error"]["kind"] == "not_found"
    code, lines = run(str(tmp_path / "none"), "check")
    assert code == 10 and "store" in lines[-1]["error"]["message"]
    done = subprocess.run(
        [sys.executable, "-m", "daemon.job", "{"], capture_output=True, timeout=60, cwd=ROOT
    )
    assert done.returncode == 2 and json.loads(done.stdout)["error"]["kind"] == "invalid_request"


SLOW = """
import sys, time
from daemon import job
from daemon.service import work
from engine.errors import ShuttingDown
job.BEAT = 0.1
def run(store, what, report, stop):
    job.os.write(1, b'{"progress": {}}\\n')
    end = time.monotonic() + 60
    while time.monotonic() < end:
        time.sleep(0.01)
        if stop():
            raise ShuttingDown("upload", found="a request to stop")
work.run = run
sys.exit(job.main(sys.argv[1]))
"""


def started(store: str, kind: JobKind = "check") -> subprocess.Popen[bytes]:
    request = job.request_of(JobInfo(7, kind, "running", 1), store)
    child = subprocess.Popen(
        [sys.executable, "-c", SLOW, request], stdout=subprocess.PIPE, cwd=ROOT
    )
    assert child.stdout is not None and child.stdout.readline()
    return child


@pytest.mark.parametrize("kind", ["check", "upload"])  # one is interrupted, the other asks
def test_told_to_end(store: str, kind: JobKind) -> None:
    with started(store, kind) as child:
        child.send_signal(signal.SIGTERM)
        assert child.stdout is not None
        last = child.stdout.read().splitlines()[-1]
        assert json.loads(last)["error"]["kind"] == "cancelled"
        assert child.wait(30) == job.CANCELLED_EXIT


def test_nobody_listens(store: str) -> None:
    child = started(store)
    assert child.stdout is not None
    child.stdout.close()
    assert child.wait(30) == job.CANCELLED_EXIT


def test_what_is_told_of_damage_is_bounded() -> None:
    found = [Problem("pack", f"pack {n}", "x" * 400) for n in range(5_000)]
    error = work.FoundDamaged("check", found, {"counts": {"packs": 1}})
    result = work.result_of(error)
    assert len(json.dumps(result)) < notices.TOLD_BYTES + 1000 and "5000 problems" in str(error)
    assert 0 < len(result["problems"]) < len(found) and result["counts"] == {"packs": 1}
    assert len(result["problems"]) + result["problems_left_out"] == len(found)
    assert notices.bounded([{"a": "b"}] * 2_000) == [{"a": "b"}] * notices.TOLD_MAX


def test_a_location_that_is_away_is_no_damage() -> None:
    away, chunk = (Problem(code, "thing", "text") for code in ("away", "chunk"))
    with pytest.raises(LocationUnavailable, match="when they do") as told:
        work._refuse("check", [away], {"counts": {}})
    assert work.result_of(told.value)["problems"][0]["code"] == "away"
    with pytest.raises(work.FoundDamaged):
        work._refuse("check", [away, chunk], {"counts": {}})
    work._refuse("check", [], {})
