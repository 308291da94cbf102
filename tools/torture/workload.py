"""Seeded operations on a tree, through any door: the same seed gives the same operations, whatever happens to them.

``Script`` chooses the next operation from the state of a ``History`` alone, so that a history can be made again from
the seed and the number of operations that were begun and done: all a crashed machine has to tell the outside.
"""

from __future__ import annotations

import os
import random
import stat
from collections.abc import Iterator
from typing import Protocol

from tools.torture.history import History, Meta, Op, Seen

FILES = 16  # at most; small, so that operations meet
SIZE = 700_000  # bytes of a file, at most

# What is done how often.
WEIGHTS = {
    "write": 34, "append": 12, "create": 12, "fsync": 14, "rename": 8, "truncate": 5, "unlink": 6, "mkdir": 4,
    "rmdir": 2, "link": 4, "symlink": 3, "chmod": 3, "setxattr": 4, "fsyncdir": 3,
}  # fmt: skip


class Files(Protocol):
    """A tree to work on. Paths are relative to it; errors are raised."""

    def do(self, op: Op) -> None:
        """Carry out one operation; when it returns, so has the system."""


class PosixFiles:
    """A directory of an ordinary file system, or of a mount."""

    def __init__(self, top: bytes) -> None:
        self._top = top

    def do(self, op: Op) -> None:
        """Carry out one operation."""
        path = os.path.join(self._top, op.path)
        other = os.path.join(self._top, op.other)
        match op.kind:
            case "create":
                # In one step, as the history has it: modes are such that a umask of 022 leaves them.
                os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, op.number))
            case "mkdir":
                os.mkdir(path, op.number)
            case "symlink":
                os.symlink(op.other, path)
            case "link":
                os.link(path, other, follow_symlinks=False)
            case "rename":
                rename(path, other, op.number)
            case "unlink":
                os.unlink(path)
            case "rmdir":
                os.rmdir(path)
            case "chmod":
                os.chmod(path, op.number)
            case "setxattr":
                os.setxattr(path, op.other, op.data, follow_symlinks=False)
            case _:
                self._on_open(op, path)

    @staticmethod
    def _on_open(op: Op, path: bytes) -> None:
        flags = os.O_RDONLY if op.kind == "fsyncdir" else os.O_RDWR
        fd = os.open(path, flags)
        try:
            if op.kind == "write":
                done = 0
                while done < len(op.data):
                    done += os.pwrite(fd, op.data[done:], op.number + done)
            elif op.kind == "truncate":
                os.ftruncate(fd, op.number)
            else:
                os.fsync(fd)
        finally:
            os.close(fd)


def rename(old: bytes, new: bytes, flags: int) -> None:
    """rename(2), or renameat2(2) with RENAME_NOREPLACE 1 or RENAME_EXCHANGE 2."""
    if not flags:
        os.rename(old, new)
        return
    import ctypes  # only here: few renames have flags

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.renameat2(-100, old, -100, new, flags):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), old)


def observe(top: bytes) -> dict[bytes, Seen]:
    """Everything below a directory, as a user sees it; ``.snapshots`` is in no listing."""
    found = {}
    for path, kind in _walk(top, b""):
        full = os.path.join(top, path)
        found[path] = _seen(full, kind)
    return found


def _walk(top: bytes, below: bytes) -> Iterator[tuple[bytes, str]]:
    for entry in sorted(os.scandir(os.path.join(top, below)), key=lambda e: e.name):
        path = os.path.join(below, entry.name)
        kind = "l" if entry.is_symlink() else "d" if entry.is_dir() else "f"
        yield path, kind
        if kind == "d":
            yield from _walk(top, path)


def _seen(full: bytes, kind: str) -> Seen:
    found = os.lstat(full)
    target = os.readlink(full) if kind == "l" else b""
    names = [
        os.fsencode(n) for n in os.listxattr(full, follow_symlinks=False) if n.startswith("user.")
    ]
    xattrs = tuple(sorted((n, os.getxattr(full, n, follow_symlinks=False)) for n in names))
    data = b""
    if kind == "f":
        with open(full, "rb") as file:
            data = file.read()
    return Seen(Meta(kind, stat.S_IMODE(found.st_mode), target, xattrs), found.st_ino, data)


