"""What every generator returns, and the on-disk cache that spares building a set twice."""

import json
import os
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

SEED: Final = 20261121
MIB: Final = 1 << 20
STAMP: Final = "set.json"


@dataclass(frozen=True)
class DataSet:
    """One benchmark set: its name and one directory per generation, oldest first."""

    name: str
    generations: tuple[Path, ...]

    def logical(self, generation: int) -> int:
        """Return the bytes of one generation as a reader sees them (holes count)."""
        return sum(path.stat().st_size for path in files_below(self.generations[generation]))

    def allocated(self, generation: int) -> int:
        """Return the bytes of one generation that are not holes, in units of disk blocks."""
        paths = files_below(self.generations[generation])
        return sum(min(s.st_blocks * 512, s.st_size) for s in (path.stat() for path in paths))


def files_below(root: Path) -> list[Path]:
    """Return every regular file below `root`, sorted by path; links are left out."""
    found = []
    for base, dirs, names in os.walk(root):
        dirs.sort()
        found += [Path(base, name) for name in names]
    return sorted(path for path in found if path.is_file() and not path.is_symlink())


def chance(*key: object) -> random.Random:
    """Return a generator of random numbers that depends only on `key`."""
    return random.Random("/".join(map(str, key)))


def pick(rnd: random.Random, limit: int) -> int:
    """Return a number below `limit`; unlike randrange, promised to be stable over versions."""
    return int(rnd.random() * limit)


def cached(
    cache: Path, name: str, facts: dict[str, object], build: Callable[[Path], list[Path]]
) -> DataSet:
    """Return the set `name` below `cache`; call `build` unless one of the same `facts` is there.

    `build` gets an empty directory and returns the generations. A set that was cut short has no
    stamp and is built again.
    """
    root = cache / name
    stamp = root / STAMP
    wanted = json.dumps(facts, sort_keys=True)
    if stamp.exists():
        kept = json.loads(stamp.read_text())
        if kept["facts"] == wanted:
            return DataSet(name, tuple(root / part for part in kept["generations"]))
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    generations = build(root)
    parts = [str(path.relative_to(root)) for path in generations]
    stamp.write_text(json.dumps({"facts": wanted, "generations": parts}))
    return DataSet(name, tuple(generations))
