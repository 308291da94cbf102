"""The interface of everything that is measured: Holdfast, other tools, ceilings."""

import shutil
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

from tools.bench.measure import used_bytes


@dataclass(frozen=True)
class Delivery:
    """How the files of a generation arrive at peers that are mounted directories.

    `rsync` updates the files of the last generation in place and deletes what is gone; otherwise
    they are written anew, over files of the same name, and what has another name is then deleted.
    """

    rsync: bool = False


class Peer(ABC):
    """One thing that takes generations of a set and may give them back.

    Calls come from one thread, in this order: `prepare`, `ingest` once per generation with
    ascending numbers, `stored_bytes`, `restore`, `close`. `close` undoes everything, also after a
    failure, and may be called twice.
    """

    name: str
    ways: tuple[str, ...] = ("restore",)  # in which it gives back what it took; the first counts
    ratio = True  # whether its stored bytes mean anything

    def __init__(self) -> None:
        self.work = Path()
        self.peak = 0

    def missing(self) -> str | None:
        """Return why this peer cannot run here, or None when it can."""
        return None

    def prepare(self, work: Path) -> None:
        """Set up an empty store below `work`, a directory of its own."""
        work.mkdir(parents=True, exist_ok=True)
        self.work = work

    @abstractmethod
    def ingest(self, source: Path, number: int, delivery: Delivery) -> float:
        """Take the generation in `source`; return the seconds until it was durable."""

    def stored_bytes(self) -> int:
        """Return the disk space of everything kept."""
        return used_bytes(self.work / "store")

    def restore(self, number: int, target: Path, way: str) -> float:
        """Write generation `number` to the empty directory `target`; return the seconds.

        The page cache is cold when it is called; what the peer starts before must leave it so.
        """
        raise NotImplementedError(f"{self.name} cannot restore")

    def extra(self) -> dict[str, float]:
        """Return further numbers worth keeping, by name."""
        return {}

    def close(self) -> None:
        """Stop and delete everything; `peak` is then the peak memory in bytes, 0 if unknown."""
        if self.work.name:
            shutil.rmtree(self.work, ignore_errors=True)

    def saw(self, peak: int) -> None:
        """Remember the highest of the peaks."""
        self.peak = max(self.peak, peak)
