"""Tricks that fit no matrix: each is played by a user who should get nothing, or nothing more, by it.

A trick returns what it got; empty is good.  Before it, an administrator sets up what it needs.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple

from tools.torture.rig import Job
from tools.torture.users.agents import ROOT, Child, Who, act
from tools.torture.users.ground import Ground, Mounted
from tools.torture.users.model import ALICE, BOB

# What a terminal would obey, a page would show as something else, or a log would take for a new line.
NAMES_OF_EVIL = (
    b"\x1b]0;title\x07\x1b[2J", b"line\nbreak", b"\r\x9b31mred", b"\xe2\x80\xaetxt.exe", b"\xff\xfe not utf-8", b"-rf",
)  # fmt: skip


class Scene(NamedTuple):
    """Where tricks are played."""

    job: Job
    place: Ground
    mounted: Mounted


def errno_of(action: Callable[[], object]) -> str:
    """The name of the error, or "ok"."""
    try:
        action()
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, str(error))
    return "ok"


def got(who: Who, attempts: Mapping[str, Callable[[], object]]) -> str:
    """Those of the attempts that were not refused."""
    answers: dict[str, str] = act(who, lambda: {name: errno_of(a) for name, a in attempts.items()})
    return ", ".join(name for name, answer in answers.items() if answer == "ok")


def nosuid_and_nodev(scene: Scene) -> str:
    """A set-user-id program runs as who starts it; a device cannot be opened."""
    where = scene.mounted.where
    program = where / "id"
    shutil.copy("/usr/bin/id", program)
    os.chmod(program, 0o4755)
    os.mknod(where / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.chmod(where / "null", 0o666)

    def run() -> str:
        done = subprocess.run([program, "-u"], capture_output=True, text=True, check=True)
        return done.stdout.strip()

    uid = act(BOB, run)
    point = where / ".snapshots" / scene.mounted.snapshot()
    opened = got(
        BOB,
        {f"{one}/null opened": partial(os.open, one / "null", os.O_RDONLY)
         for one in (where, point)},
    )  # fmt: skip
    return opened if uid == str(BOB.uid) else f"a program that ran as {uid}"


def handles_of_others(scene: Scene) -> str:
    """Another's descriptors cannot be opened; one's own, read-only, not with more rights."""
    path = scene.mounted.where / "alices"
    path.write_bytes(b"hers")
    os.chown(path, ALICE.uid, ALICE.gid)
    os.chmod(path, 0o600)
    ready, told = os.pipe()

    def hold() -> None:
        fd = os.open(path, os.O_RDWR)
        os.write(told, bytes([fd]))
        time.sleep(60)

    holder = Child(ALICE, hold)
    try:
        (number,) = os.read(ready, 1)
        theirs = f"/proc/{holder.pid}/fd/{number}"
        given = os.open(path, os.O_RDONLY)
        found = got(
            BOB,
            {
                "another's descriptor": lambda: os.open(theirs, os.O_RDONLY),
                "a descriptor with more rights": lambda: os.open(
                    f"/proc/self/fd/{given}", os.O_RDWR
                ),
                "a descriptor once more": lambda: os.open(f"/proc/self/fd/{given}", os.O_RDONLY),
                "a write": lambda: os.write(given, b"x"),
                "another's memory": lambda: os.open(f"/proc/{holder.pid}/mem", os.O_RDONLY),
            },
        )
        os.close(given)
        return found
    finally:
        holder.end()
        os.close(ready)
        os.close(told)


def removed_directories(scene: Scene) -> str:
    """Out of a directory that is gone, or was closed while somebody was in it, no way leads on."""
    where = scene.mounted.where
    (where / "closed" / "in").mkdir(parents=True)
    (where / "closed" / "f").write_bytes(b"secret")
    (where / "gone" / "in").mkdir(parents=True)
    for name in ("closed", "closed/in", "gone", "gone/in"):
        os.chmod(where / name, 0o777)
    inside, gone = (os.open(where / name / "in", os.O_PATH) for name in ("closed", "gone"))
    os.chmod(where / "closed", 0)
    (where / "gone" / "in").rmdir()
    found = got(
        BOB,
        {
            "f beside": lambda: os.open("../f", os.O_RDONLY, dir_fd=inside),
            "a file in a removed directory": lambda: os.open(
                "new", os.O_WRONLY | os.O_CREAT, dir_fd=gone
            ),
            "a directory in a removed one": lambda: os.mkdir("new", dir_fd=gone),
            "a listing": lambda: os.listdir(f"/proc/self/fd/{inside}/.."),
        },
    )
    os.close(inside)
    os.close(gone)
    os.chmod(where / "closed", 0o755)
    return found


def the_store_itself(scene: Scene) -> str:
    """Nothing in the store's directory can be looked at by others, and all of it has modes that say so."""
    store = scene.place.store
    wrong = []
    paths = []
    for folder, folders, files in os.walk(store):
        for name in [*folders, *files]:
            path = os.path.join(folder, name)
            paths.append(path)
            if os.lstat(path).st_mode & 0o077:
                wrong.append(f"{path} with mode {os.lstat(path).st_mode & 0o7777:o}")
    seen = got(BOB, {path: partial(os.stat, path) for path in [*paths, str(store / "lock")]})
    return ", ".join(filter(None, [*wrong, seen]))


