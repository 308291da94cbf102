"""Our own programs, started from a process that has imported them: a start costs a fork, not half a second.

A test that runs ``holdfast`` twenty times proves nothing by importing it twenty times.  One process for each run of
tests imports what the programs import, has no thread, and forks for every start: the child gets the arguments,
environment, directory and descriptors asked for, and runs the program's main function at its top level, to the end
and the exit code of an interpreter of its own.  What is about the start itself (what is imported, and when) is
tested with interpreters begun afresh: ``FRESH``.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import json
import os
import select
import selectors
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from daemon.cli.main import cli

HOLDFAST = "daemon.cli.main:main"
FRESH = (sys.executable, "-c", "from daemon.cli.main import main; main()")  # the same, begun afresh

ROOT = Path(__file__).resolve().parent.parent
# What is imported beforehand; a process for each of them, for forking one that has more takes longer.
COMMANDS = tuple(sorted(set(cli.modules.values())))
SERVICE = (
    *COMMANDS, "daemon.client", "daemon.export.asked", "daemon.http.front", "daemon.mounter.child",
    "daemon.mounter.client", "daemon.supervise.daemon", "daemon.supervise.numbers", "fsmount.lifecycle",
)  # fmt: skip
_REQUEST_MAX = 200_000  # bytes: what a socket takes as one message
_NUMBER = struct.Struct("!i")

Word = str | bytes | os.PathLike[str]


class Started:
    """A program that was started; the part of ``subprocess.Popen`` that tests use."""

    def __init__(self, link: socket.socket, arguments: Sequence[Word]) -> None:
        self.args = arguments
        self.returncode: int | None = None
        self._link = link
        self.pid = _number(link)

    def poll(self) -> int | None:
        """Its exit code, negative the signal that ended it; None while it runs."""
        return self._ended(0)

    def wait(self, timeout: float | None = None) -> int:
        """The same, at its end. Raises TimeoutExpired."""
        found = self._ended(timeout)
        if found is None:
            raise subprocess.TimeoutExpired(list(self.args), timeout or 0)
        return found

    def send_signal(self, number: int) -> None:
        """As kill(2); nothing once it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """Ask it to end."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it."""
        self.send_signal(signal.SIGKILL)

    def _ended(self, timeout: float | None) -> int | None:
        if self.returncode is None and select.select([self._link], [], [], timeout)[0]:
            self.returncode = _number(self._link)
            self._link.close()
        return self.returncode


def start(
    arguments: Sequence[Word], *, stdin: int | None = None, stdout: int | None = None,
    stderr: int | None = None, env: Mapping[str, str] | None = None, cwd: Path | None = None,
    program: str = HOLDFAST,
) -> Started:  # fmt: skip
    """Start a program, ``MODULE:FUNCTION``; what is not given is as it is in this process."""
    os.umask(umask := os.umask(0o077))
    words = [os.fsdecode(one) for one in arguments]
    request = {
        "program": program,
        "words": words,
        "env": dict(os.environ if env is None else env),
        "cwd": str(cwd or os.getcwd()),
        "umask": umask,
    }
    given = [own if one is None else one for own, one in enumerate((stdin, stdout, stderr))]
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        socket.send_fds(
            _server(_imports(program, words)),
            [json.dumps(request).encode()],
            [theirs.fileno(), *given],
        )
    return Started(ours, arguments)