class Script:
    """The operations of one seed: at most ``files`` files of ``size`` bytes, in a tree that may have some already."""

    def __init__(
        self, rng: random.Random, history: History, *, files: int = FILES, size: int = SIZE
    ) -> None:
        self._rng = rng
        self._history = history
        self._most = files
        self._size_max = size
        self._made = 0
        self._kinds = list(WEIGHTS)
        self._weights = list(WEIGHTS.values())

    def next(self) -> Op:
        """The next operation that can succeed. Draw it once, then begin it."""
        while True:
            kind = self._rng.choices(self._kinds, self._weights)[0]
            op: Op | None = getattr(self, f"_{kind}")()
            if op is not None:
                return op

    # --- choosing -----------------------------------------------------------------------------------------

    def _paths(self, kinds: str) -> list[bytes]:
        state = self._history.now
        return [path for path, key in state.paths.items() if state.metas[key].kind in kinds]

    def _some(self, kinds: str) -> bytes | None:
        paths = self._paths(kinds)
        return self._rng.choice(paths) if paths else None

    def _new(self) -> bytes:
        folders = [b"", *(path for path in self._paths("d") if path.count(b"/") < 2)]
        folder = self._rng.choice(folders)
        while True:
            self._made += 1
            path = os.path.join(folder, b"n%d" % self._made)
            if path not in self._history.now.paths:  # it may be of an earlier script
                return path

    def _size(self, path: bytes) -> int:
        history = self._history
        return len(history.contents[history.now.paths[path]].now)

    def _data(self, most: int) -> bytes:
        """New bytes, or bytes of some file with a little changed: what delta chunks are made of."""
        rng = self._rng
        size = rng.choice((1, 100, 4096, 4096, 16_384, 65_536, 150_000, 300_000))
        size = max(1, min(most, rng.randint(size // 2 + 1, size) if rng.random() < 0.5 else size))
        style = rng.random()
        files = self._paths("f")
        if style < 0.4 and files:
            history = self._history
            source = history.contents[history.now.paths[rng.choice(files)]].now
            if len(source) > 2:
                start = rng.randrange(len(source))
                data = bytearray(source[start : start + size])
                for _ in range(rng.randint(1, 3)):
                    data[rng.randrange(len(data))] = rng.randrange(256)
                return bytes(data)
        if style < 0.5:
            return bytes(size)
        if style < 0.7:
            return (b"row %08d of a table;" % rng.randrange(10**8) * (size // 21 + 1))[:size]
        return rng.randbytes(size)

    # --- operations ---------------------------------------------------------------------------------------

    def _create(self) -> Op | None:
        if len(self._paths("f")) >= self._most:
            return None
        return Op("create", self._new(), number=self._rng.choice((0o644, 0o600, 0o755)))

    def _write(self) -> Op | None:
        path = self._some("f")
        if path is None:
            return None
        size = self._size(path)
        at = self._rng.choice((0, size // 2 & ~4095, self._rng.randint(0, size), size))
        if self._rng.random() < 0.1:
            at = min(size + self._rng.choice((1, 5000, 70_000)), self._size_max - 1)
        room = self._size_max - at
        return Op("write", path, number=at, data=self._data(room)) if room > 0 else None

    def _append(self) -> Op | None:
        path = self._some("f")
        if path is None or self._size(path) >= self._size_max:
            return None
        at = self._size(path)
        return Op("write", path, number=at, data=self._data(self._size_max - at))

    def _truncate(self) -> Op | None:
        path = self._some("f")
        if path is None:
            return None
        size = self._size(path)
        choices = (0, size // 2, max(0, size - 1), min(self._size_max, size + 10_000))
        return Op("truncate", path, number=self._rng.choice(choices))

    def _fsync(self) -> Op | None:
        path = self._some("f")
        return None if path is None else Op("fsync", path)

    def _fsyncdir(self) -> Op | None:
        path = self._some("d")
        return None if path is None else Op("fsyncdir", path)

    def _mkdir(self) -> Op | None:
        if len(self._paths("d")) >= 8:
            return None
        return Op("mkdir", self._new(), number=self._rng.choice((0o755, 0o700)))

    def _rmdir(self) -> Op | None:
        paths = self._history.now.paths
        empty = [d for d in self._paths("d") if not any(p.startswith(d + b"/") for p in paths)]
        return Op("rmdir", self._rng.choice(empty)) if empty else None

    def _unlink(self) -> Op | None:
        path = self._some("fl")
        return None if path is None else Op("unlink", path)

    def _symlink(self) -> Op | None:
        if len(self._paths("l")) >= 6:
            return None
        return Op("symlink", self._new(), b"to/%d" % self._rng.randrange(10**6))

    def _link(self) -> Op | None:
        path = self._some("f")
        if path is None or len(self._paths("f")) >= self._most:
            return None
        return Op("link", path, self._new())

    def _rename(self) -> Op | None:
        old = self._some("fdl")
        if old is None:
            return None
        new = self._new()
        flags = self._rng.choice((0, 0, 1))
        if self._rng.random() < 0.5:  # over another file, or in exchange with it
            other = self._some("f")
            state = self._history.now
            if other is None or state.paths[other] == state.paths[old] or old in self._paths("dl"):
                return None
            new, flags = other, self._rng.choice((0, 0, 2))
        if new.startswith(old + b"/") or old.startswith(new + b"/"):
            return None
        return Op("rename", old, new, flags)

    def _chmod(self) -> Op | None:
        path = self._some("fd")
        if path is None:
            return None
        return Op("chmod", path, number=self._rng.choice((0o700, 0o711, 0o750, 0o755)))

    def _setxattr(self) -> Op | None:
        path = self._some("fd")
        if path is None:
            return None
        value = self._rng.randbytes(self._rng.choice((1, 30, 1200)))
        return Op("setxattr", path, b"user.%d" % self._rng.randrange(3), data=value)


def again(rng: random.Random, begun: int, done: int) -> History:
    """The history of a script of which so many operations were begun and done, without doing them."""
    history = History()
    script = Script(rng, history)
    for number in range(1, begun + 1):
        op = script.next()
        history.begin(op)
        if number <= done:
            history.done(op)
    return history
