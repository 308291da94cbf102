"""Faults of a worker's process and machine, on a real mount under a writer.

Which need a restart of the worker, and why, is in ``RESTART``; all others must go on by themselves.
"""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import shutil
import signal
import struct
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from fsmount import incidents
from tools.torture import bugs, needs
from tools.torture.faults import mounted
from tools.torture.faults.full import fill_disk, make_disk
from tools.torture.faults.mounted import Mounted
from tools.torture.faults.place import in_memory
from tools.torture.faults.verdict import Broken, demand
from tools.torture.rig import Job, Rig

STOPPED = 60  # s at full size
AT_ONCE = 4  # they mostly wait
HASTY = 4.0  # s after which a bug that was planted shows as a writer that waits
CASE_OF = {"dead-thread-unnoticed": "seal", "background-turn-unguarded": "tick"}
"""Planted bugs, and the one case that is about each: the others would find nothing."""
CGROUP = Path("/sys/fs/cgroup/memory")
_SHUTDOWN = (
    0x8004587D  # ioctl of ext4: from now on every access answers EIO, nothing more is written
)

RESTART = {
    "readonly": "a file system that made itself read-only after an error must be unmounted to be used again",
    "gone": "so must one that was shut down",
    "memory": "the kernel killed the worker, if it had to",
}
"""Cases after which a worker must be started anew; no other may need that."""


def stopped(job: Job, mount: Mounted, place: Path) -> None:
    """SIGSTOP for a minute: writers wait; then all goes on, nothing lost, no error told."""
    seconds = max(2.0, STOPPED * job.scale) if job.scale < 1 else STOPPED
    mount.write()
    mount.acknowledges()
    mount.worker.send_signal(signal.SIGSTOP)
    try:
        mount.listen(seconds)
        before = len(mount.acked)
        mount.listen(0.2)
        demand(len(mount.acked) == before, "a stopped worker acknowledged something")
    finally:
        mount.worker.send_signal(signal.SIGCONT)
    mount.acknowledges()
    mount.only()


def descriptors(job: Job, mount: Mounted, place: Path) -> None:
    """No descriptor left: writers are told EIO or EMFILE, reads go on; with descriptors again, so does all."""
    mount.write()
    mount.acknowledges()
    pid = mount.worker.pid
    usual = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (3, usual[1]))
    mount.listen(1.5)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, usual)
    mount.errors.pop(("read", errno.EIO), None)  # of a pack whose descriptor was not kept
    mount.only(errno.EIO, errno.EMFILE)
    mount.acknowledges()


def threads(kind: str) -> Callable[[Job, Mounted, Path], None]:
    """Something dies a few times: writers may be told EIO (ENOMEM for a lack of memory); none waits for ever."""

    def case(job: Job, mount: Mounted, place: Path) -> None:
        mount.write()
        mount.acknowledges()
        (place / "sick").touch()
        if kind == "seal":
            mount.pour(200)
        mount.acknowledges(6)
        mount.only(errno.EIO, errno.ENOMEM)
        mount.told("internal")

    return case


def clock(job: Job, mount: Mounted, place: Path) -> None:
    """The clock is set eleven years ahead, then back: each is told, and nothing else changes."""
    mount.write()
    mount.acknowledges()
    for ahead in (11 * 365 * 86_400, -3 * 86_400):
        new = place / "new"
        new.write_text(str(ahead))
        new.rename(place / "sick")
        mount.listen(1.2)
        mount.acknowledges()
    mount.told("clock")
    found = next(one for one in incidents(str(mount.store))[0] if one.kind == "clock")
    demand(found.count >= 2, f"the clock was set twice, and {found.count} are told")
    mount.only()


def full(job: Job, mount: Mounted, place: Path) -> None:
    """The disk has no block left: ENOSPC, and what was acknowledged is read; with room again all goes on."""
    mount.write()
    mount.acknowledges()
    chance = job.random("full")
    for _ in range(job.size(20)):
        mount.errors.clear()
        ballast = fill_disk(place / "disk", chance.randrange(60))
        mount.refused(errno.ENOSPC)
        mount.told("store_full")
        mount.reads()
        ballast.unlink()
        mount.acknowledges()
        mount.only(errno.ENOSPC)


