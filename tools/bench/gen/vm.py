"""vm: raw sparse disk files of four guests cloned from one template, in three generations.

The template is an ext4 file system with real files of this machine. Each guest gets a name, logs
and a small database of its own. Between generations, in place: packages are updated (the same
ones everywhere), logs are rotated, 3 % of the database's pages change at random places, and the
journal is overwritten with copies of metadata blocks, as a running kernel does. Ratios of this
set are of allocated bytes: holes count for nothing.
"""

import os
import shutil
import subprocess
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from tools.bench.gen import extfs
from tools.bench.gen.base import MIB, SEED, DataSet, cached, chance, files_below, pick
from tools.bench.gen.hostfiles import choose, new_version
from tools.bench.gen.pages import PAGE, make_page, stream, update_page

VERSION: Final = 4
GUESTS: Final = ("web1", "web2", "db1", "db2")
SHARES: Final = {
    "/usr/bin": 0.2,
    "/usr/sbin": 0.04,
    "/usr/lib/x86_64-linux-gnu": 0.4,
    "/usr/lib/aarch64-linux-gnu": 0.4,
    "/usr/lib/python3": 0.1,
    "/usr/share": 0.26,
}
DATABASE: Final = "var/lib/db/data.db"
DATABASE_SHARE: Final = 0.16  # of the template's files
LOG_SHARE: Final = 0.004  # of the template's files, written by each guest per generation
JOURNAL_SHARE: Final = 0.005  # likewise, overwritten in the journal
UPDATED: Final = 0.012  # of the template's files are updated per generation
FIRST_LSN: Final = 7_000_000_000
_LOG: Final = "{:010.3f} {} {}[{}]: {} from 10.{}.{}.{} took {} ms id={}\n"
_EVENTS: Final = ("accepted", "closed", "query finished", "request done", "cache refreshed")
_PROGRAMS: Final = ("sshd", "cron", "postgres", "nginx", "systemd", "kernel")


@dataclass(frozen=True)
class Plan:
    """How large the template is and how many generations there are."""

    size: int = 300 * MIB  # bytes of files in the template, about
    generations: int = 3
    seed: int = SEED


def log_text(seed: int, guest: str, generation: int, size: int) -> bytes:
    """Return `size` bytes of lines as a system log has them."""
    rnd = chance(seed, "log", guest, generation)
    lines = []
    length = 0
    moment = generation * 86_400.0
    while length < size:
        moment += rnd.random() * 4
        numbers = [pick(rnd, 256) for _ in range(3)]
        line = _LOG.format(
            moment, guest, _PROGRAMS[pick(rnd, 6)], 300 + pick(rnd, 40), _EVENTS[pick(rnd, 5)],
            *numbers, pick(rnd, 900), f"{pick(rnd, 1 << 40):010x}",
        )  # fmt: skip
        lines.append(line)
        length += len(line)
    return "".join(lines).encode()[:size]


def _database(seed: int, guest: int, blocks: int) -> bytes:
    """Return the database a guest starts with."""
    return b"".join(make_page(seed, 50 + guest, n, FIRST_LSN + n) for n in range(blocks))


