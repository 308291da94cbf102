"""``python -m tools.torture.kill.service serve …``: the daemon with the chosen bug planted, which dies where told to.

The file that HOLDFAST_DIE names says at which of ``MOMENTS``; the process kills itself there, as ``kill -9`` would.
"""

from __future__ import annotations

import importlib
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from tools.torture.bugs import plant_chosen
from tools.torture.kill.small import shrink

VARIABLE = "HOLDFAST_DIE"


class Moment(NamedTuple):
    """Before or after a function of the daemon. ``act``: what a client asks for that leads to it, "" for a start."""

    module: str
    name: str
    after: bool
    act: str


_SESSIONS = "daemon.state.sessions"
_JOBS = "daemon.state.jobs"
_SERVING = "daemon.supervise.serving"
MOMENTS: dict[str, Moment] = {
    "session written": Moment(_SESSIONS, "Sessions.begin", True, "begin"),
    "commit planned": Moment(_SESSIONS, "Sessions.commit", True, "commit"),
    "point made": Moment(_SESSIONS, "Sessions.committed", False, "commit"),
    "session committed": Moment(_SESSIONS, "Sessions.committed", True, "commit"),
    "session abandoned": Moment(_SESSIONS, "Sessions.abandon", True, "abandon"),
    "lease renewed": Moment(_SESSIONS, "Sessions.renew", True, "renew"),
    "log begun": Moment("daemon.state.attachments", "Attachments._begin", True, "log"),
    "log kept": Moment("daemon.state.attachments", "Attachments._complete", True, "log"),
    "key claimed": Moment("daemon.state.keys", "Keys.claim", True, "begin"),
    "key answered": Moment("daemon.state.keys", "Keys.done", True, "commit"),
    "point without a note": Moment("daemon.state.notes", "Notes.put", False, "snapshot"),
    "job queued": Moment(_JOBS, "Jobs.create", True, "restore"),
    "job begun": Moment(_JOBS, "Jobs.started", True, "restore"),
    "restore shown": Moment(_JOBS, "Jobs.restored", True, "show"),
    "job ended": Moment(_JOBS, "Jobs.ended", True, "restore"),
    "recovered": Moment("daemon.service.service", "Service.recover", True, ""),
    "worker looked for": Moment(_SERVING, "find", True, ""),
    "worker started": Moment(_SERVING, "start", True, ""),
    "worker told": Moment("daemon.service.service", "Service.served", True, ""),
}  # fmt: skip


def prepare() -> None:
    """Have every moment look whether it is the one."""
    place = Path(os.environ[VARIABLE])
    for name, moment in MOMENTS.items():
        owner: Any = importlib.import_module(moment.module)
        *classes, last = moment.name.split(".")
        for each in classes:
            owner = getattr(owner, each)
        setattr(owner, last, _mortal(getattr(owner, last), place, name, after=moment.after))


def _mortal(real: Callable[..., Any], place: Path, name: str, *, after: bool) -> Callable[..., Any]:
    def run(*values: Any, **named: Any) -> Any:
        if not after:
            _die(place, name)
        found = real(*values, **named)
        if after:
            _die(place, name)
        return found

    return run


def _die(place: Path, name: str) -> None:
    try:
        told = place.read_text()
    except FileNotFoundError:
        return
    if told == name:
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    from daemon.cli.main import main

    shrink()
    plant_chosen()
    prepare()
    main()
