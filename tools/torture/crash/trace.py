"""What a program asked of the disk, call by call, recorded by strace with every byte.

Nothing of the program is changed for it, and LMDB's own calls are seen like the engine's.  The program tells what it
had acknowledged by writing lines to a marks file, which lie between its other calls in the order they happened.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

_CALLS = (
    "openat,open,creat,lseek,write,pwrite64,writev,pwritev,pwritev2,ftruncate,truncate,fallocate,fsync,fdatasync,"
    "rename,renameat,renameat2,unlink,unlinkat,mkdir,mkdirat,rmdir,link,linkat,symlink,symlinkat,"
    "clone,clone3,fork,vfork"
)
_STRING_MAX = (
    16 << 20
)  # bytes of one write that strace prints; the engine writes at most a few MiB at once
_LIMIT = 600  # s


class Event(NamedTuple):
    """One call that changed something, or made it durable. Paths are relative to the root; data is what was written.

    ``kind``: create, write, truncate, allocate, sync, rename, unlink, mkdir, rmdir, mark.  ``start`` and ``end`` are
    lines of the trace: calls overlap when several threads make them.  ``durable``: a write through O_DSYNC.
    """

    kind: str
    path: str
    start: int
    end: int
    other: str = ""
    offset: int = 0
    data: bytes = b""
    durable: bool = False


def record(command: list[str], trace: Path, environment: dict[str, str]) -> str:
    """Run a command under strace; returns what it said on standard error when it failed, else nothing."""
    line = ["strace", "-f", "-qq", "-y", "-xx", "-s", str(_STRING_MAX), "--seccomp-bpf", "-e", f"trace={_CALLS}",
            "-o", str(trace), *command]  # fmt: skip
    done = subprocess.run(
        line, env={**os.environ, **environment}, capture_output=True, text=True, timeout=_LIMIT, check=False
    )  # fmt: skip
    return "" if done.returncode == 0 else f"exit {done.returncode}: {done.stderr[-2000:]}"


_LINE = re.compile(r"(\d+) +(?:(\w+)\((.*)|<\.\.\. (\w+) resumed>(.*))", re.DOTALL)
_RESULT = re.compile(r"\)\s+= (-?\d+)(?:<([^>]*)>)?(.*)$")
_FD = re.compile(r"(-?\d+|AT_FDCWD)<((?:\\x[0-9a-f]{2})*)>(\(deleted\))?")
_STRING = re.compile(r'"((?:\\x[0-9a-f]{2})*)"(\.\.\.)?')


def _bytes(text: str) -> bytes:
    return bytes.fromhex(text.replace("\\x", ""))


def read(trace: Path, root: str, marks: str) -> list[Event]:
    """The events below ``root`` of a trace, and the lines written to ``marks``, in the order they ended."""
    reader = _Reader(root, marks)
    with trace.open(encoding="ascii") as file:
        for number, line in enumerate(file):
            reader.feed(number, line.rstrip("\n"))
    return reader.events


class _Reader:
    """Lines in, events out."""

    def __init__(self, root: str, marks: str) -> None:
        self.events: list[Event] = []
        self._root = root
        self._marks = marks
        self._begun: dict[str, tuple[int, str]] = {}
        self._process: dict[str, str] = {}  # of a thread
        self._flags: dict[tuple[str, str], str] = {}  # of a process's open descriptors
        self._position: dict[tuple[str, str], int] = {}  # the same: LMDB seeks, then writes

    def feed(self, number: int, line: str) -> None:
        """One line. Calls of which the end is missing never returned: they are left out."""
        match = _LINE.match(line)
        if match is None:
            return
        pid, name, rest, resumed, tail = match.groups()
        if pid not in self._process:
            self._process[pid] = self._parent_of_thread() or pid
        if resumed is None:
            if rest.endswith("<unfinished ...>"):
                self._begun[pid] = (number, rest.removesuffix("<unfinished ...>").rstrip())
                return
            start = number
        else:
            start, begun = self._begun.pop(pid)
            name, rest = resumed, begun + tail
        result = _RESULT.search(rest)
        if result is None or int(result[1]) < 0:
            return
        if name in ("clone", "clone3", "fork", "vfork"):
            self._process[result[1]] = self._process[pid] if "CLONE_THREAD" in rest else result[1]
            return
        arguments = rest[: result.start()]
        self.events.extend(self._events(self._process[pid], name, arguments, result, start, number))

    def _parent_of_thread(self) -> str:
        """A thread may be heard of before the call that made it has returned."""
        for pid, (_, text) in self._begun.items():
            if "CLONE_THREAD" in text:
                return self._process[pid]
        return ""

    def _inside(self, raw: str, folder: str = "") -> str | None:
        """A path relative to the root; None when it lies elsewhere."""
        path = os.path.normpath(os.path.join(folder, os.fsdecode(_bytes(raw))))
        return (
            path[len(self._root) + 1 :]
            if path.startswith(self._root + "/")
            else "."
            if path == self._root
            else None
        )

    def _paths(self, arguments: str) -> list[str | None]:
        """The paths a call names by strings, each relative to the descriptor before it, if there is one."""
        found, folder = [], ""
        for match in re.finditer(f"{_FD.pattern}|{_STRING.pattern}", arguments):
            if match[4] is None:
                folder = os.fsdecode(_bytes(match[2]))
            else:
                found.append(self._inside(match[4], folder))
        return found

    def _events(
        self, process: str, name: str, arguments: str, result: re.Match[str], start: int, end: int
    ) -> Iterator[Event]:
        if name in ("open", "openat", "creat"):
            self._flags[process, result[1]] = arguments
            self._position[process, result[1]] = 0
            path = self._paths(arguments)[0]
            if path is not None and ("O_CREAT" in arguments or name == "creat"):
                yield Event("create", path, start, end)
            if path is not None and "O_TRUNC" in arguments:
                yield Event("truncate", path, start, end)
            return
        kind = {
            "renameat": "rename",
            "renameat2": "rename",
            "unlinkat": "unlink",
            "mkdirat": "mkdir",
        }.get(name, name)
        if kind in ("rename", "unlink", "mkdir", "rmdir", "truncate"):
            paths = self._paths(arguments)
            if paths[0] is not None:
                assert "AT_REMOVEDIR" not in arguments and "RENAME_" not in arguments, arguments
                assert kind != "truncate", "the engine truncates open files"
                yield Event(
                    kind, paths[0], start, end, other=(paths[-1] or "") if kind == "rename" else ""
                )
            return
        assert not name.startswith(("link", "symlink")) or not any(self._paths(arguments)), (
            arguments
        )
        descriptor = _FD.match(arguments)
        if descriptor is not None and not descriptor[3]:
            place = (process, descriptor[1])
            yield from self._on_file(place, name, arguments, descriptor, int(result[1]), start, end)

    def _on_file(
        self,
        place: tuple[str, str],
        name: str,
        arguments: str,
        descriptor: re.Match[str],
        size: int,
        start: int,
        end: int,
    ) -> Iterator[Event]:
        if name == "write" and os.fsdecode(_bytes(descriptor[2])) == self._marks:
            text = b"".join(_bytes(m[1]) for m in _STRING.finditer(arguments))
            for mark in text.decode().splitlines():
                yield Event("mark", mark, start, end)
            return
        path = self._inside(descriptor[2])
        if path is None:
            return
        numbers = re.findall(r", (\d+)(?=[,)]|$)", arguments[descriptor.end() :])
        if name in ("fsync", "fdatasync"):
            yield Event("sync", path, start, end)
        elif name == "ftruncate":
            yield Event("truncate", path, start, end, offset=int(numbers[0]))
        elif name == "lseek":
            self._position[place] = size
        elif name == "fallocate":
            yield Event("allocate", path, start, end, offset=int(numbers[1]) + int(numbers[2]))
        else:
            strings = list(_STRING.finditer(arguments))
            assert not any(match[2] for match in strings), (
                "a write longer than strace was told to print"
            )
            data = b"".join(_bytes(match[1]) for match in strings)[:size]
            if name in ("write", "writev"):
                offset = self._position[place]
                self._position[place] += size
            else:
                offset = int(numbers[-2] if name == "pwritev2" else numbers[-1])
            flags = self._flags.get(place, "")
            durable = "O_DSYNC" in flags or "O_SYNC" in flags
            yield Event("write", path, start, end, offset=offset, data=data, durable=durable)
