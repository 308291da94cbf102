"""dbset: the generations of dbimg multiplexed four ways into backup pieces.

A channel holds up to four data files open, reads them in buffers of 32 blocks and writes whatever
is ready, so a piece is made of runs of 32 or 64 blocks of one file after another; which file is
ready first differs from day to day. Pieces end at a size limit, begin with a header block that is
different each day, and have names that never come again.
"""

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tools.bench.gen.base import MIB, DataSet, cached, chance, pick
from tools.bench.gen.pages import PAGE, stream

VERSION: Final = 2
WAYS: Final = 4  # files open at once
BUFFER: Final = 64  # blocks per read buffer
LONGEST: Final = 1  # buffers of one file that may follow each other
PIECE: Final = 64 * MIB
_HEADER: Final = struct.Struct("<8sIIIIQQ")
_LETTERS: Final = "0123456789abcdefghijklmnopqrstuv"


def _label(number: int, size: int) -> str:
    """Write `number` in base 32, as such tools make their unique names."""
    return "".join(_LETTERS[number >> 5 * n & 31] for n in reversed(range(size)))


def piece_name(seed: int, day: int, piece: int) -> str:
    """Return the name of a piece, in the manner of ``%U``: set, piece, copy."""
    stamp = 1_190_000_000 + day * 86_400 + pick(chance(seed, "set", day), 3600)
    return f"{_label(17 + day * 5, 2)}{_label(stamp, 6)}_{17 + day * 5}_{piece}_1"


def piece_header(seed: int, day: int, piece: int, blocks: int) -> bytes:
    """Return the header block of a piece."""
    stamp = 1_190_000_000 + day * 86_400
    head = _HEADER.pack(b"HBPIECE1", 17 + day * 5, piece, blocks, PAGE, stamp, seed)
    body = head + stream(96, seed, "piece", day, piece)
    return (body + struct.pack("<I", zlib.crc32(body))).ljust(PAGE, b"\0")


def schedule(seed: int, day: int, sizes: list[int]) -> Iterator[tuple[int, int, int]]:
    """Yield (file, first block, blocks) in the order in which the channel writes them.

    `sizes` are the blocks of each file; files are opened in order, four at a time.
    """
    rnd = chance(seed, "schedule", day)
    waiting = list(range(len(sizes)))
    at = [0] * len(sizes)
    ready: list[int] = []
    last = -1
    while waiting or ready:
        while waiting and len(ready) < WAYS:
            ready.append(waiting.pop(0))
        others = [file for file in ready if file != last] or ready
        file = last = others[pick(rnd, len(others))]
        count = min(BUFFER * (1 + pick(rnd, LONGEST)), sizes[file] - at[file])
        yield file, at[file], count
        at[file] += count
        if at[file] == sizes[file]:
            ready.remove(file)


def write_pieces(source: Path, target: Path, day: int, seed: int, piece_size: int) -> None:
    """Multiplex the data files in `source` into pieces in `target`."""
    handles = [path.open("rb") for path in sorted(source.iterdir())]
    limit = max(LONGEST * BUFFER, piece_size // PAGE - 1)
    runs: list[bytes] = []
    blocks = piece = 0

    def close() -> None:
        nonlocal piece, blocks
        piece += 1
        with (target / piece_name(seed, day, piece)).open("wb") as out:
            out.write(piece_header(seed, day, piece, blocks))
            out.writelines(runs)
        runs.clear()
        blocks = 0

    try:
        sizes = [Path(handle.name).stat().st_size // PAGE for handle in handles]
        for file, _, count in schedule(seed, day, sizes):
            if blocks + count > limit:
                close()
            runs.append(handles[file].read(count * PAGE))
            blocks += count
        close()
    finally:
        for handle in handles:
            handle.close()


def build(cache: Path, dbimg: DataSet, seed: int, piece_size: int = PIECE) -> DataSet:
    """Return the set made from the generations of `dbimg`, building it when it is not there."""

    def run(root: Path) -> list[Path]:
        generations = []
        for day, source in enumerate(dbimg.generations):
            target = root / f"g{day}"
            target.mkdir()
            write_pieces(source, target, day, seed, piece_size)
            generations.append(target)
        return generations

    first = dbimg.logical(0)
    facts: dict[str, object] = {
        "version": VERSION, "seed": seed, "piece": piece_size, "first": first,
        "last": dbimg.logical(-1), "days": len(dbimg.generations),
        "source": (dbimg.generations[0].parent / "set.json").read_text(),
    }  # fmt: skip
    return cached(cache, "dbset", facts, run)
