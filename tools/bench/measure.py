"""What every measurement needs: timed children with their peak memory, cold caches, sizes, equality.

All times are wall-clock seconds, all sizes bytes, all rates MB/s with MB = 10**6 bytes.
"""

import os
import platform
import resource
import shutil
import stat
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

BUFFER: Final = 1 << 20
TIMEOUT: Final = 900.0  # seconds after which a child is given up


class BenchError(Exception):
    """A measurement that could not be made; the message says why."""


@dataclass(frozen=True)
class Usage:
    """What a child cost: wall seconds, processor seconds, peak resident bytes."""

    seconds: float
    cpu: float
    peak: int


def run(
    command: Sequence[str | Path],
    *,
    cwd: Path | None = None,
    env: dict[str, str] | None = None,
    ok: tuple[int, ...] = (0,),
    stdout: int | None = subprocess.DEVNULL,
) -> Usage:
    """Run a command to its end and return what it cost. Raises BenchError when it fails."""
    start = time.perf_counter()
    child = subprocess.Popen(
        [str(part) for part in command], cwd=cwd, env=env, stdin=subprocess.DEVNULL,
        stdout=stdout, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert child.stderr is not None
    limit = threading.Timer(TIMEOUT, child.kill)
    limit.daemon = True
    limit.start()
    with child.stderr:
        complaint = child.stderr.read()
    _, status, usage = os.wait4(child.pid, 0)
    limit.cancel()
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode not in ok:
        text = complaint.decode(errors="replace").strip()[-600:]
        raise BenchError(f"{Path(str(command[0])).name} ended with {child.returncode}: {text}")
    spent = usage.ru_utime + usage.ru_stime
    return Usage(time.perf_counter() - start, spent, usage.ru_maxrss * 1024)


@contextmanager
def stopwatch() -> Iterator[list[float]]:
    """Append the seconds the block took to the list it yields."""
    seconds: list[float] = []
    start = time.perf_counter()
    yield seconds
    seconds.append(time.perf_counter() - start)


def drop_caches() -> bool:
    """Write dirty pages out and empty the page cache; return False without the right to do so."""
    os.sync()
    try:
        Path("/proc/sys/vm/drop_caches").write_text("3")
    except OSError:
        return False
    return True


def warm(root: Path) -> None:
    """Read every file below `root` once, so that the source's disk is not what is measured."""
    for path in plain_files(root):
        with path.open("rb") as source:
            while source.read(BUFFER):
                pass


def plain_files(root: Path) -> list[Path]:
    """Return every regular file below `root`, sorted; links are left out."""
    found = []
    for base, dirs, names in os.walk(root):
        dirs.sort()
        for name in names:
            path = Path(base, name)
            if stat.S_ISREG(path.lstat().st_mode):
                found.append(path)
    return sorted(found)


def used_bytes(root: Path) -> int:
    """Return the disk space of everything in `root`, directories and indexes included."""
    total = root.lstat().st_blocks * 512
    for base, dirs, names in os.walk(root):
        for name in (*dirs, *names):
            total += os.lstat(os.path.join(base, name)).st_blocks * 512
    return total


def sync_file_system(path: Path) -> None:
    """Write out what is dirty in the file system that holds `path`."""
    run(["sync", "-f", path])


def fsync_tree(root: Path) -> None:
    """Call fsync on every file and directory below `root`, and on `root`."""
    for base, _, names in os.walk(root, topdown=False):
        for name in names:
            path = os.path.join(base, name)
            if stat.S_ISREG(os.lstat(path).st_mode):
                _fsync(path)
        _fsync(base)


def _fsync(path: str) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def memory(pid: int) -> tuple[int, int]:
    """Return two sizes of a process in bytes: RssAnon, what it holds itself by now; VmHWM, the highest resident size.

    Both are 0 when it has ended.
    """
    found = {"RssAnon": 0, "VmHWM": 0}
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            name, _, value = line.partition(":")
            if name in found:
                found[name] = int(value.split()[0]) * 1024
    return found["RssAnon"], found["VmHWM"]


def cpu_seconds(pid: int) -> float:
    """Return the processor time a process has used, in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def difference(wanted: Path, found: Path) -> str | None:
    """Return the first difference between two trees, or None when they are equal.

    Compared are the names, types, link targets and every byte of every file.
    """
    listed = [_listing(wanted), _listing(found)]
    if listed[0] != listed[1]:
        odd = min(set(listed[0].items()) ^ set(listed[1].items()))
        return f"{odd[0]}: only on one side, or of another type or size"
    for name, facts in listed[0].items():
        if facts[0] == stat.S_IFREG and not _same_bytes(wanted / name, found / name):
            return f"{name}: contents differ"
    return None


def _listing(root: Path) -> dict[str, tuple[int, int, str]]:
    """Return {path: (type, size of a file, target of a link)} of everything below `root`."""
    found = {}
    for base, dirs, names in os.walk(root):
        for name in (*dirs, *names):
            path = os.path.join(base, name)
            facts = os.lstat(path)
            kind = stat.S_IFMT(facts.st_mode)
            size = facts.st_size if kind == stat.S_IFREG else 0
            target = os.readlink(path) if kind == stat.S_IFLNK else ""
            found[os.path.relpath(path, root)] = (kind, size, target)
    return found


def _same_bytes(one: Path, other: Path) -> bool:
    with one.open("rb") as left, other.open("rb") as right:
        while True:
            part = left.read(BUFFER)
            if part != right.read(BUFFER):
                return False
            if not part:
                return True


def machine() -> dict[str, object]:
    """Return the facts about this machine that results depend on."""
    model = "unknown"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.lower().startswith(("model name", "cpu model", "cpu part")):
            model = line.partition(":")[2].strip()
            break
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "date": time.strftime("%Y-%m-%d"),
        "processor": model,
        "cores": os.cpu_count(),
        "memory_gib": round(memory / 2**30, 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load_at_start": round(os.getloadavg()[0], 2),
        "root": os.geteuid() == 0,
        "page_size": resource.getpagesize(),
    }


def free_space(path: Path) -> int:
    """Return the bytes that may still be written to the file system that holds `path`."""
    return shutil.disk_usage(path).free
