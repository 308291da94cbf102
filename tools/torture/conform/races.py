"""Several processes at once on one mount: appending, listing under change, writing past a snapshot."""

from __future__ import annotations

import ctypes
import os
import random
import struct
from collections.abc import Callable
from functools import partial
from pathlib import Path

from tools.torture.conform.places import Broken, Mounted
from tools.torture.rig import Found

SYS_GETDENTS64 = 217 if os.uname().machine == "x86_64" else 61
RECORD = 97  # bytes of an appended record: no power of two, so that records cross pages
_libc = ctypes.CDLL(None, use_errno=True)


def child(work: Callable[[], None]) -> int:
    """Do some work in a process of its own; its id."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    return pid


def wait(pid: int) -> None:
    """Raises Broken when the work did not succeed."""
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if status:
        raise Broken(f"a child ended with status {status}")


def append(path: Path, writers: int, records: int) -> int:
    """O_APPEND from several processes: every record is there once, whole, in its writer's order. Returns how many."""

    def work(number: int) -> None:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        for count in range(records):
            assert (
                os.write(fd, struct.pack("<II", number, count).ljust(RECORD, bytes([number + 65])))
                == RECORD
            )
        os.close(fd)

    for pid in [child(partial(work, number)) for number in range(writers)]:
        wait(pid)
    _judge_records(path.read_bytes(), writers, records)
    fd = os.open(path, os.O_RDONLY)
    os.fsync(fd)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)  # now as the file system has it
    os.close(fd)
    _judge_records(path.read_bytes(), writers, records)
    path.unlink()
    return writers * records


def _judge_records(data: bytes, writers: int, records: int) -> None:
    if len(data) != writers * records * RECORD:
        raise Found(
            f"{len(data)} bytes of {writers * records} appended records, {len(data) / RECORD:.2f} records"
        )
    seen = [0] * writers
    for at in range(0, len(data), RECORD):
        number, count = struct.unpack_from("<II", data, at)
        if (
            number >= writers
            or count != seen[number]
            or data[at + 8 : at + RECORD] != bytes([number + 65]) * (RECORD - 8)
        ):
            raise Found(
                f"an appended record is damaged or out of order at {at}: {data[at : at + 20]!r}"
            )
        seen[number] += 1


def entries(fd: int, size: int) -> list[str]:
    """Names of the next entries, as many as fit ``size`` bytes; none at the end."""
    buffer = ctypes.create_string_buffer(size)
    got = _libc.syscall(SYS_GETDENTS64, fd, buffer, size)
    if got < 0:
        raise OSError(ctypes.get_errno(), "getdents64")
    names = []
    at = 0
    while at < got:
        (length,) = struct.unpack_from("<H", buffer.raw, at + 16)
        names.append(os.fsdecode(buffer.raw[at + 19 : at + length].split(b"\0", 1)[0]))
        at += length
    return names


def read_changing(path: Path, chance: random.Random, count: int) -> int:
    """Read a directory in small steps while it changes. Returns how many changes were made."""
    path.mkdir()
    names = [f"name-{number:04}-{'x' * (number % 90)}" for number in range(count)]
    for name in names:
        (path / name).touch()
    chance.shuffle(names)
    doomed, stay = names[: count // 3], set(names[count // 3 :])
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    seen: list[str] = []
    changes = 0
    try:
        while batch := entries(fd, chance.choice((300, 1000, 5000))):
            seen += (name for name in batch if name not in (".", ".."))
            for _ in range(4):
                changes += 1
                kind = chance.randrange(3)
                if kind == 0 and doomed:
                    os.unlink(path / doomed.pop())
                elif kind == 1 and doomed:
                    os.rename(path / doomed.pop(), path / f"moved-{changes}")
                else:
                    (path / f"new-{changes}").touch()
        os.lseek(fd, 0, os.SEEK_SET)  # rewinddir(): what is there now
        again = []
        while batch := entries(fd, 2000):
            again += batch
    finally:
        os.close(fd)
    if sorted(again) != sorted([".", "..", *os.listdir(path)]):
        raise Found("a listing from the beginning again is not what is there")
    if len(set(seen)) != len(seen):
        raise Found(
            f"entries seen twice: {sorted({name for name in seen if seen.count(name) > 1})[:5]}"
        )
    if not stay <= set(seen):
        raise Found(f"entries not seen though they were there: {sorted(stay - set(seen))[:5]}")
    for name in os.listdir(path):
        os.unlink(path / name)
    path.rmdir()
    return changes


def snapshot_under_writes(mounted: Mounted, name: str) -> int:
    """A point made while one process appends numbers and renames a file to the last of them. Returns how many.

    Every number whose write returned before is in it, none that was begun after; it never changes again.
    """
    folder = mounted.path / name
    folder.mkdir()
    (folder / "at-0").touch()
    ours, theirs = os.pipe()

    def work() -> None:
        os.close(ours)
        fd = os.open(folder / "numbers", os.O_WRONLY | os.O_CREAT, 0o600)
        for number in range(1, 1 << 30):
            os.pwrite(fd, struct.pack("<Q", number) * 64, (number - 1) * 512)
            os.rename(folder / f"at-{number - 1}", folder / f"at-{number}")
            try:
                os.write(theirs, struct.pack("<Q", number))
            except BrokenPipeError:
                return

    pid = child(work)
    os.close(theirs)
    last = _last(ours, 1 << 13)
    before = _drain(ours, last)
    point = mounted.snapshot()
    after = _drain(ours, before)
    os.close(ours)
    wait(pid)
    frozen = mounted.path / ".snapshots" / point / name
    first = _judge(frozen, before, after)
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    if _judge(frozen, before, after) != first:
        raise Found(f"the point {point} changed after it was made")
    return after


def _last(fd: int, size: int) -> int:
    raw = os.read(fd, size)
    return int(struct.unpack("<Q", raw[-8:])[0])


def _drain(fd: int, last: int) -> int:
    os.set_blocking(fd, False)
    try:
        while True:
            try:
                last = _last(fd, 1 << 13)
            except BlockingIOError:
                return last
    finally:
        os.set_blocking(fd, True)


def _judge(frozen: Path, before: int, after: int) -> tuple[bytes, list[str]]:
    """The point holds all numbers up to one between these; the marker is renamed as far, or one less."""
    data = (frozen / "numbers").read_bytes()
    count = len(data) // 512
    wanted = b"".join(struct.pack("<Q", number) * 64 for number in range(1, count + 1))
    if data != wanted:
        raise Found(f"the point's file of {len(data)} bytes is not what was written")
    if not before <= count <= after + 2:
        raise Found(
            f"the point holds {count} numbers; {before} were written before it, {after} when it was done"
        )
    markers = sorted(name for name in os.listdir(frozen) if name != "numbers")
    if markers not in ([f"at-{count}"], [f"at-{count - 1}"]):
        raise Found(f"the point holds {count} numbers and the names {markers}")
    return data, markers
