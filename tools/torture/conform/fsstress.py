"""An exerciser of a tree: several processes, each in a directory of its own and in one they share.

    python -m tools.torture.conform.fsstress DIR --ops 10000 --processes 4 --seed 7

In its own directory a process knows what every call must answer; in the shared one only what it may.  At the end the
whole tree must agree with itself: link counts, listings, attributes, contents.
"""

from __future__ import annotations

import argparse
import errno
import hashlib
import os
import random
import stat
import sys
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from tools.torture.conform.choose import OPERATIONS, Chooser
from tools.torture.conform.compare import Frozen, difference
from tools.torture.conform.disk import Disk
from tools.torture.conform.machine import answer
from tools.torture.conform.model import Model
from tools.torture.conform.posix.calls import rename2

SHARED = "shared"
SHARED_PART = 0.3
SHARED_NAMES = [f"n{number}" for number in range(12)]
# What may meet a call whose path others change at the same time.
USUAL = {
    errno.ENOENT, errno.EEXIST, errno.ENOTEMPTY, errno.EISDIR, errno.ENOTDIR, errno.EINVAL, errno.ELOOP, errno.EPERM,
    errno.ENODATA, errno.EXDEV, errno.ENXIO,
}  # fmt: skip


class Inconsistent(Exception):
    """The tree does not agree with what was done to it, or with itself."""


class Record(NamedTuple):
    """One path of a tree. ``first``: the first path of the same file."""

    mode: int
    uid: int
    gid: int
    nlink: int
    size: int
    mtime_ns: int
    ctime_ns: int
    first: str
    content: str
    xattrs: tuple[tuple[str, bytes], ...]


def walk(top: str) -> dict[str, Record]:
    """A tree as it is, read from end to end. Raises Inconsistent when it does not agree with itself."""
    found: dict[str, Record] = {}
    names: dict[int, list[str]] = {}
    waiting = [""]
    while waiting:
        path = waiting.pop()
        real = os.lstat(f"{top}/{path}")
        below = sorted(os.listdir(f"{top}/{path}")) if stat.S_ISDIR(real.st_mode) else []
        if len(set(below)) != len(below):
            raise Inconsistent(f"{path!r}: a name is listed twice")
        same = names.setdefault(real.st_ino, [])
        same.append(path)
        found[path] = Record(
            real.st_mode, real.st_uid, real.st_gid, real.st_nlink, _size(real), real.st_mtime_ns,
            real.st_ctime_ns, same[0], _content(f"{top}/{path}", real, below), _xattrs(f"{top}/{path}", real.st_mode),
        )  # fmt: skip
        waiting += [f"{path}/{name}".lstrip("/") for name in reversed(below)]
    _consistent(top, found, names)
    return found


def _size(real: os.stat_result) -> int:
    return 0 if stat.S_ISDIR(real.st_mode) else real.st_size


def _content(path: str, real: os.stat_result, below: list[str]) -> str:
    if stat.S_ISLNK(real.st_mode):
        return os.readlink(path)
    if stat.S_ISDIR(real.st_mode):
        return "/".join(below)
    if not stat.S_ISREG(real.st_mode):
        return ""
    with open(path, "rb") as file:
        data = file.read()
    if len(data) != real.st_size:
        raise Inconsistent(f"{path!r}: {len(data)} bytes of {real.st_size}")
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def _xattrs(path: str, mode: int) -> tuple[tuple[str, bytes], ...]:
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        return ()
    return tuple((name, os.getxattr(path, name)) for name in sorted(os.listxattr(path)))


def _consistent(top: str, found: dict[str, Record], names: dict[int, list[str]]) -> None:
    for path, record in found.items():
        if stat.S_ISDIR(record.mode):
            below = [one for one in found if one and os.path.dirname(one) == path]
            wanted = 2 + sum(stat.S_ISDIR(found[one].mode) for one in below)
        else:
            wanted = len(names[os.lstat(f"{top}/{path}").st_ino])
        if path and record.nlink != wanted:
            raise Inconsistent(f"{path!r}: link count {record.nlink} instead of {wanted}")


