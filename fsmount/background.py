"""A worker in the background: started so that the caller learns how it went, and stays with nothing of it.

The child is a fresh interpreter (never a fork: the index must not be used across one), in a session of its own,
with its messages in a log file.  It says on a pipe either that the mount can be used or why it cannot; the parent
waits for that.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import BinaryIO

from engine import supply
from engine.errors import HoldfastError
from engine.seam import REAL
from fsmount.remote import revived

START_LIMIT = 120.0  # s until the mount must be usable: recovery after a crash may come first
LOG_KEEP = 1 << 20  # bytes of an old log worth keeping when a new worker starts
SAID_MAX = 1 << 16


def start(
    request: dict[str, object],
    log_path: str,
    *,
    module: str = "fsmount",
    user: tuple[int, int] | None = None,
    keep: Sequence[int] = (),
) -> int:
    """Start ``python -m module`` with this request; returns its process id once it says that it is ready.

    ``user``: whom it becomes before it does anything; it then opens its log itself, for the directory is that
    user's, and root must not write where another says.  ``keep``: descriptors it is to have.  Raises the error that
    the child reported, or HoldfastError when it ended or hung without a word.
    """
    ours, theirs = os.pipe()
    try:
        request = {**request, "ready_fd": theirs}
        if user is not None:
            request.update(user=user, log=log_path)
        with (
            contextlib.nullcontext() if user is not None else open_log(log_path) as log,
            supply.handing() as (variables, fds),
        ):
            child = subprocess.Popen(
                [sys.executable, "-m", module, json.dumps(request)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[theirs, *keep, *fds],
                start_new_session=True,
                cwd="/",
                env=_environment() | variables,
            )
        os.close(theirs)
        theirs = -1
        said = _listen(ours)
    finally:
        os.close(ours)
        if theirs >= 0:
            os.close(theirs)
    if not said:
        raise _silent(child, log_path)
    answer = json.loads(said)
    if "kind" in answer:
        child.wait()
        raise revived(answer["kind"], answer["message"])
    child.returncode = 0  # it goes on by itself; nobody will wait for it here
    return child.pid


def tell(ready_fd: int, answer: dict[str, object]) -> None:
    """The child's word to its parent; afterwards nobody listens."""
    with contextlib.suppress(BrokenPipeError):
        os.write(ready_fd, json.dumps(answer).encode() + b"\n")
    os.close(ready_fd)


def _environment() -> dict[str, str]:
    """Ours, with this package where the child finds it."""
    here = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    path = os.pathsep.join([here, *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**os.environ, "PYTHONPATH": path}


def open_log(path: str) -> BinaryIO:
    """The log of a worker, opened to be added to; an old one that has grown long is begun anew."""
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    keep = os.path.exists(path) and os.path.getsize(path) < LOG_KEEP
    fd = REAL.open(path, os.O_WRONLY | os.O_CREAT | (os.O_APPEND if keep else os.O_TRUNC))
    return os.fdopen(fd, "ab")


def _listen(fd: int) -> bytes:
    """The child's line; empty when it closed the pipe or took too long."""
    said = b""
    end = time.monotonic() + START_LIMIT
    while not said.endswith(b"\n") and len(said) < SAID_MAX:
        ready, _, _ = select.select([fd], [], [], max(0.0, end - time.monotonic()))
        more = os.read(fd, SAID_MAX) if ready else b""
        if not more:
            return b""
        said += more
    return said


def _silent(child: subprocess.Popen[bytes], log_path: str) -> HoldfastError:
    status = child.poll()
    if status is None:
        try:
            status = child.wait(5)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
    found = "no word in time" if status is None else f"an end with status {status}"
    return HoldfastError(
        "worker in the background",
        expected="a word that it is ready",
        found=found,
        do=f"see {log_path}",
    )
