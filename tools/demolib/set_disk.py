"""The VM disk: a raw, sparse disk file with a real ext4 file system, changed in place every day.

The file system is made from this machine's files and changed without mounting it, so that an
ordinary user can do it: files are removed and written by debugfs, as an upgrade would, and pages of
one large file are overwritten where they lie, as a database in the VM would.
"""

from __future__ import annotations

import hashlib
import os
import random
import re
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from tools.demolib.commands import Runner
from tools.demolib.console import DemoError, size_text
from tools.demolib.dataset import DataSet, Written
from tools.demolib.machinefiles import Budget, take
from tools.demolib.witness import HOLE_SLACK, HOLE_SLACK_SHARE, Tree

DISK_BYTES = 1 << 30
DISK_BYTES_LEAST = 1 << 28
CONTENT_BYTES = 280_000_000
ROWS_BYTES = 48 << 20
BLOCK = 4096
PAGES_A_DAY = 400
UPGRADED_A_DAY = 25
# What a system disk holds: settings, programs, libraries.
MACHINE = ("/etc", "/usr/bin", "/usr/lib")
ROWS = "/srv/rows.dat"
DISK = b"disk.raw"

# A leaf of the extent tree, as `dump_extents -l` prints it: level, logical range, physical range.
_LEAF = re.compile(
    r"^\s*\d+/\s*\d+\s+\d+/\s*\d+\s+(\d+) -\s+(\d+)\s+(\d+) -\s+(\d+)\s", re.MULTILINE
)


@dataclass(frozen=True, slots=True)
class Producer:
    """A program that copies a disk: its words before source and target; does it leave holes?"""

    words: tuple[str, ...]
    leaves_holes: bool


# One for each day. rsync writes zeros into an existing file where the file system cannot punch
# holes; whether they take space is then the store's affair. It is told to compare times to the nanosecond:
# to the second, a disk that changed in the second in which day 1's copy ended looks the same.
PRODUCERS = {
    1: Producer(("cp", "--sparse=always"), leaves_holes=True),
    2: Producer(
        ("rsync", "--inplace", "--archive", "--sparse", "--modify-window=-1"), leaves_holes=False
    ),
    3: Producer(
        ("qemu-img", "convert", "-f", "raw", "-O", "raw", "-t", "writeback"), leaves_holes=True
    ),
}