def _converse(connect: Callable[[socket.socket], None]) -> str:
    with socket.socket(socket.AF_UNIX) as one:
        one.settimeout(5)
        connect(one)
        one.sendall(json.dumps({"op": "status"}).encode() + b"\n")
        answer = one.recv(4096)
    if not answer:
        raise PermissionError(errno.EPERM, "hung up")
    return answer.decode()


def control_sockets(scene: Scene) -> str:
    """Neither by path, nor through a handle of the directory, nor with the socket's mode opened by mistake."""
    run = scene.place.store / "run"
    handle = os.open(run, os.O_PATH)
    sock = f"/proc/self/fd/{handle}/shared.sock"
    before = stat.S_IMODE(os.stat(run / "shared.sock").st_mode)
    attempts = {
        "a word with the worker": lambda: _converse(lambda s: s.connect(str(run / "shared.sock"))),
        "a word through a handle": lambda: _converse(lambda s: s.connect(sock)),
    }
    found = got(BOB, attempts)
    for path in (scene.place.store, run):
        os.chmod(path, 0o755)
    os.chmod(run / "shared.sock", 0o666)
    try:
        found += got(BOB, {f"{name} by bare credentials": a for name, a in attempts.items()})
    finally:
        os.chmod(run / "shared.sock", before)
        for path in (run, scene.place.store):
            os.chmod(path, 0o700)
        os.close(handle)
    return found + (f"a socket with mode {before:o}" if before & 0o077 else "")


def the_worker(scene: Scene) -> str:
    """The process that serves lets nobody look into it."""
    proc = f"/proc/{scene.mounted.process.pid}"
    names = ("mem", "environ", "maps", "fd", "cwd", "root", "exe", "io", "stack")
    return got(
        BOB,
        {
            **{f"{proc}/{n}": partial(os.open, f"{proc}/{n}", os.O_RDONLY) for n in names},
            "its end": lambda: os.kill(scene.mounted.process.pid, 15),
        },
    )


def listings_of_points(scene: Scene) -> str:
    """A point whose root was closed stays so, whoever lists .snapshots while others are in it."""
    where = scene.mounted.where
    os.chmod(where, 0o700)
    point = where / ".snapshots" / scene.mounted.snapshot()
    os.chmod(where, 0o755)

    def race() -> int:
        end = time.monotonic() + 0.3
        found = 0
        while time.monotonic() < end and not found:
            os.listdir(point.parent)
            found = errno_of(lambda: os.listdir(point)) == "ok"
        return found

    one = Child(BOB, race)
    other = Child(BOB, race)
    end = time.monotonic() + 0.3
    while time.monotonic() < end:
        os.listdir(point)  # root may, and keeps the point open in the worker
    return "the list of a closed point" if one.result() or other.result() else ""