def sync_fails(job: Job, mount: Mounted, place: Path) -> None:
    """No sync succeeds, of segments and of the index: EIO, what was acknowledged is read; then all goes on."""
    mount.write()
    mount.acknowledges()
    command = ["strace", "-f", "-o", str(place / "strace.log"), "-p", str(mount.worker.pid),
               "-e", "inject=fdatasync,fsync:error=EIO:when=1+"]  # fmt: skip
    strace = subprocess.Popen(command, stderr=subprocess.PIPE)
    assert strace.stderr is not None
    try:
        while b"attached" not in strace.stderr.readline():
            demand(strace.poll() is None, "strace does not attach")
        mount.refused(errno.EIO)
        mount.told("location_unavailable")
        mount.reads()
    finally:
        strace.send_signal(signal.SIGINT)
        strace.wait(mount.limit)
        strace.stderr.close()
    mount.acknowledges()
    mount.only(errno.EIO)


def quota(job: Job, mount: Mounted, place: Path) -> None:
    """The quota is used up: ENOSPC or EDQUOT; with files deleted, all goes on."""
    mount.write()
    mount.refused(errno.ENOSPC, errno.EDQUOT)
    mount.told("quota")
    mount.reads()
    for number in sorted(mount.acked)[:-1]:
        (mount.live / f"f{number:06d}").unlink()
        mount.acked.discard(number)
    mount.wait(lambda: len(mount.acked) > 2, "nothing is acknowledged though there is room")


def read_only(job: Job, mount: Mounted, place: Path) -> None:
    """The store's file system makes itself read-only: EROFS or EIO, reads go on, nothing is acknowledged any more."""
    mount.write()
    mount.acknowledges()
    mount.wait(lambda: not mount.errors, "errors before the fault")
    device = Path(_device(place / "disk")).name
    Path(f"/sys/fs/ext4/{device}/trigger_fs_error").write_text("1")
    _dead_disk(mount, errno.EROFS, errno.EIO)
    _anew(mount, place)


def gone(job: Job, mount: Mounted, place: Path) -> None:
    """The store's disk answers nothing but EIO any more."""
    mount.write()
    mount.acknowledges()
    fd = os.open(place / "disk", os.O_RDONLY)
    fcntl.ioctl(
        fd, _SHUTDOWN, struct.pack("I", 2)
    )  # without writing the journal: as a cable pulled
    os.close(fd)
    _dead_disk(mount, errno.EIO, errno.EROFS)
    _anew(mount, place)


def _dead_disk(mount: Mounted, *numbers: int) -> None:
    """Nothing can be written any more: who writes is told so, and the worker lives."""
    mount.refused(*numbers)
    mount.told("location_unavailable", "read_only")
    before = len(mount.acked)
    mount.listen(1.5)
    demand(len(mount.acked) == before, "acknowledged though nothing can be written")
    demand(mount.worker.poll() is None, f"the worker died: {mount.worker.returncode}")
    begun = time.monotonic()
    try:
        os.listdir(mount.live)  # where the index has to be opened anew and cannot be, that is told
    except OSError as error:
        demand(error.errno in numbers, f"listing: {error}")
    demand(time.monotonic() - begun < 10, "an answer takes long")


def _anew(mount: Mounted, place: Path) -> None:
    """Worker and file system are started again."""
    mount.stop_writing()
    subprocess.run(["fusermount3", "-u", mount.live], capture_output=True, check=False)
    try:
        mount.worker.wait(20)
    except subprocess.TimeoutExpired:
        raise Broken("the worker does not end when its disk is dead") from None
    subprocess.run(["umount", place / "disk"], check=True)
    subprocess.run(["e2fsck", "-fy", place / "disk.img"], capture_output=True, check=False)
    subprocess.run(["mount", "-o", "loop", place / "disk.img", place / "disk"], check=True)
    mount.errors.clear()
    mount.mount()
    mount.reads()


