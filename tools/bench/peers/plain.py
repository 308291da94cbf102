"""The two simplest peers: a copy on the local disk, and tar piped into zstd."""

import shutil
import subprocess
from pathlib import Path

from tools.bench.measure import BenchError, run, stopwatch, sync_file_system
from tools.bench.peers.base import Delivery, Peer


class Copy(Peer):
    """cp to a directory of its own per generation, then a sync of the file system."""

    name = "cp"

    def ingest(self, source: Path, number: int, delivery: Delivery) -> float:
        target = self.work / "store" / f"g{number}"
        target.parent.mkdir(exist_ok=True)
        with stopwatch() as seconds:
            self.saw(run(["cp", "-a", source, target]).peak)
            sync_file_system(target)
        return seconds[0]

    def restore(self, number: int, target: Path, way: str) -> float:
        source = self.work / "store" / f"g{number}"
        return run(["cp", "-a", f"{source}/.", target]).seconds


class TarZstd(Peer):
    """``tar | zstd -3 -T2`` to one file per generation, then a sync of the file system."""

    name = "tar-zstd"

    def missing(self) -> str | None:
        absent = [name for name in ("tar", "zstd") if shutil.which(name) is None]
        return f"not installed: {', '.join(absent)}" if absent else None

    def ingest(self, source: Path, number: int, delivery: Delivery) -> float:
        store = self.work / "store"
        store.mkdir(exist_ok=True)
        target = store / f"g{number}.tar.zst"
        with stopwatch() as seconds:
            _pipe(
                ["tar", "-cSf", "-", "-C", str(source), "."],
                ["zstd", "-q", "-3", "-T2", "-o", str(target)],
            )
            sync_file_system(target)
        return seconds[0]

    def restore(self, number: int, target: Path, way: str) -> float:
        source = self.work / "store" / f"g{number}.tar.zst"
        with stopwatch() as seconds:
            _pipe(["zstd", "-q", "-dc", str(source)], ["tar", "-xSf", "-", "-C", str(target)])
        return seconds[0]


def _pipe(first: list[str], second: list[str]) -> None:
    """Run ``first | second``. Raises BenchError when either fails."""
    with subprocess.Popen(first, stdout=subprocess.PIPE) as source:
        sink = subprocess.run(second, stdin=source.stdout, check=False)
    if source.returncode or sink.returncode:
        raise BenchError(f"{first[0]} | {second[0]}: {source.returncode}, {sink.returncode}")
