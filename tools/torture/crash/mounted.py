"""The workload of the crash rigs through a real mount, as a program: a worker and its user, for strace to follow.

``python -m tools.torture.crash.mounted PLAN``; marks as in ``session``.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

from engine import Store
from tools.torture.crash.session import MOUNT, Plan
from tools.torture.history import History
from tools.torture.workload import PosixFiles, Script

READY = 60  # s for the mount to be there, under strace
SNAPSHOTS = 40  # operations between them


def _wait(place: str, worker: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + READY
    while not os.path.ismount(place):
        assert worker.poll() is None, "the worker ended"
        assert time.monotonic() < end, "the mount did not come"
        time.sleep(0.05)


def _holdfast(plan: Plan, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "tools.torture.planted", "--store", plan.store, *arguments]


def work(plan: Plan, place: str) -> None:
    """Operations, and some snapshots."""
    marks = os.open(plan.marks, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(marks, b"done init\n")
    history = History()
    script = Script(plan.random("script"), history)
    files = PosixFiles(os.fsencode(place))
    for number in range(1, plan.operations + 1):
        op = script.next()
        history.begin(op)
        os.write(marks, b"begin op\n")
        files.do(op)
        os.write(marks, b"done op\n")
        history.done(op)
        if number % SNAPSHOTS == 0:
            os.write(marks, b"begin snapshot %d\n" % number)
            subprocess.run(
                _holdfast(plan, "snapshot", MOUNT), check=True, stdout=subprocess.DEVNULL
            )
            os.write(marks, b"done snapshot %d\n" % number)


def main() -> None:
    """Make the store, mount it, work, unmount."""
    plan = Plan(**json.loads(sys.argv[1]))
    Store.init(plan.store)
    with Store.open(plan.store) as store:
        store.create_mount(MOUNT)
    place = f"{plan.store}.mounted"
    os.mkdir(place)
    worker = subprocess.Popen(_holdfast(plan, "mount", MOUNT, place))
    try:
        _wait(place, worker)
        work(plan, place)
    finally:
        subprocess.run(["fusermount3", "-u", "-z", place], check=False)
        worker.wait(READY)
    assert worker.returncode == 0, worker.returncode


if __name__ == "__main__":
    main()
