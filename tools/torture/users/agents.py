"""Acting as another user: a forked child that gives up what it was before it does anything."""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple


class Who(NamedTuple):
    """A user, by numbers: no account is needed. ``groups``: supplementary ones."""

    uid: int
    gid: int
    groups: tuple[int, ...] = ()

    @property
    def all_groups(self) -> frozenset[int]:
        """Every group that counts in a permission check."""
        return frozenset((self.gid, *self.groups))


ROOT = Who(0, 0)
NOBODY = Who(65534, 65534)


class Stuck(Exception):
    """A child did not end in time."""


class Child:
    """A forked child that acts as somebody and says one JSON value at the end."""

    def __init__(self, who: Who, action: Callable[[], Any]) -> None:
        """``action`` runs in the child; its result must be fit for JSON."""
        sys.stdout.flush()
        self._ours, theirs = os.pipe()
        self.pid = os.fork()
        if not self.pid:
            _live(who, action, theirs)
        os.close(theirs)

    def result(self, limit: float = 120.0) -> Any:
        """What the child said; what it raised is raised as RuntimeError. Raises Stuck."""
        said = b""
        end = time.monotonic() + limit
        try:
            while True:
                ready, _, _ = select.select([self._ours], [], [], max(0.0, end - time.monotonic()))
                if not ready:
                    raise Stuck(f"process {self.pid} said nothing for {limit:g} s")
                more = os.read(self._ours, 1 << 16)
                if not more:
                    break
                said += more
        finally:
            status = self.end()
        without = f"ended without a word, exit {status}"
        kind, value = json.loads(said) if said else ("failed", without)
        if kind == "failed":
            raise RuntimeError(f"a child failed: {value}")
        return value

    def said(self) -> bytes:
        """What it said until now, without waiting; the result is no longer to be had then."""
        ready, _, _ = select.select([self._ours], [], [], 0)
        return os.read(self._ours, 4096) if ready else b""

    def end(self) -> int:
        """Kill it if it still runs; harmless when called twice.

        Returns its exit code, or the signal that ended it, negative; 0 when it had ended already.
        """
        if not self.pid:
            return 0
        os.close(self._ours)
        os.kill(self.pid, signal.SIGKILL)
        _, status = os.waitpid(self.pid, 0)
        self.pid = 0
        return os.waitstatus_to_exitcode(status)


def _live(who: Who, action: Callable[[], Any], out: int) -> None:
    answer: tuple[str, Any]
    try:
        if who != ROOT:
            os.setgroups(who.groups)
            os.setresgid(who.gid, who.gid, who.gid)
            os.setresuid(who.uid, who.uid, who.uid)
        os.umask(0o022)
        answer = ("said", action())
    except BaseException as error:  # noqa: BLE001  the parent is told whatever it was
        answer = ("failed", repr(error))
    with os.fdopen(out, "wb") as file:
        file.write(json.dumps(answer).encode())
    os._exit(0)


def act(who: Who, action: Callable[[], Any], limit: float = 120.0) -> Any:
    """What ``action`` returns when this user runs it."""
    return Child(who, action).result(limit)
