"""Bugs about a daemon that dies, planted in it; each is found by ``kill-daemon``."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from tools.torture.bugs import bug
from tools.torture.kill.planted_bugs import put

LATE = 1.0  # s after its answer that a thing is written down


def _later(work: Callable[[], object]) -> None:
    def run() -> None:
        time.sleep(LATE)
        work()

    threading.Thread(target=run, daemon=True).start()


@bug("session-after-its-answer")
def session_after_its_answer() -> None:
    """A session that was begun is written down after the answer."""
    from daemon.state.sessions import Sessions

    real = Sessions.begin
    put(Sessions, "begin", lambda table, session: _later(lambda: real(table, session)))


@bug("log-after-its-answer")
def log_after_its_answer() -> None:
    """A log that was sent is complete some time after the answer."""
    from daemon.contract import Attachment
    from daemon.state.attachments import Attachments

    real = Attachments._complete

    def complete(table: Attachments, number: int, size: int, files: Any) -> Attachment:
        _later(lambda: real(table, number, size, files))
        return Attachment(number, "log", "log", size, time.time_ns())

    put(Attachments, "_complete", complete)


@bug("committing-for-ever")
def committing_for_ever() -> None:
    """A daemon that starts does not look what became of a commit."""
    from daemon.service.service import Service

    put(Service, "recover_sessions", lambda service: None)


@bug("planned-point-forgotten")
def planned_point_forgotten() -> None:
    """A commit that was cut off is begun anew, whether its point was made or not."""
    from daemon.service.service import Service

    put(Service, "_ended", lambda service, session: service.state.sessions.reopen(session))


@bug("jobs-run-for-ever")
def jobs_run_for_ever() -> None:
    """A daemon that starts leaves the jobs that ran before as they were."""
    from daemon.service.service import Service

    put(Service, "recover_jobs", lambda service: None)