class Process:
    """What one process does."""

    def __init__(self, top: str, number: int, seed: object) -> None:
        self._chance = random.Random(f"{seed}:{number}")
        self._own = f"{top}/own-{number}"
        self._shared = f"{top}/{SHARED}"
        os.mkdir(self._own, 0o755)
        os.chmod(self._own, 0o755)
        self._model = Model()
        self._disk = Disk(self._own)
        self._chooser = Chooser(self._model, self._chance.randrange, far=False)

    def run(self, operations: int) -> None:
        """So many operations, then a comparison of the own tree. Raises Inconsistent."""
        for _ in range(operations):
            if self._chance.random() < SHARED_PART:
                self._in_shared()
            else:
                self._in_own()
        self._disk.end()
        complaint = difference(self._own, Frozen(self._model))
        if complaint:
            raise Inconsistent(f"{self._own}: {complaint}")

    def _in_own(self) -> None:
        step = self._chooser.step(self._chance.choice(OPERATIONS))
        if step is None:
            return
        wanted, have = answer(self._model, step), answer(self._disk, step)
        if step.name == "lseek" and step.arguments[2] in (os.SEEK_DATA, os.SEEK_HOLE):
            if isinstance(wanted, int):
                os.lseek(self._disk.fds[int(str(step.arguments[0]))], wanted, os.SEEK_SET)
            return  # where holes are is the file system's choice
        if wanted != have:
            raise Inconsistent(
                f"{self._own}: {step}: {repr(have)[:200]} instead of {repr(wanted)[:200]}"
            )

    def _name(self) -> str:
        parts = self._chance.choices(SHARED_NAMES, k=self._chance.choice((1, 1, 2, 3)))
        return "/".join((self._shared, *parts))

    def _in_shared(self) -> None:
        work: Callable[[], None] = getattr(self, f"_{self._chance.choice(SHARED_WORK)}")
        try:
            work()
        except OSError as error:
            if error.errno not in USUAL:
                raise Inconsistent(f"{work.__name__} in the shared directory: {error}") from None

    def _make_file(self) -> None:
        with open(self._name(), "ab" if self._chance.random() < 0.5 else "wb") as file:
            file.write(self._chance.randbytes(self._chance.choice((0, 10, 5000, 100_000))))

    def _read_file(self) -> None:
        fd = os.open(self._name(), os.O_RDONLY | os.O_NONBLOCK)
        try:
            os.read(fd, 100_000)
        finally:
            os.close(fd)

    def _make_directory(self) -> None:
        os.mkdir(self._name())

    def _remove_directory(self) -> None:
        os.rmdir(self._name())

    def _remove(self) -> None:
        os.unlink(self._name())

    def _move(self) -> None:
        rename2(self._name(), self._name(), self._chance.choice((0, 0, 0, 1, 2)))

    def _link(self) -> None:
        os.link(self._name(), self._name(), follow_symlinks=False)

    def _link_softly(self) -> None:
        os.symlink(self._chance.choice(SHARED_NAMES), self._name())

    def _list(self) -> None:
        os.listdir(os.path.dirname(self._name()))

    def _attributes(self) -> None:
        name = self._name()
        os.setxattr(name, "user.stress", self._chance.randbytes(20))
        os.chmod(name, self._chance.choice((0o600, 0o755)))
        os.utime(name, ns=(self._chance.randrange(10**18), self._chance.randrange(10**18)))

    def _cut(self) -> None:
        os.truncate(self._name(), self._chance.choice((0, 100, 70_000)))


SHARED_WORK = (
    "make_file", "make_file", "make_file", "read_file", "make_directory", "make_directory",
    "remove_directory", "remove",
    "remove", "move", "move", "move", "link", "link", "link_softly", "list", "attributes", "cut",
)  # fmt: skip


def stress(top: str, operations: int, processes: int, seed: object) -> None:
    """So many operations in all, by so many processes. Raises Inconsistent with what the first of them found."""
    os.makedirs(f"{top}/{SHARED}", exist_ok=True)
    mask = os.umask(0)
    running: list[tuple[int, int]] = []
    try:
        for number in range(processes):
            ours, theirs = os.pipe()
            pid = os.fork()
            if pid == 0:
                os.close(ours)
                _child(theirs, partial(_work, top, number, seed, operations // processes))
            os.close(theirs)
            running.append((pid, ours))
    finally:
        os.umask(mask)
        said = [_end(pid, fd) for pid, fd in running]
    for text in filter(None, said):
        raise Inconsistent(text)


def _work(top: str, number: int, seed: object, operations: int) -> None:
    Process(top, number, seed).run(operations)


def _child(fd: int, work: Callable[[], None]) -> None:
    """Never returns."""
    try:
        work()
    except Inconsistent as error:
        os.write(fd, str(error).encode(errors="replace")[:4000])
    except BaseException as error:  # noqa: BLE001  the parent must be told, whatever it is
        os.write(fd, f"the exerciser itself: {error!r}".encode(errors="replace")[:4000])
    finally:
        os._exit(0)


def _end(pid: int, fd: int) -> str:
    with open(fd, "rb") as file:
        text = file.read().decode()
    os.waitpid(pid, 0)
    return text


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.torture.conform.fsstress", description=__doc__
    )
    parser.add_argument("directory")
    parser.add_argument("--ops", type=int, default=10_000)
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    top = os.path.join(options.directory, f"fsstress-{options.seed}")
    os.makedirs(top)
    try:
        stress(top, options.ops, options.processes, options.seed)
        paths = len(walk(top))
    except Inconsistent as error:
        print(f"seed {options.seed}: {error}")
        return 1
    print(f"{options.ops} operations of seed {options.seed}: {paths} paths, as they should be")
    return 0


if __name__ == "__main__":
    sys.exit(main())