def _template(plan: Plan, root: Path) -> list[str]:
    """Fill `root` with files of this machine; return their paths in it."""
    paths = []
    for place, share in SHARES.items():
        for path in choose([Path(place)], 1 << 30, round(plan.size * share)):
            if set(str(path)) & set('"\\\n'):  # debugfs could not name it
                continue
            target = root / path.relative_to("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
            paths.append(str(path.relative_to("/")))
    blocks = max(8, round(plan.size * DATABASE_SHARE / PAGE))
    for folder in ("etc", "var/log", "var/lib/db"):
        (root / folder).mkdir(parents=True)
    (root / DATABASE).write_bytes(_database(plan.seed, 0, blocks))
    (root / "etc/hostname").write_text("template\n")
    return paths


def _write_blocks(disk: Path, blocks: list[int], first: int, data: bytes) -> None:
    """Write `data` at block `first` of the file that has `blocks`, straight into the disk."""
    with disk.open("r+b") as out:
        for n in range(0, len(data), extfs.BLOCK):
            out.seek(blocks[first + n // extfs.BLOCK] * extfs.BLOCK)
            out.write(data[n : n + extfs.BLOCK])


def _change_database(plan: Plan, disk: Path, guest: int, generation: int) -> None:
    """Change 3 % of the pages of a guest's database, half updated and half replaced."""
    rnd = chance(plan.seed, "db", guest, generation)
    blocks = extfs.blocks_of(disk, "/" + DATABASE)
    pages = len(blocks) * extfs.BLOCK // PAGE
    per = PAGE // extfs.BLOCK
    with disk.open("rb") as source:
        for n in range(max(1, round(pages * 0.03))):
            page = pick(rnd, pages)
            lsn = FIRST_LSN * (generation + 2) + n
            if n % 2:
                new = make_page(plan.seed, 50 + guest, page, lsn)
            else:
                places = blocks[page * per : page * per + per]
                old = b"".join(
                    os.pread(source.fileno(), extfs.BLOCK, b * extfs.BLOCK) for b in places
                )
                new = update_page(old, plan.seed, lsn)
            _write_blocks(disk, blocks, page * per, new)


def _churn_journal(plan: Plan, disk: Path, guest: int, generation: int) -> None:
    """Overwrite part of the journal with copies of metadata blocks and descriptor blocks."""
    rnd = chance(plan.seed, "journal", guest, generation)
    journal = extfs.blocks_of(disk, "<8>")
    count = min(len(journal) - 1, max(8, round(plan.size * JOURNAL_SHARE / extfs.BLOCK)))
    start = 1 + pick(rnd, len(journal) - count)
    with disk.open("rb") as source:
        hot = [pick(rnd, 2000) for _ in range(200)]  # group descriptors, bitmaps, inode tables
        parts = []
        for n in range(count):
            if n % 16 == 0:
                head = b"\xc0\x3b\x39\x98\0\0\0\1" + (generation << 20 | n).to_bytes(4, "big")
                parts.append((head + stream(200, guest, generation, n)).ljust(extfs.BLOCK, b"\0"))
            else:
                at = hot[pick(rnd, len(hot))] * extfs.BLOCK
                parts.append(os.pread(source.fileno(), extfs.BLOCK, at))
    _write_blocks(disk, journal, start, b"".join(parts))


def _stage_updates(plan: Plan, root: Path, paths: list[str], generation: int) -> list[str]:
    """Give some files below `root` a new version; return which."""
    rnd = chance(plan.seed, "updates", generation)
    budget = plan.size * UPDATED
    chosen: list[str] = []
    while budget > 0 and paths:
        path = paths[pick(rnd, len(paths))]
        data = (root / path).read_bytes()
        if path not in chosen:
            (root / path).write_bytes(new_version(data, plan.seed, generation, path))
            chosen.append(path)
        budget -= len(data) + 512
    return chosen


def _next(plan: Plan, disk: Path, guest: int, generation: int, updates: list[tuple[str, Path]],
          scratch: Path) -> None:  # fmt: skip
    """Change one guest's disk in place: its logs, updates, database and journal."""
    name = GUESTS[guest]
    log = scratch / "log"
    log.write_bytes(log_text(plan.seed, name, generation, round(plan.size * LOG_SHARE)))
    files = [(f"var/log/syslog.{generation}", log)]
    if generation == 0:
        own = scratch / "own"
        size = (scratch / "root" / DATABASE).stat().st_size
        own.write_bytes(_database(plan.seed, guest, size // PAGE))
        names = scratch / "name"
        names.write_text(f"{name}\n")
        files += [(DATABASE, own), ("etc/hostname", names)]
    moment = extfs.CLOCK + 86_400 * generation + 60 * guest
    extfs.replace_files(disk, files + updates, moment)
    if generation:
        _change_database(plan, disk, guest, generation)
    _churn_journal(plan, disk, guest, generation)


def build(cache: Path, plan: Plan) -> DataSet:
    """Return the set, building it below `cache` when it is not there yet."""

    def run(root: Path) -> list[Path]:
        generations = [root / f"g{n}" for n in range(plan.generations)]
        with tempfile.TemporaryDirectory(dir=root) as temporary:
            scratch = Path(temporary)
            staged = scratch / "root"
            paths = _template(plan, staged)
            base = scratch / "base.raw"
            total = sum(path.stat().st_size + 4096 for path in files_below(staged))
            extfs.make(base, staged, -(-3 * total // MIB) * MIB, 4 + plan.size // (50 * MIB))
            for n, folder in enumerate(generations):
                folder.mkdir()
                updated = _stage_updates(plan, staged, paths, n) if n else []
                updates = [(path, staged / path) for path in updated]
                for guest, name in enumerate(GUESTS):
                    source = generations[n - 1] / f"{name}.raw" if n else base
                    disk = folder / f"{name}.raw"
                    subprocess.run(["cp", "--sparse=always", source, disk], check=True)
                    _next(plan, disk, guest, n, updates, scratch)
        return generations

    return cached(cache, "vm", {"version": VERSION, **asdict(plan)}, run)
