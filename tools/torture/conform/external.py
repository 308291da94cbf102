"""The rigs ``conform-fio`` and ``conform-stress-ng``: programs of others that verify what a file system does."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tools.torture.conform.places import Broken, Mounted
from tools.torture.rig import Job, Rig

MIB = 1 << 20
FIO_SIZE = 128 * MIB  # of each of the jobs below
LIMIT = 1200  # s for one program
SAID = 2000  # characters of what a program said that are shown

# Several at once on files of their own: ways to write, sizes of pieces, checksums, as fio names them.
FIO_JOBS: dict[str, str] = {
    "sequential": "rw=write bs=128k verify=crc32c",
    "pieces": "rw=randwrite bssplit=512/20:4k/50:64k/20:1m/10 verify=md5 verify_interval=512",
    "pattern": "rw=randwrite bs=4k verify=pattern verify_pattern=0xdeadbeef%o",
    "direct": "rw=randwrite bs=16k direct=1 verify=xxhash",
    "synced": "rw=write bs=8k fdatasync=64 verify=crc32c size={small}",
    "mapped": "rw=randwrite bs=8k ioengine=mmap verify=crc32c",
    "many": "rw=write bs=4k nrfiles=32 file_service_type=sequential verify=crc32c size={small}",
    "mixed": "rw=randrw bs=32k rwmixread=40 verify=sha256",
}  # fmt: skip

# Stressors of stress-ng that are about files, by the group that runs together; its own names.
STRESSORS: tuple[tuple[str, ...], ...] = (
    ("dentry", "dir", "dirdeep", "dirmany"),
    ("access", "chmod", "chown", "chattr"),
    ("sync-file", "xattr", "inotify"),  # bogo operations so large that time ends them
    ("fcntl", "flock", "lockf", "locka", "lockofd", "lease"),
    ("filename", "file-ioctl", "fstat", "getdent", "handle"),
    ("hdd", "io", "iomix", "seek", "readahead"),
    ("mknod", "open", "rename", "touch", "utime"),
    ("copy-file", "sendfile", "msync", "dnotify", "revio", "aio"),
    ("chdir", "chroot"),
)
# A single bogo operation of these makes and removes thousands of names, after the time is up too: not in short runs.
LONG_STRESSORS = (("link", "symlink"),)
LONG_FROM = 0.2  # scale
EXTRA = {"chdir": ("--chdir-dirs", "64"), "filename": ("--filename-opts", "posix")}
OPERATIONS = 2_000  # bogo operations of each stressor at full size …
SECONDS = 30  # … or this long


def _run(command: list[str], what: str) -> str:
    """Run a program; what it said, or what went wrong."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", check=False, timeout=LIMIT
        )
    except subprocess.TimeoutExpired:
        return f"{what} did not end in {LIMIT} s"
    said = (done.stdout + done.stderr).strip()
    if done.returncode == 0 and "fail:" not in said:  # stress-ng says so and may still end with 0
        return ""
    lines = [
        line for line in said.splitlines() if "fail" in line or "err" in line or "verify" in line
    ]
    return (
        f"{what} ended with status {done.returncode}: {chr(10).join(lines)[:SAID] or said[-SAID:]}"
    )


def _fio_file(job: Job, where: Path) -> Path:
    size = max(2 * MIB, job.size(FIO_SIZE) // MIB * MIB)
    lines = [
        "[global]", f"directory={where}", f"size={size}", "ioengine=psync", "verify_fatal=1", "verify_dump=0",
        f"randseed={job.random('fio').randrange(1 << 31)}", "fallocate=none", "group_reporting=1", "thread=0",
        "verify_state_save=0",
    ]  # fmt: skip
    for name, options in FIO_JOBS.items():
        lines += [f"[{name}]", *options.format(small=size // 4).split()]
    path = job.scratch / "jobs.fio"
    path.write_text("\n".join(lines) + "\n")
    job.count("fio jobs", len(FIO_JOBS))
    job.note(f"{size // MIB} MiB a job")
    return path


def fio(job: Job) -> None:
    """All jobs at once, verified as fio does; then all bytes again after everything was forgotten."""
    with Mounted(job.scratch / "h") as mounted:
        jobs = _fio_file(job, mounted.path)
        trouble = _run(["fio", str(jobs)], "writing and verifying")
        if trouble:
            job.fail("fio", trouble)
        for options in ((), ("--write-through",)):
            mounted.remount(*options)
            trouble = _run(["fio", "--verify_only", str(jobs)], "verifying after a new mount")
            if trouble:
                job.fail("fio", trouble)
        mounted.verify()


def stress_ng(job: Job) -> None:
    """Group after group, with its own checks of what the calls answer."""
    operations, seconds = job.size(OPERATIONS, 10), max(1, round(SECONDS * job.scale))
    with Mounted(job.scratch / "h") as mounted:
        where = mounted.path / "stress"
        where.mkdir(mode=0o777)
        groups = STRESSORS + (LONG_STRESSORS if job.scale >= LONG_FROM or job.case else ())
        for group in groups:
            if not job.wants(group[0]):
                continue
            command = ["stress-ng", "--verify", "--temp-path", str(where), "-t", str(seconds)]
            command += ["--seed", str(job.random(group[0]).randrange(1 << 31))]
            for name in group:
                command += [
                    f"--{name}",
                    "1",
                    f"--{name}-ops",
                    str(operations),
                    *EXTRA.get(name, ()),
                ]
            trouble = _run(command, ", ".join(group))
            if "unrecognized option" in trouble:
                raise Broken(trouble)
            if trouble:
                job.fail(group[0], trouble)
            if not mounted.alive:
                job.fail(group[0], f"the worker is gone after {', '.join(group)}: {mounted.said()}")
            job.count("stressors", len(group))
        job.note(f"{operations:,} bogo operations or {seconds} s each")
        mounted.verify()


RIGS = (
    Rig(
        "conform-fio",
        "fio's verified patterns, read again after a new mount",
        fio,
        needs=("fuse", "fio"),
        bugs=("conform-lost-write",),
    ),
    Rig(
        "conform-stress-ng",
        "stress-ng's stressors of files, with its verification",
        stress_ng,
        needs=("fuse", "stress-ng"),
        bugs=("conform-mkdir-count",),
    ),
)
