"""A process for each user of the table, which carries out the calls of many rules at a time."""

from __future__ import annotations

import marshal
import os
from typing import Any

from tools.torture.conform.posix.calls import carry_out
from tools.torture.conform.posix.rules import Call, User

Work = list[tuple[str, tuple[Call, ...]]]
"""Directories, and the calls to be made in each."""


def _take(fd: int) -> Any:
    size = int.from_bytes(_whole(fd, 8), "little")
    return marshal.loads(_whole(fd, size))


def _whole(fd: int, size: int) -> bytes:
    parts = b""
    while len(parts) < size:
        more = os.read(fd, size - len(parts))
        if not more:
            raise EOFError
        parts += more
    return parts


def _give(fd: int, thing: Any) -> None:
    raw = marshal.dumps(thing)
    raw = len(raw).to_bytes(8, "little") + raw
    while raw:
        raw = raw[os.write(fd, raw) :]


class Agent:
    """A child process with the identity of one user, without capabilities unless that is root."""

    def __init__(self, user: User) -> None:
        ours_in, theirs_out = os.pipe()
        theirs_in, ours_out = os.pipe()
        self._pid = os.fork()
        if self._pid == 0:
            status = 1
            try:
                os.close(ours_in)
                os.close(ours_out)
                if user.uid:
                    os.setgroups(user.groups)
                    os.setresgid(user.gid, user.gid, user.gid)
                    os.setresuid(user.uid, user.uid, user.uid)
                os.umask(0)
                _serve(theirs_in, theirs_out)
                status = 0
            except EOFError:
                pass  # the rig was killed
            finally:
                os._exit(status)
        os.close(theirs_in)
        os.close(theirs_out)
        self._in, self._out = ours_in, ours_out

    def do(self, work: Work) -> list[Any]:
        """The answers, one for each directory."""
        _give(self._out, work)
        answers: list[Any] = _take(self._in)
        return answers

    def end(self) -> None:
        """Tell the child to end: its input would not, as later children hold it open too."""
        _give(self._out, None)
        os.close(self._out)
        os.close(self._in)
        os.waitpid(self._pid, 0)


def _serve(source: int, sink: int) -> None:
    while True:
        work: Work | None = _take(source)
        if work is None:
            return
        answers = []
        for place, calls in work:
            os.chdir(place)
            answers.append(carry_out(calls))
        os.chdir("/")
        _give(sink, answers)
