"""Command line of the benchmark: what to measure, how large, how often, and where results go."""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

from tools.bench import report, sets
from tools.bench.gen.base import MIB
from tools.bench.measure import BenchError, free_space, machine
from tools.bench.peers import registry
from tools.bench.peers.mounted import PROJECT
from tools.bench.probes import (
    adopt,
    index,
    nfs,
    overwrite,
    restores,
    service,
    snapshots,
    untar,
    uploads,
)
from tools.bench.probes.base import Bench, Row
from tools.bench.results import Results

PROBES: Final[dict[str, Callable[[Bench], list[Row]]]] = {
    "overwrite": overwrite.run,
    "untar": untar.run,
    "snapshots": snapshots.run,
    "index": index.run,
    "adopt": adopt.run,
    "service": service.run,
    "nfs": nfs.run,
    "uploads": uploads.run,
    "restores": restores.run,
}
QUICK_SCALE: Final = 0.1
NEEDED: Final = 24 * 1024 * MIB  # free bytes a run at scale 1 needs: sets, stores, one restored


def arguments(words: list[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m tools.bench", description=__doc__)
    add = parser.add_argument
    add("--sets", default=",".join(sets.NAMES), help="of %(default)s; empty for none")
    add("--peers", default="", help=f"for every set, of {','.join(registry.MAKERS)}")
    add("--probes", default=",".join(PROBES), help="of %(default)s; empty for none")
    add("--scale", type=float, default=None, help="sizes of the sets, 1 is 256 MiB a generation")
    add("--repeat", type=int, default=None, help="repetitions, 3 unless --quick")
    add("--quick", action="store_true", help="a tenth of everything, once: to see that it works")
    add("--work", type=Path, default=PROJECT / "var/bench", help="where sets and stores go")
    add("--json", type=Path, default=None, help="where results go; WORK/results.json")
    add("--markdown", type=Path, default=None, help="write the tables as a Markdown page as well")
    add("--show", type=Path, default=None, help="print the tables of an earlier JSON and end")
    given = parser.parse_args(words)
    given.scale = given.scale or (QUICK_SCALE if given.quick else 1.0)
    given.repeat = given.repeat or (1 if given.quick else 3)
    given.json = given.json or given.work / "results.json"
    return given


def say(text: str) -> None:
    """Print a line at once."""
    print(text, flush=True)


def versions() -> list[str]:
    """Return the versions of the other tools, as they tell them."""
    found = []
    for command in (["borg", "--version"], ["restic", "version"], ["zstd", "--version"]):
        if shutil.which(command[0]):
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            found.append(
                done.stdout.strip().strip("*").split(" compiled")[0].split(", by")[0].strip()
            )
    return found


def names(text: str, known: tuple[str, ...]) -> list[str]:
    """Split a list of names. Raises BenchError for one that is not known."""
    listed = [name for name in text.split(",") if name]
    for name in listed:
        if name not in known:
            raise BenchError(f"unknown name {name!r}; there are {', '.join(known)}")
    return listed


def measure(given: argparse.Namespace, run: Results, scratch: Path) -> None:
    """Measure what was asked for, saving after every part so that nothing is lost."""
    sizes = sets.Sizes(given.scale)
    cache = given.work / f"sets-{given.scale:g}"
    peers = names(given.peers, tuple(registry.MAKERS))
    for name in names(given.sets, sets.NAMES):
        say(f"building {name}")
        data = sets.build(cache, name, sizes)
        run.sets += sets.run(data, peers or registry.DEFAULTS[name], given.repeat, scratch, say)
        run.save(given.json)
    bench = Bench(scratch, cache, sizes, given.repeat, given.quick, say)
    for name in names(given.probes, tuple(PROBES)):
        try:
            run.probes[name] = PROBES[name](bench)
        except BenchError as problem:
            say(f"{name}  FAILED: {problem}")
        run.save(given.json)


def finish(given: argparse.Namespace, run: Results) -> None:
    """Print the tables and write the page."""
    say("")
    say(report.as_text(run))
    if given.markdown:
        report.write_markdown(run, given.markdown)


def main(words: list[str]) -> int:
    """Run the benchmark; 1 when something could not be measured."""
    given = arguments(words)
    if given.show:
        finish(given, Results.load(given.show))
        return 0
    given.work.mkdir(parents=True, exist_ok=True)
    needed = NEEDED * given.scale
    if free_space(given.work) < needed:
        say(f"{given.work}: {needed / 1e9:.0f} GB of free space are needed; use --work or --scale")
        return 1
    run = Results(machine=machine())
    how = {"scale": given.scale, "repeats": given.repeat, "quick": given.quick}
    run.conditions = {**how, "versions": versions()}
    for number in (signal.SIGTERM, signal.SIGHUP):  # so that what is mounted is unmounted
        signal.signal(number, lambda got, _: sys.exit(128 + got))
    scratch = Path(tempfile.mkdtemp(prefix="run-", dir=given.work.resolve()))
    try:
        measure(given, run, scratch)
    except BenchError as problem:
        say(f"bench: {problem}")
        return 1
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    run.conditions["load_at_end"] = round(os.getloadavg()[0], 2)
    run.save(given.json)
    finish(given, run)
    return 1 if any("error" in row for row in run.sets) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
