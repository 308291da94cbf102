"""Run programs for the demonstration: with a time limit, a heartbeat and an ordinary user's rights.

Output goes to unnamed files, never to pipes: a program that leaves a process behind (a mount in
the background does) would keep a pipe open, and its reader waiting for ever.
"""

from __future__ import annotations

import os
import pwd
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tools.demolib.console import Console, DemoError

# No single step of the demonstration takes more than half a minute on two slow cores; a step
# that takes ten times that hangs.
LIMIT_S = 300.0
# A person who sees nothing for longer starts to wonder; later, less often will do.
HEARTBEAT_S = 5.0
HEARTBEAT_MOST_S = 20.0
# Users that Debian always has, best first. PostgreSQL refuses to run as root.
ORDINARY_USERS = ("nobody", "daemon", "games")
# Settings of the caller that would bend what the programs do.
_DROPPED = ("PG", "RSYNC_", "TAR_OPTIONS", "HOLDFAST_", "POSIXLY_CORRECT", "PYTHON")

Argument = str | bytes | Path


@dataclass(frozen=True, slots=True)
class Account:
    """A user to run programs as."""

    name: str
    uid: int
    gid: int


@dataclass(frozen=True, slots=True)
class Finished:
    """A program that ended as it should: its output and its wall time in seconds."""

    out: str
    err: str
    status: int
    seconds: float


def ordinary_account() -> Account | None:
    """The user to run PostgreSQL as: None (ourselves) unless we are root.

    Raises DemoError when root has no ordinary user to choose.
    """
    if os.geteuid() != 0:
        return None
    for name in ORDINARY_USERS:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(entry.pw_name, entry.pw_uid, entry.pw_gid)
    raise DemoError(
        "PostgreSQL does not run as root, and none of the users "
        f"{', '.join(ORDINARY_USERS)} exists: run ./tools/demo as an ordinary user"
    )


class Runner:
    """Starts programs; knows the environment they get. Used from one thread."""

    def __init__(self, console: Console, home: Path) -> None:
        self.console = console
        self._home = home

    def environment(self) -> dict[str, str]:
        """What every program gets: the caller's environment without what bends the producers."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(_DROPPED)}
        return kept | {"LC_ALL": "C", "HOME": str(self._home)}

    def start(
        self,
        argv: Sequence[Argument],
        *,
        output: int,
        account: Account | None = None,
        stdin: int = subprocess.DEVNULL,
        stderr: int = subprocess.STDOUT,
        variables: Mapping[str, str] | None = None,
    ) -> subprocess.Popen[bytes]:
        """Start a program in a session of its own (Ctrl-C does not reach it) and return it."""
        try:
            return subprocess.Popen(
                [os.fspath(part) for part in argv],
                stdin=stdin,
                stdout=output,
                stderr=stderr,
                cwd="/",
                env=self.environment() | dict(variables or {}),
                start_new_session=True,
                user=account.uid if account else None,
                group=account.gid if account else None,
                extra_groups=[] if account else None,
            )
        except FileNotFoundError:
            raise DemoError(f"there is no program {command_text(argv[:1])} here") from None
        except PermissionError as error:
            raise DemoError(f"{command_text(argv[:1])} cannot be run: {error.strerror}") from None

    def run(
        self,
        argv: Sequence[Argument],
        *,
        account: Account | None = None,
        ok: Sequence[int] = (0,),
        limit: float = LIMIT_S,
        variables: Mapping[str, str] | None = None,
    ) -> Finished:
        """Run a program to its end.

        Raises DemoError with its last words when its exit status is not in `ok`, or when it takes
        longer than `limit` seconds (it is killed then).
        """
        started = time.monotonic()
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            process = self.start(
                argv,
                output=out.fileno(),
                stderr=err.fileno(),
                account=account,
                variables=variables,
            )
            try:
                status = self.wait(process, command_text(argv), limit)
            finally:
                stop_process(process)
            seconds = time.monotonic() - started
            texts = [_content(file.fileno()) for file in (out, err)]
        if status not in ok:
            words = last_words(texts[1] or texts[0])
            raise DemoError(f"{command_text(argv)}: exit status {status}{words}")
        return Finished(texts[0], texts[1], status, seconds)

    def wait(self, process: subprocess.Popen[bytes], what: str, limit: float = LIMIT_S) -> int:
        """Wait for a program, with a line now and then; its exit status.

        Raises DemoError when it takes longer than `limit` seconds; the program still runs then.
        """
        started = time.monotonic()
        pause = HEARTBEAT_S
        while True:
            try:
                return process.wait(timeout=pause)
            except subprocess.TimeoutExpired:
                pause = min(pause * 1.5, HEARTBEAT_MOST_S)
                passed = time.monotonic() - started
                if passed > limit:
                    raise DemoError(f"{what}: not done after {passed:.0f} s") from None
                self.console.detail(f"… {what[:50]}: {passed:.0f} s")


def stop_process(process: subprocess.Popen[bytes], *, patience: float = 5.0) -> None:
    """End a program we started, if it still runs: politely, then not."""
    if process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(timeout=patience)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def command_text(argv: Sequence[Argument]) -> str:
    """A command line for people: the program without its directory, long ones shortened."""
    words = [os.fsdecode(part) for part in argv]
    words[0] = os.path.basename(words[0])
    text = " ".join(words)
    return text if len(text) <= 160 else text[:157] + "…"


def last_words(text: str) -> str:
    """The last lines a program printed, indented below a message; empty when it said nothing."""
    lines = [line for line in text.splitlines() if line.strip()][-8:]
    return "".join(f"\n    {line}" for line in lines)


def _content(descriptor: int) -> str:
    os.lseek(descriptor, 0, os.SEEK_SET)
    with os.fdopen(os.dup(descriptor), "rb") as file:
        return file.read().decode("utf-8", "replace")
