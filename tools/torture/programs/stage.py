"""A store with one mount, served by a process that may be killed; and programs, run with a time limit.

The worker and every ``holdfast`` command is started as ``tools.torture.planted``, so that a planted bug is in all of
them.  Nothing here waits for ever: a program that hangs is killed, and that is a find.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from engine import HoldfastError, Store
from fsmount.remote import request
from tools.demolib.mountinfo import mounts_below
from tools.torture.rig import Job

ROOT = Path(__file__).resolve().parents[3]
LIMIT_S = 120.0  # longest time any one program may take; the slowest takes a tenth of it
MOUNT_LIMIT_S = 30.0
END_LIMIT_S = 60.0
NAME = "t"
POLL_S = 0.01

Argument = str | bytes | Path


class Refused(Exception):
    """A program ended otherwise than it should have, or not at all. The message has its last words."""


def words(argv: Sequence[Argument]) -> str:
    """A command line for people."""
    text = " ".join(os.fsdecode(word) for word in argv)
    return text if len(text) < 200 else text[:197] + "..."


def run(
    argv: Sequence[Argument],
    *,
    cwd: Path | None = None,
    ok: Sequence[int] = (0,),
    stdin: bytes | IO[bytes] = b"",
    variables: Mapping[str, str] | None = None,
    limit: float = LIMIT_S,
) -> str:
    """Run a program to its end; what it wrote to both outputs. Raises Refused."""
    given = stdin if isinstance(stdin, bytes) else None
    try:
        done = subprocess.run(
            [os.fspath(word) for word in argv],
            cwd=cwd,
            input=given,
            stdin=None if given is not None else stdin,  # type: ignore[arg-type]
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment() | dict(variables or {}),
            timeout=limit,
        )
    except subprocess.TimeoutExpired:
        raise Refused(f"{words(argv)}: not done after {limit:.0f} s") from None
    text = done.stdout.decode("utf-8", "replace")
    if done.returncode not in ok:
        raise Refused(f"{words(argv)}: status {done.returncode}\n{tail(text)}")
    return text


def tail(text: str) -> str:
    """The last words of a program, indented."""
    return "\n".join(f"    {line}" for line in text.splitlines()[-12:])


def environment() -> dict[str, str]:
    """The caller's, without settings that bend what the programs do."""
    bent = ("GIT_", "RSYNC_", "TAR_", "PG", "HOLDFAST_STORE", "SQLITE_", "ZIPOPT", "UNZIP")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(bent)}
    return kept | {"LC_ALL": "C.UTF-8", "PYTHONPATH": str(ROOT), "GIT_CONFIG_NOSYSTEM": "1"}


class Stage:
    """One store, one mount. Use as a context manager: nothing stays mounted."""

    def __init__(self, job: Job, label: str) -> None:
        self.job = job
        self.place = job.scratch / label
        self.place.mkdir()
        # PostgreSQL runs as an ordinary user and must come through.
        job.scratch.chmod(0o711)
        self.place.chmod(0o711)
        self.store = self.place / "store"
        self.live = self.place / "m"
        self.live.mkdir()
        self.shared: dict[str, object] = {}  # what several cases use, by name
        self._log = self.place / "worker.log"
        self._mounts = 0
        self._worker: subprocess.Popen[bytes] | None = None
        Store.init(str(self.store))
        with Store.open(str(self.store)) as store:
            store.create_mount(NAME)

    def __enter__(self) -> Stage:
        self.mount()
        self.live.chmod(0o755)
        return self

    def __exit__(self, *_: object) -> None:
        for place in mounts_below(self.place):
            subprocess.run(["fusermount3", "-uz", place], capture_output=True)
        if self._worker is not None and self._worker.poll() is None:
            self._worker.kill()
            self._worker.wait()

    def command(self, *arguments: Argument) -> list[Argument]:
        """A ``holdfast`` command line with the chosen bug in it."""
        program = [sys.executable, "-W", "ignore", "-m", "tools.torture.planted"]
        return [*program, "--store", self.store, *arguments]

    def holdfast(self, *arguments: Argument) -> str:
        """Run a ``holdfast`` command; what it printed. Raises Refused."""
        return run(self.command(*arguments))

    # --- the worker ---------------------------------------------------------------------------------

    def mount(self) -> float:
        """Start the worker and wait until the mount can be used; the seconds that took.

        Every second time without the kernel's write-back: both ways have to keep every promise.
        """
        started = time.monotonic()
        how = ["--write-through"] * (self._mounts % 2)
        self._mounts += 1
        with self._log.open("ab") as log:
            self._worker = subprocess.Popen(
                [os.fspath(word) for word in self.command("mount", NAME, self.live, *how)],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment(), cwd="/",
                start_new_session=True,
            )  # fmt: skip
        while not self._usable():
            if self._worker.poll() is not None:
                raise Refused(f"the worker ended\n{tail(self._log.read_text())}")
            if time.monotonic() - started > MOUNT_LIMIT_S:
                raise Refused(f"no mount after {MOUNT_LIMIT_S:.0f} s")
            time.sleep(POLL_S)
        return time.monotonic() - started

    def _usable(self) -> bool:
        """Whether the new worker serves; a dead one's mount may still be there, and even answer stat from a cache."""
        assert self._worker is not None
        try:
            said = request(str(self.store), NAME, "status")
        except HoldfastError:
            return False
        return (said["state"], said["pid"]) == ("serving", self._worker.pid)

    def umount(self) -> None:
        """Unmount as a person does: everything is written down first."""
        assert self._worker is not None
        self.holdfast("umount", self.live)
        try:
            self._worker.wait(timeout=END_LIMIT_S)
        except subprocess.TimeoutExpired:
            raise Refused("the worker goes on after its mount was unmounted") from None

    def kill(self) -> None:
        """SIGKILL the worker. What uses the mount gets errors from now on."""
        assert self._worker is not None
        self._worker.send_signal(signal.SIGKILL)
        self._worker.wait()

    def said(self) -> str:
        """The worker's own messages."""
        return self._log.read_text(errors="replace")

    # --- points and the oracle ------------------------------------------------------------------------

    def snapshot(self, label: str) -> str:
        """Make a recovery point; its id."""
        self.job.count("snapshots")
        return self.holdfast("snapshot", NAME, "--label", label).split()[-1]

    def restore(self, point: str, folder: str = "") -> Path:
        """Restore a point, or a folder of it, to a new directory."""
        target = self.place / f"restored-{point}-{folder.replace('/', '-')}"
        self.holdfast("restore", point, *([folder] if folder else []), target)
        self.job.count("restores")
        return target

    def check(self) -> None:
        """The store's own oracle. Fails the job."""
        with Store.open(str(self.store)) as store:
            problems = store.check(read_data=True).problems
        if problems:
            self.job.fail("check", f"check --read-data: {problems[:5]}")
