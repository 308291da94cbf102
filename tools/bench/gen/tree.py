"""tree: a real tree of about 27,000 small files in three generations, and the same as tar files.

Between generations 1 % of the files are edited, 0.4 % added, 0.3 % removed and 0.3 % renamed, and
one directory is renamed. `build` gives the trees (delivered by rsync), `build_tar` one tar file
per generation, made from them with a dated name.
"""

import os
import shutil
import subprocess
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from tools.bench.gen.base import MIB, SEED, DataSet, cached, chance, files_below, pick
from tools.bench.gen.hostfiles import choose, new_version

VERSION: Final = 3
ROOTS: Final = ("/usr/include", "/usr/lib/python3", "/usr/lib/python3.11", "/usr/share")
LARGEST: Final = MIB // 4  # bytes: a tree of many small files
DAY: Final = 86_400
FIRST_DAY: Final = 1_793_491_200  # seconds since 1970: mtime of what the first generation changed


@dataclass(frozen=True)
class Plan:
    """How large the tree is and how it changes."""

    files: int = 27_000
    size: int = 320 * MIB  # bytes at most
    generations: int = 3
    edited: float = 0.01  # shares of files, per generation
    added: float = 0.004
    removed: float = 0.003
    renamed: float = 0.003
    seed: int = SEED


def _populate(plan: Plan, root: Path) -> None:
    """Copy the chosen files of this machine below `root`, with their times."""
    for path in choose([Path(place) for place in ROOTS], plan.files, plan.size, LARGEST):
        target = root / path.relative_to("/usr")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
        shutil.copystat(path, target)


def _replace(path: Path, data: bytes, moment: int) -> None:
    """Write `data` to `path` and give it the modification time `moment`."""
    path.write_bytes(data)
    os.utime(path, (moment, moment))


def change(plan: Plan, root: Path, generation: int) -> dict[str, int]:
    """Turn the tree at `root` into its next generation; return how many files changed how."""
    rnd = chance(plan.seed, "tree", generation)
    files = files_below(root)
    rest = sorted(files, key=lambda _: rnd.random())
    moment = FIRST_DAY + generation * DAY
    counts = {
        "edited": max(1, round(len(files) * plan.edited)),
        "added": max(1, round(len(files) * plan.added)),
        "removed": max(1, round(len(files) * plan.removed)),
        "renamed": max(1, round(len(files) * plan.renamed)),
    }
    for path in [rest.pop() for _ in range(counts["edited"])]:
        key = plan.seed, generation, path.relative_to(root)
        _replace(path, new_version(path.read_bytes(), *key), moment)
    for n in range(counts["added"]):
        one, other = rest[pick(rnd, len(rest))], rest[pick(rnd, len(rest))]
        data = one.read_bytes()[: 1 + one.stat().st_size // 2] + other.read_bytes()
        _replace(one.with_name(f"new{generation}-{n}-{one.name}"), data, moment)
    for path in [rest.pop() for _ in range(counts["removed"])]:
        path.unlink()
    for path in [rest.pop() for _ in range(counts["renamed"])]:
        path.rename(path.with_name(f"v{generation}-{path.name}"))
    folders = sorted({path.parent for path in rest if len(path.relative_to(root).parts) > 2})
    if folders:
        folder = folders[pick(rnd, len(folders))]
        folder.rename(folder.with_name(f"{folder.name}-{generation}"))
    return counts


def build(cache: Path, plan: Plan) -> DataSet:
    """Return the set of trees, building it below `cache` when it is not there yet."""

    def run(root: Path) -> list[Path]:
        generations = [root / f"g{n}" for n in range(plan.generations)]
        _populate(plan, generations[0])
        for n in range(1, plan.generations):
            subprocess.run(["cp", "-a", generations[n - 1], generations[n]], check=True)
            change(plan, generations[n], n)
        return generations

    return cached(cache, "tree", {"version": VERSION, **asdict(plan)}, run)


def build_tar(cache: Path, tree: DataSet) -> DataSet:
    """Return the set of tar files, one directory with one dated file per generation."""

    def run(root: Path) -> list[Path]:
        generations = []
        for n, source in enumerate(tree.generations):
            target = root / f"g{n}"
            target.mkdir()
            name = target / f"tree-2026-11-{10 + n}.tar"
            order = ["--sort=name", "--format=gnu", "--numeric-owner", "--owner=0", "--group=0"]
            subprocess.run(["tar", *order, "-cf", name, "-C", source, "."], check=True)
            generations.append(target)
        return generations

    source = (tree.generations[0].parent / "set.json").read_text()
    return cached(cache, "treetar", {"version": VERSION, "source": source}, run)
