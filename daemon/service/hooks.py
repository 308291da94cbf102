"""Hooks: commands of the configuration run around begin, commit and restore, to quiesce and resume what writes.

A list of words, run without a shell, as the daemon's user, in a process group of its own, which a timeout ends whole.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import time
from dataclasses import dataclass

from daemon.contract import HookEvent
from daemon.service.ports import Hook

OUTPUT_MAX = 1 << 20  # bytes of output that are kept; what comes later is read and left out
_LINE_MAX = 300  # characters of the line that is told
END_LIMIT = 5.0  # s for a hook that outlived who ran it to be gone
_GRACE = 0.3  # s in which the output must end when the command has: a child of it may hold the pipe for ever
TOKEN = "HOOK"  # of the values: a word by which a hook is found whose caller was killed
_PASSED = (
    "PATH",
    "HOME",
    "LANG",
    "LC_ALL",
    "TZ",
    "USER",
    "LOGNAME",
)  # no more: the rest may be secret


@dataclass(frozen=True)
class Ran:
    """How a hook went: ``why`` it failed, "" when it did not; what it printed."""

    event: HookEvent
    why: str
    output: bytes

    @property
    def last_line(self) -> str:
        """What it said last, fit for a message."""
        lines = self.output.decode("utf-8", "replace").split("\n")
        last = next((line.strip() for line in reversed(lines) if line.strip()), "")
        return "".join(c if c.isprintable() else "?" for c in last)[:_LINE_MAX]

    @property
    def told(self) -> str:
        """Why it failed and what it said last."""
        return f"{self.why}: {self.last_line}" if self.last_line else self.why


def run(event: HookEvent, hook: Hook, values: dict[str, str]) -> Ran:
    """Run a hook to its end or its timeout. ``values``: MOUNT, PATH, SESSION, POINT. Never raises for what it does."""
    environment = {name: os.environ[name] for name in _PASSED if name in os.environ}
    environment |= {f"HOLDFAST_{name}": value for name, value in values.items()}
    environment["HOLDFAST_EVENT"] = event
    try:
        child = subprocess.Popen(
            hook.command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            start_new_session=True, cwd="/", env=environment,
        )  # fmt: skip
    except (OSError, ValueError) as error:
        text = error.strerror if isinstance(error, OSError) else str(error)
        return Ran(event, f"cannot be started: {text}", b"")
    with child:
        assert child.stdout is not None
        in_time = False
        try:
            output, in_time = _read(child, child.stdout.fileno(), hook.timeout_s)
        finally:
            if not in_time:  # or whoever runs it was interrupted
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(child.pid, signal.SIGKILL)
        code = child.wait()
    return Ran(event, _why(code, in_time, hook.timeout_s), output)


def end_left(token: str) -> None:
    """End a hook that outlived who ran it, with what it has started: found by its token in their environment. Returns
    when none is left, or after ``END_LIMIT``; "" is nobody's."""
    end = time.monotonic() + END_LIMIT
    while token and (left := _with(token)) and time.monotonic() < end:
        for pid in left:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)


def _with(token: str) -> list[int]:
    wanted = f"HOLDFAST_{TOKEN}={token}".encode()
    found = []
    for name in os.listdir("/proc"):
        if name.isdecimal():
            with contextlib.suppress(OSError), open(f"/proc/{name}/environ", "rb") as file:
                if wanted in file.read().split(b"\0"):
                    found.append(int(name))
    return found


def _why(code: int, in_time: bool, timeout_s: float) -> str:
    if not in_time:
        return f"took longer than {timeout_s:g} s and was ended"
    if code < 0:
        return f"ended by signal {-code}"
    return f"exit code {code}" if code else ""


def _read(child: subprocess.Popen[bytes], fd: int, timeout_s: float) -> tuple[bytes, bool]:
    """(what it printed, whether it ended in time)."""
    end = time.monotonic() + timeout_s
    kept = bytearray()
    left_out = 0
    over = 0.0  # when the command was seen to have ended
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    while True:
        now = time.monotonic()
        if now >= end:
            return _closed(kept, left_out), child.poll() is not None
        if child.poll() is not None:
            over = over or now
            if now - over >= _GRACE:
                return _closed(kept, left_out), True
        if not poll.poll(min(50.0, (end - now) * 1000)):
            continue
        more = os.read(fd, 1 << 16)
        if not more:
            break
        room = OUTPUT_MAX - len(kept)
        kept += more[:room]
        left_out += max(0, len(more) - room)
    try:
        child.wait(max(0.0, end - time.monotonic()))
    except subprocess.TimeoutExpired:
        return _closed(kept, left_out), False
    return _closed(kept, left_out), True


def _closed(kept: bytearray, left_out: int) -> bytes:
    if left_out:
        note = b"\n[%d more bytes were left out]\n" % left_out
        return bytes(kept[: OUTPUT_MAX - len(note)]) + note
    return bytes(kept)