def run(
    arguments: Sequence[Word], *, timeout: float, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """``holdfast`` to its end, both outputs captured, as subprocess.run does; what is no UTF-8 becomes surrogates."""
    end = time.monotonic() + timeout
    said: dict[int, bytes] = {}
    ours = [os.pipe(), os.pipe()]
    null = os.open(os.devnull, os.O_RDONLY)
    try:
        started = start(arguments, stdin=null, stdout=ours[0][1], stderr=ours[1][1], env=env)
    finally:
        for fd in (null, ours[0][1], ours[1][1]):
            os.close(fd)
    with selectors.DefaultSelector() as open_ones:
        for fd, _ in ours:
            said[fd] = b""
            open_ones.register(fd, selectors.EVENT_READ)
        while open_ones.get_map():
            ready = open_ones.select(end - time.monotonic())
            if not ready and time.monotonic() >= end:
                started.kill()
                raise subprocess.TimeoutExpired(list(arguments), timeout, *said.values())
            for key, _ in ready:
                more = os.read(key.fd, 1 << 16)
                said[key.fd] += more
                if not more:
                    open_ones.unregister(key.fd)
                    os.close(key.fd)
    out, err = (
        one.decode("utf-8", "surrogateescape").replace("\r\n", "\n") for one in said.values()
    )
    code = started.wait(max(0, end - time.monotonic()))
    return subprocess.CompletedProcess(list(arguments), code, out, err)


# --- the process that has imported everything -----------------------------------------------------------------

_servers: dict[tuple[str, ...], socket.socket] = {}
_beginning = threading.Lock()


def _imports(program: str, words: Sequence[str]) -> tuple[str, ...]:
    if program != HOLDFAST:
        return (program.partition(":")[0],)
    return COMMANDS if {"serve", "--api"}.isdisjoint(words) else SERVICE


def _server(modules: tuple[str, ...]) -> socket.socket:
    """The way to ask one that has these imported; it begins when it is first asked, and ends when none is left to."""
    with _beginning:
        if modules not in _servers:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            fd = theirs.fileno()
            code = f"import sys; from tests.warm import serve; sys.exit(serve({fd}, {modules})())"
            with theirs:
                process = subprocess.Popen(
                    [sys.executable, "-c", code], stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL, pass_fds=[fd], cwd=ROOT,
                )  # fmt: skip
            atexit.register(process.wait, 60)
            atexit.register(ours.close)  # first
            _servers[modules] = ours
    return _servers[modules]


def serve(fd: int, modules: tuple[str, ...]) -> Callable[[], object]:
    """Fork for everything that is asked for; returns in the children alone: what each is to run."""
    for module in modules:
        importlib.import_module(module)
    assert len(os.listdir("/proc/self/task")) == 1, "an import has started a thread"
    gc.freeze()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those who wait
    asked = socket.socket(fileno=fd)
    while True:
        raw, given, _, _ = socket.recv_fds(asked, _REQUEST_MAX, 4)
        if not raw:
            os._exit(0)
        if not os.fork():
            asked.detach()
            os.close(fd)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            if not (child := os.fork()):
                return _become(json.loads(raw), given)
            _wait(child, given)
        for one in given:
            os.close(one)


def _wait(child: int, given: Sequence[int]) -> None:
    """Tell who asked the child's number, and when it has ended, how. Does not return."""
    for one in given[1:]:
        os.close(one)
    for number in (0, 1, 2):
        os.close(number)
    with socket.socket(fileno=given[0]) as link, contextlib.suppress(BrokenPipeError):
        link.send(_NUMBER.pack(child))
        link.send(_NUMBER.pack(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])))
    os._exit(0)


def _become(request: dict[str, Any], given: Sequence[int]) -> Callable[[], object]:
    """Take on what was asked for, and nothing else."""
    for own, one in enumerate(given[1:]):
        os.dup2(one, own)
    for one in given:
        os.close(one)
    os.environ.clear()
    os.environ.update(request["env"])
    os.umask(request["umask"])
    os.chdir(request["cwd"])
    sys.argv[:] = ["-c", *request["words"]]
    module, function = request["program"].split(":")
    main: Callable[[], object] = getattr(importlib.import_module(module), function)
    return main


def _number(link: socket.socket) -> int:
    raw = link.recv(_NUMBER.size)
    assert raw, "whoever waits for the program is gone"
    found: int = _NUMBER.unpack(raw)[0]
    return found
