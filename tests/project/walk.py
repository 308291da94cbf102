"""Run the ``console`` blocks of a page in a real shell and compare what they print.

A line ``$ command`` is run; the lines below it are what it prints. ``…`` in a line stands for any
text in that line, ``…`` as a whole line for any lines, none included. All blocks of a page share
one shell, so that variables, the directory and background programs carry over.
"""

from __future__ import annotations

import os
import re
import selectors
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

MARK = "--- end of command, status"


@dataclass(frozen=True)
class Step:
    """One command of a page, at a line from 1, and the text it is said to print."""

    line: int
    command: str
    expected: str


def steps(page: str) -> list[Step]:
    """The commands of all ``console`` blocks, in order."""
    found: list[Step] = []
    inside = False
    for number, line in enumerate(page.splitlines(), 1):
        if line.startswith("```"):
            inside = line == "```console"
        elif inside and line.startswith("$ "):
            found.append(Step(number, line[2:], ""))
        elif inside:
            last = found.pop()
            found.append(Step(last.line, last.command, f"{last.expected}{line}\n"))
    return found


def matches(expected: str, printed: str) -> bool:
    """Is this output what the page says?"""
    pattern = ""
    for line in expected.splitlines():
        if line == "…":
            pattern += r"(?:[^\n]*\n)*?"
        else:
            pattern += r"[^\n]*".join(map(re.escape, line.split("…"))) + r"\n"
    return re.fullmatch(pattern, printed) is not None


class Shell:
    """One POSIX shell, fed a command at a time; ``close`` it."""

    def __init__(self, directory: Path, environment: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            ["sh"],
            cwd=directory,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self._printed = b""

    def run(self, command: str, timeout: float) -> tuple[int, str]:
        """Exit status and output (both streams); TimeoutError after ``timeout`` seconds."""
        assert self._process.stdin is not None
        # A command reads no input of the shell's; the mark starts a line of its own only after
        # output that ends one, as every command of a page should.
        line = f"{{ {command}\n}} </dev/null\necho '{MARK}' $?\n"
        self._process.stdin.write(line.encode())
        self._process.stdin.flush()
        end = re.compile(rf"{MARK} (\d+)\n".encode())
        deadline = time.monotonic() + timeout
        while (match := end.search(self._printed)) is None:
            self._read(deadline, command)
        printed = self._printed[: match.start()].decode(errors="replace")
        self._printed = self._printed[match.end() :]
        return int(match[1]), printed

    def _read(self, deadline: float, command: str) -> None:
        assert self._process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            if not selector.select(max(0.0, deadline - time.monotonic())):
                raise TimeoutError(f"{command}: no end; so far {self._printed!r}")
        more = self._process.stdout.read1(1 << 16)
        if not more:
            raise EOFError(f"{command}: the shell ended; it printed {self._printed!r}")
        self._printed += more

    def close(self) -> None:
        """End the shell and what it still runs; programs in sessions of their own go on."""
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()


def walk(page: str, directory: Path, environment: dict[str, str], timeout: float) -> list[str]:
    """Run a page's commands; the complaints, empty when all is as the page says.

    Stops at the first complaint: what follows depends on what went before.
    """
    shell = Shell(directory, environment)
    try:
        for step in steps(page):
            status, printed = shell.run(step.command, timeout)
            where = f"line {step.line}: $ {step.command}"
            if status:
                return [f"{where}\nexit status {status}, printed:\n{printed}"]
            if not matches(step.expected, printed):
                return [f"{where}\nexpected:\n{step.expected}\nprinted:\n{printed}"]
    finally:
        shell.close()
    return []
