"""Writers racing for the last bytes and the last inodes of a mount; and another mount that must not notice.

The quota of bytes may be passed by what waits in memory to be sealed over spans that have content already
(``engine.live.space``): never by more than DIRTY_MAX.  The quota of inodes may not be passed at all.
"""

from __future__ import annotations

import errno
import mmap
import os
import random
import time
from collections.abc import Callable
from pathlib import Path

from engine import limits
from tools.torture.rig import Job, Rig
from tools.torture.users.agents import Child, Who
from tools.torture.users.ground import Ground, Mounted, ground
from tools.torture.users.model import ALICE, BOB, CAROL

MIB = limits.MIB
QUOTA = 16 * MIB
FILES = 400
SLACK = limits.DIRTY_MAX + MIB
FULL = 20  # rounds of all writers
OVER = 6  # what a writer asks for, in quotas and slacks
ASKED = 60.0  # s a round may take
TOLD = {"ENOSPC", "EDQUOT"}
WRITERS = (ALICE, BOB, CAROL, ALICE)
BLOCK = random.Random(1).randbytes(
    MIB
)  # the same for all: quotas count what is written, not what is stored

Writer = Callable[[Path, random.Random], None]


def _append(path: Path, chance: random.Random) -> None:
    """A file that grows and is synced now and then."""
    with path.open("ab", buffering=0) as file:
        for _ in range(OVER * (QUOTA + SLACK) // MIB // len(WRITERS)):
            file.write(BLOCK)
            if chance.random() < 0.05:
                os.fsync(file.fileno())
        os.fsync(file.fileno())


def _many(path: Path, chance: random.Random) -> None:
    """Small files: inodes run out before bytes do."""
    path.mkdir()
    for number in range(4_000):
        with (path / str(number)).open("wb", buffering=0) as file:
            file.write(BLOCK[: chance.choice((0, 1, 5_000))])


def _scatter(path: Path, chance: random.Random) -> None:
    """Pieces all over a large sparse file, and again between them."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        os.truncate(fd, 1 << 32)
        for number in range(2_500):
            os.pwrite(fd, BLOCK[:65_536], chance.randrange(1 << 16) << 16)
            if number % 500 == 499:
                os.fsync(fd)
        os.fsync(fd)
    finally:
        os.close(fd)


def _mapped(path: Path, chance: random.Random) -> None:
    """Pages dirtied through a mapping of a hole: nobody is there to be refused until they are synced."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        os.truncate(fd, 64 * MIB)
        with mmap.mmap(fd, 64 * MIB) as pages:
            for at in range(0, 64 * MIB, MIB):
                pages[at : at + MIB] = BLOCK
            pages.flush()
    finally:
        os.close(fd)


def _regrow(path: Path, chance: random.Random) -> None:
    """Files that have content already get more, all at once: counted only when it is sealed."""
    path.mkdir()
    files = [(path / str(number)).open("wb", buffering=0) for number in range(40)]
    for file in files:
        file.write(BLOCK[:4_097])
        os.fsync(file.fileno())
    for file in files * 20:
        file.write(BLOCK[:262_144])
    for file in files:
        os.fsync(file.fileno())
        file.close()


KINDS: tuple[Writer, ...] = (_append, _many, _regrow, _scatter, _mapped)


def writing(writer: Writer, path: Path, chance: random.Random) -> Callable[[], str]:
    """What a child does; returns why it ended."""

    def done() -> str:
        try:
            writer(path, chance)
        except OSError as error:
            return errno.errorcode.get(error.errno or 0, str(error))
        return "ok"

    return done


def held(where: Path) -> int:
    """Bytes in use, as df(1) is told. (Of inodes it is never told of more than there may be.)"""
    found = os.statvfs(where)
    return (found.f_blocks - found.f_bfree) * found.f_frsize


def inodes_of(where: Path) -> int:
    """Inodes in use, counted: the root and all that has a name."""
    found = {os.stat(where).st_ino}
    for folder, folders, files in os.walk(where):
        found.update(os.lstat(os.path.join(folder, name)).st_ino for name in (*folders, *files))
    return len(found)


def _round(job: Job, number: int, mounted: Mounted, other: Mounted) -> int:
    """The most bytes by which the quota was passed."""
    home = mounted.where / f"round{number}"
    home.mkdir()
    os.chmod(home, 0o777)
    most = 0
    chance = job.random("kinds", number)
    first = KINDS[number % len(KINDS)]
    others = [first] * 3 if first is _many else [chance.choice(KINDS) for _ in WRITERS[1:]]
    kinds = [first, *others]
    children = [
        Child(who, writing(kind, home / f"w{at}", job.random(number, at)))
        for at, (who, kind) in enumerate(zip(WRITERS, kinds, strict=True))
    ]
    spared = Child(Who(0, 0), writing(_spared, other.where / f"round{number}", chance))
    end = time.monotonic() + ASKED
    while any(_running(child) for child in children) and time.monotonic() < end:
        most = max(most, held(mounted.where))
        time.sleep(0.005)
    said = [child.result() for child in children]
    if spared.result() != "ok":
        job.fail(number, f"a mount beside it was told {spared}")
    mounted.request("barrier")
    most, inodes = max(most, held(mounted.where)), inodes_of(mounted.where)
    job.count("writers", len(said))
    job.count("writers refused", sum(one != "ok" for one in said))
    names = [kind.__name__.strip("_") for kind in kinds]
    if most > QUOTA + SLACK:
        job.fail(number, f"{most} bytes in use, {QUOTA} and {SLACK} allowed, by {names}")
    if inodes > FILES:
        job.fail(number, f"{inodes} inodes in use of {FILES} allowed, by {names}")
    wrong = [one for one in said if one not in {"ok", *TOLD}]
    if wrong:
        job.fail(number, f"writers {names} were told {said}, not ENOSPC or EDQUOT")
    if all(one == "ok" for one in said):
        job.fail(number, f"writers {names} wrote all they wanted: nothing was refused")
    return max(0, most - QUOTA)


def _running(child: Child) -> bool:
    return not os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)


