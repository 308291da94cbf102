"""Real files for the sets vm and tree: which files of this machine, and how a new version differs.

The choice depends on the machine's packages and on nothing else (sorted paths, limits on count
and bytes), so two runs on one machine build the same sets. Only files that any user may read and
that packages own are taken; nothing from /etc, /home or /var.
"""

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tools.bench.gen.base import MIB, chance, pick
from tools.bench.gen.pages import stream

LARGEST: Final = 16 * MIB  # a file above this would be the whole of a small set
PATCH: Final = 64  # bytes changed at one place of a file that is no text


def readable(root: Path) -> Iterator[tuple[Path, int]]:
    """Yield (path, size) of every plain file below `root` that all may read, sorted by path."""
    for base, dirs, names in os.walk(root):
        dirs.sort()
        for name in sorted(names):
            path = Path(base, name)
            try:
                facts = path.lstat()
            except OSError:
                continue
            if stat.S_ISREG(facts.st_mode) and facts.st_mode & 0o004 and facts.st_size <= LARGEST:
                yield path, facts.st_size


def choose(roots: list[Path], files: int, size: int, largest: int = LARGEST) -> list[Path]:
    """Return up to `files` files of `roots`, in order, of at most `size` bytes together.

    Files of more than `largest` bytes are left out.
    """
    chosen: list[Path] = []
    total = 0
    for root in roots:
        for path, length in readable(root):
            if len(chosen) == files:
                return chosen
            if length <= largest and total + length <= size:
                chosen.append(path)
                total += length
    return chosen


def is_text(data: bytes) -> bool:
    """Return whether `data` looks like lines of text."""
    return b"\0" not in data[:4096] and data.count(b"\n", 0, 4096) > 3


def new_version(data: bytes, *key: object) -> bytes:
    """Return what a later version of a file might be: text edited, anything else rebuilt.

    Text gets a few lines changed, added and removed. Other data gets patches of 64 bytes (about
    one in 16 KiB) and some bytes inserted at a few places, so that what follows has moved.
    """
    rnd = chance("version", *key)
    if not data:
        return b"no longer empty\n"
    if is_text(data):
        lines = data.split(b"\n")
        for _ in range(1 + len(lines) // 200):
            at = pick(rnd, len(lines))
            word = stream(6, "line", rnd.random(), *key).hex().encode()
            lines[at : at + pick(rnd, 2)] = [lines[at] + b" " + word] * (1 + pick(rnd, 2))
        return b"\n".join(lines)
    new = bytearray(data)
    for n in range(1 + len(data) // 16_384):
        at = pick(rnd, max(1, len(new) - PATCH))
        new[at : at + PATCH] = stream(PATCH, "patch", n, *key)
    for n in range(1 + min(3, len(data) // 65_536)):
        at = pick(rnd, len(new))
        new[at:at] = stream(16 + pick(rnd, 240), "insert", n, *key)
    return bytes(new)
