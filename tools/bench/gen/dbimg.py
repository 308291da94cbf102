"""dbimg: daily copies of the data files of a database, whole and under the same names.

Six data files of 8 KiB pages. Each day 3 % of the blocks change: half of them have a few rows
updated, half are filled with new rows; then every file grows by 1 %. Changes have the locality of
real systems: most fall into hot regions, the rest comes in short runs of neighbouring blocks.
The next day is written beside the last, so all generations stay on disk for the measurement.
"""

import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from tools.bench.gen.base import MIB, SEED, DataSet, cached, chance, pick
from tools.bench.gen.pages import PAGE, make_page, update_page

VERSION: Final = 4
FILES: Final = {
    "system01.dbf": 0.08,
    "sysaux01.dbf": 0.06,
    "orders01.dbf": 0.26,
    "orders02.dbf": 0.22,
    "users01.dbf": 0.22,
    "history01.dbf": 0.16,
}
REGION: Final = 128  # blocks: the grain of hot and cold, 1 MiB
HOT_REGIONS: Final = 0.08  # share of regions that are hot
HOT_CHANGES: Final = 0.45  # share of changes that fall into hot regions
RUN: Final = 2  # longest run of neighbouring blocks changed together outside hot regions
BATCH: Final = 512  # pages per write


@dataclass(frozen=True)
class Plan:
    """How large the set is and how it changes."""

    size: int = 256 * MIB  # bytes of the first generation, about
    days: int = 7
    changed: float = 0.03  # share of blocks changed a day
    growth: float = 0.01  # share of blocks added a day
    seed: int = SEED

    def blocks(self, share: float, day: int) -> int:
        """Return how many blocks a file that has `share` of the set has on `day`."""
        first = max(16, round(self.size * share / PAGE))
        return round(first * (1 + self.growth) ** day)


def lsn_of(day: int, file: int, block: int) -> int:
    """Return the LSN that a block changed on `day` gets."""
    return (day + 1) * 1_000_000_000 + file * 40_000_000 + (block * 2_654_435_761) % 40_000_000


def changes(plan: Plan, file: int, day: int, blocks: int) -> dict[int, bool]:
    """Return the blocks of one file that change on `day`; True means replaced by new rows."""
    rnd = chance(plan.seed, "changes", file, day)
    regions = max(1, blocks // REGION)
    fixed = chance(plan.seed, "hot", file)
    hot = [pick(fixed, regions) for _ in range(max(1, round(regions * HOT_REGIONS)))]
    wanted = max(1, round(blocks * plan.changed))
    chosen: dict[int, bool] = {}
    while len(chosen) < wanted:
        if rnd.random() < HOT_CHANGES:
            run = [hot[pick(rnd, len(hot))] * REGION + pick(rnd, REGION)]
        else:
            start = pick(rnd, blocks)
            run = list(range(start, start + 1 + pick(rnd, RUN)))
        replaced = 2 * len(chosen) < wanted  # picks come in random order: the first half
        for block in run:
            if block < blocks and block not in chosen and len(chosen) < wanted:
                chosen[block] = replaced
    return chosen


def _new_pages(plan: Plan, file: int, day: int, first: int, end: int) -> Iterator[bytes]:
    """Yield batches of new pages for blocks `first` to `end`."""
    for at in range(first, end, BATCH):
        yield b"".join(
            make_page(plan.seed, file, block, lsn_of(day, file, block))
            for block in range(at, min(end, at + BATCH))
        )


def build_file(plan: Plan, file: int, root: Path) -> None:
    """Write every generation of one data file."""
    name, share = list(FILES.items())[file]
    path = root / "g0" / name
    blocks = plan.blocks(share, 0)
    with path.open("wb") as out:
        out.writelines(_new_pages(plan, file, 0, 0, blocks))
    for day in range(1, plan.days):
        new = root / f"g{day}" / name
        shutil.copyfile(path, new)
        with new.open("r+b") as out:
            for block, replaced in sorted(changes(plan, file, day, blocks).items()):
                lsn = lsn_of(day, file, block)
                if replaced:
                    page = make_page(plan.seed, file, block, lsn)
                else:
                    page = update_page(os.pread(out.fileno(), PAGE, block * PAGE), plan.seed, lsn)
                out.seek(block * PAGE)
                out.write(page)
            end = plan.blocks(share, day)
            out.seek(blocks * PAGE)
            out.writelines(_new_pages(plan, file, day, blocks, end))
        path, blocks = new, end


def build(cache: Path, plan: Plan, workers: int = 2) -> DataSet:
    """Return the set, building it below `cache` when it is not there yet."""

    def run(root: Path) -> list[Path]:
        generations = [root / f"g{day}" for day in range(plan.days)]
        for path in generations:
            path.mkdir()
        order = sorted(range(len(FILES)), key=lambda n: -list(FILES.values())[n])
        with ProcessPoolExecutor(workers) as pool:
            for job in [pool.submit(build_file, plan, file, root) for file in order]:
                job.result()
        return generations

    return cached(cache, "dbimg", {"version": VERSION, **asdict(plan)}, run)
