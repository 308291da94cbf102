"""What every probe gets, and how it starts what it measures."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools.bench.measure import BenchError
from tools.bench.peers.holdfast import Holdfast
from tools.bench.peers.mounted import PROJECT, Null
from tools.bench.peers.registry import make
from tools.bench.sets import Sizes

Row = dict[str, Any]


@dataclass(frozen=True)
class Bench:
    """Where and how much to measure."""

    work: Path  # an empty directory of this run
    cache: Path  # where data sets are kept
    sizes: Sizes
    repeats: int
    quick: bool  # a tenth of everything, to see that it works
    say: Callable[[str], None]

    def part(self, full: int, quick: int) -> int:
        """Return how much of something to do."""
        return quick if self.quick else full


def apart(module: str, work: Path, total: int) -> Row:
    """What a module measures in a process of its own, so that its memory is its own; ``work`` is removed after."""
    command = [sys.executable, "-m", module, str(work), str(total)]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
    shutil.rmtree(work, ignore_errors=True)
    if done.returncode:
        raise BenchError(f"{module.rpartition('.')[2]}: {done.stderr.strip()[-400:]}")
    row: Row = json.loads(done.stdout)
    return row


@contextmanager
def mounted(bench: Bench, name: str) -> Iterator[Null | Holdfast]:
    """Start a peer that is a mount and stop it again, whatever happens."""
    peer = make(name)
    assert isinstance(peer, Null | Holdfast)
    reason = peer.missing()
    if reason:
        raise BenchError(f"{name}: {reason}")
    home = bench.work / f"probe-{name}"
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)
    try:
        peer.prepare(home)
        yield peer
    finally:
        peer.close()
        shutil.rmtree(home, ignore_errors=True)
