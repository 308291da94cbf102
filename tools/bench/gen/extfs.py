"""ext4 file systems inside raw disk files, built and changed without root and without mounting.

mkfs.ext4 makes the file system, debugfs writes and replaces files in it, and the blocks of a file
are found with debugfs and written straight into the disk file, as a running guest would. All
times and ids are fixed, so the same input gives the same bytes.
"""

import os
import shutil
import subprocess
from pathlib import Path
from typing import Final

BLOCK: Final = 4096
CLOCK: Final = 1_793_491_200  # seconds since 1970, what e2fsprogs takes for now
_UUID: Final = "5a1e0f3c-1c55-4d0c-9a77-2f0c6c1a9b10"


def tools_missing() -> list[str]:
    """Return which of the needed commands are not installed (package e2fsprogs)."""
    return [name for name in ("mkfs.ext4", "debugfs") if shutil.which(name, path=_path()) is None]


def _path() -> str:
    return os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin"


def _run(command: list[str], moment: int = CLOCK, text: str | None = None) -> str:
    """Run an e2fsprogs command at the given time and return what it printed."""
    env = {**os.environ, "PATH": _path(), "E2FSPROGS_FAKE_TIME": str(moment), "LC_ALL": "C"}
    done = subprocess.run(command, env=env, input=text, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{command[0]} failed ({done.returncode}): {done.stderr.strip()}")
    return done.stdout


def make(disk: Path, source: Path, size: int, journal: int) -> None:
    """Make a sparse disk file of `size` bytes whose ext4 holds the files below `source`.

    `journal` is the size of the journal in MiB, at least 4. The files are written one by one in
    the order of their paths: ``mkfs.ext4 -d`` would copy times that cannot be set and keep the
    order in which the directories happen to list them.
    """
    with disk.open("wb") as out:
        out.truncate(size)
    options = f"hash_seed={_UUID},lazy_itable_init=1,root_owner=0:0"
    _run(
        ["mkfs.ext4", "-q", "-F", "-b", str(BLOCK), "-U", _UUID, "-E", options,
         "-J", f"size={journal}", "-L", "root", str(disk)]
    )  # fmt: skip
    paths = sorted(source.rglob("*"))
    folders = [path.relative_to(source) for path in paths if path.is_dir()]
    lines = [f'mkdir "/{folder}"' for folder in folders]
    for path in paths:
        if path.is_file():
            lines += _write(str(path.relative_to(source)), path)
    _edit(disk, lines, CLOCK)


def replace_files(disk: Path, files: list[tuple[str, Path]], moment: int) -> None:
    """Write each (path in the file system, file here), removing what had that name."""
    lines: list[str] = []
    for inside, outside in files:
        lines += [f'rm "/{inside}"', *_write(inside, outside)]
    _edit(disk, lines, moment)


def _write(inside: str, outside: Path) -> list[str]:
    """Return the debugfs commands that copy the file `outside` to the path `inside`."""
    folder, _, name = inside.rpartition("/")
    return [f'cd "/{folder}"', f'write "{outside}" "{name}"']


def _edit(disk: Path, lines: list[str], moment: int) -> None:
    """Run debugfs commands on a disk."""
    _run(["debugfs", "-w", "-f", "/dev/stdin", str(disk)], moment, "\n".join(lines) + "\n")


def blocks_of(disk: Path, inside: str) -> list[int]:
    """Return the block numbers of a file in order; ``<8>`` names the journal."""
    printed = _run(["debugfs", "-R", f"blocks {inside}", str(disk)])
    return [int(word) for word in printed.split()]


def check(disk: Path) -> None:
    """Raise RuntimeError unless fsck finds nothing wrong with the file system."""
    _run(["e2fsck", "-f", "-n", str(disk)])