def _spared(path: Path, chance: random.Random) -> None:
    """On the mount beside: what it asks for it gets, and reads back."""
    data = chance.randbytes(2 * MIB)
    path.write_bytes(data)
    if path.read_bytes() != data:
        raise OSError(errno.EIO, "other content")
    path.unlink()


def _empty(job: Job, number: int, mounted: Mounted) -> None:
    """What was refused for want of room goes once there is some."""
    home = mounted.where / f"round{number}"
    for folder, folders, files in os.walk(home, topdown=False):
        for name in files:
            os.unlink(os.path.join(folder, name))
        for name in folders:
            os.rmdir(os.path.join(folder, name))
    home.rmdir()
    mounted.request("barrier")
    found = os.statvfs(mounted.where)
    if held(mounted.where) or found.f_ffree != FILES - 1:
        job.fail(
            number,
            f"an empty mount has {held(mounted.where)} bytes in use, {found.f_ffree} inodes free",
        )


def run(job: Job) -> None:
    """Rounds on one mount with both quotas, alternately written through and with the kernel's cache."""
    with ground(job.scratch / "quota") as place:
        place.create("limited", QUOTA, FILES)
        place.create("free")
        other = place.mount("free")
        wanted = filter(job.wants, range(job.size(FULL, least=2)))
        over = max(_mounted(job, number, place, other) for number in wanted)
        job.note(f"at most {over / MIB:.1f} MiB over the quota")
        other.end()
        problems = place.problems()
        if problems:
            job.fail("0", f"check finds {problems[:3]}")


def _mounted(job: Job, number: int, place: Ground, other: Mounted) -> int:
    mounted = place.mount("limited", *(("--write-through",) if number % 2 else ()))
    over = _round(job, number, mounted, other)
    _empty(job, number, mounted)
    mounted.end()
    return over


RIGS = (
    Rig(
        "users-quota",
        "many writers at once never pass a quota of bytes or inodes beyond what is documented",
        run,
        needs=("root", "fuse"),
        bugs=("quota checked when opened", "inodes not counted"),
        teeth=0.1,
        test=0.1,
    ),
)