def _device(path: Path) -> str:
    done = subprocess.run(
        ["findmnt", "-no", "SOURCE", path], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def memory(job: Job, mount: Mounted, place: Path) -> None:
    """Squeezed by a memory limit it goes on, or is killed by it; then a new worker has all that was acknowledged."""
    group = CGROUP / f"holdfast-torture-{os.getpid()}-{place.name}"
    group.mkdir()
    try:
        (group / "memory.limit_in_bytes").write_text(str(_rss(mount.worker.pid) + (6 << 20)))
        (group / "cgroup.procs").write_text(str(mount.worker.pid))
        mount.write()
        end = time.monotonic() + 6
        while mount.worker.poll() is None and time.monotonic() < end:
            mount.listen(0.1)
            try:
                (group / "memory.limit_in_bytes").write_text(
                    str(_rss(mount.worker.pid) - (2 << 20))
                )
            except OSError:
                continue
        if mount.worker.poll() is not None:
            demand(
                mount.worker.returncode == -signal.SIGKILL,
                f"it ended with {mount.worker.returncode}",
            )
            mount.stop_writing()
            mount.only(errno.ENOTCONN, errno.ECONNABORTED, errno.EIO, errno.ENOMEM)
            subprocess.run(["fusermount3", "-uz", mount.live], capture_output=True, check=False)
            mount.errors.clear()
            mount.mount()
            mount.reads()
            job.count("workers killed for want of memory")
        else:
            (group / "memory.limit_in_bytes").write_text(str(1 << 40))
            mount.acknowledges()
    finally:
        if mount.worker.poll() is None:
            (CGROUP / "cgroup.procs").write_text(str(mount.worker.pid))
        for _ in range(50):
            try:
                group.rmdir()
                break
            except OSError:
                time.sleep(0.1)


def _rss(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096
    except (OSError, IndexError):
        return 64 << 20


CASES: dict[str, tuple[Callable[[Job, Mounted, Path], None], tuple[str, ...]]] = {
    "stopped": (stopped, ()),
    "seal": (threads("seal"), ()),
    "commit": (threads("commit"), ()),
    "tick": (threads("tick"), ()),
    "out-of-memory": (threads("memory"), ()),
    "descriptors": (descriptors, ()),
    "sync": (sync_fails, ("strace",)),
    "quota": (quota, ()),
    "full": (full, ("loop",)),
    "readonly": (read_only, ("loop",)),
    "gone": (gone, ("loop",)),
    "clock": (clock, ()),
    "memory": (memory, ("cgroup",)),
}
SICK = {
    "descriptors": "small",
    "clock": "clock",
    "seal": "seal",
    "commit": "commit",
    "tick": "tick",
    "out-of-memory": "memory",
}


def run(job: Job) -> None:
    """Every case, each on a mount of its own, a few at once; more rounds at full size."""
    wanted = [
        (f"{name}-{number}", name, number)
        for number in range(job.size(3))
        for name, (_, need) in CASES.items()
        if job.wants(f"{name}-{number}") and not _absent(job, name, need)
    ]
    about = CASE_OF.get(bugs.chosen())
    with in_memory(job) as scratch, ThreadPoolExecutor(AT_ONCE) as pool:
        done = [
            pool.submit(_one, job, scratch, *case) for case in wanted if about in (None, case[1])
        ]
        for one in done:
            for what, count in one.result().items():
                job.count(what, count)


def _absent(job: Job, name: str, wanted: tuple[str, ...]) -> str:
    reason = needs.missing(wanted)
    if name == "readonly" and not os.path.isdir("/sys/fs/ext4"):
        reason = "the kernel does not let an error of ext4 be made up"
    if name == "memory" and not (CGROUP / "cgroup.procs").exists():
        reason = "there is no memory controller of version 1"
    if reason:
        job.note(f"without {name}: {reason}")
    return reason


def _one(job: Job, scratch: Path, case: str, name: str, number: int) -> dict[str, int]:
    action = CASES[name][0]
    place = scratch / case
    place.mkdir()
    store = None
    if action in (full, read_only, gone):
        make_disk(place, 64)
        if action is read_only:
            subprocess.run(["mount", "-o", "remount,errors=remount-ro", place / "disk"], check=True)
        store = place / "disk" / "store"
    sick = SICK.get(name)
    try:
        with Mounted(
            place, job.seed + number, store=store, quota=3_000_000 if name == "quota" else None,
            size=5_000_000 if name == "seal" else 200_000, module=mounted.SICK if sick else mounted.PLANTED,
            words=(sick,) if sick else (), environment={"HOLDFAST_SICK": str(place / "sick")},
        ) as mount:  # fmt: skip
            mount.limit = HASTY if bugs.chosen() else mount.limit
            action(job, mount, place)
            demand(mount.starts == 1 or name in RESTART, "it did not go on without a restart")
            code = mount.unmount()
            demand(code == 0, f"the worker ended with {code}: {mount.log.read_text()[-800:]}")
            mount.judge()
            return {
                "faults of processes": 1,
                "files acknowledged and found again": len(mount.acked),
                "errors told": sum(mount.errors.values()),
            }
    except Broken as error:
        job.fail(case, str(error))
    finally:
        if store is not None:
            subprocess.run(["umount", "-l", place / "disk"], capture_output=True, check=False)
        shutil.rmtree(place, ignore_errors=True)


RIGS = (
    Rig(
        "faults-process",
        "a worker is stopped, starved, misled or loses its disk, under a writer on a real mount",
        run,
        needs=("fuse", "root"),
        bugs=("dead-thread-unnoticed", "background-turn-unguarded"),
        teeth=0.02,
    ),
)