def names_of_evil(scene: Scene) -> str:
    """Names reach no terminal and no log as they are."""
    home = scene.mounted.where / "evil"
    home.mkdir()
    first = scene.mounted.snapshot()
    for name in NAMES_OF_EVIL:
        Path(os.fsdecode(bytes(home) + b"/" + name)).write_bytes(b"1")
        os.mkdir(bytes(home) + b"/d" + name)
    last = scene.mounted.snapshot()
    target = scene.place.base / "evil-target"
    target.mkdir()
    for name in NAMES_OF_EVIL:
        os.mkdir(bytes(target) + b"/" + name)  # in the way: each is complained of
    said = _log(scene) + b"".join(
        _said(scene, *words)
        for words in (
            ("diff", first, last),
            ("restore", last, "evil", str(target)),
            (
                "restore",
                last,
                os.fsdecode(b"evil/" + NAMES_OF_EVIL[0] + b"/none"),
                str(target / "x"),
            ),
            ("snapshot", os.fsdecode(NAMES_OF_EVIL[0])),
            ("umount", os.fsdecode(b"/tmp/" + NAMES_OF_EVIL[0])),
        )
    )
    shutil.rmtree(target)
    bad = [name for name in NAMES_OF_EVIL[:5] if name in said]
    control = sorted({byte for byte in said if byte < 32 and byte != ord("\n")})
    return ", ".join(map(repr, [*bad, *control]))


def _log(scene: Scene) -> bytes:
    return scene.mounted.log.read_bytes()


def _said(scene: Scene, *words: str) -> bytes:
    command = [sys.executable, "-m", "tools.torture.planted", "--store", str(scene.place.store)]
    done = subprocess.run([*command, *words], capture_output=True, check=False, timeout=60)
    return done.stdout + done.stderr


def into_points(scene: Scene) -> str:
    """Not even root takes anything out of a point by name, or puts anything in."""
    where = scene.mounted.where
    (where / "kept").write_bytes(b"kept")
    point = where / ".snapshots" / scene.mounted.snapshot()
    return got(
        ROOT,
        {
            "a hard link out": lambda: os.link(point / "kept", where / "linked"),
            "a rename out": lambda: os.rename(point / "kept", where / "taken"),
            "a hard link in": lambda: os.link(where / "kept", point / "linked"),
            "a rename in": lambda: os.rename(where / "kept", point / "kept"),
            "a removed point": lambda: os.rmdir(point),
            "a renamed point": lambda: os.rename(point, point.with_name("x")),
            "a new point": lambda: os.mkdir(point.with_name("x")),
            "another .snapshots": lambda: os.rename(where / "evil", where / ".snapshots"),
            "a write": lambda: os.open(point / "kept", os.O_WRONLY),
            "a changed attribute": lambda: os.setxattr(point / "kept", "trusted.x", b"1"),
        },
    )


def unmounting(scene: Scene) -> str:
    """Who did not mount it does not unmount it."""

    def unmount() -> int:
        words = ["fusermount3", "-u", "-z", str(scene.mounted.where)]
        return subprocess.run(words, capture_output=True, check=False).returncode

    return (
        "an unmount" if act(BOB, unmount) == 0 or not os.path.ismount(scene.mounted.where) else ""
    )


TRICKS = (
    nosuid_and_nodev, handles_of_others, removed_directories, the_store_itself, control_sockets, the_worker,
    listings_of_points, names_of_evil, into_points, unmounting,
)  # fmt: skip
NAMES = {trick.__name__: trick for trick in TRICKS}


def play(job: Job, place: Ground, mounted: Mounted) -> None:
    """Every trick once."""
    scene = Scene(job, place, mounted)
    for name, trick in _wanted(job):
        found = trick(scene)
        job.count("tricks")
        if found:
            job.fail(name, f"{name.replace('_', ' ')}: {trick.__doc__} But got: {found}")


def _wanted(job: Job) -> Iterator[tuple[str, Callable[[Scene], str]]]:
    return ((name, trick) for name, trick in NAMES.items() if job.wants(name))
