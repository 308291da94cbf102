"""Real files to work with: chosen from this machine's own, always in the same order."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Budget:
    """How much to take: files, bytes in all, and bytes of the largest file taken."""

    files: int
    total: int
    largest: int


# Directories whose members come and go by themselves while we copy.
_LEFT_OUT = frozenset({b"__pycache__", b".git"})


def take(roots: Sequence[Path], target: Path, budget: Budget) -> tuple[int, int]:
    """Copy readable regular files from `roots` to the same paths below `target` until the budget
    is used up; roots that are not there are passed over, and each root gets an equal share.

    Content and modification time are copied; modes are made ordinary, so that the copies can be
    changed and removed by any user. Returns files and bytes taken.
    """
    files = size = 0
    present = [root for root in roots if root.is_dir()]
    for number, root in enumerate(present, start=1):
        file_limit = budget.files * number // len(present)
        size_limit = budget.total * number // len(present)
        for path in _regular_files(os.fsencode(root)):
            length = os.lstat(path).st_size
            if length > budget.largest:
                continue
            # Ending at the first that does not fit spares a walk over the rest of the system.
            if files >= file_limit or size + length > size_limit:
                break
            if _copy(path, os.path.join(os.fsencode(target), path.lstrip(b"/"))):
                files += 1
                size += length
    return files, size


def _regular_files(root: bytes) -> Iterator[bytes]:
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if name not in _LEFT_OUT)
        for name in sorted(names):
            path = os.path.join(folder, name)
            if stat.S_ISREG(os.lstat(path).st_mode) and os.access(path, os.R_OK):
                yield path


def _copy(source: bytes, target: bytes) -> bool:
    os.makedirs(os.path.dirname(target), exist_ok=True)
    try:
        shutil.copyfile(source, target)
    except FileNotFoundError:  # removed by its owner meanwhile
        return False
    found = os.stat(source)
    os.chmod(target, 0o755 if found.st_mode & stat.S_IXUSR else 0o644)
    os.utime(target, ns=(found.st_mtime_ns, found.st_mtime_ns))
    return True
