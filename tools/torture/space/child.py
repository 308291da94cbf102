"""A rig's work in a child process: planted bugs and small limits stay in it, what it counted and found comes back."""

from __future__ import annotations

import json
import logging
import os
import random
import shutil
import signal
import sys
import traceback
from collections.abc import Callable, Sequence

from engine import limits
from engine.chunks import segments
from engine.ingest import sketches
from engine.seam import Os
from tools.torture import bugs
from tools.torture.rig import Found, Job

_FAILED = 70
SEAL_ON_CLOSE = 40_000


class UnsyncedOs(Os):
    """Syncs nothing: these rigs kill processes, never the kernel, and have no time to wait for disks.

    With a source of chance, its random bytes and its clock are the same each time the case is run.
    """

    def __init__(self, rng: random.Random | None = None) -> None:
        self._rng = rng
        self._now = 1_800_000_000_000_000_000

    def random(self, count: int) -> bytes:
        return super().random(count) if self._rng is None else self._rng.randbytes(count)

    def time_ns(self) -> int:
        self._now += 1_000_000
        return self._now if self._rng is not None else super().time_ns()

    def fdatasync(self, fd: int) -> None:
        pass

    def fsync(self, fd: int) -> None:
        pass

    def fsync_dir(self, path: str) -> None:
        pass


class MortalOs(UnsyncedOs):
    """Kills its process, as ``kill -9`` does, before the ``left``-th call of one kind (a method's name)."""

    KINDS = ("pwritev", "fdatasync", "rename", "unlink", "fsync_dir")

    def __init__(self, kind: str, left: int) -> None:
        super().__init__()
        self._kind = kind
        self._left = left

    def _step(self, kind: str) -> None:
        self._left -= kind == self._kind
        if self._left < 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def pwritev(self, fd: int, parts: Sequence[bytes | bytearray | memoryview], offset: int) -> int:
        self._step("pwritev")
        return super().pwritev(fd, parts, offset)

    def fdatasync(self, fd: int) -> None:
        self._step("fdatasync")

    def rename(self, old: str, new: str) -> None:
        self._step("rename")
        super().rename(old, new)

    def unlink(self, path: str) -> None:
        self._step("unlink")
        super().unlink(path)

    def fsync_dir(self, path: str) -> None:
        self._step("fsync_dir")


def small() -> None:
    """Limits at which a store of a megabyte has dozens of packs, several batches of a sweep, and dictionaries."""
    limits.PACK_MAX = 200_000
    limits.GC_SWEEP_ROWS = 40
    limits.TXN_DELETES_MAX = 200
    limits.DICTIONARY_MIN = 64 * limits.KIB
    limits.DICTIONARY_SAMPLE = 2 * limits.KIB
    limits.TOMBSTONES_KEPT = 8
    limits.SEAL_THREADS = 1  # the order of records is then that of the case
    segments.SEAL_ON_CLOSE = SEAL_ON_CLOSE
    sketches._FLUSH = 2 * limits.KIB
    sketches._HOOK_MASK = 3


class _Complaints(logging.Handler):
    """What the engine warns of: a sound store gives no reason to."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


def apart(job: Job, work: Callable[[Job], None], case: object) -> None:
    """Do a case of the job in a child. Raises Found as the work did; a warning of the engine is a find as well."""
    ours, theirs = os.pipe()
    pid = os.fork()
    if not pid:
        os.close(ours)
        try:
            said = _work(job, work, case)
            with os.fdopen(theirs, "w") as out:
                json.dump(said, out)
            os._exit(0)
        except BaseException:  # noqa: BLE001  (nothing may get out into the process this is a copy of)
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(_FAILED)
    os.close(theirs)
    with os.fdopen(ours) as pipe:
        text = pipe.read()
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if status or not text:
        raise RuntimeError(f"case {case} of {job.rig} ended with status {status}")
    said = json.loads(text)
    job.figures.update(said["figures"])
    job.notes.extend(said["notes"])
    if said["found"]:
        raise Found(said["found"])


def every(
    job: Job, count: int, what: str, many: str, work: Callable[[Job, int], None]
) -> None:  # fmt: skip
    """Do so many cases at full size, each in a child, in directories ``what-N``. ``many``: of them, to be counted."""
    for case in range(job.size(count)):
        if job.wants(case):
            apart(job, lambda one, case=case: work(one, case), case)  # type: ignore[misc]
            job.count(many)
            shutil.rmtree(job.scratch / f"{what}-{case}", ignore_errors=True)


def _work(job: Job, work: Callable[[Job], None], case: object) -> dict[str, object]:
    logger = logging.getLogger("holdfast")
    complaints = _Complaints()
    logger.handlers = [complaints]
    logger.propagate = False
    bugs.plant_chosen()
    small()
    job.figures.clear()
    job.notes.clear()
    found = ""
    try:
        work(job)
        if complaints.lines:
            job.fail(case, f"a warning: {complaints.lines[0]}")
    except Found as error:
        found = str(error)
    return {"figures": job.figures, "notes": job.notes, "found": found}