class DiskSet(DataSet):
    """The VM set; the disk file lives on the local disk, below `place`."""

    name = "vm"
    title = "a raw VM disk with ext4, by cp, by rsync --inplace, by qemu-img"

    def __init__(self, runner: Runner, place: Path, scale: float) -> None:
        self._runner = runner
        self._place = place
        self._disk = place / "disk.raw"
        self._scale = scale
        self._random = random.Random("the demonstration's disk")
        self._replaceable: list[str] = []
        self._digest: dict[int, str] = {}
        self._logical: dict[int, int] = {}

    @property
    def proof(self) -> str:
        return "e2fsck, holes kept"

    def prepare(self) -> str:
        stage = self._place / "stage"
        stage.mkdir(parents=True)
        budget = Budget(files=4_000, total=round(CONTENT_BYTES * self._scale), largest=32_000_000)
        files, size = take([Path(root) for root in MACHINE], stage, budget)
        (stage / "srv").mkdir(exist_ok=True)
        self._write_rows(stage / ROWS.lstrip("/"))
        self._replaceable = _plain_names(stage)
        size_of_disk = max(DISK_BYTES_LEAST, round(DISK_BYTES * self._scale) // BLOCK * BLOCK)
        with self._disk.open("wb") as file:
            file.truncate(size_of_disk)
        self._runner.run(["mkfs.ext4", "-q", "-F", "-b", str(BLOCK), "-d", stage, self._disk])
        shutil.rmtree(stage)
        # mkfs writes zeros, into the journal above all; as holes they do not count as content.
        self._runner.run(["fallocate", "--dig-holes", self._disk], ok=(0, 1))
        self._require_clean(self._disk)
        return f"a disk of {size_text(size_of_disk)} with {files:,} files, {size_text(size)}"

    def change(self, day: int) -> str:
        pages = self._overwrite_pages(max(1, round(PAGES_A_DAY * self._scale)))
        upgraded = self._upgrade_files(day)
        self._require_clean(self._disk)
        return f"{pages} pages overwritten in place, {upgraded} files replaced in the disk"

    def write(self, day: int, into: Path) -> Written:
        target = into / os.fsdecode(DISK)
        producer = PRODUCERS[day]
        started = time.monotonic()
        self._runner.run([*producer.words, self._disk, target])
        self._runner.run(["sync", target])
        seconds = time.monotonic() - started
        return Written(" ".join(producer.words[:2]), self._allocated(), seconds)

    def verify_live(self, day: int, live: Tree) -> list[str]:
        with self._disk.open("rb", buffering=0) as file:
            self._digest[day] = hashlib.file_digest(file, "sha256").hexdigest()
        self._logical[day] = self._allocated()
        if set(live) != {DISK}:
            return [f"the mount holds {sorted(live)}, expected {[DISK]}"]
        lines = []
        if live[DISK].sha256 != self._digest[day]:
            lines.append("the disk in the mount is not the disk that was written")
        most = self._logical[day] * (1 + HOLE_SLACK_SHARE) + HOLE_SLACK
        if PRODUCERS[day].leaves_holes and live[DISK].allocated > most:
            lines.append(
                f"the disk in the mount takes {size_text(live[DISK].allocated)}, the source "
                f"{size_text(self._logical[day])}: holes were filled"
            )
        return lines

    def prove(self, day: int, restored: Path, found: Tree) -> list[str]:
        if DISK not in found:
            return ["there is no disk"]
        lines = []
        if found[DISK].sha256 != self._digest[day]:
            lines.append("the restored disk is not the disk that was written")
        try:
            self._require_clean(restored / os.fsdecode(DISK))
        except DemoError as error:
            lines.append(str(error))
        return lines

    def logical(self, day: int) -> int:
        return self._logical[day]

    def close(self) -> None:
        """Nothing runs between the calls."""

    def _allocated(self) -> int:
        return self._disk.stat().st_blocks * 512

    def _require_clean(self, disk: Path) -> None:
        self._runner.run(["e2fsck", "-f", "-n", disk])

    def _write_rows(self, path: Path) -> None:
        with path.open("wb") as file:
            for number in range(max(8, round(ROWS_BYTES * self._scale) // BLOCK)):
                file.write(self._page(number, 0))

    def _page(self, number: int, version: int) -> bytes:
        """One page of rows, about 2.5 : 1 compressible, like a table's."""
        head = b"page %012d version %06d " % (number, version)
        row = b"account, balance, branch, last change; "
        noise = self._random.randbytes(BLOCK * 2 // 5)
        return (head + noise + row * (BLOCK // len(row)))[:BLOCK]

    def _extents(self) -> list[tuple[int, int]]:
        """Where the rows lie in the disk: (first block, blocks), from the file system itself."""
        listed = self._runner.run(["debugfs", "-R", f"dump_extents -l {ROWS}", self._disk]).out
        found = [
            (int(match[3]), int(match[4]) - int(match[3]) + 1) for match in _LEAF.finditer(listed)
        ]
        if not found:
            raise DemoError(f"debugfs does not say where {ROWS} lies:\n{listed}")
        return found

    def _overwrite_pages(self, count: int) -> int:
        blocks = [first + n for first, length in self._extents() for n in range(length)]
        chosen = self._random.sample(blocks, min(count, len(blocks)))
        with self._disk.open("r+b", buffering=0) as file:
            for block in chosen:
                os.pwrite(file.fileno(), self._page(block, len(self._digest)), block * BLOCK)
        return len(chosen)

    def _upgrade_files(self, day: int) -> int:
        """Replace files inside the disk: each keeps its name and most of its content."""
        chosen = self._random.sample(self._replaceable, min(UPGRADED_A_DAY, len(self._replaceable)))
        work = self._place / "upgrade"
        work.mkdir()
        # One run for all: every start reads the whole file system's bitmaps.
        (work / "dump").write_text(
            "".join(f"dump {name} {work / str(number)}\n" for number, name in enumerate(chosen))
        )
        self._runner.run(["debugfs", "-f", work / "dump", self._disk])
        script = []
        for number, name in enumerate(chosen):
            local = work / str(number)
            content = local.read_bytes()
            middle = len(content) // 2
            local.write_bytes(b"%s\nof day %d\n%s" % (content[:middle], day, content[middle:]))
            script += [f"rm {name}", f"cd {os.path.dirname(name)}", f"write {local} {name}", "cd /"]
        (work / "script").write_text("".join(f"{line}\n" for line in script))
        said = self._runner.run(["debugfs", "-w", "-f", work / "script", self._disk])
        # debugfs ends with status 0 whatever happens: it is judged by what it says it wrote.
        if said.out.count("Allocated inode") != len(chosen):
            raise DemoError(f"debugfs wrote not all {len(chosen)} files:\n{said.out}{said.err}")
        shutil.rmtree(work)
        return len(chosen)


def _plain_names(stage: Path) -> list[str]:
    """Paths of small files whose names debugfs takes without quoting, below `stage`."""
    found = []
    for folder, folders, names in os.walk(stage):
        folders.sort()
        for name in sorted(names):
            path = os.path.join(folder, name)
            inside = "/" + os.path.relpath(path, stage)
            small = 64 <= os.lstat(path).st_size <= 1 << 20
            if small and inside != ROWS and re.fullmatch(r"[A-Za-z0-9_./+-]{1,100}", inside):
                found.append(inside)
    return found
