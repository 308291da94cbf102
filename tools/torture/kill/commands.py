"""Commands on a store as processes of their own, any of which may be killed: started, ended, and what they said."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from engine.errors import TABLE, Busy
from fsmount import mountpoint

PROGRAM = "tools.torture.kill.program"
ROOT = Path(__file__).resolve().parents[3]
LONGEST = 90.0  # s a command may take on a busy machine; a collection waits for at most 60
BUSY = Busy.kind.exit
KINDS = {one.kind.exit for one in TABLE}


_running: set[Command] = set()


def end_all() -> None:
    """Kill and wait for every command that has not ended, whatever has happened to who started it."""
    for one in list(_running):
        one.kill()
        _running.discard(one)


class Command:
    """One running command. Its words go to files, so that it never waits for who listens."""

    def __init__(self, scratch: Path, store: Path, *arguments: str) -> None:
        scratch.mkdir(exist_ok=True)
        self.arguments = arguments
        self.began = time.monotonic()
        self.killed = False
        number = len(list(scratch.iterdir())) // 2
        self._out, self._err = (scratch / f"{number:04d}-{arguments[0]}.{end}" for end in ("out", "err"))  # fmt: skip
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self._process = subprocess.Popen(
                [sys.executable, "-m", PROGRAM, "--store", str(store), *arguments],
                stdin=subprocess.DEVNULL, stdout=out, stderr=err, cwd=ROOT,
                env={**os.environ, "PYTHONPATH": str(ROOT), "HOLDFAST_DEBUG": "1"},
            )  # fmt: skip
        _running.add(self)

    @property
    def said(self) -> str:
        """What it has printed."""
        return self._out.read_text(errors="replace")

    @property
    def complained(self) -> str:
        """What it has printed as errors."""
        return self._err.read_text(errors="replace")

    @property
    def ended(self) -> bool:
        if self._process.poll() is None:
            return False
        _running.discard(self)
        return True

    @property
    def status(self) -> int:
        """Exit status; negative for a signal."""
        assert self._process.returncode is not None
        return self._process.returncode

    def wait(self) -> None:
        """Until it has ended."""
        self._process.wait()

    def kill(self) -> None:
        """As ``kill -9``; what it has said by then counts."""
        self._process.kill()
        self._process.wait()
        self.killed = self.status == -signal.SIGKILL

    def ask_where(self) -> None:
        """Have it print the stacks of its threads among its errors."""
        self._process.send_signal(signal.SIGUSR1)
        time.sleep(0.3)

    def wrong(self) -> str:
        """What no command may do, whatever else died; empty when it did not."""
        text = self.complained
        if "Traceback" in text or "this is a bug" in text or "Fatal Python error" in text:
            return f"'{' '.join(self.arguments)}' broke: {text[-3000:]}"
        if not self.killed and self.status != 0 and (self.status == 1 or self.status not in KINDS):
            return f"'{' '.join(self.arguments)}' ended with status {self.status}: {text[-1000:]}"
        return ""


def processes(below: Path) -> dict[int, str]:
    """Processes whose command line names something below a directory, this one excepted."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and int(entry.name) != os.getpid():
            try:
                words = (entry / "cmdline").read_bytes().decode(errors="replace")
            except OSError:
                continue  # it has ended
            if str(below) in words:
                found[int(entry.name)] = words.replace("\0", " ")
    return found


def mounts(below: Path) -> list[str]:
    """Where something is mounted below a directory, one entry for each mount."""
    return [one.path for one in mountpoint.table() if Path(one.path).is_relative_to(below)]
